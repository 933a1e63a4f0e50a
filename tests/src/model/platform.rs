//! [`Platform`] over the model's memory: what a kernel would provide, with everything under the test's control.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use smmu::addr::PhysAddr;
use smmu::platform::{DmaBlock, OutOfDmaMemory, Platform};

use super::laws::{Law, Violation};
use super::memory::{Memory, Misuse};
use super::registers::ModelRegisters;
use super::{Shared, lock};

/// How long a register read takes.
const REGISTER_READ: Duration = Duration::from_nanos(100);

/// A system without a CPU: memory, a clock that stands still but for [`relax`](Platform::relax) and register reads, and
/// the SMMUs that share both.
pub struct ModelPlatform {
    memory: Mutex<Memory>,
    smmus: Mutex<Vec<Weak<Shared>>>,
    violations: Mutex<Vec<Violation>>,
    nanoseconds: AtomicU64,
    relax_nanoseconds: AtomicU64,
    allocations_left: AtomicUsize,
    waits_for_event: AtomicUsize,
}

impl ModelPlatform {
    /// A platform that lives for ever, as the driver wants it. Its memory is given back.
    #[must_use]
    pub fn leaked() -> &'static Self {
        Box::leak(Box::new(Self {
            memory: Mutex::new(Memory::new()),
            smmus: Mutex::default(),
            violations: Mutex::default(),
            nanoseconds: AtomicU64::new(0),
            relax_nanoseconds: AtomicU64::new(1000),
            allocations_left: AtomicUsize::new(usize::MAX),
            waits_for_event: AtomicUsize::new(0),
        }))
    }

    /// Lets `count` more allocations succeed, and then none. `usize::MAX` means no limit.
    pub fn allow_allocations(&self, count: usize) {
        self.allocations_left.store(count, Ordering::SeqCst);
    }

    /// Allocates from a physical address on from now on: one that no memory is at.
    pub fn continue_at(&self, physical: u64) {
        self.memory().continue_at(physical);
    }

    /// Hands freed memory out again at once, the latest first, so that stale translations lead to somebody else's data.
    pub fn reuse_freed_memory(&self, reuse: bool) {
        self.memory().set_reuse(reuse);
    }

    /// Makes hardware's accesses to a range of physical addresses abort, beside those that do already.
    pub fn abort_at(&self, range: Range<u64>) {
        self.memory().abort_at(range);
    }

    /// No access aborts any more, but where there is no memory.
    pub fn abort_nowhere(&self) {
        self.memory().abort_nowhere();
    }

    /// How many blocks are allocated.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.memory().block_count()
    }

    /// How much memory is allocated, in bytes.
    #[must_use]
    pub fn bytes_in_use(&self) -> u64 {
        self.memory().bytes_in_use()
    }

    /// How often a CPU has waited for an event that an SMMU sends.
    #[must_use]
    pub fn waits_for_event(&self) -> usize {
        self.waits_for_event.load(Ordering::SeqCst)
    }

    /// Moves the clock.
    pub fn advance(&self, time: Duration) {
        self.nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
    }

    /// A zeroed buffer, aligned to its size and to pages, outside of what the driver under test allocates.
    ///
    /// # Panics
    ///
    /// If the host has no memory.
    #[must_use]
    pub fn buffer(&'static self, size_bytes: usize) -> Buffer {
        let alignment_bytes = size_bytes.next_power_of_two().max(4096);
        let (pointer, physical) = self.memory().allocate(size_bytes, alignment_bytes).expect("memory for a buffer");
        let physical = PhysAddr::new(physical);
        Buffer { platform: self, block: DmaBlock { pointer, physical, size_bytes, alignment_bytes } }
    }

    /// Takes out what laws were broken so far.
    #[must_use]
    pub fn take_violations(&self) -> Vec<Violation> {
        let misuses = self.memory().written_after_free();
        misuses.into_iter().for_each(|details| self.report(Law::Memory, details));
        std::mem::take(&mut *lock(&self.violations))
    }

    pub(super) fn report(&self, law: Law, details: impl Into<String>) {
        let mut violations = lock(&self.violations);
        let violation = Violation { law, details: details.into() };
        if violations.last() != Some(&violation) {
            violations.push(violation);
        }
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, smmu: &Arc<Shared>, relax: Duration) {
        lock(&self.smmus).push(Arc::downgrade(smmu));
        self.relax_nanoseconds.store(relax.as_nanos() as u64, Ordering::SeqCst);
    }

    pub(super) fn register_read(&self) {
        self.advance(REGISTER_READ);
    }

    fn each_smmu(&self, mut visit: impl FnMut(&Shared)) {
        let smmus: Vec<_> = lock(&self.smmus).iter().filter_map(Weak::upgrade).collect();
        smmus.iter().for_each(|smmu| visit(smmu));
    }
}

// SAFETY: blocks are zeroed heap memory, owned until freed; the map from physical addresses is kept exactly; the host's
// atomics are sequentially consistent where the model uses them.
unsafe impl Platform for ModelPlatform {
    type Registers = ModelRegisters;
    type Lock = spin::Mutex<()>;

    fn allocate(&self, size_bytes: usize, alignment_bytes: usize) -> Result<DmaBlock, OutOfDmaMemory> {
        let out = OutOfDmaMemory { size_bytes, alignment_bytes };
        let take = |left: usize| if left == usize::MAX { Some(left) } else { left.checked_sub(1) };
        self.allocations_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).map_err(|_| out)?;
        let (pointer, physical) = self.memory().allocate(size_bytes, alignment_bytes).ok_or(out)?;
        Ok(DmaBlock { pointer, physical: PhysAddr::new(physical), size_bytes, alignment_bytes })
    }

    unsafe fn free(&self, block: DmaBlock) {
        let start = block.physical.get();
        self.each_smmu(|smmu| lock(&smmu.machine).check_free(start..start + block.size_bytes as u64));
        let freed: Result<(), Misuse> = self.memory().free(&block);
        if let Err(details) = freed {
            self.report(Law::Memory, details);
        }
    }

    unsafe fn pointer(&self, physical: PhysAddr) -> NonNull<u8> {
        let found = self.memory().pointer(physical.get());
        found.unwrap_or_else(|| {
            self.report(Law::Memory, format!("{physical} is not in memory, or was freed"));
            panic!("{physical} is not in memory, or was freed");
        })
    }

    fn foreign(&self, physical: PhysAddr, size_bytes: usize) -> Option<NonNull<u8>> {
        self.memory().range(physical.get(), size_bytes)
    }

    fn physical(&self, pointer: NonNull<u8>) -> Option<PhysAddr> {
        self.memory().physical(pointer).map(PhysAddr::new)
    }

    fn write_barrier(&self) {
        self.each_smmu(|smmu| {
            let mut machine = lock(&smmu.machine);
            machine.pass_write_barrier();
            machine.sample_live_entries();
        });
    }

    fn read_barrier(&self) {
        self.each_smmu(|smmu| lock(&smmu.machine).pass_read_barrier());
    }

    fn clean_cache(&self, start: NonNull<u8>, size_bytes: usize) {
        let mut memory = self.memory();
        match memory.physical(start) {
            Some(physical) => memory.clean(physical, size_bytes),
            None => self.report(Law::Memory, "cache maintenance of what is no memory"),
        }
    }

    fn invalidate_cache(&self, start: NonNull<u8>, size_bytes: usize) {
        let mut memory = self.memory();
        match memory.physical(start) {
            Some(physical) => memory.invalidate(physical, size_bytes),
            None => self.report(Law::Memory, "cache maintenance of what is no memory"),
        }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::SeqCst))
    }

    fn relax(&self) {
        self.nanoseconds.fetch_add(self.relax_nanoseconds.load(Ordering::SeqCst), Ordering::SeqCst);
        self.each_smmu(|smmu| lock(&smmu.machine).tick());
        thread::yield_now();
    }

    /// As long as a turn of polling: events may be for somebody else, or come from nowhere.
    fn wait_for_event(&self) {
        self.waits_for_event.fetch_add(1, Ordering::SeqCst);
        self.relax();
    }
}

impl fmt::Debug for ModelPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelPlatform").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// Memory of a device driver's own, freed on drop.
#[derive(Debug)]
pub struct Buffer {
    platform: &'static ModelPlatform,
    block: DmaBlock,
}

impl Buffer {
    /// The memory, for the driver under test.
    #[must_use]
    pub fn pointer(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.block.pointer, self.block.size_bytes)
    }

    /// Where hardware finds it.
    #[must_use]
    pub fn physical(&self) -> PhysAddr {
        self.block.physical
    }

    /// Its 64-bit words, as the CPU sees them.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the block is the buffer's until it is dropped, initialised, aligned to pages and whole words.
        unsafe { std::slice::from_raw_parts(self.block.pointer.cast().as_ptr(), self.block.size_bytes / 8) }
    }

    /// Its bytes, as the CPU sees them.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        self.words().iter().flat_map(|word| word.load(Ordering::SeqCst).to_le_bytes()).collect()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `ModelPlatform::buffer`, freed once.
        unsafe { self.platform.free(self.block) }
    }
}

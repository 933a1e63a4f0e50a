//! [`Platform`] for one run: memory on the host's heap, where the sanitizer watches over it, a clock that every look at it
//! moves, and the record of what was freed too early.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smmu::addr::PhysAddr;
use smmu::platform::{DmaBlock, OutOfDmaMemory, Platform};

use super::hostile_device::{Hardware, HostileRegisters};

const FIRST_PHYSICAL: u64 = 0x8000_0000;
/// A wait of the driver's, one second, is over after so many turns.
const RELAX: Duration = Duration::from_millis(40);
/// The most memory in use: StreamIDs that the SMMU invents must not make a run slow.
const MEMORY_BYTES: usize = 16 << 20;

/// The system, with one SMMU. It outlives every run; what belongs to one run is thrown away with it.
pub(super) struct FuzzPlatform {
    memory: Mutex<Memory>,
    hardware: Mutex<Hardware>,
    nanoseconds: AtomicU64,
    allocations_left: AtomicUsize,
}

/// Memory by physical address.
#[derive(Default)]
pub(super) struct Memory {
    blocks: BTreeMap<u64, (NonNull<u8>, Layout)>,
    next_physical: u64,
    bytes: usize,
    /// What the driver freed although hardware may reach it, and other misuse.
    faults: Vec<String>,
}

// SAFETY: the pointers are to memory that the map owns, reached only as atomics.
unsafe impl Send for Memory {}

impl FuzzPlatform {
    pub(super) fn of_this_thread() -> &'static Self {
        thread_local! {
            static PLATFORM: &'static FuzzPlatform = Box::leak(Box::new(FuzzPlatform {
                memory: Mutex::default(),
                hardware: Mutex::new(Hardware::new([0; 3], &[])),
                nanoseconds: AtomicU64::new(0),
                allocations_left: AtomicUsize::new(usize::MAX),
            }));
        }
        PLATFORM.with(|platform| *platform)
    }

    /// Powers another SMMU up, which behaves as `script` says.
    pub(super) fn begin(&self, identification: [u32; 3], script: &[u8]) {
        *self.hardware() = Hardware::new(identification, script);
        self.memory().next_physical = FIRST_PHYSICAL;
    }

    /// The driver is called once more.
    pub(super) fn begin_call(&self) {
        self.hardware().begin_call();
    }

    /// Lets `count` more allocations succeed, and then none. `usize::MAX` means no limit.
    pub(super) fn allow_allocations(&self, count: usize) {
        self.allocations_left.store(count, Ordering::Relaxed);
    }

    /// How many blocks are in use.
    pub(super) fn block_count(&self) -> usize {
        self.memory().blocks.len()
    }

    /// Throws away what the driver kept for good, and tells of what it did wrong.
    pub(super) fn end(&self) {
        let mut memory = self.memory();
        for (_, (pointer, layout)) in std::mem::take(&mut memory.blocks) {
            // SAFETY: allocated with this layout, and the driver is gone.
            unsafe { dealloc(pointer.as_ptr(), layout) }
        }
        memory.bytes = 0;
        let faults = std::mem::take(&mut memory.faults);
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    pub(super) fn hardware(&self) -> MutexGuard<'_, Hardware> {
        self.hardware.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn advance(&self, time: Duration) {
        self.nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Memory {
    /// Where `physical` lies, if that is memory, and how many bytes of its block follow from there on.
    fn find(&self, physical: u64) -> Option<(NonNull<u8>, usize)> {
        let (start, (pointer, layout)) = self.blocks.range(..=physical).next_back()?;
        let offset = (physical - start) as usize;
        let left = layout.size().checked_sub(offset).filter(|left| *left != 0)?;
        // SAFETY: the offset is inside the block.
        Some((unsafe { pointer.add(offset) }, left))
    }

    /// The words from the aligned address `physical` on, to the end of their block; none where there is no memory.
    pub(super) fn words(&self, physical: u64) -> &[AtomicU64] {
        assert!(physical.is_multiple_of(8), "a word at {physical:#x}");
        let Some((pointer, left)) = self.find(physical) else { return &[] };
        // SAFETY: blocks are whole words, aligned to words, and used as atomics.
        unsafe { std::slice::from_raw_parts(pointer.cast().as_ptr(), left / 8) }
    }

    /// The little-endian word at `physical`; zero where there is no memory.
    pub(super) fn read(&self, physical: u64) -> u64 {
        self.words(physical).first().map_or(0, |word| u64::from_le(word.load(Ordering::Relaxed)))
    }
}

// SAFETY: blocks are zeroed heap memory, owned until freed, and found by the physical addresses they were given.
unsafe impl Platform for FuzzPlatform {
    type Registers = HostileRegisters;
    type Lock = spin::Mutex<()>;

    fn allocate(&self, size_bytes: usize, alignment_bytes: usize) -> Result<DmaBlock, OutOfDmaMemory> {
        let out = OutOfDmaMemory { size_bytes, alignment_bytes };
        let take = |left: usize| if left == usize::MAX { Some(left) } else { left.checked_sub(1) };
        self.allocations_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|_| out)?;
        let layout = Layout::from_size_align(size_bytes.next_multiple_of(8), alignment_bytes).map_err(|_| out)?;
        let mut memory = self.memory();
        if memory.bytes + layout.size() > MEMORY_BYTES {
            return Err(out);
        }
        // SAFETY: the driver asks for no empty blocks.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(out)?;
        let physical = memory.next_physical.next_multiple_of(alignment_bytes as u64);
        memory.next_physical = physical + layout.size() as u64;
        memory.bytes += layout.size();
        memory.blocks.insert(physical, (pointer, layout));
        Ok(DmaBlock { pointer, physical: PhysAddr::new(physical), size_bytes, alignment_bytes })
    }

    unsafe fn free(&self, block: DmaBlock) {
        let start = block.physical.get();
        let reached = self.hardware().check_free(&self.memory(), start..start + block.size_bytes as u64);
        let mut memory = self.memory();
        memory.faults.extend(reached);
        match memory.blocks.remove(&start) {
            Some((pointer, layout)) if pointer == block.pointer => {
                memory.bytes -= layout.size();
                // SAFETY: allocated with this layout, and in the map until now.
                unsafe { dealloc(pointer.as_ptr(), layout) }
            }
            _ => memory.faults.push(format!("{start:#x} was freed, but is no block")),
        }
    }

    unsafe fn pointer(&self, physical: PhysAddr) -> NonNull<u8> {
        self.memory().find(physical.get()).expect("an address in memory that is not freed").0
    }

    /// Drivers' buffers are no memory, so that only bounce buffers are mapped.
    fn physical(&self, _: NonNull<u8>) -> Option<PhysAddr> {
        None
    }

    fn write_barrier(&self) {
        self.hardware().look(&self.memory());
    }

    fn read_barrier(&self) {}

    fn clean_cache(&self, _: NonNull<u8>, _: usize) {}

    fn invalidate_cache(&self, _: NonNull<u8>, _: usize) {}

    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.fetch_add(1000, Ordering::Relaxed))
    }

    fn relax(&self) {
        self.advance(RELAX);
    }
}

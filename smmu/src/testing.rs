//! A platform for unit tests: DMA memory on the host's heap at made-up physical addresses, a clock that only
//! [`Platform::relax`] moves, and a journal of what happened in which order. Its registers are those of a
//! [`FakeSmmu`](crate::device::tests::FakeSmmu).
//!
//! Each address is handed out once, so that a use after free is noticed. A device that does not snoop sees memory as it
//! was last cleaned, and junk before that; what it writes stays unseen until the CPU's copy is invalidated.

mod leaf_lock;

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::alloc::{alloc_zeroed, dealloc};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use proptest::test_runner::Config;

use leaf_lock::LeafLock;

use crate::addr::PhysAddr;
use crate::device::tests::FakeSmmu;
use crate::platform::{DmaBlock, OutOfDmaMemory, Platform};

/// Where the made-up memory begins.
const FIRST_PHYSICAL: u64 = 0x8000_0000;
/// How much time passes for whoever waits and looks again, unless told otherwise. Under Miri, 200 looks a second have to do.
const NANOSECONDS_PER_RELAX: u64 = if cfg!(miri) { 5_000_000 } else { 100_000 };
/// Tries of a property under Miri, where one takes seconds.
const MIRI_CASES: u32 = 2;
/// Rounds of a concurrent test under Miri, likewise.
const MIRI_ROUNDS: u64 = 4;
/// What cache maintenance works on.
const LINE_BYTES: usize = 64;

/// The platform. Leaked, because the crate wants it `'static`; what it allocates is not.
pub(crate) struct TestPlatform {
    memory: Mutex<Memory>,
    /// How many allocations succeed before the first fails.
    allocations_left: AtomicUsize,
    barriers: AtomicUsize,
    nanoseconds: AtomicU64,
    nanoseconds_per_relax: AtomicU64,
    stream_id_bits: AtomicU8,
    journal: Mutex<Option<Vec<Step>>>,
    /// Physical addresses of pages, by where the CPU sees them, that are other than they were allocated.
    scattered: Mutex<BTreeMap<usize, Option<PhysAddr>>>,
    watcher: Mutex<Option<Watcher>>,
    waits_for_event: AtomicUsize,
}

/// How a property is tried: with `cases` random inputs; with fewer under Miri, which lets nobody read or write files.
pub(crate) fn tries(cases: u32) -> Config {
    if cfg!(miri) {
        Config { cases: cases.min(MIRI_CASES), failure_persistence: None, ..Config::default() }
    } else {
        Config { cases, ..Config::default() }
    }
}

/// How many rounds of `usual` are run: under Miri a few show every order that it would find.
pub(crate) fn rounds(usual: u64) -> u64 {
    if cfg!(miri) { usual.min(MIRI_ROUNDS) } else { usual }
}

/// What the journal tells apart. Instances are named as [`FakeSmmu::new`] was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A register of an instance was written.
    Write(&'static str, usize, u64),
    /// An instance carried a command out.
    Command(&'static str, [u64; 2]),
    /// [`Platform::write_barrier`].
    Barrier,
    /// A block was freed.
    Free(PhysAddr),
}

/// Looks at memory while the code under test is half-way.
type Watcher = Box<dyn FnMut(&TestPlatform) + Send>;

struct Memory {
    /// By physical address.
    blocks: BTreeMap<u64, Block>,
    next_physical: u64,
}

struct Block {
    pointer: NonNull<u8>,
    layout: Layout,
    /// What is in memory behind the caches.
    cleaned: Vec<u64>,
}

// SAFETY: the pointers are to memory that the blocks own, reached only through atomics or under the lock.
unsafe impl Send for Memory {}

impl TestPlatform {
    pub(crate) fn leaked() -> &'static Self {
        Box::leak(Box::new(Self {
            memory: Mutex::new(Memory { blocks: BTreeMap::new(), next_physical: FIRST_PHYSICAL }),
            allocations_left: AtomicUsize::new(usize::MAX),
            barriers: AtomicUsize::new(0),
            nanoseconds: AtomicU64::new(0),
            nanoseconds_per_relax: AtomicU64::new(NANOSECONDS_PER_RELAX),
            stream_id_bits: AtomicU8::new(27),
            journal: Mutex::new(None),
            scattered: Mutex::new(BTreeMap::new()),
            watcher: Mutex::new(None),
            waits_for_event: AtomicUsize::new(0),
        }))
    }

    /// Lets time pass more slowly or faster.
    pub(crate) fn set_nanoseconds_per_relax(&self, nanoseconds: u64) {
        self.nanoseconds_per_relax.store(nanoseconds, Ordering::SeqCst);
    }

    /// Says how wide StreamIDs are in this system.
    pub(crate) fn set_stream_id_bits(&self, bits: u8) {
        self.stream_id_bits.store(bits, Ordering::SeqCst);
    }

    /// Begins a journal, and returns the one so far.
    pub(crate) fn journal(&self) -> Vec<Step> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).replace(Vec::new()).unwrap_or_default()
    }

    /// Adds to the journal if there is one.
    pub(crate) fn note(&self, step: Step) {
        if let Some(journal) = self.journal.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            journal.push(step);
        }
    }

    /// Pretends that the page at `pointer` is elsewhere in physical memory, or is no memory.
    #[cfg(feature = "alloc")]
    pub(crate) fn scatter(&self, pointer: NonNull<u8>, physical: Option<PhysAddr>) {
        let mut scattered = self.scattered.lock().unwrap_or_else(PoisonError::into_inner);
        scattered.insert(pointer.addr().get(), physical);
    }

    /// Lets `count` more allocations succeed, and then none.
    pub(crate) fn allow_allocations(&self, count: usize) {
        self.allocations_left.store(count, Ordering::SeqCst);
    }

    /// Calls `watcher` before every barrier and every cache maintenance from now on.
    pub(crate) fn watch(&self, watcher: impl FnMut(&TestPlatform) + Send + 'static) {
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(watcher));
    }

    fn call_watcher(&self) {
        if let Some(watcher) = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            watcher(self);
        }
    }

    /// Blocks that have not been freed.
    pub(crate) fn blocks(&self) -> usize {
        self.lock().blocks.len()
    }

    /// Write barriers so far.
    pub(crate) fn barriers(&self) -> usize {
        self.barriers.load(Ordering::SeqCst)
    }

    /// How often somebody has waited for an event that the SMMU sends.
    pub(crate) fn waits_for_event(&self) -> usize {
        self.waits_for_event.load(Ordering::SeqCst)
    }

    /// The word at `physical` as a device sees it that snoops the CPU's caches.
    pub(crate) fn snooped_word(&self, physical: PhysAddr) -> u64 {
        // SAFETY: it is in a block, or else this panics.
        let pointer = unsafe { self.pointer(physical) }.cast::<AtomicU64>();
        // SAFETY: likewise; a block's words are only ever reached as atomics.
        unsafe { pointer.as_ref() }.load(Ordering::SeqCst)
    }

    /// The word at `physical` as a device sees it that does not snoop.
    pub(crate) fn memory_word(&self, physical: PhysAddr) -> u64 {
        let memory = self.lock();
        let (start, block) = memory.containing(physical);
        block.cleaned[(physical.get() - start) as usize / 8]
    }

    /// A device writes the word at `physical`: into the caches or past them.
    pub(crate) fn write_word(&self, physical: PhysAddr, value: u64, snooped: bool) {
        let mut memory = self.lock();
        let (start, _) = memory.containing(physical);
        let block = memory.blocks.get_mut(&start).expect("found before");
        let index = (physical.get() - start) as usize / 8;
        if snooped {
            block.word(index).store(value, Ordering::SeqCst);
        } else {
            block.cleaned[index] = value;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Block {
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.cleaned.len());
        // SAFETY: `index` is within the block.
        let pointer = unsafe { self.pointer.cast::<AtomicU64>().add(index) };
        // SAFETY: its words are only ever reached as atomics.
        unsafe { pointer.as_ref() }
    }
}

impl Memory {
    /// The words of the lines around a range, and the block that they are in.
    fn lines(&mut self, physical: PhysAddr, size_bytes: usize) -> (&mut Block, core::ops::Range<usize>) {
        let (start, _) = self.containing(physical);
        let block = self.blocks.get_mut(&start).expect("found before");
        let offset = (physical.get() - start) as usize;
        assert!(offset + size_bytes <= block.layout.size(), "cache maintenance past the end of a block");
        let end = (offset + size_bytes).next_multiple_of(LINE_BYTES) / 8;
        let words = offset / LINE_BYTES * LINE_BYTES / 8..end.min(block.cleaned.len());
        (block, words)
    }

    /// The block around an address, and where it starts.
    fn containing(&self, physical: PhysAddr) -> (u64, &Block) {
        let (start, block) = self.blocks.range(..=physical.get()).next_back().expect("an address in DMA memory");
        assert!(physical.get() - start < block.layout.size() as u64, "{physical} is not in any block, or was freed");
        (*start, block)
    }
}

// SAFETY: blocks are zeroed heap memory, owned until freed; the map from physical addresses is kept exactly; the host's
// atomics are sequentially consistent where it matters.
unsafe impl Platform for TestPlatform {
    type Registers = Arc<FakeSmmu>;
    type Lock = LeafLock;

    fn allocate(&self, size_bytes: usize, alignment_bytes: usize) -> Result<DmaBlock, OutOfDmaMemory> {
        leaf_lock::assert_none_is_held("while memory is allocated");
        let out = OutOfDmaMemory { size_bytes, alignment_bytes };
        let take = |left: usize| if left == usize::MAX { Some(left) } else { left.checked_sub(1) };
        self.allocations_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).map_err(|_| out)?;
        let layout = Layout::from_size_align(size_bytes, alignment_bytes).map_err(|_| out)?;
        // SAFETY: the crate asks for no empty blocks.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(out)?;
        let mut memory = self.lock();
        let physical = memory.next_physical.next_multiple_of(alignment_bytes as u64);
        memory.next_physical = physical + size_bytes as u64;
        memory.blocks.insert(physical, Block { pointer, layout, cleaned: std::vec![u64::MAX; size_bytes.div_ceil(8)] });
        Ok(DmaBlock { pointer, physical: PhysAddr::new(physical), size_bytes, alignment_bytes })
    }

    unsafe fn free(&self, block: DmaBlock) {
        leaf_lock::assert_none_is_held("while memory is freed");
        self.note(Step::Free(block.physical));
        let freed = self.lock().blocks.remove(&block.physical.get()).expect("a block that was allocated");
        assert_eq!(freed.pointer, block.pointer);
        assert_eq!((freed.layout.size(), freed.layout.align()), (block.size_bytes, block.alignment_bytes));
        // SAFETY: it came from `alloc_zeroed` with this layout, and was in the map until now.
        unsafe { dealloc(freed.pointer.as_ptr(), freed.layout) }
    }

    unsafe fn pointer(&self, physical: PhysAddr) -> NonNull<u8> {
        let memory = self.lock();
        let (start, block) = memory.containing(physical);
        // SAFETY: `containing` has found the offset to be inside the block.
        unsafe { block.pointer.add((physical.get() - start) as usize) }
    }

    fn physical(&self, pointer: NonNull<u8>) -> Option<PhysAddr> {
        let scattered = self.scattered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(physical) = scattered.get(&pointer.addr().get()) {
            return *physical;
        }
        let memory = self.lock();
        memory.blocks.iter().find_map(|(start, block)| {
            let offset = pointer.addr().get().checked_sub(block.pointer.addr().get())?;
            (offset < block.layout.size()).then(|| PhysAddr::new(start + offset as u64))
        })
    }

    fn stream_id_bits(&self) -> u8 {
        self.stream_id_bits.load(Ordering::SeqCst)
    }

    fn write_barrier(&self) {
        self.call_watcher();
        self.barriers.fetch_add(1, Ordering::SeqCst);
        self.note(Step::Barrier);
    }

    fn read_barrier(&self) {}

    fn clean_cache(&self, start: NonNull<u8>, size_bytes: usize) {
        self.call_watcher();
        let physical = self.physical(start).expect("only DMA memory is cleaned");
        let mut memory = self.lock();
        let (block, words) = memory.lines(physical, size_bytes);
        for index in words {
            block.cleaned[index] = block.word(index).load(Ordering::SeqCst);
        }
    }

    fn invalidate_cache(&self, start: NonNull<u8>, size_bytes: usize) {
        self.call_watcher();
        let physical = self.physical(start).expect("only DMA memory is invalidated");
        let mut memory = self.lock();
        let (block, words) = memory.lines(physical, size_bytes);
        for index in words {
            block.word(index).store(block.cleaned[index], Ordering::SeqCst);
        }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::SeqCst))
    }

    fn relax(&self) {
        leaf_lock::assert_none_is_held("while hardware or another CPU is waited for");
        self.nanoseconds.fetch_add(self.nanoseconds_per_relax.load(Ordering::SeqCst), Ordering::SeqCst);
        std::thread::yield_now();
    }

    fn wait_for_event(&self) {
        self.waits_for_event.fetch_add(1, Ordering::SeqCst);
        self.relax();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_does_not_snoop_sees_what_was_cleaned() {
        let platform = TestPlatform::leaked();
        let block = platform.allocate(4096, 4096).unwrap();
        assert_eq!((platform.snooped_word(block.physical), platform.memory_word(block.physical)), (0, u64::MAX));
        platform.clean_cache(block.pointer, 8);
        assert_eq!(platform.memory_word(block.physical), 0);
        assert_eq!(platform.memory_word(PhysAddr::new(block.physical.get() + 64)), u64::MAX, "one line only");
        assert_eq!(platform.physical(block.pointer), Some(block.physical));
        // SAFETY: allocated above, freed once.
        unsafe { platform.free(block) }
        assert_eq!(platform.blocks(), 0);
    }

    #[test]
    fn what_a_device_writes_past_the_caches_is_seen_after_invalidation() {
        let platform = TestPlatform::leaked();
        let block = platform.allocate(4096, 4096).unwrap();
        platform.write_word(block.physical, 1, true);
        assert_eq!(platform.snooped_word(block.physical), 1);
        platform.write_word(block.physical, 2, false);
        assert_eq!(platform.snooped_word(block.physical), 1);
        platform.invalidate_cache(block.pointer, 8);
        assert_eq!(platform.snooped_word(block.physical), 2);
        // SAFETY: allocated above, freed once.
        unsafe { platform.free(block) }
    }
}

//! The physical memory that CPUs, SMMUs and devices share: blocks of the host's heap at made-up physical addresses.
//!
//! Pointers keep their provenance: an address is found by its block, never made from a number. A freed block is
//! poisoned and set aside, so that whoever still reads it is noticed, and so is whoever wrote to it.
//!
//! Each block exists up to three times: as the CPU sees it, as it is behind the CPU's caches, and as it was when the two
//! last agreed. A line that the CPU has changed since is dirty, and would overwrite what hardware writes there.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use smmu::platform::DmaBlock;

/// Where the made-up memory begins. Not at zero, so that an address that was never set is noticed.
pub(super) const FIRST_PHYSICAL: u64 = 0x8000_0000;
/// What a freed block is filled with.
pub(super) const POISON: u64 = 0xdead_f4ee_dead_f4ee;
/// What is in memory before anybody has cleaned a line: a hint that reads as nothing sensible.
const UNCLEANED: u64 = 0xbad1_0ca1_bad1_0ca1;
/// What cache maintenance works on.
pub(super) const LINE_WORDS: usize = 8;
/// Freed memory that is kept for inspection, in bytes.
const QUARANTINE_BYTES: usize = 64 << 20;

/// How an access sees memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Through the CPU's caches.
    Snooping,
    /// Behind them: only what was cleaned.
    Behind,
}

/// Why an access of hardware failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BusError {
    /// There is nothing at the address, or it was made to abort.
    Nothing,
    /// The memory there has been freed: a violation by whoever led hardware there.
    Freed,
}

/// What the CPU did wrong, seen by memory.
pub(super) type Misuse = String;

struct Block {
    pointer: NonNull<u8>,
    layout: Layout,
    physical: u64,
    /// As memory is behind the caches.
    behind: Vec<u64>,
    /// As the CPU saw it when cache and memory last agreed.
    agreed: Vec<u64>,
}

// SAFETY: a block owns its memory, which is reached only through atomics.
unsafe impl Send for Block {}

impl Block {
    fn new(physical: u64, size_bytes: usize, alignment_bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(size_bytes.next_multiple_of(8), alignment_bytes.max(64)).ok()?;
        // SAFETY: the layout is not empty: `Memory::allocate` refuses that.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let words = layout.size() / 8;
        Some(Self { pointer, layout, physical, behind: vec![UNCLEANED; words], agreed: vec![UNCLEANED; words] })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the memory is the block's, initialised, aligned to words, and used as atomics by the model and the
        // driver; raw copies by the driver do not run at the same time as the model's accesses.
        unsafe { std::slice::from_raw_parts(self.pointer.cast().as_ptr(), self.layout.size() / 8) }
    }

    fn fill(&self, value: u64) {
        self.words().iter().for_each(|word| word.store(value, Ordering::SeqCst));
    }

    fn is_poisoned(&self) -> bool {
        self.words().iter().all(|word| word.load(Ordering::SeqCst) == POISON)
    }

    fn end(&self) -> u64 {
        self.physical + self.layout.size() as u64
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`, freed once.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) }
    }
}

/// All of memory.
pub(super) struct Memory {
    /// By physical address.
    blocks: BTreeMap<u64, Block>,
    /// Physical address by the CPU's.
    by_pointer: BTreeMap<usize, u64>,
    freed: VecDeque<Block>,
    freed_bytes: usize,
    /// Physical ranges that are freed and not in use again.
    holes: BTreeMap<u64, u64>,
    next_physical: u64,
    /// Whether a freed block is handed out again at once, the latest first.
    reuse: bool,
    /// Physical addresses at which hardware's accesses abort.
    aborting: Vec<Range<u64>>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            blocks: BTreeMap::new(),
            by_pointer: BTreeMap::new(),
            freed: VecDeque::new(),
            freed_bytes: 0,
            holes: BTreeMap::new(),
            next_physical: FIRST_PHYSICAL,
            reuse: false,
            aborting: Vec::new(),
        }
    }

    /// Gives memory out from an address on.
    pub(super) fn continue_at(&mut self, physical: u64) {
        self.next_physical = physical;
    }

    pub(super) fn set_reuse(&mut self, reuse: bool) {
        self.reuse = reuse;
    }

    pub(super) fn abort_at(&mut self, range: Range<u64>) {
        self.aborting.push(range);
    }

    pub(super) fn abort_nowhere(&mut self) {
        self.aborting.clear();
    }

    /// How many blocks are in use.
    pub(super) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// How many bytes are in use.
    pub(super) fn bytes_in_use(&self) -> u64 {
        self.blocks.values().map(|block| block.layout.size() as u64).sum()
    }

    /// Allocates a zeroed block. Its zeroes are in the CPU's caches only.
    pub(super) fn allocate(&mut self, size_bytes: usize, alignment_bytes: usize) -> Option<(NonNull<u8>, u64)> {
        if size_bytes == 0 || !alignment_bytes.is_power_of_two() {
            return None;
        }
        if let Some(reused) = self.take_freed(size_bytes, alignment_bytes) {
            return Some(reused);
        }
        let physical = self.next_physical.next_multiple_of(alignment_bytes.max(64) as u64);
        let block = Block::new(physical, size_bytes, alignment_bytes)?;
        self.next_physical = block.end();
        let pointer = block.pointer;
        self.insert(block);
        Some((pointer, physical))
    }

    fn take_freed(&mut self, size_bytes: usize, alignment_bytes: usize) -> Option<(NonNull<u8>, u64)> {
        let wanted = |block: &Block| block.layout.size() == size_bytes && block.layout.align() >= alignment_bytes;
        let index = self.freed.iter().rposition(wanted).filter(|_| self.reuse)?;
        let block = self.freed.remove(index)?;
        self.freed_bytes -= block.layout.size();
        self.holes.remove(&block.physical);
        block.fill(0);
        let found = (block.pointer, block.physical);
        self.insert(block);
        Some(found)
    }

    fn insert(&mut self, block: Block) {
        self.by_pointer.insert(block.pointer.addr().get(), block.physical);
        self.blocks.insert(block.physical, block);
    }

    /// Takes a block back and poisons it. `Err` if it is not one that was allocated.
    pub(super) fn free(&mut self, block: &DmaBlock) -> Result<(), Misuse> {
        let physical = block.physical.get();
        let Some(found) = self.blocks.get(&physical) else {
            return Err(format!("{physical:#x} was freed twice or never allocated"));
        };
        let size_bytes = block.size_bytes.next_multiple_of(8);
        if found.pointer != block.pointer || found.layout.size() != size_bytes {
            return Err(format!("{physical:#x} was freed with another pointer or size than it was allocated with"));
        }
        let Some(mut freed) = self.blocks.remove(&physical) else { return Ok(()) };
        self.by_pointer.remove(&freed.pointer.addr().get());
        freed.fill(POISON);
        freed.behind.fill(UNCLEANED);
        freed.agreed.fill(UNCLEANED);
        self.holes.insert(freed.physical, freed.end());
        self.freed_bytes += freed.layout.size();
        self.freed.push_back(freed);
        let mut damaged = Ok(());
        while self.freed_bytes > QUARANTINE_BYTES {
            let Some(oldest) = self.freed.pop_front() else { break };
            self.freed_bytes -= oldest.layout.size();
            if !oldest.is_poisoned() {
                damaged = Err(written_after_free(&oldest));
            }
        }
        damaged
    }

    /// Blocks that were written to after they were freed.
    pub(super) fn written_after_free(&self) -> Vec<Misuse> {
        self.freed.iter().filter(|block| !block.is_poisoned()).map(written_after_free).collect()
    }

    fn block(&self, physical: u64) -> Option<&Block> {
        let (_, block) = self.blocks.range(..=physical).next_back()?;
        (physical < block.end()).then_some(block)
    }

    fn block_mut(&mut self, physical: u64) -> Option<&mut Block> {
        let (_, block) = self.blocks.range_mut(..=physical).next_back()?;
        (physical < block.end()).then_some(block)
    }

    fn error_at(&self, physical: u64) -> BusError {
        match self.holes.range(..=physical).next_back() {
            Some((_, &end)) if physical < end => BusError::Freed,
            _ => BusError::Nothing,
        }
    }

    /// The CPU's pointer to a byte of memory.
    pub(super) fn pointer(&self, physical: u64) -> Option<NonNull<u8>> {
        let block = self.block(physical)?;
        // SAFETY: `block` has found the address to be inside it.
        Some(unsafe { block.pointer.add((physical - block.physical) as usize) })
    }

    /// The CPU's pointer to a range, if all of it is in one block.
    pub(super) fn range(&self, physical: u64, size_bytes: usize) -> Option<NonNull<u8>> {
        let end = physical.checked_add(size_bytes as u64)?;
        self.block(physical).filter(|block| end <= block.end())?;
        self.pointer(physical)
    }

    /// The reverse of [`pointer`](Self::pointer).
    pub(super) fn physical(&self, pointer: NonNull<u8>) -> Option<u64> {
        let address = pointer.addr().get();
        let (&start, &physical) = self.by_pointer.range(..=address).next_back()?;
        let found = physical + (address - start) as u64;
        self.block(found).filter(|block| block.physical == physical)?;
        Some(found)
    }

    /// Reads the aligned word at `physical`, as hardware.
    pub(super) fn read(&self, physical: u64, view: View) -> Result<u64, BusError> {
        self.check_aborting(physical)?;
        let block = self.block(physical).ok_or_else(|| self.error_at(physical))?;
        let index = (physical - block.physical) as usize / 8;
        Ok(u64::from_le(match view {
            View::Snooping => block.words()[index].load(Ordering::SeqCst),
            View::Behind => block.behind[index],
        }))
    }

    /// The words from `physical` on, as hardware sees them, for as long as they lie in one block.
    pub(super) fn words(&self, physical: u64, count: u64, view: View) -> impl Iterator<Item = u64> + '_ {
        let block = self.block(physical).filter(|_| physical.is_multiple_of(8));
        let first = block.map_or(0, |block| (physical - block.physical) as usize / 8);
        let snooped = block.filter(|_| view == View::Snooping).map_or(&[][..], Block::words);
        let behind = block.filter(|_| view == View::Behind).map_or(&[][..], |block| &block.behind);
        let snooped = snooped.iter().skip(first).map(|word| word.load(Ordering::Relaxed));
        snooped.chain(behind.iter().skip(first).copied()).map(u64::from_le).take(count as usize)
    }

    /// Stores `value` under `mask` at the aligned word `physical`, as hardware. Tells of a dirty line that would have
    /// overwritten it.
    pub(super) fn write(
        &mut self,
        physical: u64,
        value: u64,
        mask: u64,
        view: View,
    ) -> Result<Option<Misuse>, BusError> {
        self.check_aborting(physical)?;
        let error = self.error_at(physical);
        let block = self.block_mut(physical).ok_or(error)?;
        let index = (physical - block.physical) as usize / 8;
        let merged = |old: u64| ((u64::from_le(old) & !mask) | (value & mask)).to_le();
        match view {
            View::Snooping => {
                let word = &block.words()[index];
                let new = merged(word.load(Ordering::SeqCst));
                word.store(new, Ordering::SeqCst);
                block.behind[index] = new;
                block.agreed[index] = new;
                Ok(None)
            }
            View::Behind => {
                let first = index / LINE_WORDS * LINE_WORDS;
                let is_dirty = |&at: &usize| block.words()[at].load(Ordering::SeqCst) != block.agreed[at];
                let dirty = (first..block.behind.len().min(first + LINE_WORDS)).find(is_dirty);
                block.behind[index] = merged(block.behind[index]);
                Ok(dirty.map(|at| {
                    let dirty = block.physical + at as u64 * 8;
                    format!("hardware wrote {physical:#x} while the CPU's line is dirty at {dirty:#x}: clean it first")
                }))
            }
        }
    }

    /// Replaces the word at `physical` if it is still `old`, in one step, as hardware updating a descriptor.
    pub(super) fn exchange(&mut self, physical: u64, old: u64, new: u64, view: View) -> Result<bool, BusError> {
        self.check_aborting(physical)?;
        let error = self.error_at(physical);
        let block = self.block_mut(physical).ok_or(error)?;
        let index = (physical - block.physical) as usize / 8;
        if view == View::Behind {
            let same = block.behind[index] == old.to_le();
            if same {
                block.behind[index] = new.to_le();
            }
            return Ok(same);
        }
        let word = &block.words()[index];
        let same = word.compare_exchange(old.to_le(), new.to_le(), Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if same {
            block.behind[index] = new.to_le();
            block.agreed[index] = new.to_le();
        }
        Ok(same)
    }

    fn check_aborting(&self, physical: u64) -> Result<(), BusError> {
        if self.aborting.iter().any(|range| range.contains(&physical)) { Err(BusError::Nothing) } else { Ok(()) }
    }

    /// Writes the CPU's lines back, as `dc cvac` does.
    pub(super) fn clean(&mut self, physical: u64, size_bytes: usize) {
        self.maintain(physical, size_bytes, |block, index| {
            let value = block.words()[index].load(Ordering::SeqCst);
            if value != block.agreed[index] {
                block.behind[index] = value;
                block.agreed[index] = value;
            }
        });
    }

    /// Writes the CPU's dirty lines back and discards all, as `dc civac` does.
    pub(super) fn invalidate(&mut self, physical: u64, size_bytes: usize) {
        self.clean(physical, size_bytes);
        self.maintain(physical, size_bytes, |block, index| {
            let value = block.behind[index];
            block.words()[index].store(value, Ordering::SeqCst);
            block.agreed[index] = value;
        });
    }

    fn maintain(&mut self, physical: u64, size_bytes: usize, mut word: impl FnMut(&mut Block, usize)) {
        let Some(block) = self.block_mut(physical) else { return };
        let offset = (physical - block.physical) as usize / 8;
        let first = offset / LINE_WORDS * LINE_WORDS;
        let end = (offset + size_bytes.div_ceil(8)).next_multiple_of(LINE_WORDS).min(block.behind.len());
        (first..end).for_each(|index| word(block, index));
    }
}

fn written_after_free(block: &Block) -> Misuse {
    format!("the block at {:#x} ({} bytes) was written to after it was freed", block.physical, block.layout.size())
}

//! Tables of 64-byte entries, linear or with two levels: what stream tables and context descriptor tables have in common
//! (IHI 0070, 3.3). Second levels are made on demand and never moved.
//!
//! An entry that was never written is all zero, and so is a first-level descriptor without a second level: hardware aborts
//! what leads there.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::live_entry::LiveEntry;
use crate::addr::PhysAddr;
use crate::memory::{DmaMemory, LinkedMemory};
use crate::platform::{OutOfDmaMemory, Platform};

/// Size of an entry.
const ENTRY_BYTES: usize = 64;

/// A descriptor in a first level.
pub(super) trait Level1Descriptor {
    /// The word that leads to `2^log2_entries` entries at `second_level`.
    fn to_word(second_level: PhysAddr, log2_entries: u8) -> u64;
    /// Where a word leads, if anywhere.
    fn second_level(word: u64) -> Option<PhysAddr>;
}

/// A table of `2^log2_entries` entries whose first-level descriptors, if it has any, are `D`s.
#[derive(Debug)]
pub(super) struct EntryTable<P: Platform, D: Level1Descriptor> {
    platform: &'static P,
    /// The entries of a linear table, or the first level.
    top: DmaMemory<P>,
    second: Option<SecondLevels<P>>,
    log2_entries: u8,
    coherent: bool,
    kept: AtomicBool,
    descriptor: PhantomData<fn() -> D>,
}

#[derive(Debug)]
struct SecondLevels<P: Platform> {
    memory: LinkedMemory<P>,
    log2_entries: u8,
    count: AtomicUsize,
}

impl<P: Platform, D: Level1Descriptor> EntryTable<P, D> {
    /// A table of invalid entries: linear, or with second levels of `2^split` entries.
    pub(super) fn new(
        platform: &'static P,
        log2_entries: u8,
        split: Option<u8>,
        coherent: bool,
    ) -> Result<Self, OutOfDmaMemory> {
        let size_bytes = match split {
            Some(split) => size_of::<u64>() << log2_entries.saturating_sub(split),
            None => ENTRY_BYTES << log2_entries,
        };
        // Hardware takes the address's low bits for zero: align it to the table's size, at least to 64 bytes.
        let top = DmaMemory::allocate(platform, size_bytes, size_bytes.max(ENTRY_BYTES))?;
        if !coherent {
            top.clean(0, top.words().len());
        }
        Ok(Self::over(platform, top, log2_entries, split, coherent))
    }

    /// A table whose entries, or first level with `split`, are in `top`.
    pub(super) fn over(
        platform: &'static P,
        top: DmaMemory<P>,
        log2_entries: u8,
        split: Option<u8>,
        coherent: bool,
    ) -> Self {
        let second = split.map(|log2_entries| SecondLevels {
            memory: LinkedMemory::new(platform, ENTRY_BYTES << log2_entries),
            log2_entries,
            count: AtomicUsize::new(0),
        });
        let kept = AtomicBool::new(false);
        Self { platform, top, second, log2_entries, coherent, kept, descriptor: PhantomData }
    }

    /// The entries of a linear table, or the first level.
    pub(super) fn top(&self) -> &DmaMemory<P> {
        &self.top
    }

    /// Where hardware finds the table.
    pub(super) fn physical(&self) -> PhysAddr {
        self.top.physical()
    }

    /// Whether hardware reads the table through the CPU's caches.
    pub(super) fn is_coherent(&self) -> bool {
        self.coherent
    }

    /// log2 of the number of entries.
    pub(super) fn log2_entries(&self) -> u8 {
        self.log2_entries
    }

    /// log2 of the entries in a second level, if there are two.
    pub(super) fn split(&self) -> Option<u8> {
        self.second.as_ref().map(|second| second.log2_entries)
    }

    /// Bytes of DMA memory in use.
    pub(super) fn size_bytes(&self) -> usize {
        let second = self.second.as_ref().map_or(0, |second| {
            second.count.load(Ordering::Relaxed).saturating_mul(ENTRY_BYTES << second.log2_entries)
        });
        self.top.size_bytes().saturating_add(second)
    }

    /// Never gives the memory back: hardware may still read it.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
        self.top.keep();
    }

    /// Gives the memory back after all: what [`keep`](Self::keep) was for is over.
    pub(super) fn release(&self) {
        self.kept.store(false, Ordering::Relaxed);
    }

    /// Whether the table has an entry of this index, now or after [`make`](Self::make).
    pub(super) fn covers(&self, index: u32) -> bool {
        u64::from(index) >> self.log2_entries == 0
    }

    /// An entry, unless it is out of range or its second level does not exist.
    pub(super) fn find(&self, index: u32) -> Option<LiveEntry<'_, P>> {
        if !self.covers(index) {
            return None;
        }
        let (words, index) = match &self.second {
            None => (self.top.words(), index),
            Some(second) => {
                let descriptor = self.first_level(second, index)?.load(Ordering::Acquire);
                let words = second.memory.words(D::second_level(u64::from_le(descriptor))?);
                (words, index & ((1 << second.log2_entries) - 1))
            }
        };
        let (entries, _) = words.as_chunks();
        entries.get(index as usize).map(|words| self.live(words))
    }

    /// All entries that there are, with their indices, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, LiveEntry<'_, P>)> {
        let linear = self.second.is_none().then(|| (0, self.top.words()));
        let second_levels = self.second.iter().flat_map(|second| {
            self.top.words().iter().zip(0u32..).filter_map(move |(descriptor, run)| {
                let table = D::second_level(u64::from_le(descriptor.load(Ordering::Acquire)))?;
                Some((run << second.log2_entries, second.memory.words(table)))
            })
        });
        linear.into_iter().chain(second_levels).flat_map(|(first, words)| {
            let (entries, _) = words.as_chunks();
            (first..).zip(entries).map(|(index, words)| (index, self.live(words)))
        })
    }

    fn live<'a>(&self, words: &'a [AtomicU64; 8]) -> LiveEntry<'a, P> {
        LiveEntry::new(self.platform, words, self.coherent)
    }

    /// An entry whose second level is made if it does not exist; `None` if it is out of range. Hardware knows of a new second
    /// level after a CMD_CFGI that is not leaf-only.
    pub(super) fn make(&self, index: u32) -> Result<Option<LiveEntry<'_, P>>, OutOfDmaMemory> {
        if let (Some(second), true) = (&self.second, self.covers(index)) {
            self.make_second_level(second, index)?;
        }
        Ok(self.find(index))
    }

    fn make_second_level(&self, second: &SecondLevels<P>, index: u32) -> Result<(), OutOfDmaMemory> {
        let Some(descriptor) = self.first_level(second, index) else { return Ok(()) };
        if descriptor.load(Ordering::Acquire) == 0 {
            let block = second.memory.allocate()?;
            let word = self.describe(second, &block).to_le();
            if descriptor.compare_exchange(0, word, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                second.link(block);
            }
        }
        if !self.coherent {
            // Even if it was there: whoever made it may not have got to this yet.
            self.top.clean((index >> second.log2_entries) as usize, 1);
        }
        Ok(())
    }

    /// A new second level that nothing leads to, if there are two levels.
    pub(super) fn allocate_second_level(&self) -> Result<Option<DmaMemory<P>>, OutOfDmaMemory> {
        self.second.as_ref().map(|second| second.memory.allocate()).transpose()
    }

    /// Takes a second level of [`allocate_second_level`](Self::allocate_second_level) for the table's own, and returns the
    /// descriptor that is to lead to it.
    pub(super) fn link_second_level(&self, block: DmaMemory<P>) -> u64 {
        let Some(second) = &self.second else { return 0 };
        let word = self.describe(second, &block);
        second.link(block);
        word
    }

    /// The descriptor that leads to a second level, whose entries are in memory when this returns.
    fn describe(&self, second: &SecondLevels<P>, block: &DmaMemory<P>) -> u64 {
        if !self.coherent {
            block.clean(0, block.words().len());
        }
        self.platform.write_barrier();
        D::to_word(block.physical(), second.log2_entries)
    }

    /// The first-level descriptor that leads to an entry.
    fn first_level(&self, second: &SecondLevels<P>, index: u32) -> Option<&AtomicU64> {
        self.top.words().get((index >> second.log2_entries) as usize)
    }
}

impl<P: Platform> SecondLevels<P> {
    fn link(&self, block: DmaMemory<P>) {
        self.memory.link(block);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl<P: Platform, D: Level1Descriptor> Drop for EntryTable<P, D> {
    fn drop(&mut self) {
        let Some(second) = self.second.as_ref().filter(|_| !self.kept.load(Ordering::Relaxed)) else { return };
        for word in self.top.words() {
            if let Some(table) = D::second_level(u64::from_le(word.load(Ordering::Relaxed))) {
                drop(second.memory.unlink(table));
            }
        }
    }
}

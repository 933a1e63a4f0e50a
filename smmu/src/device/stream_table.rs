//! The stream table: linear or two-level, with second levels made on demand and never moved (IHI 0070, 3.3 and 5.1).
//!
//! An entry that was never attached is all zero, and so is a first-level descriptor without a second level: the SMMU
//! aborts such a stream and records an event that names it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::{DeviceError, Features};
use crate::addr::StreamId;
use crate::arch::registers::{STRTAB_BASE, STRTAB_BASE_CFG};
use crate::arch::stream_table::{L1StreamTableDescriptor, StreamTableEntry};
use crate::memory::{DmaMemory, LinkedMemory};
use crate::platform::Platform;

/// StreamID bits that a second level resolves: 2^8 entries.
const SPLIT: u8 = 8;
/// Largest first level: 2^17 descriptors of 8 bytes, 1 MiB, for 25 bits of StreamID.
const LOG2_FIRST_LEVEL_MAX: u8 = 17;
/// Largest linear table: 2^10 entries, 64 KiB.
const LOG2_LINEAR_MAX: u8 = 10;
/// Words of one entry.
pub(super) const ENTRY_WORDS: usize = StreamTableEntry::BYTES / 8;
/// STE bits 87:84, in word 1, are software's: they say where the stream is between free and attached, so that two owners
/// cannot both have it.
pub(super) const STATE: u64 = 0xf << 20;
/// Nobody owns the stream; all other bits of the entry are zero.
const FREE: u64 = 0;
const ATTACHING: u64 = 1 << 20;
const ATTACHED: u64 = 2 << 20;
const DETACHING: u64 = 3 << 20;
/// The boot policy keeps the stream working until its driver comes.
pub(super) const BOOT: u64 = 4 << 20;

/// The stream table of one SMMU.
#[derive(Debug)]
pub(super) struct StreamTable<P: Platform> {
    pub(super) platform: &'static P,
    /// The entries of a linear table, or the first level.
    pub(super) top: DmaMemory<P>,
    /// What second levels are made of, if there are two levels.
    pub(super) second: Option<LinkedMemory<P>>,
    pub(super) second_levels: AtomicUsize,
    /// StreamID bits that a second level resolves.
    pub(super) split: u8,
    /// log2 of the StreamIDs that the table covers.
    log2_streams: u8,
    stream_id_bits: u8,
    pub(super) coherent: bool,
    pub(super) kept: AtomicBool,
}

/// One entry of the table.
pub(super) struct Entry<'a, P: Platform> {
    table: &'a StreamTable<P>,
    words: &'a [AtomicU64; ENTRY_WORDS],
}

impl<P: Platform> StreamTable<P> {
    /// Allocates a table in which every stream aborts: two-level where the SMMU has it and the StreamIDs need it.
    pub(super) fn new(platform: &'static P, features: &Features) -> Result<Self, DeviceError> {
        let stream_id_bits = features.stream_id_bits();
        let two_level = features.two_level_stream_table() && stream_id_bits > SPLIT;
        let log2_streams = stream_id_bits.min(if two_level { LOG2_FIRST_LEVEL_MAX + SPLIT } else { LOG2_LINEAR_MAX });
        let size_bytes = if two_level {
            size_of::<u64>() << log2_streams.saturating_sub(SPLIT)
        } else {
            StreamTableEntry::BYTES << log2_streams
        };
        // The hardware takes the base's low bits for zero: align it to the table's size, at least 64 bytes.
        let top = DmaMemory::allocate(platform, size_bytes, size_bytes.max(64))?;
        let coherent = features.coherent();
        if !coherent {
            top.clean(0, top.words().len());
        }
        Ok(Self::over(platform, top, two_level.then_some(SPLIT), log2_streams, stream_id_bits, coherent))
    }

    /// A table whose first level, or all of it without `split`, is in `top`.
    pub(super) fn over(
        platform: &'static P,
        top: DmaMemory<P>,
        split: Option<u8>,
        log2_streams: u8,
        stream_id_bits: u8,
        coherent: bool,
    ) -> Self {
        Self {
            platform,
            top,
            second: split.map(|split| LinkedMemory::new(platform, StreamTableEntry::BYTES << split)),
            second_levels: AtomicUsize::new(0),
            split: split.unwrap_or(0),
            log2_streams,
            stream_id_bits,
            coherent,
            kept: AtomicBool::new(false),
        }
    }

    /// The values of STRTAB_BASE and STRTAB_BASE_CFG.
    pub(super) fn registers(&self) -> (u64, u32) {
        let format = match self.second {
            Some(_) => STRTAB_BASE_CFG::SPLIT.val(self.split.into()) + STRTAB_BASE_CFG::FMT::TwoLevel,
            None => STRTAB_BASE_CFG::SPLIT.val(0) + STRTAB_BASE_CFG::FMT::Linear,
        };
        let config = STRTAB_BASE_CFG::LOG2SIZE.val(self.log2_streams.into()) + format;
        (STRTAB_BASE::RA::SET.value | self.top.physical().get(), config.value)
    }

    /// Bytes of DMA memory in use.
    pub(super) fn size_bytes(&self) -> usize {
        let second_levels = self.second_levels.load(Ordering::Relaxed);
        self.top.size_bytes().saturating_add(second_levels.saturating_mul(StreamTableEntry::BYTES << self.split))
    }

    /// Never gives the table's memory back: the SMMU may still read it.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
        self.top.keep();
    }

    /// The entry of `stream`, or `None` if its second level does not exist.
    fn find(&self, stream: StreamId) -> Result<Option<Entry<'_, P>>, DeviceError> {
        self.check_range(stream)?;
        let Some(second) = &self.second else {
            return Ok(Self::entry_in(self.top.words(), stream).map(|words| Entry { table: self, words }));
        };
        let descriptor =
            L1StreamTableDescriptor::from_word(u64::from_le(self.first_level(stream)?.load(Ordering::Acquire)));
        let words = descriptor.decode().map(|(table, _)| second.words(table));
        Ok(words.and_then(|words| {
            let low = StreamId::new(stream.get() & ((1 << self.split) - 1));
            Self::entry_in(words, low).map(|words| Entry { table: self, words })
        }))
    }

    fn entry_in(words: &[AtomicU64], index: StreamId) -> Option<&[AtomicU64; ENTRY_WORDS]> {
        let (entries, _) = words.as_chunks();
        entries.get(index.get() as usize)
    }

    /// The first-level descriptor of `stream` in a two-level table.
    fn first_level(&self, stream: StreamId) -> Result<&AtomicU64, DeviceError> {
        self.top.words().get((stream.get() >> self.split) as usize).ok_or_else(|| self.out_of_range(stream))
    }

    /// Refuses a StreamID that the table does not cover.
    pub(super) fn check_range(&self, stream: StreamId) -> Result<(), DeviceError> {
        if u64::from(stream.get()) >> self.log2_streams == 0 { Ok(()) } else { Err(self.out_of_range(stream)) }
    }

    /// All entries that there are, with their StreamIDs, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (StreamId, Entry<'_, P>)> {
        let linear = self.second.is_none().then(|| (0, self.top.words()));
        let second_levels = self.second.iter().flat_map(|second| {
            let table = |word: &AtomicU64| {
                L1StreamTableDescriptor::from_word(u64::from_le(word.load(Ordering::Acquire))).decode()
            };
            let tables = self.top.words().iter().enumerate().filter_map(move |(run, word)| Some((run, table(word)?)));
            tables.map(|(run, (table, _))| (run << self.split, second.words(table)))
        });
        linear.into_iter().chain(second_levels).flat_map(move |(first, words)| {
            let (entries, _) = words.as_chunks();
            let entries = entries.iter().enumerate();
            entries.map(move |(low, words)| (StreamId::new((first | low) as u32), Entry { table: self, words }))
        })
    }

    fn out_of_range(&self, stream: StreamId) -> DeviceError {
        DeviceError::StreamOutOfRange { stream, stream_id_bits: self.stream_id_bits.min(self.log2_streams) }
    }

    /// Makes the second level of `stream` if there is none. The SMMU knows of it after a CMD_CFGI_STE that is not leaf-only.
    fn make_second_level(&self, second: &LinkedMemory<P>, stream: StreamId) -> Result<(), DeviceError> {
        let descriptor = self.first_level(stream)?;
        if descriptor.load(Ordering::Acquire) == 0 {
            let block = second.allocate()?;
            let word = self.describe_second_level(&block).word().to_le();
            if descriptor.compare_exchange(0, word, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                second.link(block);
                self.second_levels.fetch_add(1, Ordering::Relaxed);
            }
        }
        if !self.coherent {
            // Even if it was there: whoever made it may not have got to this yet.
            self.top.clean((stream.get() >> self.split) as usize, 1);
        }
        Ok(())
    }

    /// The descriptor that leads to a second level, whose entries are in memory when this returns.
    pub(super) fn describe_second_level(&self, block: &DmaMemory<P>) -> L1StreamTableDescriptor {
        if !self.coherent {
            block.clean(0, block.words().len());
        }
        self.platform.write_barrier();
        L1StreamTableDescriptor::new(block.physical(), self.split + 1)
    }

    /// Claims the entry of a stream that nobody owns. All of it but the claim is zero.
    pub(super) fn claim(&self, stream: StreamId) -> Result<Entry<'_, P>, DeviceError> {
        let mut entry = self.find(stream)?;
        if let Some(second) = &self.second {
            self.make_second_level(second, stream)?;
            entry = self.find(stream)?;
        }
        let entry = entry.ok_or_else(|| self.out_of_range(stream))?;
        if entry.change_state(FREE, ATTACHING) { Ok(entry) } else { Err(DeviceError::StreamInUse { stream }) }
    }

    /// Claims the entry of an attached stream from its owner, or from the boot policy, to detach it.
    pub(super) fn reclaim(&self, stream: StreamId) -> Result<Entry<'_, P>, DeviceError> {
        let is_claimed =
            |entry: &Entry<'_, P>| entry.change_state(ATTACHED, DETACHING) || entry.change_state(BOOT, DETACHING);
        let entry = self.find(stream)?.filter(is_claimed);
        entry.ok_or(DeviceError::StreamNotAttached { stream })
    }

    /// The entry of a stream as it is now.
    pub(super) fn load(&self, stream: StreamId) -> Result<StreamTableEntry, DeviceError> {
        Ok(self.find(stream)?.map_or(StreamTableEntry::INVALID, |entry| {
            StreamTableEntry::from_words(entry.words.each_ref().map(|word| u64::from_le(word.load(Ordering::Relaxed))))
        }))
    }
}

impl<P: Platform> Entry<'_, P> {
    /// Takes the stream from one state to another, if it is in the first.
    fn change_state(&self, from: u64, to: u64) -> bool {
        let [_, word, ..] = self.words;
        let before = word.load(Ordering::Acquire);
        let after = ((u64::from_le(before) & !STATE) | to).to_le();
        u64::from_le(before) & STATE == from
            && word.compare_exchange(before, after, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Where the stream is between free and attached.
    pub(super) fn state(&self) -> u64 {
        let [_, word, ..] = self.words;
        u64::from_le(word.load(Ordering::Acquire)) & STATE
    }

    /// Takes the stream to a state, of whoever has it to himself.
    pub(super) fn set_state(&self, state: u64) {
        self.change_state(self.state(), state);
        self.publish();
    }

    /// V: the SMMU uses the entry.
    pub(super) fn is_valid(&self) -> bool {
        let [first, ..] = self.words.each_ref().map(|word| u64::from_le(word.load(Ordering::Relaxed)));
        StreamTableEntry::from_words([first, 0, 0, 0, 0, 0, 0, 0]).is_valid()
    }

    /// Stores everything but word 0. Only while the entry is invalid, when the SMMU ignores these words.
    pub(super) fn prepare(&self, entry: &StreamTableEntry) {
        let [_, second, rest @ ..] = self.words;
        let [_, value, others @ ..] = entry.words();
        let state = u64::from_le(second.load(Ordering::Relaxed)) & STATE;
        second.store((value & !STATE | state).to_le(), Ordering::Relaxed);
        for (word, value) in rest.iter().zip(others) {
            word.store(value.to_le(), Ordering::Relaxed);
        }
        self.publish();
    }

    /// Stores word 0, which makes the entry valid or invalid in one 64-bit write.
    pub(super) fn switch(&self, entry: &StreamTableEntry) {
        let [first, ..] = self.words;
        let [value, ..] = entry.words();
        first.store(value.to_le(), Ordering::Relaxed);
        self.publish();
    }

    /// The stream is its owner's until [`StreamTable::reclaim`].
    pub(super) fn settle(&self) {
        self.change_state(ATTACHING, ATTACHED);
    }

    /// Zeroes an entry that the SMMU has forgotten and gives the stream up.
    pub(super) fn release(&self) {
        self.prepare(&StreamTableEntry::INVALID);
        let [_, word, ..] = self.words;
        word.store(FREE, Ordering::Release);
    }

    /// Makes the stores so far visible to the SMMU before anything that follows.
    fn publish(&self) {
        if !self.table.coherent {
            self.table.platform.clean_cache(NonNull::from(self.words).cast(), StreamTableEntry::BYTES);
        }
        self.table.platform.write_barrier();
    }
}

impl<P: Platform> Drop for StreamTable<P> {
    fn drop(&mut self) {
        let Some(second) = self.second.as_ref().filter(|_| !self.kept.load(Ordering::Relaxed)) else { return };
        for word in self.top.words() {
            let descriptor = L1StreamTableDescriptor::from_word(u64::from_le(word.load(Ordering::Relaxed)));
            if let Some((table, _)) = descriptor.decode() {
                drop(second.unlink(table));
            }
        }
    }
}

//! The stream table: which StreamIDs it covers, and who has which (IHI 0070, 3.3 and 5.1).

use super::control::wait_until;
use super::entry_table::{EntryTable, Level1Descriptor};
use super::live_entry::{Interrupted, LiveEntry};
use super::{DeviceError, Features};
use crate::addr::{PhysAddr, StreamId};
use crate::arch::entry_update::EntryUpdate;
use crate::arch::registers::{STRTAB_BASE, STRTAB_BASE_CFG};
use crate::arch::stream_table::{L1StreamTableDescriptor, StreamTableEntry};
use crate::platform::Platform;

/// SPLIT where the first level is small: a second level is the 2^8 functions of one PCI bus, 16 KiB.
const SPLIT: u8 = 8;
/// The most StreamID bits for that: the first level then takes 32 KiB.
const SPLIT_MAX: u8 = 20;
/// SPLIT beyond, the largest there is: 64 KiB second levels, and a first level of 128 KiB for 24 bits.
const WIDE_SPLIT: u8 = 10;
/// Largest linear table: 2^10 entries, 64 KiB. SMMUs with more than 6 bits have two levels.
const LOG2_LINEAR_MAX: u8 = 10;

/// Who has a stream. It is kept in bits of the entry that are software's, so that two owners cannot both have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody; the entry is all zero.
    Nobody = 0,
    /// A CPU that is changing the entry at this moment.
    Changing = 1,
    /// Whoever attached it.
    Attached = 2,
    /// Nobody ever again: the SMMU did not confirm that it forgot the entry.
    Stuck = 3,
    /// The boot policy, which keeps the stream working until its driver comes.
    Boot = 4,
}

/// The stream table of one SMMU.
#[derive(Debug)]
pub(super) struct StreamTable<P: Platform> {
    pub(super) platform: &'static P,
    pub(super) entries: EntryTable<P, L1StreamTableDescriptor>,
}

/// A stream's entry in the hands of the one CPU that may change it.
pub(super) struct Slot<'a, P: Platform> {
    entry: LiveEntry<'a, P>,
    former: Owner,
}

impl Level1Descriptor for L1StreamTableDescriptor {
    fn to_word(second_level: PhysAddr, log2_entries: u8) -> u64 {
        Self::new(second_level, log2_entries.saturating_add(1)).word()
    }

    fn second_level(word: u64) -> Option<PhysAddr> {
        Self::from_word(word).decode().map(|(table, _)| table)
    }
}

impl<P: Platform> StreamTable<P> {
    /// Allocates a table in which every stream aborts: two-level where the SMMU has it and the StreamIDs need it.
    pub(super) fn new(platform: &'static P, features: &Features) -> Result<Self, DeviceError> {
        let wanted = features.stream_id_bits().min(platform.stream_id_bits());
        let two_level = features.two_level_stream_table() && wanted > SPLIT;
        let (log2_streams, split) = match (two_level, wanted) {
            (false, _) => (wanted.min(LOG2_LINEAR_MAX), None),
            (true, ..=SPLIT_MAX) => (wanted, Some(SPLIT)),
            (true, _) => (wanted, Some(WIDE_SPLIT)),
        };
        Ok(Self { platform, entries: EntryTable::new(platform, log2_streams, split, features.coherent())? })
    }

    /// The values of STRTAB_BASE and STRTAB_BASE_CFG.
    pub(super) fn registers(&self) -> (u64, u32) {
        let format = match self.entries.split() {
            Some(split) => STRTAB_BASE_CFG::SPLIT.val(split.into()) + STRTAB_BASE_CFG::FMT::TwoLevel,
            None => STRTAB_BASE_CFG::SPLIT.val(0) + STRTAB_BASE_CFG::FMT::Linear,
        };
        let config = STRTAB_BASE_CFG::LOG2SIZE.val(self.entries.log2_entries().into()) + format;
        (STRTAB_BASE::RA::SET.value | self.entries.physical().get(), config.value)
    }

    /// Bytes of DMA memory in use.
    pub(super) fn size_bytes(&self) -> usize {
        self.entries.size_bytes()
    }

    /// Never gives the table's memory back: the SMMU may still read it.
    pub(super) fn keep(&self) {
        self.entries.keep();
    }

    /// The entry of a stream as it is now.
    pub(super) fn load(&self, stream: StreamId) -> Result<StreamTableEntry, DeviceError> {
        Ok(self.find(stream)?.map_or(StreamTableEntry::INVALID, |entry| StreamTableEntry::from_words(entry.load())))
    }

    /// The streams that an owner has, in order.
    pub(super) fn streams_of(&self, owner: Owner) -> impl Iterator<Item = StreamId> + '_ {
        let entries = self.entries.entries().map(|(index, entry)| (index, StreamTableEntry::from_words(entry.load())));
        entries.filter(move |(_, entry)| Owner::of(entry) == owner).map(|(index, _)| StreamId::new(index))
    }

    /// Claims a stream that nobody has, to attach it. All of its entry but the claim is zero.
    pub(super) fn claim(&self, stream: StreamId) -> Result<Slot<'_, P>, DeviceError> {
        let entry = self.entries.make(stream.get())?.ok_or_else(|| self.out_of_range(stream))?;
        Slot::claim(entry, Owner::Nobody).ok_or(DeviceError::StreamInUse { stream })
    }

    /// Claims an attached stream, or one of the boot policy's, to change its entry. Waits while another CPU is doing that.
    pub(super) fn reclaim(&self, stream: StreamId) -> Result<Slot<'_, P>, DeviceError> {
        wait_until(self.platform, || self.try_reclaim(stream).transpose())
            .unwrap_or_else(|waited| Err(DeviceError::StreamBusy { stream, waited }))
    }

    /// The same unless another CPU is changing the entry at this moment.
    fn try_reclaim(&self, stream: StreamId) -> Result<Option<Slot<'_, P>>, DeviceError> {
        let not_attached = DeviceError::StreamNotAttached { stream };
        let entry = self.find(stream)?.ok_or(not_attached)?;
        match Owner::of(&StreamTableEntry::from_words(entry.load())) {
            Owner::Nobody => Err(not_attached),
            Owner::Stuck => Err(DeviceError::StreamStuck { stream }),
            Owner::Changing => Ok(None),
            former @ (Owner::Attached | Owner::Boot) => Ok(Slot::claim(entry, former)),
        }
    }

    /// Refuses a StreamID that the table does not cover.
    pub(super) fn check_range(&self, stream: StreamId) -> Result<(), DeviceError> {
        if self.entries.covers(stream.get()) { Ok(()) } else { Err(self.out_of_range(stream)) }
    }

    fn find(&self, stream: StreamId) -> Result<Option<LiveEntry<'_, P>>, DeviceError> {
        self.check_range(stream)?;
        Ok(self.entries.find(stream.get()))
    }

    fn out_of_range(&self, stream: StreamId) -> DeviceError {
        DeviceError::StreamOutOfRange { stream, stream_id_bits: self.entries.log2_entries() }
    }
}

impl Owner {
    fn of(entry: &StreamTableEntry) -> Self {
        match entry.software_bits() {
            0 => Self::Nobody,
            1 => Self::Changing,
            2 => Self::Attached,
            4 => Self::Boot,
            _ => Self::Stuck,
        }
    }
}

impl<'a, P: Platform> Slot<'a, P> {
    /// Claims an entry if `former` has it.
    fn claim(entry: LiveEntry<'a, P>, former: Owner) -> Option<Self> {
        let slot = Self { entry, former };
        slot.pass(former, Owner::Changing).then_some(slot)
    }

    /// Who had the stream when it was claimed.
    pub(super) fn former(&self) -> Owner {
        self.former
    }

    fn load(&self) -> StreamTableEntry {
        StreamTableEntry::from_words(self.entry.load())
    }

    /// Passes the stream from one owner to another, if the first has it.
    fn pass(&self, from: Owner, to: Owner) -> bool {
        let before = self.load();
        let ([_, old, ..], [_, new, ..]) = (before.words(), before.with_software_bits(to as u8).words());
        Owner::of(&before) == from && self.entry.exchange_word1(old, new)
    }

    /// Gives the entry the meaning of `entry`. `sync` makes the SMMU forget it.
    pub(super) fn update(
        &self,
        entry: &StreamTableEntry,
        sync: impl FnMut() -> Result<(), DeviceError>,
    ) -> Result<(), Interrupted> {
        let old = self.load();
        let new = entry.with_software_bits(Owner::Changing as u8);
        self.entry.update(&EntryUpdate::new(&old, &new), sync)
    }

    /// Gives the entry a meaning before translation is switched on, and the stream to the boot policy.
    pub(super) fn preset(self, entry: &StreamTableEntry) {
        self.entry.store(&entry.with_software_bits(Owner::Boot as u8).words());
    }

    /// Makes the entry invalid by one store. The SMMU has to be told.
    pub(super) fn invalidate(&self) {
        self.entry.invalidate();
    }

    /// Lets go of the stream.
    pub(super) fn hand_over(self, owner: Owner) {
        if owner == Owner::Nobody {
            // Hardware has forgotten it, and ignores what an invalid entry says.
            self.entry.store(&StreamTableEntry::INVALID.with_software_bits(Owner::Changing as u8).words());
        }
        self.pass(Owner::Changing, owner);
    }
}

//! Adopting an SMMU that a former owner left running, without a gap for the streams that are to go on (IHI 0070, 3.11).
//!
//! STRTAB_BASE cannot change while translation is on. So the table stays where it is, and its entries change in place: a
//! first level gets second levels of this driver's own, which hold nothing but the chosen streams; in a linear table all
//! other entries become invalid. The queues do change owner, for they can be switched off by themselves.
//!
//! What the former owner left in registers and memory is untrusted: all of it is checked before anything is written.

use core::sync::atomic::Ordering;

use super::control::Control;
use super::entry_table::EntryTable;
use super::error::CannotAdopt;
use super::features::Features;
use super::live_entry::LiveEntry;
use super::modes::Modes;
use super::phase::Lifecycle;
use super::stream_table::{Owner, StreamTable};
use super::{DeviceError, Smmu, Takeover, bring_up};
use crate::addr::{PhysAddr, StreamId};
use crate::arch::context_descriptor::{ContextDescriptor, L1ContextDescriptor};
use crate::arch::registers::{CR0, CR1, CR2, STRTAB_BASE, STRTAB_BASE_CFG};
use crate::arch::stream_table::{Config, L1StreamTableDescriptor, S1Fmt, StreamTableEntry};
use crate::memory::DmaMemory;
use crate::platform::Platform;

/// Words of an entry.
const ENTRY_WORDS: usize = StreamTableEntry::BYTES / 8;
/// The largest table that is adopted: 2^20 entries or first-level descriptors.
const LOG2_TOP_MAX: u8 = 20;

fn malformed(what: &'static str, found: u64, expected: &'static str) -> DeviceError {
    DeviceError::CannotAdopt(CannotAdopt::Malformed { what, found, expected })
}

/// Memory of the former owner.
fn reach<P: Platform>(
    platform: &'static P,
    what: &'static str,
    address: PhysAddr,
    size_bytes: u64,
) -> Result<DmaMemory<P>, DeviceError> {
    let out_of_reach = DeviceError::CannotAdopt(CannotAdopt::OutOfReach { what, address, size_bytes });
    let size = usize::try_from(size_bytes).map_err(|_| out_of_reach)?;
    DmaMemory::foreign(platform, address, size).ok_or(out_of_reach)
}

/// The first `N` words of a structure.
fn words<P: Platform, const N: usize>(memory: &DmaMemory<P>, first: usize) -> [u64; N] {
    let mut words = [0; N];
    for (value, word) in words.iter_mut().zip(memory.words().iter().skip(first)) {
        *value = u64::from_le(word.load(Ordering::Relaxed));
    }
    words
}

impl Modes {
    /// The modes of an SMMU that runs: those that cannot change now stay, and are restored when it resumes.
    fn found<P: Platform>(control: &Control<P>, features: &Features) -> Self {
        let ours = Self::new(features);
        let cr1 = control.read(CR1);
        let snoops = |inner: u32, outer: u32, shareability: u32| {
            features.coherent() && inner | outer != 0 && shareability >= CR1::TABLE_SH::OuterShareable.value >> 10
        };
        Self {
            cr1: cr1.get(),
            cr2: ours.cr2 | control.read(CR2).get() & CR2::E2H::SET.value,
            atschk: ours.atschk,
            queues_coherent: snoops(cr1.read(CR1::QUEUE_IC), cr1.read(CR1::QUEUE_OC), cr1.read(CR1::QUEUE_SH)),
            tables_coherent: snoops(cr1.read(CR1::TABLE_IC), cr1.read(CR1::TABLE_OC), cr1.read(CR1::TABLE_SH)),
        }
    }
}

impl<P: Platform> StreamTable<P> {
    /// The table that a running SMMU uses. Until it is [seized](Self::seize) it is only read, and nothing of it is freed.
    fn found(
        platform: &'static P,
        control: &Control<P>,
        features: &Features,
        coherent: bool,
    ) -> Result<Self, DeviceError> {
        let config = control.read(STRTAB_BASE_CFG);
        let malformed = |expected| malformed(STRTAB_BASE_CFG.name(), config.get().into(), expected);
        let split = match (config.read(STRTAB_BASE_CFG::FMT), config.read(STRTAB_BASE_CFG::SPLIT)) {
            (0, _) => None,
            (1, split @ (6 | 8 | 10)) if features.two_level_stream_table() => Some(split as u8),
            _ => return Err(malformed("FMT 0, or where it is supported 1 with SPLIT 6, 8 or 10")),
        };
        let log2_size = config.read(STRTAB_BASE_CFG::LOG2SIZE) as u8;
        let log2_streams = log2_size.min(features.stream_id_bits());
        // log2 of a table's bytes. The SMMU aligns the base to the size that is written, and uses what it can of it.
        let log2_bytes = |log2_streams: u8| match split {
            Some(split) => log2_streams.saturating_sub(split).saturating_add(3),
            None => log2_streams.saturating_add(6),
        };
        if log2_streams.saturating_sub(split.unwrap_or(0)) > LOG2_TOP_MAX {
            return Err(malformed("a linear table or first level of at most 2^20 entries"));
        }
        let alignment = u64::MAX.checked_shl(log2_bytes(log2_size).max(6).into()).unwrap_or(0);
        let base = PhysAddr::new(control.read64(STRTAB_BASE).read(STRTAB_BASE::ADDR) << 6 & alignment);
        let top = reach(platform, "the stream table", base, 1 << log2_bytes(log2_streams))?;
        let entries = EntryTable::over(platform, top, log2_streams, split, coherent);
        entries.keep();
        Ok(Self { platform, entries })
    }

    /// What the former owner's entry of a stream says, unless it has the stream abort.
    fn former_entry(&self, stream: StreamId) -> Result<Option<StreamTableEntry>, DeviceError> {
        self.check_range(stream)?;
        let top = self.entries.top();
        let entry = if let Some(split) = self.entries.split() {
            let [descriptor] = words(top, (stream.get() >> split) as usize);
            let low = u64::from(stream.get() & ((1 << split) - 1));
            // Beyond its span a descriptor leads nowhere, and one with too large a span is none.
            let second_level = L1StreamTableDescriptor::from_word(descriptor).decode();
            let reached = second_level.filter(|(_, log2_entries)| *log2_entries <= split && low >> log2_entries == 0);
            let Some((table, log2_entries)) = reached else { return Ok(None) };
            let start = table.align_down((StreamTableEntry::BYTES as u64) << log2_entries);
            let address = PhysAddr::new(start.get() | (low * StreamTableEntry::BYTES as u64));
            words(&reach(self.platform, "a stream table entry", address, StreamTableEntry::BYTES as u64)?, 0)
        } else {
            words(top, stream.get() as usize * ENTRY_WORDS)
        };
        let entry = StreamTableEntry::from_words(entry);
        Ok(Some(entry).filter(|entry| entry.is_valid() && entry.config() != Config::Abort))
    }

    /// Makes the table this driver's own: all but the entries of `streams` become invalid. The SMMU knows of it after a
    /// CMD_CFGI_ALL. If memory runs out the rest becomes invalid too.
    fn seize(&self, streams: &[StreamId]) -> Result<(), DeviceError> {
        let top = self.entries.top();
        let mut result = Ok(());
        if let Some(split) = self.entries.split() {
            for (run, descriptor) in top.words().iter().enumerate() {
                if descriptor.load(Ordering::Relaxed) != 0 {
                    let second_level = result.and_then(|()| self.second_level_of(run, split, streams));
                    result = second_level.map(|_| ());
                    descriptor.store(second_level.unwrap_or(0).to_le(), Ordering::Relaxed);
                }
            }
        } else {
            self.seize_linear(streams);
        }
        if !self.entries.is_coherent() {
            top.clean(0, top.words().len());
        }
        self.platform.write_barrier();
        self.entries.release();
        result
    }

    /// A descriptor of a second level with nothing in it but what `streams` have of a run; invalid if they have nothing.
    fn second_level_of(&self, run: usize, split: u8, streams: &[StreamId]) -> Result<u64, DeviceError> {
        let mut second_level = None;
        for stream in streams.iter().filter(|stream| (stream.get() >> split) as usize == run) {
            let Some(entry) = self.former_entry(*stream)? else { continue };
            if second_level.is_none() {
                second_level = self.entries.allocate_second_level()?;
            }
            let low = (stream.get() & ((1 << split) - 1)) as usize;
            let block = second_level.iter().flat_map(DmaMemory::words).skip(low * ENTRY_WORDS);
            for (word, value) in block.zip(entry.with_software_bits(Owner::Boot as u8).words()) {
                word.store(value.to_le(), Ordering::Relaxed);
            }
        }
        Ok(second_level.map_or(L1StreamTableDescriptor::INVALID.word(), |block| self.entries.link_second_level(block)))
    }

    fn seize_linear(&self, streams: &[StreamId]) {
        for (index, entry) in self.entries.entries() {
            let stream = StreamId::new(index);
            match self.former_entry(stream) {
                Ok(Some(former)) if streams.contains(&stream) => {
                    entry.store(&former.with_software_bits(Owner::Boot as u8).words());
                }
                _ => entry.invalidate(),
            }
        }
    }

    /// Zeroes what is left of a linear table's invalid entries, once the SMMU has forgotten them.
    fn scrub(&self) {
        if self.entries.split().is_none() {
            let is_valid = |entry: &LiveEntry<'_, P>| StreamTableEntry::from_words(entry.load()).is_valid();
            let invalid = self.entries.entries().filter(|(_, entry)| !is_valid(entry));
            invalid.for_each(|(_, entry)| entry.store(&StreamTableEntry::INVALID.words()));
        }
    }
}

impl<P: Platform> Smmu<P> {
    /// Takes a running SMMU over. Up to the first write, which comes after all checks, it is left as it is.
    pub(super) fn adopt(
        platform: &'static P,
        control: Control<P>,
        features: Features,
        streams: &[StreamId],
    ) -> Result<Self, DeviceError> {
        features.check()?;
        let modes = Modes::found(&control, &features);
        let table = StreamTable::found(platform, &control, &features, modes.tables_coherent)?;
        let lifecycle = Lifecycle::of_another();
        let smmu = Self::assemble(control, features, modes, table, (lifecycle, Takeover::Adopted))?;
        for stream in streams {
            if let Some(entry) = smmu.streams.former_entry(*stream)? {
                smmu.reserve_identifiers(*stream, &entry)?;
            }
        }
        // From here on dropping `smmu`, on success or failure, switches the hardware off before its memory goes.
        smmu.lifecycle.take();
        smmu.take_over(streams)?;
        Ok(smmu)
    }

    /// Changes the owner of an SMMU, which goes on translating. GBPA comes first, in case it goes wrong.
    fn take_over(&self, streams: &[StreamId]) -> Result<(), DeviceError> {
        bring_up::abort(&self.control)?;
        self.control.interrupts.write(&self.control, 0)?;
        self.streams.seize(streams)?;
        self.control.enables.write(&self.control, CR0::SMMUEN::SET.value | self.modes.atschk)?;
        self.errors.restart(&self.control);
        self.start_queues()?;
        self.streams.scrub();
        Ok(())
    }

    /// Keeps the ASIDs and VMIDs that a stream's translations are cached under from the domains to come.
    fn reserve_identifiers(&self, stream: StreamId, entry: &StreamTableEntry) -> Result<(), DeviceError> {
        match entry.config() {
            Config::Abort | Config::Bypass => Ok(()),
            Config::Stage2 | Config::Nested if entry.vmid().get() == 0 => {
                Err(DeviceError::CannotAdopt(CannotAdopt::VmidInUse { stream }))
            }
            // What a nested stream has of ASIDs counts within its VMID only.
            Config::Stage2 | Config::Nested => {
                self.vmids.reserve(entry.vmid().get());
                Ok(())
            }
            Config::Stage1 => {
                self.vmids.reserve(entry.vmid().get());
                self.reserve_asids(entry)
            }
        }
    }

    /// Reserves the ASIDs of all contexts of a stage-1 stream.
    fn reserve_asids(&self, entry: &StreamTableEntry) -> Result<(), DeviceError> {
        const CD_BYTES: u64 = ContextDescriptor::BYTES as u64;
        let platform = self.control.platform();
        let log2_contexts = entry.log2_contexts().min(self.features.substream_id_bits());
        let log2_leaf = match entry.format() {
            S1Fmt::TwoLevel4K if log2_contexts != 0 => 6,
            S1Fmt::TwoLevel64K if log2_contexts != 0 => 10,
            _ => {
                let size_bytes = CD_BYTES << log2_contexts;
                let start = entry.context_table().align_down(size_bytes);
                self.reserve_asids_in(&reach(platform, "a table of context descriptors", start, size_bytes)?);
                return Ok(());
            }
        };
        let size_bytes = (size_of::<u64>() as u64) << log2_contexts.saturating_sub(log2_leaf);
        let start = entry.context_table().align_down(size_bytes.max(64));
        let first_level = reach(platform, "a first level of context descriptors", start, size_bytes)?;
        for word in first_level.words() {
            let descriptor = L1ContextDescriptor::from_word(u64::from_le(word.load(Ordering::Relaxed)));
            if let Some(leaf) = descriptor.decode() {
                let size_bytes = CD_BYTES << log2_leaf;
                let leaf = leaf.align_down(size_bytes);
                self.reserve_asids_in(&reach(platform, "a table of context descriptors", leaf, size_bytes)?);
            }
        }
        Ok(())
    }

    fn reserve_asids_in(&self, table: &DmaMemory<P>) {
        let count = table.words().len() / 8;
        let descriptors = (0..count).map(|index| ContextDescriptor::from_words(words(table, index * 8)));
        for descriptor in descriptors.filter(ContextDescriptor::is_valid) {
            self.asids.reserve(descriptor.asid().get());
        }
    }
}

//! Context descriptor tables: what a stage-1 stream table entry points at (IHI 0070, 5.3 and 5.4).

use core::mem;
use core::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use lock_api::Mutex;

use super::control::wait_until;
use super::entry_table::{EntryTable, Level1Descriptor};
use super::live_entry::{Interrupted, LiveEntry};
use super::{DeviceError, Smmu};
use crate::addr::{PhysAddr, StreamId, SubstreamId};
use crate::arch::attributes::WalkAttributes;
use crate::arch::command::Command;
use crate::arch::context_descriptor::{ContextDescriptor, L1ContextDescriptor};
use crate::arch::entry_update::EntryUpdate;
use crate::arch::stream_table::{S1Fmt, Shcfg, Stage1Stream};
use crate::platform::{OutOfDmaMemory, Platform};

/// Largest linear table where there are two levels: 2^6 contexts, one page.
const LOG2_LINEAR: u8 = 6;
/// Largest linear table where there are not: 2^10 contexts, 64 KiB.
const LOG2_LINEAR_MAX: u8 = 10;
/// log2 of the contexts in a small leaf table, 4 KiB.
const LOG2_SMALL_LEAF: u8 = 6;
/// Largest table of small leaves: its first level is one page.
const LOG2_SMALL_LEAVES_MAX: u8 = 15;
/// log2 of the contexts in a large leaf table, 64 KiB. 2^20 contexts then have a first level of 8 KiB.
const LOG2_LARGE_LEAF: u8 = 10;

/// Most contexts of one table that are changed at the same time.
const CHANGES_MAX: usize = 32;

/// The address spaces of one stream of an SMMU, or of several that share them: a context descriptor for each SubstreamID. Leaf
/// tables are made on demand and never moved.
///
/// Streams of another SMMU have a table of their own: what one SMMU may have cached decides how a context changes, and
/// another's is not known.
///
/// Whoever owns it detaches every stream that uses it before dropping it.
#[derive(Debug)]
pub struct ContextTable<P: Platform> {
    platform: &'static P,
    /// The SMMU that the table was made for, by where its command queue is: no two have the same.
    commands: PhysAddr,
    contexts: EntryTable<P, L1ContextDescriptor>,
    format: S1Fmt,
    /// What the entries of its streams say.
    shareability: Shcfg,
    /// The contexts that a CPU is changing at this moment.
    changing: Mutex<P::Lock, ArrayVec<SubstreamId, CHANGES_MAX>>,
    /// Whether the SMMU did not confirm a change.
    is_stuck: AtomicBool,
}

/// A context in the hands of the one CPU that may change it, as long as this lives.
pub(super) struct Claim<'a, P: Platform> {
    table: &'a ContextTable<P>,
    substream: SubstreamId,
}

impl<P: Platform> Drop for Claim<'_, P> {
    fn drop(&mut self) {
        self.table.changing.lock().retain(|substream| *substream != self.substream);
    }
}

impl Level1Descriptor for L1ContextDescriptor {
    fn to_word(second_level: PhysAddr, _log2_entries: u8) -> u64 {
        Self::new(second_level).word()
    }

    fn second_level(word: u64) -> Option<PhysAddr> {
        Self::from_word(word).decode()
    }
}

impl<P: Platform> ContextTable<P> {
    /// A table of one context, for streams of `smmu` without substreams.
    ///
    /// # Errors
    ///
    /// [`OutOfDmaMemory`] if the platform has none left.
    pub fn new(smmu: &Smmu<P>, context: &ContextDescriptor) -> Result<Self, OutOfDmaMemory> {
        let table = Self::of_format(smmu, S1Fmt::Linear, 0)?;
        if let Some(entry) = table.contexts.find(0) {
            entry.store(&context.words());
        }
        Ok(table)
    }

    /// A table of `2^log2_contexts` contexts for streams of `smmu`, all invalid: as many as that, as IDR1.SSIDSIZE allows and,
    /// without two-level tables (IDR0.CD2L), at most 2^10. [`log2_contexts`](Self::log2_contexts) says how many it became.
    ///
    /// # Errors
    ///
    /// [`OutOfDmaMemory`] if the platform has none left.
    pub fn with_substreams(smmu: &Smmu<P>, log2_contexts: u8) -> Result<Self, OutOfDmaMemory> {
        let features = smmu.features();
        let log2_contexts = log2_contexts.min(features.substream_id_bits());
        let (format, log2_contexts) = match (log2_contexts, features.two_level_context_table()) {
            (..=LOG2_LINEAR, _) => (S1Fmt::Linear, log2_contexts),
            (_, false) => (S1Fmt::Linear, log2_contexts.min(LOG2_LINEAR_MAX)),
            (..=LOG2_SMALL_LEAVES_MAX, true) => (S1Fmt::TwoLevel4K, log2_contexts),
            (_, true) => (S1Fmt::TwoLevel64K, log2_contexts),
        };
        Self::of_format(smmu, format, log2_contexts)
    }

    fn of_format(smmu: &Smmu<P>, format: S1Fmt, log2_contexts: u8) -> Result<Self, OutOfDmaMemory> {
        let platform = smmu.control.platform();
        let split = match format {
            S1Fmt::Linear => None,
            S1Fmt::TwoLevel4K => Some(LOG2_SMALL_LEAF),
            S1Fmt::TwoLevel64K => Some(LOG2_LARGE_LEAF),
        };
        let contexts = EntryTable::new(platform, log2_contexts, split, smmu.features.coherent())?;
        let (commands, shareability) = (smmu.commands.physical(), smmu.features.incoming_shareability());
        let (changing, is_stuck) = (Mutex::new(ArrayVec::new_const()), AtomicBool::new(false));
        Ok(Self { platform, commands, contexts, format, shareability, changing, is_stuck })
    }

    /// Where the SMMU finds the table.
    #[must_use]
    pub fn physical(&self) -> PhysAddr {
        self.contexts.physical()
    }

    /// log2 of the number of contexts; 0 means that there are no substreams.
    #[must_use]
    pub fn log2_contexts(&self) -> u8 {
        self.contexts.log2_entries()
    }

    /// The stage-1 half of an entry that leads here, for a stream without ATS, in EL1, with VMID 0. Transactions without
    /// SubstreamID use context 0.
    #[must_use]
    pub fn stage1_stream(&self, walk: WalkAttributes) -> Stage1Stream {
        Stage1Stream {
            format: self.format,
            log2_contexts: self.log2_contexts(),
            shareability: self.shareability,
            ..Stage1Stream::with_one_context(self.physical(), walk)
        }
    }

    /// The context of a substream at this moment. Read-only.
    ///
    /// # Errors
    ///
    /// [`DeviceError::SubstreamOutOfRange`].
    pub fn context(&self, substream: SubstreamId) -> Result<ContextDescriptor, DeviceError> {
        let entry = self.find(substream)?;
        Ok(entry.map_or(ContextDescriptor::INVALID, |entry| ContextDescriptor::from_words(entry.load())))
    }

    /// The entry of a substream, unless its leaf table does not exist.
    fn find(&self, substream: SubstreamId) -> Result<Option<LiveEntry<'_, P>>, DeviceError> {
        self.check_range(substream)?;
        Ok(self.contexts.find(substream.get()))
    }

    /// The entry of a substream, whose leaf table is made if it does not exist.
    fn make(&self, substream: SubstreamId) -> Result<Option<LiveEntry<'_, P>>, DeviceError> {
        self.check_range(substream)?;
        Ok(self.contexts.make(substream.get())?)
    }

    /// Bytes of DMA memory in use.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.contexts.size_bytes()
    }

    /// Never gives the memory back: for a table that the SMMU may still read.
    pub fn keep(&self) {
        self.contexts.keep();
    }

    fn check_range(&self, substream: SubstreamId) -> Result<(), DeviceError> {
        if self.contexts.covers(substream.get()) {
            return Ok(());
        }
        Err(DeviceError::SubstreamOutOfRange { substream, log2_contexts: self.log2_contexts() })
    }

    /// Waits until no other CPU is changing this context, and keeps others from it.
    pub(super) fn claim(&self, substream: SubstreamId) -> Result<Claim<'_, P>, DeviceError> {
        wait_until(self.platform, || self.try_claim(substream).transpose())
            .unwrap_or_else(|waited| Err(DeviceError::ContextBusy { substream, waited }))
    }

    fn try_claim(&self, substream: SubstreamId) -> Result<Option<Claim<'_, P>>, DeviceError> {
        let mut changing = self.changing.lock();
        // Looked at under the lock: whoever had this context before has said so by now.
        if self.is_stuck.load(Ordering::Relaxed) {
            return Err(DeviceError::ContextStuck { substream });
        }
        let is_free = !changing.contains(&substream) && changing.try_push(substream).is_ok();
        Ok(is_free.then(|| Claim { table: self, substream }))
    }
}

impl<P: Platform> Smmu<P> {
    /// Sets, replaces or, with [`ContextDescriptor::INVALID`], clears the context of a substream (0 for a stream without),
    /// while devices go on. Transactions meet the old context or the new one, or abort if there is no other way:
    /// [`EntryUpdate`] says beforehand.
    ///
    /// `streams` are all streams whose entries lead to the table; none are attached to it or detached meanwhile. With no
    /// streams there is nobody to tell, and no command is sent.
    ///
    /// When it returns `Ok`, the SMMU reads nothing any more that only the old context led to. Translations stay cached:
    /// those of an ASID that is not used any more, or that now means other tables, are the caller's to invalidate
    /// ([`invalidate_all`](Self::invalidate_all)).
    ///
    /// # Errors
    ///
    /// [`DeviceError::ContextOfAnother`] if the table was made for another SMMU, [`DeviceError::SubstreamOutOfRange`],
    /// [`DeviceError::OutOfDmaMemory`], or [`DeviceError::ContextBusy`] if another CPU is changing the same context; nothing
    /// has changed then. [`DeviceError::ContextStuck`] if the SMMU does not answer: keep what both contexts point at. After
    /// any other error the old context is in force, or none.
    pub fn set_context(
        &self,
        table: &ContextTable<P>,
        streams: &[StreamId],
        substream: SubstreamId,
        context: &ContextDescriptor,
    ) -> Result<(), DeviceError> {
        if table.commands != self.commands.physical() {
            return Err(DeviceError::ContextOfAnother { table: table.physical() });
        }
        if !streams.is_empty() {
            self.lifecycle.check_running()?;
        }
        let made = if context.is_valid() { table.make(substream) } else { table.find(substream) };
        // A leaf that does not exist has nothing to clear.
        let Some(entry) = made? else { return Ok(()) };
        let _claim = table.claim(substream)?;
        let result = self.change_context(&entry, streams, substream, context);
        if matches!(result, Err(DeviceError::ContextStuck { .. })) {
            table.is_stuck.store(true, Ordering::Relaxed);
        }
        result
    }

    fn change_context(
        &self,
        entry: &LiveEntry<'_, P>,
        streams: &[StreamId],
        substream: SubstreamId,
        context: &ContextDescriptor,
    ) -> Result<(), DeviceError> {
        let old = ContextDescriptor::from_words(entry.load());
        // Not leaf-only at first if the leaf table may be new.
        let mut leaf = old.is_valid();
        let mut forget = || {
            let leaf = mem::replace(&mut leaf, true);
            let commands = streams.iter().map(|&stream| Command::CfgiCd { stream, substream, leaf });
            if streams.is_empty() { Ok(()) } else { self.run_invalidations(commands) }
        };
        match entry.update(&EntryUpdate::new(&old, context), &mut forget) {
            Ok(()) => Ok(()),
            Err(Interrupted::Before(error)) => Err(error),
            Err(Interrupted::Within(error)) => {
                entry.invalidate();
                forget().map_err(|_| DeviceError::ContextStuck { substream })?;
                Err(error)
            }
        }
    }
}

//! Which commands make the SMMU and the devices behind it forget translations (IHI 0070, 4.4 and 4.5).

use super::atc::{AtcTarget, forget_everything};
use super::{DeviceError, Smmu};
use crate::addr::{Asid, Iova, StreamId, Vmid};
use crate::arch::attributes::Granule;
use crate::arch::command::{Command, CommandError, Completion, TlbiAddress};
use crate::arch::range::{AtcSpan, Stale, TlbiRanges};
use crate::platform::Platform;

/// Beyond this many commands, dropping everything under the tag is cheaper.
const COMMANDS_MAX: u64 = 64;
/// The level of pages.
const LAST_LEVEL: u8 = 3;

/// What tags the cached translations of one domain in one SMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranslationTag {
    /// A stage-1 address space: its ASID, in the VMID that the STE names.
    Stage1 {
        /// The address space.
        asid: Asid,
        /// The VMID of the streams; 0 unless they belong to a virtual machine.
        vmid: Vmid,
    },
    /// A stage-2 address space, reached by stage 2 alone.
    Stage2 {
        /// The virtual machine.
        vmid: Vmid,
    },
    /// A stage-2 address space with the stage 1 of its guests on top. Which of their addresses lead to a range of it nobody
    /// knows, so everything under the VMID goes; and all that devices have cached, whatever the substream. Those are all whose
    /// guests may switch ATS on, whether or not it is on at the moment.
    Nested {
        /// The virtual machine.
        vmid: Vmid,
    },
}

/// Translations that are no longer in the page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleRange {
    /// The first address.
    pub start: Iova,
    /// Length in bytes.
    pub size_bytes: u64,
    /// The page table's granule.
    pub granule: Granule,
    /// What went: leaves alone, or tables too.
    pub stale: Stale,
}

impl TranslationTag {
    /// The command that drops everything under the tag.
    fn all(self) -> Command {
        match self {
            Self::Stage1 { asid, vmid } => Command::TlbiNhAsid { vmid, asid },
            Self::Stage2 { vmid } | Self::Nested { vmid } => Command::TlbiS12Vmall { vmid },
        }
    }

    /// The command that drops what is cached at some addresses.
    fn at(self, scope: TlbiAddress) -> Command {
        match self {
            Self::Stage1 { asid, vmid } => Command::TlbiNhVa { vmid, asid, scope },
            Self::Stage2 { vmid } => Command::TlbiS2Ipa { vmid, scope },
            Self::Nested { .. } => self.all(),
        }
    }

    /// The commands that make a device forget what it has cached of `range`.
    fn atc_invalidations(
        self,
        target: AtcTarget,
        range: &StaleRange,
        substreams: bool,
    ) -> impl Iterator<Item = Command> + Clone {
        let (span, everything) = match self {
            Self::Stage1 { .. } | Self::Stage2 { .. } => (Some(AtcSpan::around(range.start, range.size_bytes)), None),
            Self::Nested { .. } => (None, Some(forget_everything(target.stream, substreams))),
        };
        span.map(|span| target.invalidation(span)).into_iter().chain(everything.into_iter().flatten())
    }
}

/// The TLB invalidations for one range: as few commands as the SMMU knows.
#[derive(Clone, Debug)]
struct TlbInvalidations {
    tag: TranslationTag,
    scopes: Scopes,
}

#[derive(Clone, Debug)]
enum Scopes {
    /// Ranges of addresses.
    Ranges(TlbiRanges),
    /// One entry each, found by any address in it.
    Entries { next: Option<Iova>, entry_bytes: u64, remaining: u64, leaf: bool },
    /// Everything, if that is still to come.
    All(bool),
}

impl TlbInvalidations {
    #[inline]
    fn new(tag: TranslationTag, range: &StaleRange, by_range: bool) -> Self {
        let StaleRange { start, size_bytes, granule, stale } = *range;
        let scopes = match tag {
            TranslationTag::Nested { .. } => Scopes::All(true),
            _ if by_range => {
                let ranges = TlbiRanges::new(start, size_bytes, granule, stale);
                if ranges.commands() > COMMANDS_MAX { Scopes::All(true) } else { Scopes::Ranges(ranges) }
            }
            _ => Scopes::entries(range),
        };
        Self { tag, scopes }
    }

    /// How many commands are still to come.
    #[inline]
    fn commands(&self) -> u64 {
        match &self.scopes {
            Scopes::Ranges(ranges) => ranges.commands(),
            Scopes::Entries { remaining, .. } => *remaining,
            Scopes::All(pending) => u64::from(*pending),
        }
    }
}

impl Scopes {
    /// Entry by entry, or everything if there are too many.
    fn entries(range: &StaleRange) -> Self {
        let StaleRange { start, size_bytes, granule, stale } = *range;
        let (leaf, level) = match stale {
            Stale::Leaves { level } => (true, level.unwrap_or(LAST_LEVEL)),
            Stale::TablesAndLeaves => (false, LAST_LEVEL),
        };
        let levels_up = u32::from(LAST_LEVEL.saturating_sub(level));
        let entry_bytes = granule.bytes() << levels_up.saturating_mul(granule.log2_bytes() - 3);
        let first = start.align_down(entry_bytes);
        let end = start.get().saturating_add(size_bytes);
        let remaining = end.saturating_sub(first.get()).div_ceil(entry_bytes);
        if remaining > COMMANDS_MAX {
            return Self::All(true);
        }
        Self::Entries { next: Some(first), entry_bytes, remaining, leaf }
    }
}

impl Iterator for TlbInvalidations {
    type Item = Command;

    #[inline]
    fn next(&mut self) -> Option<Command> {
        match &mut self.scopes {
            Scopes::Ranges(ranges) => ranges.next().map(|scope| self.tag.at(scope)),
            Scopes::Entries { next, entry_bytes, remaining, leaf } => {
                *remaining = remaining.checked_sub(1)?;
                let address = (*next)?;
                *next = address.checked_add(*entry_bytes);
                Some(self.tag.at(TlbiAddress { address, leaf: *leaf, range: None }))
            }
            Scopes::All(pending) => core::mem::take(pending).then(|| self.tag.all()),
        }
    }
}

impl<P: Platform> Smmu<P> {
    /// Makes the SMMU forget `range` under `tag`, and returns when it has: one batch, one CMD_SYNC.
    ///
    /// # Errors
    ///
    /// Any error means that old translations may still be in use: keep the memory that they lead to.
    #[inline]
    pub fn invalidate(&self, tag: TranslationTag, range: &StaleRange) -> Result<(), DeviceError> {
        let mut tlb = self.tlb_invalidations(tag, range);
        // As a rule one command is enough.
        match tlb.commands() {
            1 => tlb.next().map_or(Ok(()), |only| self.run_invalidation(only)),
            _ => self.invalidate_piecewise(tlb),
        }
    }

    #[inline(never)]
    fn invalidate_piecewise(&self, tlb: TlbInvalidations) -> Result<(), DeviceError> {
        self.run_invalidations(tlb)
    }

    /// Makes the SMMU forget `range` under `tag`, and then the devices that have cached translations of their own: `targets`
    /// are all of those with ATS. One batch with two CMD_SYNCs, because a device could ask again for what is still in the
    /// TLB.
    ///
    /// A device that does not obey is quarantined: its stream [aborts](Self::abort), whatever it has cached, and is handed to
    /// `quarantined`. That is no error; the others go on. While the SMMU is suspended, about to be or not yet resumed, no device
    /// can be told anything, so all of `targets` are quarantined.
    ///
    /// # Errors
    ///
    /// Any error means that old translations may still be in use: keep the memory that they lead to.
    pub fn invalidate_with_atcs(
        &self,
        tag: TranslationTag,
        range: &StaleRange,
        targets: impl Iterator<Item = AtcTarget> + Clone,
        mut quarantined: impl FnMut(StreamId),
    ) -> Result<(), DeviceError> {
        let tlb = self.tlb_invalidations(tag, range);
        let sync = Command::Sync { completion: Completion::None };
        let substreams = self.features.substream_id_bits() != 0;
        let invalidations = |target| tag.atc_invalidations(target, range, substreams);
        let atcs = targets.clone().flat_map(invalidations);
        match self.run_with_atcs(tlb.clone().chain([sync]).chain(atcs)) {
            Err(DeviceError::Command(CommandError::AtcInvSync) | DeviceError::Suspended) => {}
            result => return result,
        }
        // Of several errors only one is told: this one must not hide that the SMMU itself refused something. And it does not
        // say whose device it was, so each is asked again by itself.
        self.run_invalidations(tlb)?;
        for target in targets {
            self.run_or_quarantine(target.stream, invalidations(target), &mut quarantined)?;
        }
        Ok(())
    }

    /// Makes the SMMU forget everything under `tag`.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub fn invalidate_all(&self, tag: TranslationTag) -> Result<(), DeviceError> {
        self.run_invalidation(tag.all())
    }

    #[inline]
    fn tlb_invalidations(&self, tag: TranslationTag, range: &StaleRange) -> TlbInvalidations {
        TlbInvalidations::new(tag, range, self.features.range_invalidation())
    }
}

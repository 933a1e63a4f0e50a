//! Which commands make the SMMU forget translations (IHI 0070, 4.4).

use super::{DeviceError, Smmu};
use crate::addr::{Asid, Iova, Vmid};
use crate::arch::attributes::Granule;
use crate::arch::command::{Command, TlbiAddress};
use crate::arch::range::{Stale, TlbiRanges};
use crate::platform::Platform;

/// Beyond this many entries, dropping everything under the tag is cheaper than naming each one.
const SINGLE_COMMANDS_MAX: u64 = 64;
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
            Self::Stage2 { vmid } => Command::TlbiS12Vmall { vmid },
        }
    }

    /// The command that drops what is cached at some addresses.
    fn at(self, scope: TlbiAddress) -> Command {
        match self {
            Self::Stage1 { asid, vmid } => Command::TlbiNhVa { vmid, asid, scope },
            Self::Stage2 { vmid } => Command::TlbiS2Ipa { vmid, scope },
        }
    }
}

impl<P: Platform> Smmu<P> {
    /// Makes the SMMU forget `range` under `tag`, and returns when it has: one batch, one CMD_SYNC.
    ///
    /// # Errors
    ///
    /// Any error means that old translations may still be in use: keep the memory that they lead to.
    pub fn invalidate(&self, tag: TranslationTag, range: &StaleRange) -> Result<(), DeviceError> {
        let StaleRange { start, size_bytes, granule, stale } = *range;
        if self.features.range_invalidation() {
            return self
                .run_invalidations(TlbiRanges::new(start, size_bytes, granule, stale).map(|scope| tag.at(scope)));
        }
        // Without range commands one command names one entry, found by any address in it.
        let (leaf, level) = match stale {
            Stale::Leaves { level } => (true, level.unwrap_or(LAST_LEVEL)),
            Stale::TablesAndLeaves => (false, LAST_LEVEL),
        };
        let levels_up = u32::from(LAST_LEVEL.saturating_sub(level));
        let entry_bytes = granule.bytes() << levels_up.saturating_mul(granule.log2_bytes() - 3);
        let first = start.align_down(entry_bytes);
        let end = start.get().saturating_add(size_bytes);
        let entries = end.saturating_sub(first.get()).div_ceil(entry_bytes);
        if entries > SINGLE_COMMANDS_MAX {
            return self.invalidate_all(tag);
        }
        let addresses = (0..entries).map_while(|index| first.checked_add(index.checked_mul(entry_bytes)?));
        self.run_invalidations(addresses.map(|address| tag.at(TlbiAddress { address, leaf, range: None })))
    }

    /// Makes the SMMU forget everything under `tag`.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub fn invalidate_all(&self, tag: TranslationTag) -> Result<(), DeviceError> {
        self.run_invalidations([tag.all()])
    }
}

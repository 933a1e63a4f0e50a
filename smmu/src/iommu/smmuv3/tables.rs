//! What translates a domain's addresses: a page table of its own, or one that somebody else changes.

use alloc::boxed::Box;
use core::fmt;

use crate::addr::{Iova, PhysAddr};
use crate::device::Stage2Table;
use crate::pgtable::{MapError, PageTable, RangeError, SharedTable, Stage, TableConfig, Translation};
use crate::platform::Platform;

/// Reads a descriptor of a table that somebody else owns, in the CPU's order; `None` if there is no memory at the address.
pub type ReadDescriptor = Box<dyn Fn(PhysAddr) -> Option<u64> + Send + Sync>;

/// The tables of a domain, which is large and lives on the heap itself.
#[allow(clippy::large_enum_variant, reason = "nearly all are the larger one, which is to be reached without a detour")]
pub(super) enum DomainTables<P: Platform> {
    Own(PageTable<P>),
    /// Of a hypervisor, whose CPUs use it too.
    Shared(SharedTable, ReadDescriptor),
}

impl<P: Platform> DomainTables<P> {
    /// What they are like. A table that is shared with CPUs is in their caches.
    pub(super) fn config(&self) -> TableConfig {
        match self {
            Self::Own(table) => *table.config(),
            Self::Shared(table, _) => {
                let config = table.config();
                TableConfig::new(Stage::Stage2, config.granule, config.input_bits, config.output_bits)
            }
        }
    }

    /// The page table that is to be mapped in.
    pub(super) fn to_map(&self, iova: Iova) -> Result<&PageTable<P>, MapError> {
        self.own().ok_or(MapError::NotOwned { iova })
    }

    /// The page table that is to be changed.
    pub(super) fn to_change(&self, iova: Iova) -> Result<&PageTable<P>, RangeError> {
        self.own().ok_or(RangeError::NotOwned { iova })
    }

    pub(super) fn own(&self) -> Option<&PageTable<P>> {
        match self {
            Self::Own(table) => Some(table),
            Self::Shared(..) => None,
        }
    }

    pub(super) fn walk(&self, iova: Iova) -> Option<Translation> {
        match self {
            Self::Own(table) => table.walk(iova),
            Self::Shared(table, read) => table.walk(iova, read),
        }
    }

    /// Writes the walk for people, as far as it is this crate's to know.
    pub(super) fn write_walk(&self, iova: Iova, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.walk(iova)) {
            (Self::Own(table), _) => fmt::Display::fmt(&table.trace(iova), f),
            (Self::Shared(..), Some(found)) => {
                write!(f, "{iova}: {} by level {} of a shared table", found.physical, found.level)
            }
            (Self::Shared(..), None) => write!(f, "{iova}: not mapped by a shared table"),
        }
    }

    /// What a stage-2 entry says about them.
    pub(super) fn stage2(&self) -> Stage2Table {
        match self {
            Self::Own(table) => table.into(),
            Self::Shared(table, _) => table.into(),
        }
    }
}

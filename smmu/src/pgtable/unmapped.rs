//! What unmapping leaves to be done: an invalidation, and then tables to give back.

use core::fmt;

use super::PageTable;
use super::tables::TableList;
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::arch::range::Stale;
use crate::memory::LinkedMemory;
use crate::platform::Platform;

/// A range that is no longer in the page table, but perhaps still in the SMMU's caches, and the tables that went with it.
///
/// Invalidate it, wait for the invalidation (CMD_SYNC), then hand it to [`PageTable::free`]; it may be kept as long as one
/// likes before that, and [several together](Self::append). Dropping it instead loses the memory of the removed tables:
/// after a failed invalidation that is what should happen, because the SMMU may go on walking them. The page table does not
/// know of it any more: if that is dropped first, this memory is lost too, and nothing worse happens.
#[must_use = "invalidate the range, then have its tables freed: `PageTable::free`"]
pub struct Unmapped<P: Platform> {
    platform: &'static P,
    /// The first table of the page table that this comes from.
    root: PhysAddr,
    granule: Granule,
    start: Iova,
    size_bytes: u64,
    stale: Stale,
    removed: TableList,
}

impl<P: Platform> Unmapped<P> {
    #[inline(always)]
    pub(super) fn new(table: &PageTable<P>, start: Iova, size_bytes: u64, stale: Stale, removed: TableList) -> Self {
        let granule = table.config.granule;
        Self { platform: table.platform, root: table.root(), granule, start, size_bytes, stale, removed }
    }

    /// The first address.
    #[must_use]
    pub fn start(&self) -> Iova {
        self.start
    }

    /// Length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The granule, in which range invalidations count.
    #[must_use]
    pub fn granule(&self) -> Granule {
        self.granule
    }

    /// What went, and so what the invalidation has to cover: leaves (of one level, or of several), or tables too.
    #[must_use]
    pub fn stale(&self) -> Stale {
        self.stale
    }

    /// Whether tables went, whose memory is to be freed. If not, dropping it loses nothing.
    #[must_use]
    pub fn holds_tables(&self) -> bool {
        !self.removed.is_empty()
    }

    /// Takes in what another unmap of the same page table left, so that one invalidation does for both: the range becomes
    /// the smallest one around both, with what may still be mapped in between. Takes a moment for each table of `more`.
    ///
    /// # Errors
    ///
    /// Gives `more` back if it comes from another page table; nothing has changed.
    pub fn append(&mut self, more: Self) -> Result<(), Self> {
        if !self.comes_from(more.platform, more.root, more.granule) {
            return Err(more);
        }
        // Ranges end within the 64-bit space, the last one perhaps at its end.
        let last = |range: &Self| range.start.get().saturating_add(range.size_bytes.saturating_sub(1));
        let start = self.start.min(more.start);
        self.size_bytes = (last(self).max(last(&more)) - start.get()).saturating_add(1);
        self.start = start;
        self.stale = self.stale.merge(more.stale);
        self.removed.append(&LinkedMemory::new(self.platform, table_bytes(self.granule)), more.removed);
        Ok(())
    }

    /// The size of tables counts too: the root may be where that of another page table was.
    fn comes_from(&self, platform: &'static P, root: PhysAddr, granule: Granule) -> bool {
        core::ptr::eq(self.platform, platform) && self.root == root && self.granule == granule
    }
}

/// Size of a table that is not the first.
pub(super) const fn table_bytes(granule: Granule) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "at most 64 KiB")]
    let bytes = granule.bytes() as usize;
    bytes
}

impl<P: Platform> PageTable<P> {
    /// Gives the memory of tables back that an unmap removed. Only after the SMMU has completed the invalidation.
    ///
    /// What comes from another page table is lost: whether somebody still reads it is not known here.
    pub fn free(&self, unmapped: Unmapped<P>) {
        if unmapped.holds_tables() && unmapped.comes_from(self.platform, self.root(), self.config.granule) {
            self.tables.give_back(unmapped.removed);
        }
    }
}

impl<P: Platform> fmt::Debug for Unmapped<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unmapped")
            .field("start", &self.start)
            .field("size_bytes", &self.size_bytes)
            .field("stale", &self.stale)
            .finish_non_exhaustive()
    }
}

//! The short way: what most calls are about is one entry of a 4 KiB table that exists. It is found, written and left here
//! without a call, so that nothing has to be saved for one; everything else is handed over whole, the checks included.
//!
//! An offset that the first table has an entry for is an input address, and an entry that covers all of a range shows that
//! the range is aligned and ends in bounds: there is little left to be checked.

use super::atomic::AtomicU64;
use super::geometry::Geometry;
use super::tables::{Visit, load};
use super::{EmptyTables, Half, TableConfig};
use crate::addr::Iova;
use crate::arch::attributes::Granule;
use crate::arch::descriptor::{Format, LAST_LEVEL, Stage};
use crate::memory::LinkedArrays;
use crate::platform::Platform;

/// Entries of a table of 4 KiB.
const ENTRIES: usize = 512;

/// The level at which the short way starts, the first one, and the tables that it leads through.
pub(super) enum ShortWay<P: Platform> {
    /// From level 0, and offsets are addresses: what most page tables are.
    Lower(LinkedArrays<P, ENTRIES>),
    From0(LinkedArrays<P, ENTRIES>),
    From1(LinkedArrays<P, ENTRIES>),
    From2(LinkedArrays<P, ENTRIES>),
    /// There is none.
    None,
}

impl<P: Platform> ShortWay<P> {
    /// There is one if a change takes nothing but stores to entries, and the first table has no entries but for input
    /// addresses.
    pub(super) fn new(config: &TableConfig, geometry: Geometry, tables: Option<LinkedArrays<P, ENTRIES>>) -> Self {
        let TableConfig { coherent, empty_tables, contiguous, half, .. } = *config;
        let is_quick = coherent && empty_tables == EmptyTables::KeepOneLevel && !contiguous && geometry.root_is_full();
        match (geometry.start_level, tables) {
            (0, Some(tables)) if is_quick && half == Half::Lower => Self::Lower(tables),
            (0, Some(tables)) if is_quick => Self::From0(tables),
            (1, Some(tables)) if is_quick => Self::From1(tables),
            (2, Some(tables)) if is_quick => Self::From2(tables),
            _ => Self::None,
        }
    }
}

/// Where the short way ends: at an entry that leads no further.
pub(super) struct QuickPlace<'t> {
    table: &'t [AtomicU64],
    index: usize,
    pub(super) entry: &'t AtomicU64,
    /// What the entry held.
    pub(super) raw: u64,
    pub(super) level: u8,
}

impl<'t> QuickPlace<'t> {
    #[inline(always)]
    fn at(table: &'t [AtomicU64], index: usize, level: u8) -> Option<Self> {
        let entry = table.get(index)?;
        Some(Self { table, index, entry, raw: load(entry), level })
    }

    /// The entry at `LEVEL` for an offset, in the table that this one, a level above, leads to, if it does.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "only the low bits are kept")]
    fn below<const LEVEL: u8, P: Platform>(&self, tables: &'t LinkedArrays<P, ENTRIES>, offset: u64) -> Option<Self> {
        // No block has this bit, nor anything invalid that is written here (`RESERVED`, links).
        let is_table = self.raw & 0b10 != 0;
        // The stage makes no difference to a table.
        let next = is_table.then(|| Format::new(Stage::Stage1, Granule::K4).table_address(self.raw))?;
        Self::at(tables.words(next), (offset >> shift(LEVEL)) as usize & (ENTRIES - 1), LEVEL)
    }

    /// What it covers in bytes.
    #[inline(always)]
    pub(super) const fn bytes(&self) -> u64 {
        1 << shift(self.level)
    }

    /// Whether an address is aligned to that.
    #[inline(always)]
    pub(super) const fn aligns(&self, address: u64) -> bool {
        address & (self.bytes() - 1) == 0
    }

    /// Whether a range that starts here and is larger than the entry may lie in pages side by side.
    #[inline(always)]
    pub(super) const fn begins_run(&self, size_bytes: u64) -> bool {
        self.level == LAST_LEVEL && size_bytes > self.bytes()
    }

    /// The entries for `size_bytes` bytes, or all that follow in the table if they are fewer.
    #[inline(always)]
    pub(super) fn cover(&self, size_bytes: u64) -> &'t [AtomicU64] {
        let rest = self.table.get(self.index..).unwrap_or_default();
        let wanted = usize::try_from(size_bytes >> shift(self.level)).unwrap_or(usize::MAX);
        rest.get(..wanted).unwrap_or(rest)
    }
}

/// log2 of the bytes of a page.
pub(super) const PAGE_SHIFT: u32 = shift(LAST_LEVEL);

/// log2 of what an entry covers.
pub(super) const fn shift(level: u8) -> u32 {
    (LAST_LEVEL + 1 - level) as u32 * ENTRIES.ilog2() + 3
}

/// What is to be done at the end of the way. A place is good for as long as the visit lasts.
pub(super) trait Errand<'t, P: Platform>: Copy {
    type Output;

    /// Does it at an entry. Compiled separately for each level, which is a constant then.
    fn at(self, visit: Visit<'t, P>, place: QuickPlace<'t>) -> Self::Output;

    /// Does it the long way.
    fn elsewhere(self, visit: Visit<'t, P>) -> Self::Output;
}

impl<'t, P: Platform> Visit<'t, P> {
    /// Goes the short way for an errand, if there is one.
    #[inline(always)]
    pub(super) fn quickly<E: Errand<'t, P>>(self, iova: Iova, errand: E) -> E::Output {
        match &self.table.short_way {
            ShortWay::Lower(tables) => self.quickly_from::<0, E>(tables, iova.get(), errand),
            _ => self.start_elsewhere(iova, errand),
        }
    }

    /// Likewise where walks start at another level, or in the upper half.
    #[inline(never)]
    fn start_elsewhere<E: Errand<'t, P>>(self, iova: Iova, errand: E) -> E::Output {
        let offset = self.table.offset(iova);
        match &self.table.short_way {
            ShortWay::From0(tables) => self.quickly_from::<0, E>(tables, offset, errand),
            ShortWay::From1(tables) => self.quickly_from::<1, E>(tables, offset, errand),
            ShortWay::From2(tables) => self.quickly_from::<2, E>(tables, offset, errand),
            ShortWay::Lower(_) | ShortWay::None => errand.elsewhere(self),
        }
    }

    /// The walk from a level that is known when this is compiled; written out, so that all levels and shifts are.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "an index beyond the first table stays one")]
    fn quickly_from<const START: u8, E: Errand<'t, P>>(
        self,
        tables: &'t LinkedArrays<P, ENTRIES>,
        offset: u64,
        errand: E,
    ) -> E::Output {
        let root = self.table.root.words();
        let Some(mut place) = QuickPlace::at(root, (offset >> shift(START)) as usize, START) else {
            return errand.elsewhere(self);
        };
        if START < 1 {
            // There are no blocks at level 0.
            let Some(below) = place.below::<1, P>(tables, offset) else { return errand.elsewhere(self) };
            place = below;
        }
        if START < 2 {
            let Some(below) = place.below::<2, P>(tables, offset) else {
                return errand.at(self, QuickPlace { level: 1, ..place });
            };
            place = below;
        }
        let Some(below) = place.below::<3, P>(tables, offset) else {
            return errand.at(self, QuickPlace { level: 2, ..place });
        };
        errand.at(self, QuickPlace { level: LAST_LEVEL, ..below })
    }
}

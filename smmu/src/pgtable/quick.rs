//! The short way: what most calls are about is one entry of a 4 KiB table that exists. It is found, written and left here
//! without a call, so that nothing has to be saved for one; everything else is handed over whole, the checks included.
//!
//! An offset that the first table has an entry for is an input address, and an entry that covers all of a range shows that
//! the range is aligned and ends in bounds: there is little left to be checked.

use core::sync::atomic::AtomicU64;

use super::geometry::Geometry;
use super::tables::{Visit, load};
use super::{EmptyTables, TableConfig};
use crate::arch::attributes::Granule;
use crate::arch::descriptor::{Format, LAST_LEVEL, Stage};
use crate::memory::LinkedArrays;
use crate::platform::Platform;

/// Entries of a table of 4 KiB.
const ENTRIES: usize = 512;

/// Says that there is no short way: not a level at which walks start.
pub(super) const NO_SHORT_WAY: u8 = LAST_LEVEL;

/// The level at which the short way starts: the first one, if a change takes nothing but stores to entries. The first table
/// has no entries then but for input addresses.
pub(super) fn quick_start(config: &TableConfig, geometry: Geometry) -> u8 {
    let TableConfig { granule, coherent, empty_tables, contiguous, .. } = *config;
    let is_quick = granule == Granule::K4
        && coherent
        && empty_tables == EmptyTables::KeepOneLevel
        && !contiguous
        && geometry.root_is_full();
    if is_quick { geometry.start_level } else { NO_SHORT_WAY }
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
    fn below<const LEVEL: u8, P: Platform>(&self, tables: &LinkedArrays<'t, P, ENTRIES>, offset: u64) -> Option<Self> {
        // The stage makes no difference to a table.
        let next = Format::new(Stage::Stage1, Granule::K4).next_table(LEVEL - 1, self.raw)?;
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
    pub(super) fn quickly<E: Errand<'t, P>>(self, offset: u64, errand: E) -> E::Output {
        if self.table.quick_start == 0 {
            self.quickly_from::<0, E>(offset, errand)
        } else {
            self.start_below(offset, errand)
        }
    }

    /// Likewise where walks start at another level.
    #[inline(never)]
    fn start_below<E: Errand<'t, P>>(self, offset: u64, errand: E) -> E::Output {
        match self.table.quick_start {
            1 => self.quickly_from::<1, E>(offset, errand),
            2 => self.quickly_from::<2, E>(offset, errand),
            _ => errand.elsewhere(self),
        }
    }

    /// The walk from a level that is known when this is compiled; written out, so that all levels and shifts are.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "an index beyond the first table stays one")]
    fn quickly_from<const START: u8, E: Errand<'t, P>>(self, offset: u64, errand: E) -> E::Output {
        let table = self.table;
        let Some(tables) = table.tables.memory().arrays::<ENTRIES>() else { return errand.elsewhere(self) };
        let Some(mut place) = QuickPlace::at(table.root.words(), (offset >> shift(START)) as usize, START) else {
            return errand.elsewhere(self);
        };
        if START < 1 {
            // There are no blocks at level 0.
            let Some(below) = place.below::<1, P>(&tables, offset) else { return errand.elsewhere(self) };
            place = below;
        }
        if START < 2 {
            let Some(below) = place.below::<2, P>(&tables, offset) else {
                return errand.at(self, QuickPlace { level: 1, ..place });
            };
            place = below;
        }
        let Some(below) = place.below::<3, P>(&tables, offset) else {
            return errand.at(self, QuickPlace { level: 2, ..place });
        };
        errand.at(self, QuickPlace { level: LAST_LEVEL, ..below })
    }
}

//! Unmapping: look first, then clear; what the SMMU may still remember goes to the caller, not to the allocator.

use core::slice;

use super::atomic::{AtomicU64, Ordering};
use super::map::UNROLLED;
use super::quick::{Errand, PAGE_SHIFT, QuickPlace};
use super::tables::{Place, TableList, Visit, load, replace, store};
use super::{PageTable, RangeError, TableConfig, Unmapped};
use crate::addr::Iova;
use crate::arch::descriptor::LAST_LEVEL;
use crate::arch::range::Stale;
use crate::platform::Platform;

/// What is left of a range, from an offset on.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) iova: u64,
    pub(super) size_bytes: u64,
}

impl Span {
    /// Whether it starts with all of an entry of `1 << shift` bytes.
    const fn starts_with_entry(&self, shift: u32) -> bool {
        self.iova & ((1 << shift) - 1) == 0 && self.size_bytes >> shift != 0
    }

    /// Leaves `bytes` bytes behind. Never passes the end, which [`PageTable::unmap`] has checked.
    pub(super) const fn advance(&mut self, bytes: u64) {
        self.iova = self.iova.wrapping_add(bytes);
        self.size_bytes = self.size_bytes.saturating_sub(bytes);
    }
}

/// Neighbouring leaves of one table.
struct Leaves<'v> {
    entries: &'v [AtomicU64],
    level: u8,
    shift: u32,
}

impl Leaves<'_> {
    const fn bytes(&self) -> u64 {
        (self.entries.len() as u64) << self.shift
    }
}

impl<'t, P: Platform> Visit<'t, P> {
    /// Unmaps a range of `entries` of a table of 4 KiB pages, if they are all of it and all valid.
    #[inline(never)]
    fn unmap_pages(self, entries: &'t [AtomicU64], iova: Iova, size_bytes: u64) -> Result<Unmapped<P>, RangeError> {
        let table = self.table;
        if (entries.len() as u64) << PAGE_SHIFT == size_bytes && all_valid(entries) {
            clear(entries);
            table.platform.write_barrier();
            let stale = Stale::Leaves { level: Some(LAST_LEVEL) };
            return Ok(Unmapped::new(table, iova, size_bytes, stale, TableList::EMPTY));
        }
        self.unmap_parts(iova, size_bytes)
    }

    /// Unmaps any range.
    #[inline(never)]
    fn unmap_parts(self, iova: Iova, size_bytes: u64) -> Result<Unmapped<P>, RangeError> {
        let table = self.table;
        let whole = table.range(iova, size_bytes)?;
        let level = table.common_level(&self, whole)?;
        let mut removed = TableList::EMPTY;
        let mut rest = whole;
        while rest.size_bytes != 0 {
            let bytes = table.clear_next(&self, &rest, &mut removed);
            rest.advance(bytes);
        }
        if table.hands_back() {
            // What lies in between went as a whole.
            table.remove_empty(&self, whole.iova, &mut removed);
            table.remove_empty(&self, whole.iova.wrapping_add(size_bytes - 1), &mut removed);
        }
        table.platform.write_barrier();
        let stale = if removed.is_empty() { Stale::Leaves { level } } else { Stale::TablesAndLeaves };
        Ok(Unmapped::new(table, iova, size_bytes, stale, removed))
    }
}

/// What is to be unmapped.
#[derive(Clone, Copy)]
struct Unmapping {
    iova: Iova,
    size_bytes: u64,
}

impl<'t, P: Platform> Errand<'t, P> for Unmapping {
    type Output = Result<Unmapped<P>, RangeError>;

    #[inline(always)]
    fn at(self, visit: Visit<'t, P>, place: QuickPlace<'t>) -> Self::Output {
        let Self { iova, size_bytes } = self;
        let table = visit.table;
        if place.raw & 1 == 0 || !place.aligns(iova.get()) {
            return self.elsewhere(visit);
        }
        if size_bytes == place.bytes() {
            store(place.entry, 0);
            // Whoever invalidates, on whatever CPU: the SMMU walks again only after it sees the entries cleared.
            table.platform.write_barrier();
            let stale = Stale::Leaves { level: Some(place.level) };
            return Ok(Unmapped::new(table, iova, size_bytes, stale, TableList::EMPTY));
        }
        if place.begins_run(size_bytes) {
            return visit.unmap_pages(place.cover(size_bytes), iova, size_bytes);
        }
        self.elsewhere(visit)
    }

    #[inline(always)]
    fn elsewhere(self, visit: Visit<'t, P>) -> Self::Output {
        visit.unmap_parts(self.iova, self.size_bytes)
    }
}

impl<P: Platform> PageTable<P> {
    /// Unmaps `size_bytes` bytes at `iova`: any number of whole pages and blocks, without gaps. They need not be those of
    /// one [`map`](Self::map).
    ///
    /// When this returns, the range is clear for walks that begin now; the SMMU still has to be told to forget it. Which
    /// tables went too is a matter of [`EmptyTables`](super::EmptyTables).
    ///
    /// # Errors
    ///
    /// [`RangeError`]; then nothing has changed.
    pub fn unmap(&self, iova: Iova, size_bytes: u64) -> Result<Unmapped<P>, RangeError> {
        self.visit().quickly(iova, Unmapping { iova, size_bytes })
    }

    /// A range that is within bounds and made of whole granules.
    #[inline(always)]
    pub(super) fn range(&self, iova: Iova, size_bytes: u64) -> Result<Span, RangeError> {
        let whole = Span { iova: self.offset(iova), size_bytes };
        let is_range = (whole.iova | size_bytes) & self.page_mask == 0 && size_bytes != 0;
        if is_range && self.is_input(whole.iova, size_bytes) {
            Ok(whole)
        } else {
            Err(self.why_no_range(iova, size_bytes))
        }
    }

    /// What is wrong with another.
    #[cold]
    fn why_no_range(&self, iova: Iova, size_bytes: u64) -> RangeError {
        let TableConfig { granule, input_bits, .. } = self.config;
        if size_bytes == 0 {
            RangeError::Empty { iova }
        } else if (iova.get() | size_bytes) & self.page_mask != 0 {
            RangeError::Misaligned { iova, size_bytes, granule }
        } else {
            RangeError::InputOutOfRange { iova, size_bytes, input_bits }
        }
    }

    /// Makes sure that `whole` consists of whole leaves. Returns their level if they share one.
    pub(super) fn common_level(&self, visit: &Visit<'_, P>, whole: Span) -> Result<Option<u8>, RangeError> {
        let first = self.leaves(visit, &whole)?;
        let mut level = Some(first.level);
        let mut rest = whole;
        rest.advance(first.bytes());
        while rest.size_bytes != 0 {
            let leaves = self.leaves(visit, &rest)?;
            level = level.filter(|level| *level == leaves.level);
            rest.advance(leaves.bytes());
        }
        Ok(level)
    }

    /// Walks down to the leaves that `rest` starts with; at least one.
    #[inline(always)]
    fn leaves<'v>(&self, visit: &'v Visit<'_, P>, rest: &Span) -> Result<Leaves<'v>, RangeError> {
        let not_mapped = RangeError::NotMapped { iova: self.iova(rest.iova) };
        let place = visit.descend(rest.iova).ok_or(not_mapped)?;
        if place.raw & 1 == 0 {
            return Err(not_mapped);
        }
        if !rest.starts_with_entry(place.shift) {
            let block_bytes = 1 << place.shift;
            let iova = self.iova(rest.iova).align_down(block_bytes);
            return Err(RangeError::SplitsBlock { iova, block_bytes });
        }
        let entries = place.cover(rest.size_bytes);
        let entries = entries.get(..self.leaf_count(place.level, entries)).unwrap_or(entries);
        // The first has just been seen. If it has gone since, say so instead of going round for ever.
        if entries.is_empty() {
            return Err(not_mapped);
        }
        let leaves = Leaves { entries, level: place.level, shift: place.shift };
        // Groups do not reach beyond a table, so that only those at both ends can be in the range in part.
        let cut = |entry: Option<&AtomicU64>, border| {
            entry.and_then(|entry| self.cuts_group(entry, leaves.shift, leaves.level, border))
        };
        let end = rest.iova.wrapping_add(leaves.bytes());
        let cut = cut(entries.first(), rest.iova).or_else(|| cut(entries.last(), end));
        cut.map_or(Ok(leaves), |(start, block_bytes)| {
            Err(RangeError::SplitsBlock { iova: self.iova(start), block_bytes })
        })
    }

    /// How many leaves come before the first entry that is none.
    fn leaf_count(&self, level: u8, entries: &[AtomicU64]) -> usize {
        let get = |entry: &AtomicU64| u64::from_le(entry.load(Ordering::Relaxed));
        let is_leaf = |entry: &&AtomicU64| get(entry) & 1 == 1 && self.format.next_table(level, get(entry)).is_none();
        if level == LAST_LEVEL && all_valid(entries) {
            entries.len()
        } else {
            entries.iter().take_while(is_leaf).count()
        }
    }

    /// Clears what `rest` starts with: a table, or the leaves side by side in one. Returns how many bytes that was, at least
    /// one entry's.
    fn clear_next(&self, visit: &Visit<'_, P>, rest: &Span, removed: &mut TableList) -> u64 {
        // Not into tables that go as a whole.
        let last_stays = !self.hands_back();
        let stays =
            |place: &Place<'_>| !rest.starts_with_entry(place.shift) || (last_stays && place.level + 1 == LAST_LEVEL);
        loop {
            let place = visit.descend_through(rest.iova, stays);
            let Some(place) = place else { return rest.size_bytes };
            let is_table = |raw| self.format.next_table(place.level, raw).is_some();
            if !is_table(place.raw) {
                if place.raw & 1 == 0 || !rest.starts_with_entry(place.shift) {
                    // Against the rules, somebody else has unmapped it since it was looked at, and maybe the table is gone.
                    let entry_bytes = 1 << place.shift;
                    return rest.size_bytes.min(entry_bytes - (rest.iova & (entry_bytes - 1)));
                }
                let entries = place.cover(rest.size_bytes);
                let count = match place.level {
                    LAST_LEVEL => entries.len(),
                    // Blocks may have tables for neighbours.
                    _ => entries.iter().position(|entry| is_table(load(entry))).unwrap_or(entries.len()),
                };
                // At least the one that was seen.
                let entries = entries.get(..count.max(1)).unwrap_or(entries);
                self.clear_entries(entries);
                return (entries.len() as u64) << place.shift;
            }
            if let Some(entry) = place.entries.first()
                && replace(entry, place.raw, 0)
            {
                self.clean(slice::from_ref(entry));
                visit.gather(place.level, place.raw, removed);
                return 1 << place.shift;
            }
        }
    }

    fn clear_entries(&self, entries: &[AtomicU64]) {
        if self.hands_back() {
            // Only what is still mapped: if, against the rules, somebody else has unmapped it and removed the table, its first
            // word may link it to others that are to be freed.
            let is_mapped = |raw: &u64| raw & 1 == 1;
            for (entry, raw) in entries.iter().map(|entry| (entry, load(entry))).filter(|(_, raw)| is_mapped(raw)) {
                replace(entry, raw, 0);
            }
        } else {
            clear(entries);
        }
        self.clean(entries);
    }
}

/// Whether all entries are valid.
#[inline(always)]
fn all_valid(entries: &[AtomicU64]) -> bool {
    let (chunks, rest) = entries.as_chunks::<UNROLLED>();
    let every = |all: u64, entry: &AtomicU64| all & u64::from_le(entry.load(Ordering::Relaxed));
    rest.iter().fold(chunks.iter().fold(1, |all, chunk| chunk.iter().fold(all, every)), every) == 1
}

#[inline(always)]
fn clear(entries: &[AtomicU64]) {
    let (chunks, rest) = entries.as_chunks::<UNROLLED>();
    chunks.iter().for_each(|chunk| chunk.iter().for_each(|entry| store(entry, 0)));
    rest.iter().for_each(|entry| store(entry, 0));
}

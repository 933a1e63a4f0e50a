//! Unmapping: look first, then clear; what the SMMU may still remember goes to the caller, not to the allocator.

use core::fmt;
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use super::tables::{Table, TableList, Visit, load, replace, store};
use super::{PageTable, UnmapError};
use crate::addr::Iova;
use crate::arch::attributes::Granule;
use crate::arch::descriptor::LAST_LEVEL;
use crate::arch::range::Stale;
use crate::platform::Platform;

/// A range that is no longer in the page table, but perhaps still in the SMMU's caches.
///
/// Invalidate it, wait for the invalidation (CMD_SYNC), then call [`free`](Self::free). Dropping it instead loses the
/// memory of the removed tables: after a failed invalidation that is what should happen, because the SMMU may go on
/// walking them.
#[must_use = "invalidate the range, then call `free`"]
pub struct Unmapped<'t, P: Platform> {
    table: &'t PageTable<P>,
    start: Iova,
    size_bytes: u64,
    stale: Stale,
    removed: TableList,
}

impl<P: Platform> Unmapped<'_, P> {
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
        self.table.config.granule
    }

    /// What went, and so what the invalidation has to cover: leaves (of one level, or of several), or tables too.
    #[must_use]
    pub fn stale(&self) -> Stale {
        self.stale
    }

    /// Gives the memory of the removed tables back. Only after the SMMU has completed the invalidation.
    pub fn free(self) {
        self.table.tables.give_back(self.removed);
    }
}

impl<P: Platform> fmt::Debug for Unmapped<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unmapped")
            .field("start", &self.start)
            .field("size_bytes", &self.size_bytes)
            .field("stale", &self.stale)
            .finish_non_exhaustive()
    }
}

/// What is left to unmap.
#[derive(Clone, Copy)]
struct Span {
    iova: u64,
    size_bytes: u64,
}

impl Span {
    /// Whether it starts with all of an entry of `1 << shift` bytes.
    const fn starts_with_entry(&self, shift: u32) -> bool {
        self.iova & ((1 << shift) - 1) == 0 && self.size_bytes >> shift != 0
    }

    /// Leaves `bytes` bytes behind. Never passes the end, which [`PageTable::unmap`] has checked.
    const fn advance(&mut self, bytes: u64) {
        self.iova = self.iova.wrapping_add(bytes);
        self.size_bytes = self.size_bytes.saturating_sub(bytes);
    }

    /// As many entries of `table` as the span covers from its start on.
    fn entries<'v>(&self, table: &Table<'v>) -> &'v [AtomicU64] {
        let entries = table.from(self.iova);
        let wanted = usize::try_from(self.size_bytes >> table.shift).unwrap_or(usize::MAX);
        entries.get(..wanted).unwrap_or(entries)
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

impl<P: Platform> PageTable<P> {
    /// Unmaps `size_bytes` bytes at `iova`: any number of whole pages and blocks, without gaps. They need not be those of
    /// one [`map`](Self::map).
    ///
    /// When this returns, the range is clear for walks that begin now; the SMMU still has to be told to forget it.
    ///
    /// # Errors
    ///
    /// [`UnmapError`]; then nothing has changed.
    pub fn unmap(&self, iova: Iova, size_bytes: u64) -> Result<Unmapped<'_, P>, UnmapError> {
        let granule = self.config.granule;
        if size_bytes == 0 {
            return Err(UnmapError::Empty { iova });
        }
        if (iova.get() | size_bytes) & (granule.bytes() - 1) != 0 {
            return Err(UnmapError::Misaligned { iova, size_bytes, granule });
        }
        if !self.is_input(iova, size_bytes) {
            return Err(UnmapError::InputOutOfRange { iova, size_bytes, input_bits: self.config.input_bits });
        }
        let whole = Span { iova: iova.get(), size_bytes };
        let visit = self.visit();
        let mut removed = TableList::EMPTY;
        let first = self.leaves(&visit, &whole)?;
        let level = if first.bytes() == size_bytes && !self.fills_removable_table(&first) {
            self.clear_entries(first.entries);
            Some(first.level)
        } else {
            self.clear_parts(&visit, whole, &first, &mut removed)?
        };
        // Whoever invalidates, on whatever CPU: the SMMU walks again only after it sees the entries cleared.
        self.platform.write_barrier();
        let stale = if removed.is_empty() { Stale::Leaves { level } } else { Stale::TablesAndLeaves };
        Ok(Unmapped { table: self, start: iova, size_bytes, stale, removed })
    }

    /// Whether `leaves` are all of a table that may be removed.
    fn fills_removable_table(&self, leaves: &Leaves<'_>) -> bool {
        leaves.level != self.geometry.start_level && leaves.entries.len() >> self.geometry.bits_per_level != 0
    }

    /// Unmaps what is not all in one table, or all of one. Returns the level of the leaves if they share one.
    #[cold]
    fn clear_parts(
        &self,
        visit: &Visit<'_, P>,
        whole: Span,
        first: &Leaves<'_>,
        removed: &mut TableList,
    ) -> Result<Option<u8>, UnmapError> {
        let level = self.common_level(visit, whole, first)?;
        let mut rest = whole;
        while rest.size_bytes != 0 {
            let bytes = self.clear_next(visit, &rest, removed);
            rest.advance(bytes);
        }
        Ok(level)
    }

    /// Makes sure that `whole`, which starts with `first`, consists of whole leaves. Returns their level if they share one.
    fn common_level(&self, visit: &Visit<'_, P>, whole: Span, first: &Leaves<'_>) -> Result<Option<u8>, UnmapError> {
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
    #[inline]
    fn leaves<'v>(&self, visit: &'v Visit<'_, P>, rest: &Span) -> Result<Leaves<'v>, UnmapError> {
        let not_mapped = UnmapError::NotMapped { iova: Iova::new(rest.iova) };
        let mut table = visit.root();
        loop {
            let raw = load(table.from(rest.iova).first().ok_or(not_mapped)?);
            if let Some(below) = visit.below(&table, raw) {
                table = below;
                continue;
            }
            if raw & 1 == 0 {
                return Err(not_mapped);
            }
            if !rest.starts_with_entry(table.shift) {
                let block_bytes = 1 << table.shift;
                let iova = Iova::new(rest.iova).align_down(block_bytes);
                return Err(UnmapError::SplitsBlock { iova, block_bytes });
            }
            let entries = rest.entries(&table);
            let entries = entries.get(..self.leaf_count(table.level, entries)).unwrap_or(entries);
            // The first has just been seen. If it has gone since, say so instead of going round for ever.
            let leaves = Leaves { entries, level: table.level, shift: table.shift };
            return if entries.is_empty() { Err(not_mapped) } else { Ok(leaves) };
        }
    }

    /// How many leaves come before the first entry that is none. Eight are tested at a time.
    #[inline]
    fn leaf_count(&self, level: u8, entries: &[AtomicU64]) -> usize {
        let get = |entry: &AtomicU64| u64::from_le(entry.load(Ordering::Relaxed));
        let is_leaf = |entry: &&AtomicU64| get(entry) & 1 == 1 && self.format.next_table(level, get(entry)).is_none();
        if level != LAST_LEVEL {
            return entries.iter().take_while(is_leaf).count();
        }
        let (chunks, _) = entries.as_chunks::<8>();
        let full_chunks = chunks.iter().take_while(|chunk| chunk.iter().fold(1, |all, entry| all & get(entry)) == 1);
        let full = full_chunks.count() * 8;
        let rest = entries.get(full..).unwrap_or_default();
        full + rest.iter().take_while(is_leaf).count()
    }

    /// Clears what `rest` starts with: a table, or the leaves side by side in one. Returns how many bytes that was.
    fn clear_next(&self, visit: &Visit<'_, P>, rest: &Span, removed: &mut TableList) -> u64 {
        let mut table = visit.root();
        loop {
            let Some(entry) = table.from(rest.iova).first() else { return rest.size_bytes };
            let raw = load(entry);
            match visit.below(&table, raw) {
                Some(below) if !rest.starts_with_entry(table.shift) => table = below,
                Some(_) => {
                    if replace(entry, raw, 0) {
                        self.clean(slice::from_ref(entry));
                        visit.gather(&table, raw, removed);
                        return 1 << table.shift;
                    }
                }
                None => {
                    let entries = rest.entries(&table);
                    let is_table = |entry: &AtomicU64| self.format.next_table(table.level, load(entry)).is_some();
                    let count = match table.level {
                        LAST_LEVEL => entries.len(),
                        // Blocks may have tables for neighbours.
                        _ => entries.iter().position(is_table).unwrap_or(entries.len()),
                    };
                    let entries = entries.get(..count).unwrap_or(entries);
                    self.clear_entries(entries);
                    return (entries.len() as u64) << table.shift;
                }
            }
        }
    }

    fn clear_entries(&self, entries: &[AtomicU64]) {
        let (chunks, rest) = entries.as_chunks::<8>();
        chunks.iter().for_each(|chunk| chunk.iter().for_each(|entry| store(entry, 0)));
        rest.iter().for_each(|entry| store(entry, 0));
        self.clean(entries);
    }
}

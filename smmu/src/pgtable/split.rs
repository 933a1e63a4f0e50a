//! Splitting: a block becomes a table of smaller leaves, a contiguous group becomes leaves on their own; so that a part may be
//! unmapped or protected.
//!
//! An SMMU that may meet the old and the new form at once (IDR3.BBML = 2) lets one replace the other: [`PageTable::split`].
//! With others the old form goes, is forgotten, and only then the new one comes: [`PageTable::begin_split`]
//! (break-before-make; Arm ARM, D8.17.1; IHI 0070, 3.21.1).

use core::fmt;

use super::atomic::AtomicU64;
use super::empty::RESERVED;
use super::error::SplitError;
use super::tables::{Spares, Visit, load, replace, store};
use super::{PageTable, TableConfig};
use crate::addr::{Iova, PhysAddr};
use crate::arch::descriptor::{LAST_LEVEL, LeafAttributes};
use crate::arch::range::Stale;
use crate::platform::Platform;

/// What is to be split: a leaf, or the group that it belongs to.
#[derive(Clone, Copy)]
struct Whole<'v> {
    /// One entry, or those of the group.
    entries: &'v [AtomicU64],
    /// What the first held.
    raw: u64,
    level: u8,
    shift: u32,
    offset: u64,
}

impl Whole<'_> {
    const fn size_bytes(&self) -> u64 {
        (self.entries.len() as u64) << self.shift
    }

    const fn stale(&self) -> Stale {
        Stale::Leaves { level: Some(self.level) }
    }
}

/// A block or contiguous group that has been taken out of the page table, to be put back in parts.
///
/// Invalidate its range, wait for the invalidation (CMD_SYNC), then call [`make`](Self::make). Until then devices that access
/// it fault. Dropping it instead leaves the range unmapped.
#[must_use = "invalidate the range, then call `make`"]
pub struct Broken<'t, P: Platform> {
    table: &'t PageTable<P>,
    offset: u64,
    size_bytes: u64,
    raw: u64,
    level: u8,
    /// The table for a block's parts.
    spares: Spares<'t, P>,
}

impl<P: Platform> Broken<'_, P> {
    /// The first address.
    #[must_use]
    pub fn start(&self) -> Iova {
        self.table.iova(self.offset)
    }

    /// Length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What the invalidation has to cover.
    #[must_use]
    pub fn stale(&self) -> Stale {
        Stale::Leaves { level: Some(self.level) }
    }

    /// Puts the parts in place. Only after the SMMU has completed the invalidation; none is needed after it.
    ///
    /// # Errors
    ///
    /// [`SplitError`] if somebody has changed the place meanwhile, which nobody should have; nothing changes then.
    pub fn make(mut self) -> Result<(), SplitError> {
        let table = self.table;
        let visit = table.visit();
        let whole = table.entries_at(&visit, self.offset, self.size_bytes, self.level);
        let gone = SplitError::NotMapped { iova: self.start() };
        let whole = Whole { raw: self.raw, ..whole.ok_or(gone)? };
        if LeafAttributes::of_descriptor(table.config.stage, whole.raw).is_contiguous() {
            for (index, entry) in whole.entries.iter().enumerate() {
                replace(entry, RESERVED, table.member(&whole, index));
            }
        } else {
            let parts = table.parts(&whole, &mut self.spares)?;
            if let Some(entry) = whole.entries.first()
                && !replace(entry, RESERVED, table.format.table(parts))
            {
                self.spares.put(parts);
                return Err(gone);
            }
        }
        table.clean(whole.entries);
        table.platform.write_barrier();
        Ok(())
    }
}

impl<P: Platform> PageTable<P> {
    /// Splits the block that `iova` is in by one level, or dissolves the contiguous group, without a moment of no mapping.
    /// Translations stay what they are. Returns what has to be invalidated, in the whole block or group, or `None` for a page.
    ///
    /// Only for SMMUs with IDR3.BBML = 2; for a contiguous group 1 is enough.
    ///
    /// # Errors
    ///
    /// [`SplitError`]; then nothing has changed.
    pub fn split(&self, iova: Iova) -> Result<Option<Stale>, SplitError> {
        let visit = self.visit();
        let mut spares = Spares::new(&self.tables);
        loop {
            let Some(whole) = self.to_split(&visit, iova)? else { return Ok(None) };
            if LeafAttributes::of_descriptor(self.config.stage, whole.raw).is_contiguous() {
                for (index, entry) in whole.entries.iter().enumerate() {
                    store(entry, self.member(&whole, index));
                }
            } else {
                let parts = self.parts(&whole, &mut spares)?;
                let entry = whole.entries.first().ok_or(SplitError::NotMapped { iova })?;
                if !replace(entry, whole.raw, self.format.table(parts)) {
                    // Hardware has marked it as accessed or dirty: the parts have to say so too.
                    spares.put(parts);
                    continue;
                }
            }
            self.clean(whole.entries);
            self.platform.write_barrier();
            return Ok(Some(whole.stale()));
        }
    }

    /// Takes the block that `iova` is in out of the page table, or the contiguous group, for [`Broken::make`] to put it back in
    /// parts, split by one level. `None` for a page, which has none.
    ///
    /// # Errors
    ///
    /// [`SplitError`]; then nothing has changed.
    pub fn begin_split(&self, iova: Iova) -> Result<Option<Broken<'_, P>>, SplitError> {
        let visit = self.visit();
        let mut spares = Spares::new(&self.tables);
        loop {
            let Some(whole) = self.to_split(&visit, iova)? else { return Ok(None) };
            if whole.entries.len() == 1 && spares.is_empty() {
                spares.reserve()?;
            }
            let (first, rest) = whole.entries.split_first().ok_or(SplitError::NotMapped { iova })?;
            if !replace(first, whole.raw, RESERVED) {
                continue;
            }
            rest.iter().for_each(|entry| store(entry, RESERVED));
            self.clean(whole.entries);
            self.platform.write_barrier();
            let (size_bytes, level) = (whole.size_bytes(), whole.level);
            return Ok(Some(Broken { table: self, offset: whole.offset, size_bytes, raw: whole.raw, level, spares }));
        }
    }

    /// The block or group at an address, or `None` for a page on its own.
    fn to_split<'v>(&self, visit: &'v Visit<'_, P>, iova: Iova) -> Result<Option<Whole<'v>>, SplitError> {
        let (offset, TableConfig { input_bits, .. }) = (self.offset(iova), self.config);
        if !self.is_input(offset, 1) {
            return Err(SplitError::InputOutOfRange { iova, input_bits });
        }
        let not_mapped = SplitError::NotMapped { iova };
        let place = visit.descend(offset).filter(|place| place.raw & 1 == 1).ok_or(not_mapped)?;
        let is_group = LeafAttributes::of_descriptor(self.config.stage, place.raw).is_contiguous();
        if place.level == LAST_LEVEL && !is_group {
            return Ok(None);
        }
        let log2_entries = if is_group { self.format.contiguous_log2_entries(place.level) } else { 0 };
        let size_bytes = 1 << (place.shift + log2_entries);
        self.entries_at(visit, offset & !(size_bytes - 1), size_bytes, place.level).ok_or(not_mapped).map(Some)
    }

    /// The entries at `level` of a range that lies in one table.
    fn entries_at<'v>(&self, visit: &'v Visit<'_, P>, offset: u64, size_bytes: u64, level: u8) -> Option<Whole<'v>> {
        let place = visit.descend(offset).filter(|place| place.level == level)?;
        Some(Whole { entries: place.cover(size_bytes), raw: place.raw, level, shift: place.shift, offset })
    }

    /// A member of a contiguous group, on its own.
    fn member(&self, group: &Whole<'_>, index: usize) -> u64 {
        let (first, attributes) = self.decoded(group);
        let physical = first.get().wrapping_add((index as u64) << group.shift);
        self.format.leaf(group.level, PhysAddr::new(physical), attributes)
    }

    /// A table, not linked yet, of leaves that together do what a block does.
    fn parts(&self, block: &Whole<'_>, spares: &mut Spares<'_, P>) -> Result<PhysAddr, SplitError> {
        let (first, attributes) = self.decoded(block);
        let level = block.level + 1;
        let addresses = (first.get()..).step_by(1 << self.format.entry_log2_bytes(level));
        let parts = spares.take()?;
        let entries = self.tables.words(parts);
        entries.iter().zip(addresses).for_each(|(entry, physical)| {
            store(entry, self.format.leaf(level, PhysAddr::new(physical), attributes));
        });
        self.clean(entries);
        self.platform.write_barrier();
        Ok(parts)
    }

    /// Where the first leaf leads, and what its parts inherit.
    fn decoded(&self, whole: &Whole<'_>) -> (PhysAddr, LeafAttributes) {
        let leaf = self.format.decode_leaf(whole.shift, whole.raw);
        (leaf.physical, leaf.attributes.inherited())
    }

    /// Whether a range begins or ends within the contiguous group that its first or last leaf belongs to.
    pub(super) fn cuts_group(&self, entry: &AtomicU64, shift: u32, level: u8, border: u64) -> Option<(u64, u64)> {
        if !self.config.contiguous || !LeafAttributes::of_descriptor(self.config.stage, load(entry)).is_contiguous() {
            return None;
        }
        let group_bytes = 1 << (shift + self.format.contiguous_log2_entries(level));
        (border & (group_bytes - 1) != 0).then_some((border & !(group_bytes - 1), group_bytes))
    }
}

impl<P: Platform> fmt::Debug for Broken<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broken")
            .field("start", &self.start())
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}

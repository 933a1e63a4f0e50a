//! Mapping: look first, allocate what is missing, then write; so that nothing has to be undone.

use core::slice;

use super::atomic::{AtomicU64, Ordering};
use super::quick::{Errand, PAGE_SHIFT, QuickPlace};
use super::table::fits;
use super::tables::{Place, Spares, Visit, load, replace, store};
use super::{MapError, MemoryType, PageTable, Permissions, TableConfig};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::arch::descriptor::{Format, LAST_LEVEL, LeafAttributes};
use crate::platform::Platform;

/// What is left to map: from an offset, to an output address.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) iova: u64,
    pub(super) physical: u64,
    pub(super) size_bytes: u64,
}

impl Span {
    /// Whether it starts with a whole leaf of `1 << shift` bytes.
    const fn starts_with_leaf(&self, shift: u32) -> bool {
        (self.iova | self.physical) & ((1 << shift) - 1) == 0 && self.size_bytes >> shift != 0
    }

    /// Leaves `bytes` bytes behind. Never passes the end, which [`PageTable::map`] has checked.
    pub(super) const fn advance(&mut self, bytes: u64) {
        self.iova = self.iova.wrapping_add(bytes);
        self.physical = self.physical.wrapping_add(bytes);
        self.size_bytes = self.size_bytes.saturating_sub(bytes);
    }
}

/// Neighbouring entries of one table that are to become leaves.
pub(super) struct Run<'v> {
    pub(super) entries: &'v [AtomicU64],
    level: u8,
    shift: u32,
}

impl Run<'_> {
    #[inline(always)]
    pub(super) const fn bytes(&self) -> u64 {
        (self.entries.len() as u64) << self.shift
    }
}

/// How many entries are looked at or written in one turn of a loop.
pub(super) const UNROLLED: usize = 16;

impl Run<'_> {
    /// Writes leaves: `raw` and those that follow.
    #[inline(always)]
    fn fill(&self, mut raw: u64) {
        let mut write = |entry: &AtomicU64| {
            store(entry, raw);
            raw = raw.wrapping_add(1 << self.shift);
        };
        let (chunks, rest) = self.entries.as_chunks::<UNROLLED>();
        chunks.iter().for_each(|chunk| chunk.iter().for_each(&mut write));
        rest.iter().for_each(write);
    }
}

/// Where the next leaf belongs.
pub(super) enum Spot<'v> {
    /// In these entries, the first of which is vacant.
    Run(Run<'v>),
    /// In a table that does not exist: it is to hang on the first entry of this place.
    NoTable(Place<'v>),
}

impl<'t, P: Platform> Visit<'t, P> {
    /// Maps a range to `entries` of a table of 4 KiB pages, if that is all of it and they are all vacant. No more arguments
    /// than there are registers for them.
    #[inline(never)]
    fn map_pages(
        self,
        entries: &'t [AtomicU64],
        iova: Iova,
        physical: u64,
        size_bytes: u64,
        bits: u64,
    ) -> Result<(), MapError> {
        let table = self.table;
        let run = Run { entries, level: LAST_LEVEL, shift: PAGE_SHIFT };
        // What has entries is input, and aligned.
        if run.bytes() == size_bytes && fits(physical, size_bytes, table.output_bytes) && all_vacant(entries) {
            let format = Format { granule: Granule::K4, ..table.format };
            let attributes = LeafAttributes::of_descriptor(format.stage, bits);
            run.fill(format.leaf(LAST_LEVEL, PhysAddr::new(physical), attributes));
            table.platform.write_barrier();
            return Ok(());
        }
        self.map_parts(iova, physical, size_bytes, bits)
    }

    /// Maps any range, with the attributes that `bits` are.
    #[inline(never)]
    fn map_parts(self, iova: Iova, physical: u64, size_bytes: u64, bits: u64) -> Result<(), MapError> {
        let (table, whole) = (self.table, Span { iova: self.table.offset(iova), physical, size_bytes });
        if !table.is_mappable(&whole) {
            return Err(table.why_unmappable(&whole));
        }
        let attributes = LeafAttributes::of_descriptor(table.config.stage, bits);
        let mut spares = Spares::new(&table.tables);
        table.survey(&self, whole, &mut spares)?;
        if table.hands_back() {
            table.settle(&self, whole, &mut spares)?;
        }
        table.fill(&self, whole, attributes, &mut spares)?;
        table.platform.write_barrier();
        Ok(())
    }
}

/// What is to be mapped, with which attributes.
#[derive(Clone, Copy)]
struct Mapping {
    iova: Iova,
    physical: u64,
    size_bytes: u64,
    bits: u64,
}

impl<'t, P: Platform> Errand<'t, P> for Mapping {
    type Output = Result<(), MapError>;

    #[inline(always)]
    fn at(self, visit: Visit<'t, P>, place: QuickPlace<'t>) -> Result<(), MapError> {
        let Self { iova, physical, size_bytes, bits } = self;
        let table = visit.table;
        if place.raw & 1 != 0 || !place.aligns(iova.get() | physical) {
            return self.elsewhere(visit);
        }
        if size_bytes == place.bytes() && physical < table.output_bytes {
            let format = Format { granule: Granule::K4, ..table.format };
            let attributes = LeafAttributes::of_descriptor(format.stage, bits);
            store(place.entry, format.leaf(place.level, PhysAddr::new(physical), attributes));
            table.platform.write_barrier();
            return Ok(());
        }
        if place.begins_run(size_bytes) {
            return visit.map_pages(place.cover(size_bytes), iova, physical, size_bytes, bits);
        }
        self.elsewhere(visit)
    }

    #[inline(always)]
    fn elsewhere(self, visit: Visit<'t, P>) -> Result<(), MapError> {
        visit.map_parts(self.iova, self.physical, self.size_bytes, self.bits)
    }
}

impl<P: Platform> PageTable<P> {
    /// Maps `size_bytes` bytes at `iova` to `physical`, in the largest blocks that both addresses' alignment allows.
    ///
    /// An [`Access`](super::Access) will do for `permissions`. When this returns, the SMMU sees the mapping; no invalidation is
    /// needed.
    ///
    /// Where a table is left over from smaller mappings ([`EmptyTables::KeepOneLevel`](super::EmptyTables)), it is filled with
    /// pages instead of being replaced by a block, which is then unmapped page by page. A block could take its place only by
    /// break-before-make, since the way to the table may be cached: an invalidation for what the table holds already.
    ///
    /// # Errors
    ///
    /// [`MapError`]; then nothing has changed. All addresses and the size are multiples of the granule.
    pub fn map(
        &self,
        iova: Iova,
        physical: PhysAddr,
        size_bytes: u64,
        permissions: impl Into<Permissions>,
        memory: MemoryType,
    ) -> Result<(), MapError> {
        let bits = self.leaves.of(permissions.into(), memory).bits();
        self.visit().quickly(iova, Mapping { iova, physical: physical.get(), size_bytes, bits })
    }

    /// Whether the first entry of `place` is free to become the leaf that `span` starts with.
    #[inline(always)]
    fn takes_leaf(&self, place: &Place<'_>, span: &Span) -> bool {
        place.raw & 1 == 0 && place.level >= self.format.first_leaf_level() && span.starts_with_leaf(place.shift)
    }

    /// Whether a span is within bounds and made of whole granules.
    #[inline(always)]
    fn is_mappable(&self, span: &Span) -> bool {
        let Span { iova, physical, size_bytes } = *span;
        (iova | physical | size_bytes) & self.page_mask == 0
            && size_bytes != 0
            && fits(iova, size_bytes, self.input_bytes)
            && fits(physical, size_bytes, self.output_bytes)
    }

    /// What is wrong with a range that cannot be mapped.
    #[cold]
    fn why_unmappable(&self, whole: &Span) -> MapError {
        let TableConfig { granule, input_bits, output_bits, .. } = self.config;
        let Span { iova: offset, physical, size_bytes } = *whole;
        let (iova, physical) = (self.iova(offset), PhysAddr::new(physical));
        if size_bytes == 0 {
            MapError::Empty { iova }
        } else if (iova.get() | physical.get() | size_bytes) & (granule.bytes() - 1) != 0 {
            MapError::Misaligned { iova, physical, size_bytes, granule }
        } else if !self.is_input(offset, size_bytes) {
            MapError::InputOutOfRange { iova, size_bytes, input_bits }
        } else {
            MapError::OutputOutOfRange { physical, size_bytes, output_bits }
        }
    }

    /// Makes sure that all of `whole` is vacant, and reserves the tables that it lacks.
    fn survey(&self, visit: &Visit<'_, P>, whole: Span, spares: &mut Spares<'_, P>) -> Result<(), MapError> {
        let mut rest = whole;
        while rest.size_bytes != 0 {
            let bytes = match self.spot(visit, &rest)? {
                Spot::Run(run) => self.vacant(run, rest.iova)?.bytes(),
                Spot::NoTable(place) => self.reserve(place.level, &rest, rest.iova == whole.iova, spares)?,
            };
            rest.advance(bytes);
        }
        Ok(())
    }

    /// Reserves the tables between `level`, the last one that has a table, and the next leaf of `rest`. Returns how many
    /// bytes they and those reserved before serve.
    fn reserve(&self, level: u8, rest: &Span, is_first: bool, spares: &mut Spares<'_, P>) -> Result<u64, MapError> {
        let mut table_shift = self.format.entry_log2_bytes(level);
        for leaf_level in level.saturating_add(1)..=LAST_LEVEL {
            let leaf_shift = self.format.entry_log2_bytes(leaf_level);
            // Ranges come in order: a table serves this address first if it begins with it, or the range does.
            if is_first || rest.iova & ((1 << table_shift) - 1) == 0 {
                spares.reserve()?;
            }
            if leaf_level >= self.format.first_leaf_level() && rest.starts_with_leaf(leaf_shift) {
                let table_bytes = 1 << table_shift;
                let to_end = table_bytes - (rest.iova & (table_bytes - 1));
                return Ok(to_end.min(rest.size_bytes >> leaf_shift << leaf_shift));
            }
            table_shift = leaf_shift;
        }
        Ok(rest.size_bytes)
    }

    /// Walks down to where the next leaf of `rest` belongs.
    #[inline(always)]
    pub(super) fn spot<'v>(&self, visit: &'v Visit<'_, P>, rest: &Span) -> Result<Spot<'v>, MapError> {
        let place =
            if self.config.coherent { visit.descend(rest.iova) } else { self.descend_cleaning(visit, rest.iova) };
        self.spot_at(place.ok_or(MapError::Overlap { iova: self.iova(rest.iova) })?, rest)
    }

    /// What that place is to the next leaf of `rest`.
    #[inline(always)]
    pub(super) fn spot_at<'v>(&self, place: Place<'v>, rest: &Span) -> Result<Spot<'v>, MapError> {
        if place.raw & 1 == 1 {
            return Err(MapError::Overlap { iova: self.iova(rest.iova) });
        }
        if self.takes_leaf(&place, rest) {
            let entries = place.cover(rest.size_bytes);
            Ok(Spot::Run(Run { entries, level: place.level, shift: place.shift }))
        } else {
            Ok(Spot::NoTable(place))
        }
    }

    /// Walks down and cleans the entries on the way: whoever linked a table may not have come to that yet.
    #[inline(never)]
    fn descend_cleaning<'v>(&self, visit: &'v Visit<'_, P>, iova: u64) -> Option<Place<'v>> {
        visit.descend_through(iova, |place| {
            self.clean(place.entries.get(..1).unwrap_or_default());
            true
        })
    }

    /// Shortens a run that starts at `iova` to the entries before the first table.
    #[inline]
    pub(super) fn vacant<'v>(&self, run: Run<'v>, iova: u64) -> Result<Run<'v>, MapError> {
        let count = vacant_count(run.entries);
        let (vacant, rest) = run.entries.split_at_checked(count).unwrap_or((run.entries, &[]));
        match rest.first() {
            Some(entry) if self.format.next_table(run.level, load(entry)).is_none() => {
                Err(MapError::Overlap { iova: self.iova(iova.wrapping_add((count as u64) << run.shift)) })
            }
            _ => Ok(Run { entries: vacant, ..run }),
        }
    }

    /// Maps `whole`, which [`survey`](Self::survey) has found vacant.
    fn fill(
        &self,
        visit: &Visit<'_, P>,
        whole: Span,
        attributes: LeafAttributes,
        spares: &mut Spares<'_, P>,
    ) -> Result<(), MapError> {
        let mut rest = whole;
        while rest.size_bytes != 0 {
            match self.spot(visit, &rest)? {
                Spot::Run(run) => {
                    // Pages have been looked at; among blocks there may be tables to go down into.
                    let run = if run.level == LAST_LEVEL { run } else { self.vacant(run, rest.iova)? };
                    match self.config.contiguous {
                        true => self.write_groups(&run, &rest, attributes),
                        false => self.write(&run, rest.physical, attributes),
                    }
                    rest.advance(run.bytes());
                }
                Spot::NoTable(place) => self.link(&place, spares)?,
            }
        }
        Ok(())
    }

    /// Hangs an empty table on the first entry of `place`, unless somebody else has just done so.
    pub(super) fn link(&self, place: &Place<'_>, spares: &mut Spares<'_, P>) -> Result<(), MapError> {
        let Some(entry) = place.entries.first() else { return Ok(()) };
        let table = spares.take()?;
        // The SMMU must find an empty table from the moment it finds it.
        self.clean(self.tables.words(table));
        self.platform.write_barrier();
        if replace(entry, place.raw, self.format.table(table)) {
            self.clean(slice::from_ref(entry));
        } else {
            spares.put(table);
        }
        Ok(())
    }

    /// Writes the leaves of a run that `rest` starts with, and marks those as contiguous that are whole groups.
    fn write_groups(&self, run: &Run<'_>, rest: &Span, attributes: LeafAttributes) {
        let group_bytes = 1_u64 << (run.shift + self.format.contiguous_log2_entries(run.level));
        let congruent = (rest.iova ^ rest.physical) & (group_bytes - 1) == 0;
        for (index, entry) in run.entries.iter().enumerate() {
            let ahead = (index as u64) << run.shift;
            let before_group = rest.iova.wrapping_add(ahead) & (group_bytes - 1);
            let is_whole = before_group <= ahead && ahead - before_group + group_bytes <= run.bytes();
            let attributes = if congruent && is_whole { attributes.contiguous() } else { attributes };
            let physical = PhysAddr::new(rest.physical.wrapping_add(ahead));
            store(entry, self.format.leaf(run.level, physical, attributes));
        }
        self.clean(run.entries);
    }

    /// Writes the leaves of a run, the first of which maps to `physical`.
    #[inline]
    fn write(&self, run: &Run<'_>, physical: u64, attributes: LeafAttributes) {
        if self.format.large_addresses {
            // The address is in two parts: no carry gets from one to the other.
            let addresses = (physical..).step_by(1 << run.shift);
            run.entries.iter().zip(addresses).for_each(|(entry, physical)| {
                store(entry, self.format.leaf(run.level, PhysAddr::new(physical), attributes));
            });
            return self.clean(run.entries);
        }
        run.fill(self.format.leaf(run.level, PhysAddr::new(physical), attributes));
        self.clean(run.entries);
    }
}

/// Whether none of the entries is valid.
#[inline(always)]
fn all_vacant(entries: &[AtomicU64]) -> bool {
    let (chunks, rest) = entries.as_chunks::<UNROLLED>();
    let any = |all: u64, entry: &AtomicU64| all | u64::from_le(entry.load(Ordering::Relaxed));
    rest.iter().fold(chunks.iter().fold(0, |all, chunk| chunk.iter().fold(all, any)), any) & 1 == 0
}

/// How many entries come before the first valid one.
fn vacant_count(entries: &[AtomicU64]) -> usize {
    let get = |entry: &AtomicU64| u64::from_le(entry.load(Ordering::Relaxed));
    entries.iter().take_while(|entry| get(entry) & 1 == 0).count()
}

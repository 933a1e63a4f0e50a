//! Mapping: look first, allocate what is missing, then write; so that nothing has to be undone.

use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use super::tables::{Spares, Table, Visit, load, replace, store};
use super::{Access, MapError, MemoryType, PageTable};
use crate::addr::{Iova, PhysAddr};
use crate::arch::descriptor::{LAST_LEVEL, LeafAttributes};
use crate::platform::Platform;

/// What is left to map.
#[derive(Clone, Copy)]
struct Span {
    iova: u64,
    physical: u64,
    size_bytes: u64,
}

impl Span {
    /// Whether it starts with a whole leaf of `1 << shift` bytes.
    const fn starts_with_leaf(&self, shift: u32) -> bool {
        (self.iova | self.physical) & ((1 << shift) - 1) == 0 && self.size_bytes >> shift != 0
    }

    /// Leaves `bytes` bytes behind. Never passes the end, which [`PageTable::map`] has checked.
    const fn advance(&mut self, bytes: u64) {
        self.iova = self.iova.wrapping_add(bytes);
        self.physical = self.physical.wrapping_add(bytes);
        self.size_bytes = self.size_bytes.saturating_sub(bytes);
    }
}

/// Neighbouring entries of one table that are to become leaves.
struct Run<'v> {
    entries: &'v [AtomicU64],
    level: u8,
    shift: u32,
}

impl<'v> Run<'v> {
    /// As many entries of `table` as `span` fills from its start on.
    fn new(table: &Table<'v>, span: &Span) -> Self {
        let entries = table.from(span.iova);
        let wanted = usize::try_from(span.size_bytes >> table.shift).unwrap_or(usize::MAX);
        Self { entries: entries.get(..wanted).unwrap_or(entries), level: table.level, shift: table.shift }
    }

    const fn bytes(&self) -> u64 {
        (self.entries.len() as u64) << self.shift
    }
}

/// Where the next leaf belongs.
enum Place<'v> {
    /// In these entries, the first of which is vacant.
    Run(Run<'v>),
    /// In a table that does not exist: it is to hang on `entry`, now `raw`, of a table of this level.
    NoTable { entry: &'v AtomicU64, raw: u64, level: u8 },
}

impl<P: Platform> PageTable<P> {
    /// Maps `size_bytes` bytes at `iova` to `physical`, in the largest blocks that both addresses' alignment allows.
    ///
    /// Where a table is left over from smaller mappings, it is filled with pages instead of being replaced by a block:
    /// that would need an invalidation. When this returns, the SMMU sees the mapping; no invalidation is needed.
    ///
    /// # Errors
    ///
    /// [`MapError`]; then nothing has changed. All addresses and the size are multiples of the granule.
    pub fn map(
        &self,
        iova: Iova,
        physical: PhysAddr,
        size_bytes: u64,
        access: Access,
        memory: MemoryType,
    ) -> Result<(), MapError> {
        let whole = self.check_map(iova, physical, size_bytes)?;
        let attributes = LeafAttributes::new(self.config.stage, access, memory);
        let visit = self.visit();
        // Mostly the entries lie side by side in a table that exists: one walk, and a look at each before it is written.
        if let Place::Run(run) = self.place(&visit, &whole)?
            && run.bytes() == size_bytes
            && let run = self.vacant(run, whole.iova)?
            && run.bytes() == size_bytes
        {
            self.write(&run, whole.physical, attributes);
        } else {
            let mut spares = Spares::new(&self.tables);
            self.survey(&visit, whole, &mut spares)?;
            self.fill(&visit, whole, attributes, &mut spares)?;
        }
        self.platform.write_barrier();
        Ok(())
    }

    #[inline]
    fn check_map(&self, iova: Iova, physical: PhysAddr, size_bytes: u64) -> Result<Span, MapError> {
        let granule = self.config.granule;
        if size_bytes == 0 {
            return Err(MapError::Empty { iova });
        }
        if (iova.get() | physical.get() | size_bytes) & (granule.bytes() - 1) != 0 {
            return Err(MapError::Misaligned { iova, physical, size_bytes, granule });
        }
        let (input_bits, output_bits) = (self.config.input_bits, self.config.output_bits);
        if !self.is_input(iova, size_bytes) {
            return Err(MapError::InputOutOfRange { iova, size_bytes, input_bits });
        }
        if physical.checked_add(size_bytes).is_none_or(|end| end.get() > 1 << output_bits) {
            return Err(MapError::OutputOutOfRange { physical, size_bytes, output_bits });
        }
        Ok(Span { iova: iova.get(), physical: physical.get(), size_bytes })
    }

    /// Makes sure that all of `whole` is vacant, and reserves the tables that it lacks.
    #[cold]
    fn survey(&self, visit: &Visit<'_, P>, whole: Span, spares: &mut Spares<'_, P>) -> Result<(), MapError> {
        let mut rest = whole;
        while rest.size_bytes != 0 {
            let bytes = match self.place(visit, &rest)? {
                Place::Run(run) => self.vacant(run, rest.iova)?.bytes(),
                Place::NoTable { level, .. } => self.reserve(level, &rest, rest.iova == whole.iova, spares)?,
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
    #[inline]
    fn place<'v>(&self, visit: &'v Visit<'_, P>, rest: &Span) -> Result<Place<'v>, MapError> {
        let mut table = visit.root();
        loop {
            let Some(entry) = table.from(rest.iova).first() else {
                return Err(MapError::Overlap { iova: Iova::new(rest.iova) });
            };
            let raw = load(entry);
            if let Some(below) = visit.below(&table, raw) {
                // Whoever linked the table may not have come to clean the entry yet.
                self.clean(slice::from_ref(entry));
                table = below;
            } else if raw & 1 == 1 {
                return Err(MapError::Overlap { iova: Iova::new(rest.iova) });
            } else if table.level >= self.format.first_leaf_level() && rest.starts_with_leaf(table.shift) {
                return Ok(Place::Run(Run::new(&table, rest)));
            } else {
                return Ok(Place::NoTable { entry, raw, level: table.level });
            }
        }
    }

    /// Shortens a run that starts at `iova` to the entries before the first table.
    #[inline]
    fn vacant<'v>(&self, run: Run<'v>, iova: u64) -> Result<Run<'v>, MapError> {
        let count = vacant_count(run.entries);
        let (vacant, rest) = run.entries.split_at_checked(count).unwrap_or((run.entries, &[]));
        match rest.first() {
            Some(entry) if self.format.next_table(run.level, load(entry)).is_none() => {
                Err(MapError::Overlap { iova: Iova::new(iova.wrapping_add((count as u64) << run.shift)) })
            }
            _ => Ok(Run { entries: vacant, ..run }),
        }
    }

    /// Maps `whole`, which [`survey`](Self::survey) has found vacant.
    #[cold]
    fn fill(
        &self,
        visit: &Visit<'_, P>,
        whole: Span,
        attributes: LeafAttributes,
        spares: &mut Spares<'_, P>,
    ) -> Result<(), MapError> {
        let mut rest = whole;
        while rest.size_bytes != 0 {
            match self.place(visit, &rest)? {
                Place::Run(run) => {
                    // Pages have been looked at; among blocks there may be tables to go down into.
                    let run = if run.level == LAST_LEVEL { run } else { self.vacant(run, rest.iova)? };
                    self.write(&run, rest.physical, attributes);
                    rest.advance(run.bytes());
                }
                Place::NoTable { entry, raw, .. } => self.link(entry, raw, spares)?,
            }
        }
        Ok(())
    }

    /// Hangs an empty table on `entry`, unless somebody else has just done so.
    fn link(&self, entry: &AtomicU64, seen: u64, spares: &mut Spares<'_, P>) -> Result<(), MapError> {
        let table = spares.take()?;
        // The SMMU must find an empty table from the moment it finds it.
        self.clean(self.tables.words(table));
        self.platform.write_barrier();
        if replace(entry, seen, self.format.table(table)) {
            self.clean(slice::from_ref(entry));
        } else {
            spares.put(table);
        }
        Ok(())
    }

    /// Writes the leaves of a run, the first of which maps to `physical`.
    #[inline]
    fn write(&self, run: &Run<'_>, physical: u64, attributes: LeafAttributes) {
        let mut raw = self.format.leaf(run.level, PhysAddr::new(physical), attributes);
        let mut write = |entry: &AtomicU64| {
            store(entry, raw);
            raw = raw.wrapping_add(1 << run.shift);
        };
        let (chunks, rest) = run.entries.as_chunks::<8>();
        chunks.iter().for_each(|chunk| chunk.iter().for_each(&mut write));
        rest.iter().for_each(write);
        self.clean(run.entries);
    }
}

/// How many entries come before the first valid one. Eight are tested at a time.
#[inline]
fn vacant_count(entries: &[AtomicU64]) -> usize {
    let get = |entry: &AtomicU64| u64::from_le(entry.load(Ordering::Relaxed));
    let (chunks, _) = entries.as_chunks::<8>();
    let vacant_chunks = chunks.iter().take_while(|chunk| chunk.iter().fold(0, |all, entry| all | get(entry)) & 1 == 0);
    let vacant = vacant_chunks.count() * 8;
    let rest = entries.get(vacant..).unwrap_or_default();
    vacant + rest.iter().take_while(|entry| get(entry) & 1 == 0).count()
}

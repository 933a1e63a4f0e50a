//! Maps, unmaps, walks, changes and splits in a page table against a sorted map of pages: every stage, half, granule and size,
//! with memory running out in between, and removed tables given back late.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use smmu::addr::{Iova, PhysAddr};
use smmu::arch::attributes::Granule;
use smmu::pgtable::{
    Access, EmptyTables, Half, MapError, MemoryType, PageTable, RangeError, SplitError, Stage, TableConfig, TableError,
    Tracking, Translation, Unmapped,
};

use super::platform::FuzzPlatform;

/// Operations in one run: more find no more, and a run is to take milliseconds.
const OPERATIONS_MAX: usize = 24;

/// A page as it should be. Which leaf holds it is the table's choice, noted when it has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    physical: u64,
    access: Access,
    memory: MemoryType,
    accessed: bool,
    leaf_start: u64,
    leaf_bytes: u64,
}

/// A range in bytes.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    bytes: u64,
}

/// Takes `data` for the kind of a page table and a sequence of operations on it.
///
/// # Panics
///
/// If the page table and the map of pages disagree, or memory is lost.
pub fn run(data: &[u8]) {
    let platform = FuzzPlatform::of_this_thread();
    platform.begin([0; 3], &[]);
    // Running out of input is no failure: what there was has been tried.
    let _ = operate(platform, &mut Unstructured::new(data));
    assert_eq!(platform.block_count(), 0, "tables are lost");
    platform.end();
}

fn operate(platform: &'static FuzzPlatform, input: &mut Unstructured<'_>) -> Result<()> {
    let config = config(input)?;
    let table = match PageTable::new(platform, &config) {
        Ok(table) => table,
        Err(error) => {
            check_refusal(&config, error);
            return Ok(());
        }
    };
    let mut checked = Checked { platform, table: &table, pages: BTreeMap::new(), removed: Vec::new() };
    let result = (0..OPERATIONS_MAX).try_for_each(|_| checked.step(input));
    checked.pages.keys().for_each(|iova| checked.check(*iova));
    checked.removed.into_iter().for_each(|unmapped| table.free(unmapped));
    result
}

fn config(input: &mut Unstructured<'_>) -> Result<TableConfig> {
    Ok(TableConfig {
        stage: *input.choose(&[Stage::Stage1, Stage::Stage2])?,
        granule: *input.choose(&[Granule::K4, Granule::K16, Granule::K64])?,
        input_bits: input.int_in_range(30..=54)?,
        output_bits: *input.choose(&[32, 36, 40, 42, 44, 48, 33, 52])?,
        coherent: input.arbitrary()?,
        empty_tables: *input.choose(&[EmptyTables::KeepOneLevel, EmptyTables::HandBack])?,
        half: *input.choose(&[Half::Lower, Half::Lower, Half::Upper])?,
        tracking: *input.choose(&[
            Tracking::Off,
            Tracking::SoftwareAccess,
            Tracking::HardwareAccess,
            Tracking::HardwareAccessAndDirty,
        ])?,
        contiguous: false,
        force_write_back: false,
    })
}

/// The sizes that are refused are those that should be.
fn check_refusal(config: &TableConfig, error: TableError) {
    let TableConfig { stage, granule, input_bits, output_bits, .. } = *config;
    let most = if granule == Granule::K64 { 52 } else { 48 };
    match error {
        TableError::InputBits { .. } => assert!(!(32..=most).contains(&input_bits)),
        TableError::OutputBits { .. } => assert!(output_bits == 33 || output_bits > most),
        TableError::InputExceedsOutput { .. } => assert!(stage == Stage::Stage2 && input_bits > output_bits),
        TableError::UpperHalfAtStage2 => assert_eq!((stage, config.half), (Stage::Stage2, Half::Upper)),
        TableError::ContiguousAndTracked | TableError::StartLevel { .. } | TableError::MisalignedRoot { .. } => {
            panic!("nothing of this is asked for")
        }
        TableError::OutOfDmaMemory(_) => panic!("there was memory"),
    }
}

struct Checked<'t> {
    platform: &'static FuzzPlatform,
    table: &'t PageTable<FuzzPlatform>,
    pages: BTreeMap<u64, Page>,
    /// What was unmapped and not given back yet.
    removed: Vec<Unmapped<FuzzPlatform>>,
}

impl Checked<'_> {
    fn page_bytes(&self) -> u64 {
        self.table.config().granule.bytes()
    }

    /// What an entry above the pages covers.
    fn block_bytes(&self) -> u64 {
        self.page_bytes() * self.page_bytes() / 8
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=13)? {
            0..=4 => self.map(input)?,
            5 => {
                let at = self.span(input)?;
                self.unmap(at);
            }
            6..=8 => {
                if let Some(at) = self.mapped_span(input)? {
                    self.unmap(at);
                }
            }
            9 => self.removed.drain(..).for_each(|unmapped| self.table.free(unmapped)),
            10 => {
                let access = *input.choose(&[Access::Read, Access::Write, Access::ReadWrite])?;
                let at = self.any_span(input)?;
                self.protect(at, access);
            }
            11 => {
                let at = self.any_span(input)?;
                self.note_accesses(at, input.arbitrary()?);
            }
            _ => self.split(input)?,
        }
        Ok(())
    }

    /// The address of what the reference, and `Span`, count from the first address of the half.
    fn iova(&self, offset: u64) -> Iova {
        let TableConfig { half, input_bits, .. } = *self.table.config();
        Iova::new(offset ^ half.first_address(input_bits))
    }

    fn any_span(&self, input: &mut Unstructured<'_>) -> Result<Span> {
        let mapped = if input.ratio(3, 4)? { self.mapped_span(input)? } else { None };
        mapped.map_or_else(|| self.span(input), Ok)
    }

    /// A range near a border of tables, blocks, or the address space; now and then not aligned.
    fn span(&self, input: &mut Unstructured<'_>) -> Result<Span> {
        let (page, block) = (self.page_bytes(), self.block_bytes());
        let space = 1u64 << self.table.config().input_bits;
        let base = *input.choose(&[0, block, 2 * block, block * page / 8, space / 2, space - 2 * block])?;
        let near = page * input.int_in_range(0..=15)?;
        let start = base.wrapping_add(if input.arbitrary()? { near } else { block.wrapping_sub(near) });
        let pages = match input.int_in_range(0..=7)? {
            0..=4 => input.int_in_range(0..=12)?,
            5 => block / page,
            6 => 2 * block / page,
            _ => input.int_in_range(0..=2 * block / page)?,
        };
        let skew = if input.ratio(1, 16)? { input.int_in_range(0..=page)? } else { 0 };
        Ok(Span { start: start % (2 * space) + skew, bytes: pages * page })
    }

    /// Some leaves from a mapped page on, or, so that tables go, as many as follow from the start of its table.
    fn mapped_span(&self, input: &mut Unstructured<'_>) -> Result<Option<Span>> {
        if self.pages.is_empty() {
            return Ok(None);
        }
        let which = input.choose_index(self.pages.len())?;
        let (&iova, page) = self.pages.iter().nth(which).expect("an index into the pages");
        let leaves = input.int_in_range(0..=6)?;
        let table_start = iova / self.block_bytes() * self.block_bytes();
        let start = if leaves == 0 && self.pages.contains_key(&table_start) { table_start } else { page.leaf_start };
        let mut end = start;
        for _ in 0..if leaves == 0 { usize::MAX } else { leaves } {
            let Some(page) = self.pages.get(&end) else { break };
            end += page.leaf_bytes;
        }
        Ok(Some(Span { start, bytes: end - start }))
    }

    fn map(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (page, block) = (self.page_bytes(), self.block_bytes());
        let Span { start, bytes } = self.span(input)?;
        let end = 1u64 << self.table.config().output_bits;
        let base = *input.choose(&[0, block, 3 * block, end - block])?;
        let to = base + page * input.int_in_range(0..=15)? + (start & (page - 1));
        let access = *input.choose(&[Access::Read, Access::Write, Access::ReadWrite])?;
        let memory = *input.choose(&[MemoryType::WriteBack, MemoryType::NonCacheable, MemoryType::Device])?;
        let allocations = if input.ratio(1, 4)? { input.int_in_range(0..=5)? } else { usize::MAX };
        let blocks = self.platform.block_count();
        self.platform.allow_allocations(allocations);
        let result = self.table.map(self.iova(start), PhysAddr::new(to), bytes, access, memory);
        self.platform.allow_allocations(usize::MAX);
        let overlap = self.pages.range(start..start + bytes).next().map(|(iova, _)| self.iova(*iova));
        let config = self.table.config();
        match result {
            Err(MapError::Empty { .. }) => assert_eq!(bytes, 0),
            Err(MapError::Misaligned { .. }) => assert_ne!((start | to | bytes) % page, 0),
            Err(MapError::InputOutOfRange { .. }) => assert!(start + bytes > 1 << config.input_bits),
            Err(MapError::OutputOutOfRange { .. }) => assert!(to + bytes > end),
            Err(MapError::Overlap { iova }) => assert_eq!(Some(iova), overlap),
            Err(MapError::NotOwned { .. }) => panic!("it is its own"),
            Err(MapError::OutOfDmaMemory(_)) => assert_ne!(allocations, usize::MAX),
            Ok(()) => {
                assert_eq!((overlap, (start | to | bytes) % page, bytes == 0), (None, 0, false));
                assert!(start + bytes <= 1 << config.input_bits && to + bytes <= end);
                self.note(Span { start, bytes }, to, access, memory);
            }
        }
        if result.is_err() {
            assert_eq!(self.platform.block_count(), blocks, "{result:?}");
        }
        self.check_near(Span { start, bytes });
        Ok(())
    }

    /// Adds what was mapped to the reference, after a look at the leaves that were chosen.
    fn note(&mut self, Span { start, bytes }: Span, to: u64, access: Access, memory: MemoryType) {
        let (access, accessed) = (self.enforced(access), self.table.config().tracking == Tracking::Off);
        let mut at = start;
        while at < start + bytes {
            let leaf_bytes = self.table.walk(self.iova(at)).expect("just mapped").leaf_bytes();
            assert_eq!((at | (to + (at - start))) % leaf_bytes, 0, "a leaf that is not aligned");
            assert!(at + leaf_bytes <= start + bytes, "a leaf larger than what was asked for");
            for iova in (at..at + leaf_bytes).step_by(self.page_bytes() as usize) {
                let physical = to + (iova - start);
                self.pages.insert(iova, Page { physical, access, memory, accessed, leaf_start: at, leaf_bytes });
            }
            at += leaf_bytes;
        }
    }

    fn unmap(&mut self, at: Span) {
        let expected = self.expected_unmap(at);
        match self.table.unmap(self.iova(at.start), at.bytes) {
            Ok(unmapped) => {
                assert_eq!(expected, Ok(()));
                assert_eq!((unmapped.start(), unmapped.size_bytes()), (self.iova(at.start), at.bytes));
                self.removed.push(unmapped);
                for iova in (at.start..at.start + at.bytes).step_by(self.page_bytes() as usize) {
                    self.pages.remove(&iova);
                }
            }
            Err(error) => assert_eq!(Err(error), expected),
        }
        self.check_near(at);
    }

    fn expected_unmap(&self, Span { start, bytes }: Span) -> std::result::Result<(), RangeError> {
        let (iova, size_bytes) = (self.iova(start), bytes);
        let TableConfig { granule, input_bits, .. } = *self.table.config();
        if bytes == 0 {
            return Err(RangeError::Empty { iova });
        }
        if (start | bytes) % granule.bytes() != 0 {
            return Err(RangeError::Misaligned { iova, size_bytes, granule });
        }
        if start + bytes > 1 << input_bits {
            return Err(RangeError::InputOutOfRange { iova, size_bytes, input_bits });
        }
        let mut at = start;
        while at < start + bytes {
            let page = self.pages.get(&at).ok_or(RangeError::NotMapped { iova: self.iova(at) })?;
            if page.leaf_start != at || at + page.leaf_bytes > start + bytes {
                return Err(RangeError::SplitsBlock { iova: self.iova(page.leaf_start), block_bytes: page.leaf_bytes });
            }
            at += page.leaf_bytes;
        }
        Ok(())
    }

    /// Stage 1 has no way to say "write only".
    fn enforced(&self, access: Access) -> Access {
        let readable = self.table.config().stage == Stage::Stage1 && access == Access::Write;
        if readable { Access::ReadWrite } else { access }
    }

    fn protect(&mut self, at: Span, access: Access) {
        let expected = self.expected_unmap(at);
        let result = self.table.protect(self.iova(at.start), at.bytes, access);
        assert_eq!(result.map(|_| ()), expected);
        if let Ok(stale) = result {
            let access = self.enforced(access);
            let mut changes = false;
            for (_, page) in self.pages.range_mut(at.start..at.start + at.bytes) {
                changes |= page.access != access;
                page.access = access;
            }
            assert_eq!(stale.is_some(), changes);
        }
        self.check_near(at);
    }

    /// Sets Access flags, or clears them and is told of those that were set. No device writes here: nothing is dirty.
    fn note_accesses(&mut self, at: Span, sets: bool) {
        let iova = self.iova(at.start);
        let mut reported = Vec::new();
        let result = if sets {
            self.table.set_accessed(iova, at.bytes)
        } else {
            self.table.clear_accessed(iova, at.bytes, |start, bytes| reported.push((start, bytes))).map(|_| ())
        };
        let cleaned = self.table.clean_dirty(iova, at.bytes, |start, _| panic!("{start} is dirty"));
        let refused = match self.expected_unmap(at) {
            Err(
                error @ (RangeError::Empty { .. } | RangeError::Misaligned { .. } | RangeError::InputOutOfRange { .. }),
            ) => Err(error),
            // There may be gaps, and parts of blocks.
            _ => Ok(()),
        };
        assert_eq!((result, cleaned), (refused, refused.map(|()| None)));
        if result.is_ok() {
            let meant = self.pages.range(at.start..at.start + at.bytes);
            let leaves: BTreeMap<_, _> = meant.map(|(_, page)| (page.leaf_start, *page)).collect();
            let expected = leaves.values().filter(|page| page.accessed && !sets);
            let expected: Vec<_> = expected.map(|page| (self.iova(page.leaf_start), page.leaf_bytes)).collect();
            assert_eq!(reported, expected);
            for (start, page) in leaves {
                self.pages.range_mut(start..start + page.leaf_bytes).for_each(|(_, page)| page.accessed = sets);
            }
        }
        self.check_near(at);
    }

    fn split(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (breaks, short) = (input.arbitrary()?, input.ratio(1, 4)?);
        let Some(at) = self.mapped_span(input)? else { return Ok(()) };
        let Some(page) = self.pages.get(&at.start).copied() else { return Ok(()) };
        let (iova, blocks) = (self.iova(at.start), self.platform.block_count());
        self.platform.allow_allocations(if short { 0 } else { usize::MAX });
        let split = if breaks {
            self.table.begin_split(iova).map(|broken| broken.is_some_and(|broken| broken.make().is_ok()))
        } else {
            self.table.split(iova).map(|stale| stale.is_some())
        };
        self.platform.allow_allocations(usize::MAX);
        match split {
            Ok(split) => assert_eq!(split, page.leaf_bytes != self.page_bytes()),
            Err(error) => {
                assert!(matches!(error, SplitError::OutOfDmaMemory(_)) && short, "{error}");
                assert_eq!(self.platform.block_count(), blocks);
            }
        }
        if split == Ok(true) {
            let part_bytes = page.leaf_bytes / (self.page_bytes() / 8);
            for (iova, page) in self.pages.range_mut(page.leaf_start..page.leaf_start + page.leaf_bytes) {
                (page.leaf_start, page.leaf_bytes) = (iova & !(part_bytes - 1), part_bytes);
            }
        }
        self.check_near(Span { start: page.leaf_start, bytes: page.leaf_bytes });
        Ok(())
    }

    /// Checks pages at both ends of a range, on either side, and in its middle.
    fn check_near(&self, Span { start, bytes }: Span) {
        let page = self.page_bytes();
        for base in [start, start + bytes / 2, start + bytes] {
            for offset in [-1, 0, 1].map(|pages: i64| pages * page as i64) {
                if let Some(at) = base.checked_add_signed(offset) {
                    self.check(at / page * page);
                }
            }
        }
    }

    /// What a walk finds and what the reference holds is the same.
    fn check(&self, iova: u64) {
        let offset = self.page_bytes() / 2 + 4;
        let found = self.table.walk(self.iova(iova + offset));
        let as_page = |found: Translation| Page {
            physical: found.physical.get() - offset,
            access: found.access().expect("an access that was asked for"),
            memory: found.memory().expect("a type that was asked for"),
            accessed: found.attributes.is_accessed(),
            leaf_start: iova & !(found.leaf_bytes() - 1),
            leaf_bytes: found.leaf_bytes(),
        };
        let expected = self.pages.get(&iova);
        assert_eq!(found.map(as_page).as_ref(), expected, "{iova:#x}\n{}", self.table.trace(self.iova(iova)));
    }
}

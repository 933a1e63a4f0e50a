//! Random maps, unmaps and walks against a sorted map of pages, for every stage, granule and kind of SMMU.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use proptest::prelude::*;

use super::walker::{shifts, walk};
use super::{GRANULES, STAGES, block_bytes};
use crate::addr::{Iova, PhysAddr};
use crate::pgtable::{Access, EmptyTables, MapError, MemoryType, PageTable, TableConfig, Translation, UnmapError};
use crate::testing::{TestPlatform, tries};

const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::ReadWrite];
const MEMORY: [MemoryType; 3] = [MemoryType::WriteBack, MemoryType::NonCacheable, MemoryType::Device];

/// A page as it should be. Which leaf holds it is the table's choice, noted when it has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    physical: u64,
    access: Access,
    memory: MemoryType,
    leaf_start: u64,
    leaf_bytes: u64,
}

/// A range in granules, near places where something changes.
#[derive(Clone, Copy, Debug)]
struct Pages {
    first: u64,
    count: u64,
}

#[derive(Clone, Debug)]
enum Operation {
    Map {
        at: Pages,
        to: u64,
        access: Access,
        memory: MemoryType,
        allocations: Option<usize>,
    },
    Unmap {
        at: Pages,
    },
    /// Unmaps what follows one random page, or fills its table, so that most unmaps succeed and some remove tables.
    UnmapMapped {
        which: prop::sample::Index,
        leaves: Option<usize>,
    },
}

struct Checked {
    platform: &'static TestPlatform,
    table: PageTable<TestPlatform>,
    pages: BTreeMap<u64, Page>,
}

impl Checked {
    fn page_bytes(&self) -> u64 {
        self.table.config().granule.bytes()
    }

    fn run(&mut self, operation: &Operation) {
        let page = self.page_bytes();
        match operation {
            Operation::Map { at, to, access, memory, allocations } => {
                self.map(at.first * page, to * page, at.count * page, *access, *memory, *allocations);
            }
            Operation::Unmap { at } => self.unmap(at.first * page, at.count * page),
            Operation::UnmapMapped { which, leaves } => {
                let starts: Vec<_> = self.pages.keys().copied().collect();
                if !starts.is_empty() {
                    self.unmap_mapped(self.pages[which.get(&starts)].leaf_start, *leaves);
                }
            }
        }
    }

    /// Unmaps leaves from `start` on; or as many as follow each other from the start of its table.
    fn unmap_mapped(&mut self, start: u64, leaves: Option<usize>) {
        let table_start = start / block_bytes(self.table.config().granule) * block_bytes(self.table.config().granule);
        let start = if leaves.is_none() && self.pages.contains_key(&table_start) { table_start } else { start };
        let mut end = start;
        for _ in 0..leaves.unwrap_or(usize::MAX) {
            let Some(page) = self.pages.get(&end) else { break };
            end += page.leaf_bytes;
        }
        self.unmap(start, end - start);
    }

    fn map(&mut self, iova: u64, to: u64, bytes: u64, access: Access, memory: MemoryType, allocations: Option<usize>) {
        let blocks = self.platform.blocks();
        self.platform.allow_allocations(allocations.unwrap_or(usize::MAX));
        let result = self.table.map(Iova::new(iova), PhysAddr::new(to), bytes, access, memory);
        self.platform.allow_allocations(usize::MAX);
        let config = self.table.config();
        let overlap = self.pages.range(iova..iova + bytes).next().map(|(iova, _)| Iova::new(*iova));
        match result {
            Err(MapError::OutOfDmaMemory(_)) => assert!(allocations.is_some()),
            Err(MapError::InputOutOfRange { .. }) => assert!(iova + bytes > 1 << config.input_bits),
            Err(MapError::OutputOutOfRange { .. }) => assert!(to + bytes > 1 << config.output_bits),
            Err(MapError::Overlap { iova }) => assert_eq!(Some(iova), overlap),
            Err(error) => panic!("{error}"),
            Ok(()) => {
                assert_eq!(overlap, None);
                self.note(iova, to, bytes, access, memory);
            }
        }
        if result.is_err() {
            assert_eq!(self.platform.blocks(), blocks, "{result:?}");
        }
        self.check_near(iova, bytes);
    }

    /// Adds what was mapped to the reference, after a look at the leaves that were chosen.
    fn note(&mut self, iova: u64, to: u64, bytes: u64, access: Access, memory: MemoryType) {
        let access = access.enforced(self.table.config().stage);
        let mut at = iova;
        while at < iova + bytes {
            let leaf_bytes = self.table.walk(Iova::new(at)).expect("just mapped").leaf_bytes;
            assert_eq!((at | to.wrapping_add(at - iova)) % leaf_bytes, 0, "a leaf that is not aligned");
            assert!(at + leaf_bytes <= iova + bytes, "a leaf larger than what was asked for");
            for page in (at..at + leaf_bytes).step_by(self.page_bytes() as usize) {
                let physical = to + (page - iova);
                self.pages.insert(page, Page { physical, access, memory, leaf_start: at, leaf_bytes });
            }
            at += leaf_bytes;
        }
    }

    fn unmap(&mut self, iova: u64, bytes: u64) {
        let result = self.table.unmap(Iova::new(iova), bytes).map(|unmapped| self.table.free(unmapped));
        if iova + bytes > 1 << self.table.config().input_bits {
            assert!(matches!(result, Err(UnmapError::InputOutOfRange { .. })));
            return;
        }
        assert_eq!(result, self.expected_unmap(iova, bytes));
        if result.is_ok() {
            for page in (iova..iova + bytes).step_by(self.page_bytes() as usize) {
                self.pages.remove(&page);
            }
        }
        self.check_near(iova, bytes);
    }

    fn expected_unmap(&self, iova: u64, bytes: u64) -> Result<(), UnmapError> {
        let mut at = iova;
        while at < iova + bytes {
            let page = self.pages.get(&at).ok_or(UnmapError::NotMapped { iova: Iova::new(at) })?;
            if page.leaf_start != at || at + page.leaf_bytes > iova + bytes {
                return Err(UnmapError::SplitsBlock { iova: Iova::new(page.leaf_start), block_bytes: page.leaf_bytes });
            }
            at += page.leaf_bytes;
        }
        Ok(())
    }

    /// Where none stays empty, there are the tables that the leaves need, and no more.
    fn check_tables(&self) {
        if !self.table.hands_back() {
            return;
        }
        let (page, start) = (self.page_bytes(), usize::from(self.table.start_level()));
        let mut needed = BTreeSet::new();
        for (iova, held) in &self.pages {
            for (level, shift) in shifts(self.table.config().granule).into_iter().enumerate().skip(start) {
                if level < 3 && held.leaf_bytes < 1 << shift {
                    needed.insert((level, iova >> shift));
                }
            }
        }
        assert_eq!(self.platform.blocks(), 1 + needed.len(), "tables of {page:#x} bytes, and the root");
    }

    /// Checks pages at both ends of a range, on either side, and within.
    fn check_near(&self, iova: u64, bytes: u64) {
        let page = self.page_bytes();
        for base in [iova, iova + bytes / 2 / page * page, iova + bytes] {
            for offset in [-2, -1, 0, 1].map(|pages: i64| pages * page as i64) {
                if let Some(at) = base.checked_add_signed(offset) {
                    self.check(at);
                }
            }
        }
    }

    /// What the methods say, what the walker finds and what the reference holds is the same.
    fn check(&self, iova: u64) {
        let expected = self.pages.get(&iova);
        let offset = self.page_bytes() / 2 + 4;
        let found = self.table.walk(Iova::new(iova + offset));
        let as_page = |found: Translation| Page {
            physical: found.physical.get() - offset,
            access: found.access.unwrap(),
            memory: found.memory.unwrap(),
            leaf_start: iova & !(found.leaf_bytes - 1),
            leaf_bytes: found.leaf_bytes,
        };
        assert_eq!(found.map(as_page).as_ref(), expected, "{iova:#x}\n{}", self.table.trace(Iova::new(iova)));
        let seen = walk(self.platform, &self.table, iova + offset);
        assert_eq!(seen.map(|seen| seen.physical), expected.map(|page| page.physical + offset), "{iova:#x}");
    }
}

/// Offsets around borders of tables, of blocks, and of the address space; in granules.
fn pages(config: TableConfig) -> impl Strategy<Value = Pages> {
    let block = block_bytes(config.granule) / config.granule.bytes();
    let table = block << (config.granule.log2_bytes() - 3);
    let space = (1 << config.input_bits) / config.granule.bytes();
    let base = prop::sample::select(std::vec![0, block, 2 * block, table.min(space / 2), space - 2 * block]);
    let near = prop_oneof![Just(0), 0..12u64, block - 6..block + 6];
    let count = prop_oneof![4 => 1..10u64, 2 => 1..=2 * block, 1 => Just(block), 1 => Just(2 * block)];
    (base, near, count).prop_map(|(base, near, count)| Pages { first: base + near, count })
}

fn operation(config: TableConfig) -> impl Strategy<Value = Operation> {
    let block = block_bytes(config.granule) / config.granule.bytes();
    let last = (1 << config.output_bits) / config.granule.bytes();
    let to =
        prop_oneof![2 => (0..4u64).prop_map(move |blocks| blocks * block), 2 => 0..4 * block, 1 => last - block..last];
    let allocations = prop::option::weighted(0.3, 0..5usize);
    let map = (pages(config), to, prop::sample::select(&ACCESSES[..]), prop::sample::select(&MEMORY[..]), allocations)
        .prop_map(|(at, to, access, memory, allocations)| Operation::Map { at, to, access, memory, allocations });
    prop_oneof![
        4 => map,
        1 => pages(config).prop_map(|at| Operation::Unmap { at }),
        3 => (any::<prop::sample::Index>(), prop::option::of(1..6usize))
            .prop_map(|(which, leaves)| Operation::UnmapMapped { which, leaves }),
    ]
}

fn configs() -> impl Strategy<Value = TableConfig> {
    let output = prop::sample::select(&[32u8, 36, 40, 42, 44, 48][..]);
    let policy = prop::sample::select(&[EmptyTables::KeepOneLevel, EmptyTables::HandBack][..]);
    let kind = (prop::sample::select(&STAGES[..]), prop::sample::select(&GRANULES[..]), any::<bool>(), policy);
    (kind, output).prop_flat_map(|((stage, granule, coherent, empty_tables), output_bits)| {
        let most = if stage == crate::pgtable::Stage::Stage1 { 48 } else { output_bits };
        (32..=most).prop_map(move |input_bits| TableConfig {
            coherent,
            empty_tables,
            ..TableConfig::new(stage, granule, input_bits, output_bits)
        })
    })
}

proptest! {
    #![proptest_config(tries(192))]

    #[test]
    fn agrees_with_a_map_of_pages(
        (config, operations) in configs()
            .prop_flat_map(|config| (Just(config), prop::collection::vec(operation(config), 1..16)))
    ) {
        let platform = TestPlatform::leaked();
        let table = PageTable::new(platform, &config).unwrap();
        let mut checked = Checked { platform, table, pages: BTreeMap::new() };
        for operation in &operations {
            checked.run(operation);
            checked.check_tables();
        }
        for iova in checked.pages.keys() {
            checked.check(*iova);
        }
        drop(checked.table);
        prop_assert_eq!(platform.blocks(), 0, "no table is lost");
    }
}

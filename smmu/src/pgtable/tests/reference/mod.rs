//! Random maps, unmaps and walks against a sorted map of pages, for every stage, granule and kind of SMMU.

mod changes;
mod inputs;

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use proptest::prelude::*;

use inputs::{configs, operation};

use super::block_bytes;
use super::walker::{shifts, walk};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::pgtable::{MapError, MemoryType, PageTable, Permissions, RangeError, TableConfig, Translation};
use crate::testing::{TestPlatform, tries};

/// A page as it should be. Which leaf holds it is the table's choice, noted when it has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    physical: u64,
    permissions: Permissions,
    memory: MemoryType,
    dirty: bool,
    leaf_start: u64,
    leaf_bytes: u64,
    /// The leaf, or the contiguous group that it belongs to.
    group_start: u64,
    group_bytes: u64,
}

/// How large a contiguous group of leaves is.
fn group_bytes_of(granule: Granule, level: u8) -> u64 {
    match (granule, level) {
        (Granule::K4, 3) => 64 << 10,
        (Granule::K4, 2) => 32 << 20,
        (Granule::K4, _) => 16 << 30,
        (Granule::K16, 3) => 2 << 20,
        (Granule::K16, _) => 1 << 30,
        (Granule::K64, 3) => 2 << 20,
        (Granule::K64, 2) => 16 << 30,
        (Granule::K64, _) => 32 << 42,
    }
}

/// How much a leaf is one with.
fn group_bytes(granule: Granule, found: &Translation) -> u64 {
    if found.attributes.is_contiguous() { group_bytes_of(granule, found.level) } else { found.leaf_bytes() }
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
        permissions: Permissions,
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
    Protect {
        at: Pages,
        permissions: Permissions,
    },
    ProtectMapped {
        which: prop::sample::Index,
        leaves: Option<usize>,
        permissions: Permissions,
    },
    /// A device writes.
    Write {
        which: prop::sample::Index,
    },
    Dirty {
        at: Pages,
        clean: bool,
    },
    /// Splits the leaf of one random page, by replacing it or by break-before-make.
    Split {
        which: prop::sample::Index,
        breaks: bool,
        allocations: Option<usize>,
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
            Operation::Map { at, to, permissions, memory, allocations } => {
                self.map(at.first * page, to * page, at.count * page, *permissions, *memory, *allocations);
            }
            Operation::Unmap { at } => self.unmap(at.first * page, at.count * page),
            Operation::UnmapMapped { which, leaves } => {
                if let Some((start, bytes)) = self.mapped(which, *leaves) {
                    self.unmap(start, bytes);
                }
            }
            Operation::Protect { at, permissions } => {
                self.protect(at.first * page, at.count * page, *permissions);
            }
            Operation::ProtectMapped { which, leaves, permissions } => {
                if let Some((start, bytes)) = self.mapped(which, *leaves) {
                    self.protect(start, bytes, *permissions);
                }
            }
            Operation::Write { which } => self.write(which),
            Operation::Split { which, breaks, allocations } => self.split(which, *breaks, *allocations),
            Operation::Dirty { at, clean } => self.dirty(at.first * page, at.count * page, *clean),
        }
    }

    fn iova(&self, offset: u64) -> Iova {
        let TableConfig { half, input_bits, .. } = *self.table.config();
        Iova::new(half.first_address(input_bits).wrapping_add(offset))
    }

    fn any(&self, which: &prop::sample::Index) -> Option<Page> {
        let starts: Vec<_> = self.pages.keys().copied().collect();
        (!starts.is_empty()).then(|| self.pages[which.get(&starts)])
    }

    /// A range of leaves from a random one on; or as many as follow each other from the start of its table.
    fn mapped(&self, which: &prop::sample::Index, leaves: Option<usize>) -> Option<(u64, u64)> {
        let start = self.any(which)?.group_start;
        let table_start = start / block_bytes(self.table.config().granule) * block_bytes(self.table.config().granule);
        let start = if leaves.is_none() && self.pages.contains_key(&table_start) { table_start } else { start };
        let mut end = start;
        for _ in 0..leaves.unwrap_or(usize::MAX) {
            let Some(page) = self.pages.get(&end) else { break };
            end += page.group_bytes;
        }
        Some((start, end - start))
    }

    fn map(
        &mut self,
        iova: u64,
        to: u64,
        bytes: u64,
        permissions: Permissions,
        memory: MemoryType,
        allocations: Option<usize>,
    ) {
        let blocks = self.platform.blocks();
        self.platform.allow_allocations(allocations.unwrap_or(usize::MAX));
        let result = self.table.map(self.iova(iova), PhysAddr::new(to), bytes, permissions, memory);
        self.platform.allow_allocations(usize::MAX);
        let config = self.table.config();
        let overlap = self.pages.range(iova..iova + bytes).next().map(|(iova, _)| self.iova(*iova));
        match result {
            Err(MapError::OutOfDmaMemory(_)) => assert!(allocations.is_some()),
            Err(MapError::InputOutOfRange { .. }) => assert!(iova + bytes > 1 << config.input_bits),
            Err(MapError::OutputOutOfRange { .. }) => assert!(to + bytes > 1 << config.output_bits),
            Err(MapError::Overlap { iova }) => assert_eq!(Some(iova), overlap),
            Err(error) => panic!("{error}"),
            Ok(()) => {
                assert_eq!(overlap, None);
                self.note(iova, to, bytes, permissions, memory);
            }
        }
        if result.is_err() {
            assert_eq!(self.platform.blocks(), blocks, "{result:?}");
        }
        self.check_near(iova, bytes);
    }

    /// Adds what was mapped to the reference, after a look at the leaves that were chosen.
    fn note(&mut self, iova: u64, to: u64, bytes: u64, permissions: Permissions, memory: MemoryType) {
        let permissions = permissions.enforced(self.table.config().stage);
        let mut at = iova;
        while at < iova + bytes {
            let found = self.table.walk(self.iova(at)).expect("just mapped");
            let leaf_bytes = found.leaf_bytes();
            let group_bytes = group_bytes(self.table.config().granule, &found);
            let group_start = at & !(group_bytes - 1);
            assert_eq!((at ^ to.wrapping_add(at - iova)) % group_bytes, 0, "a group that is not aligned");
            assert!(group_start >= iova && group_start + group_bytes <= iova + bytes, "a group that is not whole");
            // All that can be one is one.
            let largest = group_bytes_of(self.table.config().granule, found.level);
            let may = (at ^ to.wrapping_add(at - iova)).is_multiple_of(largest)
                && at & !(largest - 1) >= iova
                && (at & !(largest - 1)) + largest <= iova + bytes;
            // Among blocks there may be tables, that divide groups.
            let must = self.table.config().contiguous && may && found.level == 3;
            assert!(!must || group_bytes == largest, "no group at {at:#x}");
            assert_eq!((at | to.wrapping_add(at - iova)) % leaf_bytes, 0, "a leaf that is not aligned");
            assert!(at + leaf_bytes <= iova + bytes, "a leaf larger than what was asked for");
            for page in (at..at + leaf_bytes).step_by(self.page_bytes() as usize) {
                let physical = to + (page - iova);
                self.pages.insert(
                    page,
                    Page {
                        physical,
                        permissions,
                        memory,
                        dirty: false,
                        leaf_start: at,
                        leaf_bytes,
                        group_start,
                        group_bytes,
                    },
                );
            }
            at += leaf_bytes;
        }
    }

    fn unmap(&mut self, iova: u64, bytes: u64) {
        let result = self.table.unmap(self.iova(iova), bytes).map(|unmapped| self.table.free(unmapped));
        if iova + bytes > 1 << self.table.config().input_bits {
            assert!(matches!(result, Err(RangeError::InputOutOfRange { .. })));
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

    fn expected_unmap(&self, iova: u64, bytes: u64) -> Result<(), RangeError> {
        let mut at = iova;
        while at < iova + bytes {
            let page = self.pages.get(&at).ok_or(RangeError::NotMapped { iova: self.iova(at) })?;
            if page.group_start != at || at + page.group_bytes > iova + bytes {
                return Err(RangeError::SplitsBlock {
                    iova: self.iova(page.group_start),
                    block_bytes: page.group_bytes,
                });
            }
            at += page.group_bytes;
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
        let at = Iova::new(self.iova(iova).get().wrapping_add(offset));
        // Beside the first and the last page there is the other half.
        if at.get() != self.iova(iova).get() | offset {
            return;
        }
        let found = self.table.walk(at);
        let as_page = |found: Translation| Page {
            physical: found.physical.get() - offset,
            permissions: found.attributes.permissions().unwrap(),
            memory: found.memory().unwrap(),
            dirty: found.attributes.is_dirty(),
            leaf_start: iova & !(found.leaf_bytes() - 1),
            leaf_bytes: found.leaf_bytes(),
            group_start: iova & !(group_bytes(self.table.config().granule, &found) - 1),
            group_bytes: group_bytes(self.table.config().granule, &found),
        };
        assert_eq!(found.map(as_page).as_ref(), expected, "{iova:#x}\n{}", self.table.trace(at));
        let seen = walk(self.platform, &self.table, at.get());
        assert_eq!(seen.map(|seen| seen.physical), expected.map(|page| page.physical + offset), "{iova:#x}");
    }
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

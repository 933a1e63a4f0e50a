//! Tables that become empty: kept or handed back, and what is to be freed kept until later.

use super::{G, GRANULES, K, M, STAGES, block_bytes, config, handing_back, table};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::arch::range::Stale;
use crate::pgtable::{Access, MapError, MemoryType, PageTable, Stage, TableConfig, Unmapped};
use crate::testing::TestPlatform;

fn map(table: &PageTable<TestPlatform>, iova: u64, physical: u64, size_bytes: u64) {
    table.map(Iova::new(iova), PhysAddr::new(physical), size_bytes, Access::ReadWrite, MemoryType::WriteBack).unwrap();
}

fn unmap(table: &PageTable<TestPlatform>, iova: u64, size_bytes: u64) -> Unmapped<TestPlatform> {
    table.unmap(Iova::new(iova), size_bytes).unwrap()
}

#[test]
fn a_table_of_pages_that_becomes_empty_stays_for_the_next_mapping() {
    let (platform, table) = table(config(Stage::Stage1, Granule::K4, 48));
    map(&table, 0, 0, 4 * K);
    let blocks = platform.blocks();
    for _ in 0..3 {
        let unmapped = unmap(&table, 0, 4 * K);
        assert_eq!((unmapped.stale(), unmapped.holds_tables()), (Stale::Leaves { level: Some(3) }, false));
        map(&table, 0, 4 * K, 2 * M);
        assert_eq!(platform.blocks(), blocks, "all of a table is no reason either");
        assert_eq!(unmap(&table, 0, 2 * M).stale(), Stale::Leaves { level: Some(3) });
        map(&table, 0, 0, 4 * K);
        assert_eq!(platform.blocks(), blocks);
    }
    drop(table);
    assert_eq!(platform.blocks(), 0);
}

#[test]
fn it_goes_with_what_the_table_above_serves() {
    let (platform, table) = table(config(Stage::Stage1, Granule::K4, 39));
    map(&table, 0, 4 * K, G);
    assert_eq!(platform.blocks(), 2 + 512);
    table.free(unmap(&table, 0, 4 * M));
    assert_eq!(platform.blocks(), 2 + 512);
    map(&table, 0, 4 * K, 4 * M);
    table.free(unmap(&table, 0, G));
    assert_eq!(platform.blocks(), 1);
}

#[test]
fn nothing_is_kept_that_the_mappings_do_not_need() {
    for stage in STAGES {
        for granule in GRANULES {
            for coherent in [true, false] {
                let (platform, table) = table(handing_back(TableConfig { coherent, ..config(stage, granule, 48) }));
                let (page, block) = (granule.bytes(), block_bytes(granule));
                map(&table, 0, 0, 2 * page);
                let blocks = platform.blocks();
                map(&table, block, 0, page);
                assert_eq!(platform.blocks(), blocks + 1);
                // A block beside it needs none; and one may take its place when it is gone.
                map(&table, 2 * block, 0, block);
                let unmapped = unmap(&table, block, page);
                assert_eq!((unmapped.stale(), unmapped.holds_tables()), (Stale::TablesAndLeaves, true));
                table.free(unmapped);
                assert_eq!(platform.blocks(), blocks);
                map(&table, block, 0, block);
                assert_eq!(table.walk(Iova::new(block)).unwrap().leaf_bytes(), block);
                table.free(unmap(&table, block, 2 * block));
                let unmapped = unmap(&table, 0, page);
                assert!(!unmapped.holds_tables(), "a page is left");
                table.free(unmap(&table, page, page));
                assert_eq!(platform.blocks(), 1, "but the root");
            }
        }
    }
}

#[test]
fn both_ends_of_a_range_may_leave_empty_tables() {
    let (platform, table) = table(handing_back(config(Stage::Stage1, Granule::K4, 48)));
    let start = 512 * G - 4 * M + 4 * K;
    map(&table, start, 0, 8 * M);
    assert_eq!(platform.blocks(), 1 + 2 * 2 + 5);
    table.free(unmap(&table, start, 8 * M));
    assert_eq!(platform.blocks(), 1);
}

#[test]
fn no_memory_leaves_nothing_behind() {
    let (platform, table) = table(handing_back(config(Stage::Stage1, Granule::K4, 48)));
    for allowed in 0..3 {
        platform.allow_allocations(allowed);
        let access = Access::ReadWrite;
        let result = table.map(Iova::new(0), PhysAddr::new(0), 4 * K, access, MemoryType::WriteBack);
        assert!(matches!(result, Err(MapError::OutOfDmaMemory(_))), "{result:?}");
        assert_eq!(platform.blocks(), 1);
    }
}

#[test]
fn what_was_unmapped_can_be_kept_together_and_freed_later() {
    let (platform, table) = table(handing_back(config(Stage::Stage1, Granule::K4, 48)));
    map(&table, 4 * G, 0, 8 * K);
    map(&table, G, 0, 4 * K);
    map(&table, 9 * G, G, G);
    let mut parked = unmap(&table, 9 * G, G);
    assert_eq!((parked.stale(), parked.granule()), (Stale::Leaves { level: Some(1) }, Granule::K4));
    parked.append(unmap(&table, 4 * G, 8 * K)).unwrap();
    assert_eq!((parked.start(), parked.size_bytes()), (Iova::new(4 * G), 6 * G));
    assert_eq!(parked.stale(), Stale::TablesAndLeaves);
    parked.append(unmap(&table, G, 4 * K)).unwrap();
    assert_eq!((parked.start(), parked.size_bytes()), (Iova::new(G), 9 * G));
    assert_eq!(platform.blocks(), 1 + 1 + 2 * 2);
    table.free(parked);
    assert_eq!(platform.blocks(), 1);
}

#[test]
fn leaves_of_different_levels_are_stale_at_any_level() {
    let (_, table) = table(config(Stage::Stage1, Granule::K4, 48));
    map(&table, 0, 0, 4 * K);
    map(&table, 4 * K, 0, 4 * K);
    map(&table, 2 * M, 0, 2 * M);
    let mut parked = unmap(&table, 0, 4 * K);
    parked.append(unmap(&table, 4 * K, 4 * K)).unwrap();
    assert_eq!(parked.stale(), Stale::Leaves { level: Some(3) });
    parked.append(unmap(&table, 2 * M, 2 * M)).unwrap();
    assert_eq!((parked.stale(), parked.size_bytes()), (Stale::Leaves { level: None }, 4 * M));
}

/// Whoever still reads it is only known to the table that it comes from.
#[test]
fn another_tables_memory_is_not_freed() {
    let (platform, one) = table(handing_back(config(Stage::Stage1, Granule::K4, 48)));
    let another = PageTable::new(platform, one.config()).unwrap();
    map(&one, 0, 0, 4 * K);
    map(&another, 0, 0, 4 * K);
    let blocks = platform.blocks();
    let mut parked = unmap(&one, 0, 4 * K);
    let Err(other) = parked.append(unmap(&another, 0, 4 * K)) else { panic!("taken in") };
    one.free(other);
    assert_eq!(platform.blocks(), blocks);
    one.free(parked);
    assert_eq!(platform.blocks(), blocks - 3);
}

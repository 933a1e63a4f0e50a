//! Unmapping: what it accepts, what it tells the invalidation, and when tables are freed.

use super::{G, GRANULES, K, M, block_bytes, config, handing_back, table};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::arch::range::Stale;
use crate::pgtable::{Access, MemoryType, PageTable, RangeError, Stage};
use crate::testing::TestPlatform;

fn map(table: &PageTable<TestPlatform>, iova: u64, physical: u64, size_bytes: u64) {
    table.map(Iova::new(iova), PhysAddr::new(physical), size_bytes, Access::ReadWrite, MemoryType::WriteBack).unwrap();
}

/// Unmaps, frees, and says what was stale.
fn unmap(table: &PageTable<TestPlatform>, iova: u64, size_bytes: u64) -> Result<Stale, RangeError> {
    let unmapped = table.unmap(Iova::new(iova), size_bytes)?;
    assert_eq!((unmapped.start(), unmapped.size_bytes()), (Iova::new(iova), size_bytes));
    let stale = unmapped.stale();
    table.free(unmapped);
    Ok(stale)
}

const fn leaves(level: u8) -> Result<Stale, RangeError> {
    Ok(Stale::Leaves { level: Some(level) })
}

#[test]
fn the_invalidation_learns_what_went() {
    let (_, table) = table(config(Stage::Stage1, Granule::K4, 48));
    map(&table, 4 * K, 0, 8 * K);
    assert_eq!(unmap(&table, 4 * K, 8 * K), leaves(3));
    map(&table, 2 * M, 2 * M, 4 * M);
    assert_eq!(unmap(&table, 2 * M, 4 * M), leaves(2));
    map(&table, 8 * G, 8 * G, 2 * G);
    assert_eq!(unmap(&table, 8 * G, 2 * G), leaves(1));
    map(&table, 2 * M, 2 * M, 2 * M + 4 * K);
    assert_eq!(unmap(&table, 2 * M, 2 * M + 4 * K), Ok(Stale::Leaves { level: None }));
    map(&table, 16 * G + 4 * K, 0, 4 * M);
    assert_eq!(unmap(&table, 16 * G + 4 * K, 4 * M), leaves(3));
    map(&table, 24 * G, 4 * K, G);
    assert_eq!(unmap(&table, 24 * G, G), Ok(Stale::TablesAndLeaves));
}

#[test]
fn neighbours_stay() {
    let (_, table) = table(config(Stage::Stage2, Granule::K4, 48));
    map(&table, 0, 0, 64 * K);
    assert_eq!(unmap(&table, 16 * K, 32 * K), leaves(3));
    let mapped = [0, 12 * K, 16 * K, 44 * K, 48 * K, 60 * K].map(|iova| table.walk(Iova::new(iova)).is_some());
    assert_eq!(mapped, [true, true, false, false, true, true]);
}

#[test]
fn r28_tables_are_cleared_then_kept_until_freed() {
    for granule in GRANULES {
        let (platform, table) = table(handing_back(config(Stage::Stage1, granule, 48)));
        let block = block_bytes(granule);
        map(&table, 0, 0, granule.bytes());
        let blocks = platform.blocks();
        map(&table, block, granule.bytes(), block);
        assert_eq!(platform.blocks(), blocks + 1);
        let barriers = platform.barriers();
        let unmapped = table.unmap(Iova::new(block), block).unwrap();
        assert_eq!(unmapped.stale(), Stale::TablesAndLeaves);
        assert_eq!(table.trace(Iova::new(block)).descriptor(2), Some(0), "nothing points at it");
        assert_eq!(platform.barriers(), barriers + 1, "and the SMMU knows before it is told to invalidate");
        assert_eq!(platform.blocks(), blocks + 1, "but the SMMU may still walk it");
        table.free(unmapped);
        assert_eq!(platform.blocks(), blocks);
    }
}

#[test]
fn a_removed_table_keeps_its_other_entries_and_stays_invalid_where_it_is_linked() {
    let (platform, table) = table(handing_back(config(Stage::Stage1, Granule::K4, 48)));
    map(&table, 0, 4 * K, 4 * M);
    let removed = [0, 2 * M].map(|iova| table.trace(Iova::new(iova)).descriptor(2).unwrap() & 0x0000_ffff_ffff_f000);
    let unmapped = table.unmap(Iova::new(0), 4 * M).unwrap();
    for (table, last) in removed.into_iter().zip([2 * M, 4 * M]) {
        assert_eq!(platform.snooped_word(PhysAddr::new(table)) & 1, 0, "the link is no valid descriptor");
        assert_eq!(platform.snooped_word(PhysAddr::new(table + 0xff8)) & 0xffff_ffff_f000, last, "never visited");
    }
    table.free(unmapped);
}

#[test]
fn dropping_without_free_keeps_the_tables_for_good() {
    let (platform, table) = table(handing_back(config(Stage::Stage1, Granule::K4, 48)));
    map(&table, 0, 4 * K, 2 * M);
    drop(table.unmap(Iova::new(0), 2 * M).unwrap());
    drop(table);
    assert_eq!(platform.blocks(), 3);
}

#[test]
fn tables_of_tables_go_at_once() {
    let (platform, table) = table(config(Stage::Stage1, Granule::K4, 48));
    let blocks = platform.blocks();
    map(&table, 512 * G, 4 * K, 3 * G);
    map(&table, 515 * G, G, 509 * G);
    assert_eq!(platform.blocks(), blocks + 1 + 3 + 3 * 512);
    assert_eq!(unmap(&table, 512 * G, 512 * G), Ok(Stale::TablesAndLeaves));
    assert_eq!(platform.blocks(), blocks);
}

#[test]
fn a_running_method_keeps_what_it_may_be_reading() {
    let (platform, table) = table(handing_back(config(Stage::Stage1, Granule::K4, 48)));
    map(&table, 0, 4 * K, 4 * M);
    let blocks = platform.blocks();
    let (first, second) = (table.visit(), table.visit());
    assert_eq!(unmap(&table, 0, 4 * M), Ok(Stale::TablesAndLeaves));
    assert_eq!(platform.blocks(), blocks);
    drop(first);
    assert_eq!(platform.blocks(), blocks);
    // As a visitor does that was the last when it looked, but is not any more.
    table.tables.free_waiting();
    assert_eq!(platform.blocks(), blocks);
    drop(second);
    assert_eq!(platform.blocks(), blocks - 4);
}

#[test]
fn wrong_ranges_change_nothing() {
    let (_, table) = table(config(Stage::Stage1, Granule::K4, 40));
    map(&table, 0, 0, 4 * M);
    map(&table, 4 * M, 4 * M, 8 * K);
    let input = |iova, size_bytes| RangeError::InputOutOfRange { iova: Iova::new(iova), size_bytes, input_bits: 40 };
    let misaligned =
        |iova, size_bytes| RangeError::Misaligned { iova: Iova::new(iova), size_bytes, granule: Granule::K4 };
    let not_mapped = |iova| RangeError::NotMapped { iova: Iova::new(iova) };
    let splits = |iova| RangeError::SplitsBlock { iova: Iova::new(iova), block_bytes: 2 * M };
    let cases = [
        (0, 0, RangeError::Empty { iova: Iova::new(0) }),
        (1, 4 * K, misaligned(1, 4 * K)),
        (0, 1, misaligned(0, 1)),
        (1 << 40, 4 * K, input(1 << 40, 4 * K)),
        (4 * K, u64::MAX - 0xfff, input(4 * K, u64::MAX - 0xfff)),
        (0, 4 * M + 12 * K, not_mapped(4 * M + 8 * K)),
        (8 * M, 4 * K, not_mapped(8 * M)),
        (4 * M + 4 * K, 8 * K, not_mapped(4 * M + 8 * K)),
        (4 * K, 4 * M, splits(0)),
        (0, 2 * M + 4 * K, splits(2 * M)),
        (2 * M, 4 * K, splits(2 * M)),
    ];
    for (iova, size_bytes, error) in cases {
        assert_eq!(unmap(&table, iova, size_bytes), Err(error));
    }
    assert_eq!(unmap(&table, 0, 4 * M + 8 * K), Ok(Stale::Leaves { level: None }), "all of it was still there");
}

#[test]
fn a_hole_is_found_wherever_it_is() {
    for position in 0..20 {
        let (_, table) = table(config(Stage::Stage1, Granule::K4, 40));
        map(&table, 0, 0, 20 * 4 * K);
        assert_eq!(unmap(&table, position * 4 * K, 4 * K), leaves(3));
        let hole = RangeError::NotMapped { iova: Iova::new(position * 4 * K) };
        assert_eq!(unmap(&table, 0, 20 * 4 * K), Err(hole));
    }
}

/// A loop that counted pages in 32 bits would stop after none: 2^32 pages of 4 KiB are 16 TiB.
#[test]
fn r30_sizes_beyond_32_bits_of_pages() {
    let (_, table) = table(config(Stage::Stage1, Granule::K4, 48));
    map(&table, 0, 0, 1 << 44);
    assert!(table.walk(Iova::new((1 << 44) - 1)).is_some());
    assert_eq!(unmap(&table, 0, 1 << 44), Ok(Stale::TablesAndLeaves));
    assert_eq!(table.walk(Iova::new((1 << 44) - 1)), None);
}

//! Blocks and contiguous groups in parts.

use super::walker::walk;
use super::{G, GRANULES, K, M, STAGES, block_bytes, config, handing_back, table};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::arch::range::Stale;
use crate::pgtable::{Access, MemoryType, PageTable, RangeError, SplitError, Stage, TableConfig, Tracking};
use crate::testing::TestPlatform;

fn map(table: &PageTable<TestPlatform>, iova: u64, physical: u64, size_bytes: u64) {
    table.map(Iova::new(iova), PhysAddr::new(physical), size_bytes, Access::Read, MemoryType::Device).unwrap();
}

/// Where an address leads and how large the leaf is, after the walker has agreed.
fn found(platform: &TestPlatform, table: &PageTable<TestPlatform>, iova: u64) -> Option<(u64, u64)> {
    let found = table.walk(Iova::new(iova)).map(|found| (found.physical.get(), found.leaf_bytes()));
    assert_eq!(found.map(|found| found.0), walk(platform, table, iova).map(|found| found.physical));
    found
}

#[test]
fn a_block_is_replaced_by_its_parts_without_a_moment_of_no_mapping() {
    for (stage, granule) in STAGES.into_iter().flat_map(|stage| GRANULES.map(|granule| (stage, granule))) {
        for coherent in [true, false] {
            let (platform, table) = table(TableConfig { coherent, ..config(stage, granule, 42) });
            let (page, block) = (granule.bytes(), block_bytes(granule));
            map(&table, block, 3 * block, block);
            let before = table.walk(Iova::new(block)).unwrap();
            let at = walk(platform, &table, block).unwrap().at;
            platform.watch(move |platform| {
                assert_eq!(platform.snooped_word(at) & 1, 1, "always valid");
            });
            let stale = table.split(Iova::new(block + 5 * page + 8));
            assert_eq!(stale, Ok(Some(Stale::Leaves { level: Some(2) })));
            for offset in [0, page, block / 2, block - 8] {
                assert_eq!(found(platform, &table, block + offset), Some((3 * block + offset, page)));
            }
            let after = table.walk(Iova::new(block)).unwrap();
            assert_eq!(after.attributes.inherited(), before.attributes.inherited());
            assert_eq!(table.split(Iova::new(block)), Ok(None), "a page has no parts");
            platform.watch(|_| ());
            table.free(table.unmap(Iova::new(block + page), page).unwrap());
            let around = [block, block + page, block + 2 * page].map(|iova| found(platform, &table, iova).is_some());
            assert_eq!(around, [true, false, true]);
        }
    }
}

/// Bit 16 of a block is nT, and of an address in a page (Arm ARM, D8.3).
#[test]
fn what_keeps_a_block_out_of_the_tlb_does_not_lead_its_parts_astray() {
    for (stage, granule) in STAGES.into_iter().flat_map(|stage| GRANULES.map(|granule| (stage, granule))) {
        for breaks in [false, true] {
            let (platform, table) = table(config(stage, granule, 42));
            let (page, block) = (granule.bytes(), block_bytes(granule));
            map(&table, block, 3 * block, block);
            let before = walk(platform, &table, block).unwrap();
            platform.write_word(before.at, before.raw | 1 << 16, true);
            if breaks {
                table.begin_split(Iova::new(block)).unwrap().unwrap().make().unwrap();
            } else {
                table.split(Iova::new(block)).unwrap();
            }
            for offset in (0..16 * page).step_by(page as usize) {
                assert_eq!(found(platform, &table, block + offset), Some((3 * block + offset, page)));
                let raw = walk(platform, &table, block + offset).unwrap().raw;
                assert_eq!(raw, before.raw | 2 | offset, "{stage} {granule}");
            }
        }
    }
}

#[test]
fn break_before_make_leaves_nothing_in_between() {
    for policy in [|config| config, handing_back] {
        let (platform, table) = table(policy(config(Stage::Stage1, Granule::K4, 40)));
        map(&table, G, 2 * G, G);
        let blocks = platform.blocks();
        let broken = table.begin_split(Iova::new(G + 5)).unwrap().unwrap();
        assert_eq!((broken.start(), broken.size_bytes()), (Iova::new(G), G));
        assert_eq!(broken.stale(), Stale::Leaves { level: Some(1) });
        assert_eq!(found(platform, &table, G), None);
        broken.make().unwrap();
        assert_eq!(platform.blocks(), blocks + 1);
        assert_eq!(found(platform, &table, 2 * G - 8), Some((3 * G - 8, 2 * M)), "by one level");
        table.begin_split(Iova::new(G + 4 * M)).unwrap().unwrap().make().unwrap();
        assert_eq!(found(platform, &table, G + 4 * M + 4), Some((2 * G + 4 * M + 4, 4 * K)));
        assert!(table.begin_split(Iova::new(G + 4 * M)).unwrap().is_none(), "a page has no parts");
        table.free(table.unmap(Iova::new(G), G).unwrap());
        drop(table);
        assert_eq!(platform.blocks(), 0);
    }
}

#[test]
fn a_block_that_was_not_put_back_is_gone() {
    let (platform, table) = table(config(Stage::Stage1, Granule::K4, 40));
    map(&table, 2 * M, 2 * M, 2 * M);
    let blocks = platform.blocks();
    drop(table.begin_split(Iova::new(2 * M)).unwrap().unwrap());
    assert_eq!(platform.blocks(), blocks, "the table for its parts is not lost");
    assert_eq!(found(platform, &table, 2 * M), None);
    drop(table);
    assert_eq!(platform.blocks(), 0);
}

#[test]
fn what_cannot_be_split_changes_nothing() {
    let (platform, table) = table(config(Stage::Stage1, Granule::K4, 40));
    map(&table, 2 * M, 2 * M, 2 * M);
    let outside = SplitError::InputOutOfRange { iova: Iova::new(1 << 40), input_bits: 40 };
    assert_eq!(table.split(Iova::new(1 << 40)), Err(outside));
    let hole = SplitError::NotMapped { iova: Iova::new(0) };
    assert_eq!(table.split(Iova::new(0)), Err(hole));
    assert_eq!(table.begin_split(Iova::new(0)).unwrap_err(), hole);
    platform.allow_allocations(0);
    assert!(matches!(table.split(Iova::new(2 * M)), Err(SplitError::OutOfDmaMemory(_))));
    assert!(matches!(table.begin_split(Iova::new(2 * M)), Err(SplitError::OutOfDmaMemory(_))));
    assert_eq!(found(platform, &table, 2 * M), Some((2 * M, 2 * M)));
}

#[test]
fn parts_are_as_dirty_as_the_block_was() {
    let tracking = Tracking::HardwareAccessAndDirty;
    let (platform, table) = table(TableConfig { tracking, ..config(Stage::Stage2, Granule::K4, 40) });
    table.map(Iova::new(0), PhysAddr::new(0), 2 * M, Access::ReadWrite, MemoryType::WriteBack).unwrap();
    let block = walk(platform, &table, 0).unwrap();
    platform.write_word(block.at, block.raw | 1 << 7 | 1 << 10, true);
    table.split(Iova::new(0)).unwrap();
    let mut bytes = 0;
    table.dirty(Iova::new(0), 2 * M, |_, size_bytes| bytes += size_bytes).unwrap();
    assert_eq!(bytes, 2 * M);
}

fn with_groups(stage: Stage, granule: Granule) -> TableConfig {
    TableConfig { contiguous: true, ..config(stage, granule, 44) }
}

#[test]
fn whole_groups_have_the_contiguous_bit() {
    for (granule, group) in [(Granule::K4, 64 * K), (Granule::K16, 2 * M), (Granule::K64, 2 * M)] {
        let (platform, table) = table(with_groups(Stage::Stage1, granule));
        let page = granule.bytes();
        let is_marked = |iova| walk(platform, &table, iova).unwrap().raw >> 52 & 1 == 1;
        // A page more on either side.
        map(&table, group - page, group - page, 2 * group + 2 * page);
        let marks = [group - page, group, 2 * group - page, 2 * group, 3 * group - page, 3 * group].map(is_marked);
        assert_eq!(marks, [false, true, true, true, true, false], "{granule}");
        map(&table, 8 * group, 16 * group + page, group);
        assert!(!is_marked(8 * group), "not aligned on the other side");
        map(&table, 9 * group, 9 * group, group - page);
        assert!(!is_marked(9 * group), "not all of a group");
        table.free(table.unmap(Iova::new(group), 2 * group).unwrap());
    }
    let (platform, table) = table(with_groups(Stage::Stage2, Granule::K4));
    map(&table, 32 * M, 64 * M, 34 * M);
    let marks = [32 * M, 62 * M, 64 * M].map(|iova| walk(platform, &table, iova).unwrap().raw >> 52 & 1);
    assert_eq!(marks, [1, 1, 0], "blocks too");
}

#[test]
fn part_of_a_group_goes_only_when_it_is_none_any_more() {
    for breaks in [false, true] {
        let (platform, table) = table(with_groups(Stage::Stage1, Granule::K4));
        map(&table, 64 * K, 64 * K, 128 * K);
        let splits = |start| RangeError::SplitsBlock { iova: Iova::new(start), block_bytes: 64 * K };
        let unmap = |iova, size_bytes| table.unmap(Iova::new(iova), size_bytes).map(|unmapped| table.free(unmapped));
        assert_eq!(unmap(68 * K, 4 * K), Err(splits(64 * K)));
        assert_eq!(unmap(64 * K, 68 * K), Err(splits(128 * K)));
        assert_eq!(unmap(68 * K, 124 * K), Err(splits(64 * K)));
        let protected = table.protect(Iova::new(128 * K), 8 * K, Access::ReadWrite);
        assert_eq!(protected, Err(splits(128 * K)));
        if breaks {
            let broken = table.begin_split(Iova::new(100 * K)).unwrap().unwrap();
            assert_eq!((broken.start(), broken.size_bytes()), (Iova::new(64 * K), 64 * K));
            assert_eq!(broken.stale(), Stale::Leaves { level: Some(3) });
            assert_eq!([64 * K, 124 * K].map(|iova| found(platform, &table, iova)), [None; 2]);
            assert!(found(platform, &table, 128 * K).is_some());
            broken.make().unwrap();
        } else {
            assert_eq!(table.split(Iova::new(100 * K)), Ok(Some(Stale::Leaves { level: Some(3) })));
        }
        for iova in [64 * K, 100 * K, 124 * K] {
            assert_eq!(found(platform, &table, iova), Some((iova, 4 * K)));
            assert_eq!(walk(platform, &table, iova).unwrap().raw >> 52 & 1, 0);
        }
        assert_eq!(unmap(68 * K, 4 * K), Ok(()));
        assert_eq!(unmap(128 * K, 4 * K), Err(splits(128 * K)), "the other is still one");
        assert_eq!(unmap(72 * K, 120 * K), Ok(()));
    }
}

//! Mapping: which leaves are chosen, and that errors change nothing.

use super::walker::walk;
use super::{G, GRANULES, K, M, STAGES, block_bytes, config, table};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::pgtable::{Access, MapError, MemoryType, PageTable, Stage, TableConfig};
use crate::testing::TestPlatform;

fn map(table: &PageTable<TestPlatform>, iova: u64, physical: u64, size_bytes: u64) -> Result<(), MapError> {
    table.map(Iova::new(iova), PhysAddr::new(physical), size_bytes, Access::ReadWrite, MemoryType::WriteBack)
}

/// The level of the leaf at `iova`, after the walker that shares no code has agreed.
fn level(platform: &TestPlatform, table: &PageTable<TestPlatform>, iova: u64) -> Option<u8> {
    let found = table.walk(Iova::new(iova));
    let seen = walk(platform, table, iova);
    assert_eq!(
        found.map(|found| (found.physical.get(), usize::from(found.level))),
        seen.map(|f| (f.physical, f.level))
    );
    found.map(|found| found.level)
}

#[test]
fn the_largest_leaves_that_alignment_allows() {
    let (platform, table) = table(config(Stage::Stage1, Granule::K4, 48));
    // Pages up to 2 MiB, blocks of 2 MiB up to 1 GiB, a block of 1 GiB, and down again.
    let start = 2 * G - 2 * M - 4 * K;
    map(&table, start, 8 * G - 2 * M - 4 * K, G + 4 * M + 8 * K).unwrap();
    let expected = [
        (start - 1, None),
        (start, Some(3)),
        (start + 4 * K, Some(2)),
        (2 * G, Some(1)),
        (3 * G - 1, Some(1)),
        (3 * G, Some(2)),
        (3 * G + 2 * M, Some(3)),
        (3 * G + 2 * M + 4 * K, None),
    ];
    for (iova, leaf) in expected {
        assert_eq!(level(platform, &table, iova), leaf, "{iova:#x}");
    }
}

#[test]
fn every_granule_has_its_blocks() {
    for stage in STAGES {
        for (granule, block, block_level) in
            [(Granule::K4, 2 * M, 2), (Granule::K4, G, 1), (Granule::K16, 32 * M, 2), (Granule::K64, 512 * M, 2)]
        {
            let (platform, table) = table(config(stage, granule, 40));
            map(&table, block, 4 * block, block).unwrap();
            assert_eq!(level(platform, &table, block), Some(block_level), "{granule}");
            assert_eq!(level(platform, &table, 2 * block - 1), Some(block_level), "{granule}");
            assert_eq!(level(platform, &table, 2 * block), None);
        }
    }
}

#[test]
fn misaligned_output_means_pages() {
    for granule in GRANULES {
        let (platform, table) = table(config(Stage::Stage1, granule, 40));
        let block = block_bytes(granule);
        map(&table, block, block + granule.bytes(), block).unwrap();
        assert_eq!(level(platform, &table, block), Some(3));
        assert_eq!(level(platform, &table, 2 * block - 1), Some(3));
    }
}

#[test]
fn a_table_left_over_is_filled_with_pages() {
    let (platform, table) = table(config(Stage::Stage1, Granule::K4, 40));
    map(&table, 2 * M, 0, 4 * K).unwrap();
    table.free(table.unmap(Iova::new(2 * M), 4 * K).unwrap());
    let blocks = platform.blocks();
    map(&table, 0, 0, 6 * M).unwrap();
    let levels = [0, 2 * M, 4 * M - 1, 4 * M].map(|iova| level(platform, &table, iova));
    assert_eq!(levels, [Some(2), Some(3), Some(3), Some(2)]);
    assert_eq!(platform.blocks(), blocks);
}

#[test]
fn the_last_address_can_be_mapped() {
    for stage in STAGES {
        for granule in GRANULES {
            for bits in [32, 39, 48] {
                let (platform, table) = table(config(stage, granule, bits));
                let last = (1 << bits) - granule.bytes();
                map(&table, last, (1 << 48) - granule.bytes(), granule.bytes()).unwrap();
                assert_eq!(level(platform, &table, last), Some(3));
            }
        }
    }
}

#[test]
fn a_whole_address_space_of_blocks() {
    let (platform, table) = table(config(Stage::Stage2, Granule::K4, 42));
    map(&table, 0, 0, 1 << 42).unwrap();
    assert_eq!(level(platform, &table, (1 << 42) - 1), Some(1));
    let size_bytes = 1 << 42;
    assert_eq!(map(&table, 0, 0, size_bytes), Err(MapError::Overlap { iova: Iova::new(0) }));
}

#[test]
fn wrong_arguments_name_their_values() {
    let config = TableConfig { output_bits: 40, ..config(Stage::Stage1, Granule::K16, 40) };
    let (platform, table) = table(config);
    let blocks = platform.blocks();
    let (page, end) = (16 * K, 1 << 40);
    let misaligned = |iova, physical, size_bytes| MapError::Misaligned {
        iova: Iova::new(iova),
        physical: PhysAddr::new(physical),
        size_bytes,
        granule: Granule::K16,
    };
    let input = |iova, size_bytes| MapError::InputOutOfRange { iova: Iova::new(iova), size_bytes, input_bits: 40 };
    let output = |physical, size_bytes| MapError::OutputOutOfRange {
        physical: PhysAddr::new(physical),
        size_bytes,
        output_bits: 40,
    };
    let cases = [
        ((page, page, 0), MapError::Empty { iova: Iova::new(page) }),
        ((4 * K, 0, page), misaligned(4 * K, 0, page)),
        ((0, 4 * K, page), misaligned(0, 4 * K, page)),
        ((0, 0, 4 * K), misaligned(0, 0, 4 * K)),
        ((end, 0, page), input(end, page)),
        ((end - page, 0, 2 * page), input(end - page, 2 * page)),
        ((u64::MAX - page + 1, 0, page), input(u64::MAX - page + 1, page)),
        ((page, 0, u64::MAX - page + 1), input(page, u64::MAX - page + 1)),
        ((0, end, page), output(end, page)),
        ((0, end - page, 2 * page), output(end - page, 2 * page)),
        ((0, u64::MAX - page + 1, page), output(u64::MAX - page + 1, page)),
    ];
    for ((iova, physical, size_bytes), error) in cases {
        assert_eq!(map(&table, iova, physical, size_bytes), Err(error));
    }
    assert_eq!(platform.blocks(), blocks);
}

#[test]
fn overlap_is_found_before_anything_is_written() {
    let (platform, table) = table(config(Stage::Stage1, Granule::K4, 48));
    let page = G + 5 * M + 12 * K;
    map(&table, page, 0, 4 * K).unwrap();
    let block = 3 * G;
    map(&table, block, G, G).unwrap();
    let blocks = platform.blocks();
    for (start, size_bytes, overlap) in [
        (page, 4 * K, page),
        (page - 8 * K, 64 * K, page),
        (G, G, page),
        (0, 4 * G, page),
        (2 * G, 2 * G, block),
        (block + 2 * M, 4 * K, block + 2 * M),
    ] {
        assert_eq!(map(&table, start, start, size_bytes), Err(MapError::Overlap { iova: Iova::new(overlap) }));
        assert_eq!(platform.blocks(), blocks, "tables that were not needed are freed");
    }
    assert_eq!(level(platform, &table, page - 4 * K), None);
    assert_eq!(level(platform, &table, 0), None);
}

#[test]
fn no_memory_at_any_point_changes_nothing() {
    for granule in GRANULES {
        let (platform, table) = table(config(Stage::Stage1, granule, 48));
        let block = block_bytes(granule);
        let neighbour = 3 * block;
        map(&table, neighbour, 0, granule.bytes()).unwrap();
        let blocks = platform.blocks();
        // Pages, a block or more, pages; across an upper table's border.
        let border = block << (granule.log2_bytes() - 3);
        let (start, size_bytes) = (border - granule.bytes(), 2 * block + 2 * granule.bytes());
        let needed = (0..).find(|allowed| {
            platform.allow_allocations(*allowed);
            let result = map(&table, start, start, size_bytes);
            if result.is_err() {
                assert!(matches!(result, Err(MapError::OutOfDmaMemory(_))), "{result:?}");
                assert_eq!(platform.blocks(), blocks);
                assert_eq!(level(platform, &table, start), None);
                assert_eq!(level(platform, &table, border), None);
            }
            result.is_ok()
        });
        assert!(needed >= Some(3), "{granule}: {needed:?} tables");
        assert_eq!(platform.blocks(), blocks + needed.unwrap(), "no more than needed");
        assert_eq!(level(platform, &table, border), Some(2));
        assert_eq!(level(platform, &table, neighbour), Some(3));
    }
}

#[test]
fn an_smmu_that_does_not_snoop_finds_everything_in_memory() {
    let config = TableConfig { coherent: false, ..config(Stage::Stage1, Granule::K4, 48) };
    let (platform, table) = table(config);
    map(&table, 2 * G - 4 * K, 0x1000, 16 * K).unwrap();
    map(&table, 4 * M, 2 * M, 6 * M).unwrap();
    for iova in [2 * G - 4 * K, 2 * G + 8 * K, 4 * M, 10 * M - 1] {
        assert!(level(platform, &table, iova).is_some());
    }
    for iova in [0, 2 * G - 8 * K, 2 * G + 16 * K, 10 * M] {
        assert_eq!(level(platform, &table, iova), None);
    }
    table.free(table.unmap(Iova::new(4 * M), 6 * M).unwrap());
    assert_eq!(level(platform, &table, 4 * M), None);
}

#[test]
fn a_map_ends_with_a_barrier() {
    let (platform, table) = table(config(Stage::Stage1, Granule::K4, 48));
    map(&table, 0, 0, 4 * K).unwrap();
    let before = platform.barriers();
    map(&table, 4 * K, 0, 4 * K).unwrap();
    assert_eq!(platform.barriers(), before + 1);
}

/// A dirty line may be written back at any moment, so a link can be in memory before anybody cleans it. What is not in
/// memory is junk there, and junk is a valid descriptor.
#[test]
fn a_table_is_in_memory_before_anything_links_to_it() {
    let config = TableConfig { coherent: false, ..config(Stage::Stage1, Granule::K4, 48) };
    let (platform, table) = table(config);
    let root = table.root().get();
    platform.watch(move |platform| {
        let mut address = root;
        for shift in [39, 30, 21, 12] {
            let at = PhysAddr::new(address + 8 * (((5 * G) >> shift) & 0x1ff));
            assert_ne!(platform.memory_word(at), u64::MAX, "junk within reach");
            let raw = platform.snooped_word(at);
            if raw & 3 != 3 {
                break;
            }
            address = raw & 0x0000_ffff_ffff_f000;
        }
    });
    map(&table, 5 * G, 0x1000, 4 * K).unwrap();
    assert_eq!(level(platform, &table, 5 * G), Some(3));
}

#[test]
fn an_overlap_is_found_wherever_it_is() {
    for position in 0..20 {
        let (_, table) = table(config(Stage::Stage1, Granule::K4, 40));
        map(&table, position * 4 * K, 0, 4 * K).unwrap();
        let overlap = MapError::Overlap { iova: Iova::new(position * 4 * K) };
        assert_eq!(map(&table, 0, 0, 20 * 4 * K), Err(overlap));
    }
}

#[test]
fn entries_beside_a_mapping_are_zero() {
    let (_, table) = table(config(Stage::Stage1, Granule::K4, 48));
    map(&table, 512 * G - 4 * K, 0, 8 * K).unwrap();
    for beside in [512 * G - 2 * M, 512 * G + 8 * K] {
        assert_eq!(table.trace(Iova::new(beside)).descriptor(3), Some(0));
    }
    assert_eq!(table.trace(Iova::new(511 * G)).descriptor(2), Some(0));
}

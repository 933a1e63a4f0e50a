//! Tables that somebody else owns.

use std::collections::BTreeMap;

use super::{GRANULES, K, M, block_bytes, config, table};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::pgtable::{Access, MemoryType, SharedConfig, SharedTable, Stage, TableConfig, TableError};

const ROOT: PhysAddr = PhysAddr::new(0x4000_0000);

fn shape(granule: Granule, input_bits: u8, output_bits: u8, start_level: u8) -> Result<SharedTable, TableError> {
    SharedTable::new(&SharedConfig { root: ROOT, granule, input_bits, output_bits, start_level })
}

/// From the architecture's table: T0SZ for one table and for 16, by granule and start level.
#[test]
fn r25_the_start_levels_that_the_architecture_has() {
    let rows = [
        (Granule::K4, 0, 48, 40, 48),
        (Granule::K4, 1, 48, 31, 43),
        (Granule::K4, 2, 48, 22, 34),
        (Granule::K16, 1, 48, 37, 48),
        (Granule::K16, 2, 48, 26, 40),
        (Granule::K64, 1, 48, 43, 48),
        (Granule::K64, 2, 48, 30, 46),
        (Granule::K64, 3, 48, 25, 33),
    ];
    for (granule, start_level, output_bits, least, most) in rows {
        for input_bits in 32..=48 {
            let found = shape(granule, input_bits, output_bits, start_level);
            assert_eq!(found.is_ok(), (least..=most).contains(&input_bits), "{granule}, {start_level}: {found:?}");
        }
    }
    // Small physical addresses leave out the upper levels.
    assert!(matches!(shape(Granule::K4, 40, 40, 0), Err(TableError::StartLevel { start_level: 0, .. })));
    assert!(matches!(shape(Granule::K16, 40, 40, 1), Err(TableError::StartLevel { .. })));
    assert!(matches!(shape(Granule::K16, 48, 48, 0), Err(TableError::StartLevel { .. })));
    assert!(matches!(shape(Granule::K64, 42, 42, 1), Err(TableError::StartLevel { .. })));
    assert!(shape(Granule::K4, 40, 40, 4).is_err());
    let sl0 = |granule, bits, level| shape(granule, bits, 48, level).unwrap().sl0();
    assert_eq!([sl0(Granule::K4, 43, 1), sl0(Granule::K4, 44, 0), sl0(Granule::K64, 33, 3)], [1, 2, 0]);
}

#[test]
fn a_root_is_aligned_to_all_of_its_tables() {
    let config = SharedConfig {
        root: PhysAddr::new(0x4000_1000),
        granule: Granule::K4,
        input_bits: 40,
        output_bits: 40,
        start_level: 1,
    };
    let error = SharedTable::new(&config).unwrap_err();
    assert_eq!(error, TableError::MisalignedRoot { root: config.root, alignment_bytes: 0x2000 });
}

#[test]
fn a_walk_finds_what_the_owner_has_mapped() {
    for granule in GRANULES {
        for output_bits in if granule == Granule::K64 { &[40, 52][..] } else { &[40, 48] } {
            let own = TableConfig { output_bits: *output_bits, ..config(Stage::Stage2, granule, 40) };
            let (platform, owner) = table(own);
            let block = block_bytes(granule);
            let high = (1 << output_bits) - 4 * block;
            let map = |iova, physical, bytes| {
                let (iova, physical) = (Iova::new(iova), PhysAddr::new(physical));
                owner.map(iova, physical, bytes, Access::Write, MemoryType::Device).unwrap();
            };
            map(block, high, block + 4 * granule.bytes());
            let shared = SharedTable::new(&SharedConfig {
                root: owner.root(),
                granule,
                input_bits: 40,
                output_bits: *output_bits,
                start_level: owner.start_level(),
            });
            let shared = shared.unwrap();
            assert_eq!((shared.t0sz(), shared.sl0(), shared.config().root), (24, owner.sl0(), owner.root()));
            for iova in [0, block, 2 * block - 1, 2 * block, 2 * block + granule.bytes(), 3 * block, 1 << 40] {
                let found = shared.walk(Iova::new(iova), |at| Some(platform.snooped_word(at)));
                assert_eq!(found, owner.walk(Iova::new(iova)), "{iova:#x}");
            }
        }
    }
}

/// What is in somebody else's memory may be anything.
#[test]
fn a_walk_ends_whatever_it_finds() {
    let shared = shape(Granule::K4, 40, 40, 1).unwrap();
    let loops = |_| Some(ROOT.get() | 3);
    assert!(shared.walk(Iova::new(64 * K), loops).is_some_and(|found| found.level == 3));
    let entries = BTreeMap::from([(ROOT.get(), 0x8000_0003_u64), (0x8000_0000 + 8, 0x1000_0003)]);
    let read = |at: PhysAddr| entries.get(&at.get()).copied();
    assert_eq!(shared.walk(Iova::new(2 * M), read), None, "no memory where the last table would be");
    assert_eq!(shared.walk(Iova::new(0), |_| Some(1)).map(|found| found.level), Some(1));
}

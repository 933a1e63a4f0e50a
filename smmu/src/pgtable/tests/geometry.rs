//! Start levels and sizes of first tables.

use crate::arch::attributes::Granule;
use crate::pgtable::geometry::Geometry;
use crate::pgtable::{Half, Stage, TableConfig, TableError, Tracking};

fn geometry(stage: Stage, granule: Granule, input_bits: u8, output_bits: u8) -> Result<Geometry, TableError> {
    Geometry::new(&TableConfig::new(stage, granule, input_bits, output_bits))
}

#[test]
fn stage1_start_levels() {
    let levels = |granule, bits: &[u8]| -> [u8; 4] {
        core::array::from_fn(|i| geometry(Stage::Stage1, granule, bits[i], 48).unwrap().start_level)
    };
    assert_eq!(levels(Granule::K4, &[32, 39, 40, 48]), [1, 1, 0, 0]);
    assert_eq!(levels(Granule::K16, &[32, 36, 37, 47]), [2, 2, 1, 1]);
    assert_eq!(levels(Granule::K64, &[32, 42, 43, 48]), [2, 2, 1, 1]);
    assert_eq!(geometry(Stage::Stage1, Granule::K16, 48, 48).unwrap().start_level, 0);
}

#[test]
fn stage1_roots_have_what_is_left_of_the_bits() {
    let bytes = |granule, bits| geometry(Stage::Stage1, granule, bits, 48).unwrap().root_bytes();
    assert_eq!(bytes(Granule::K4, 48), 4096);
    assert_eq!(bytes(Granule::K4, 39), 4096);
    assert_eq!(bytes(Granule::K4, 32), 64, "four entries, rounded up to 64 bytes");
    assert_eq!(bytes(Granule::K16, 48), 64, "two entries");
    assert_eq!(bytes(Granule::K16, 47), 16384);
    assert_eq!(bytes(Granule::K64, 42), 65536);
    assert_eq!(bytes(Granule::K64, 48), 512);
    assert_eq!(bytes(Granule::K64, 52), 8192);
}

/// Start level, S2SL0 and number of concatenated tables.
fn stage2(granule: Granule, input_bits: u8, output_bits: u8) -> (u8, u8, usize) {
    let geometry = geometry(Stage::Stage2, granule, input_bits, output_bits).unwrap();
    let tables = (geometry.root_bytes() / usize::try_from(granule.bytes()).unwrap()).max(1);
    (geometry.start_level, geometry.sl0(granule), tables)
}

#[test]
fn r25_stage2_concatenates_where_it_must() {
    assert_eq!(stage2(Granule::K4, 40, 40), (1, 1, 2));
    assert_eq!(stage2(Granule::K4, 41, 42), (1, 1, 4));
    assert_eq!(stage2(Granule::K4, 42, 42), (1, 1, 8));
    assert_eq!(stage2(Granule::K16, 40, 40), (2, 1, 16));
    assert_eq!(stage2(Granule::K16, 48, 48), (1, 2, 2));
}

#[test]
fn stage2_start_levels_without_concatenation() {
    assert_eq!(stage2(Granule::K4, 32, 32), (1, 1, 1));
    assert_eq!(stage2(Granule::K4, 39, 40), (1, 1, 1));
    assert_eq!(stage2(Granule::K4, 43, 44), (0, 2, 1));
    assert_eq!(stage2(Granule::K4, 48, 48), (0, 2, 1));
    assert_eq!(stage2(Granule::K16, 36, 36), (2, 1, 1));
    assert_eq!(stage2(Granule::K16, 42, 42), (1, 2, 1));
    assert_eq!(stage2(Granule::K64, 32, 32), (2, 1, 1));
    assert_eq!(stage2(Granule::K64, 42, 42), (2, 1, 1));
    assert_eq!(stage2(Granule::K64, 44, 44), (1, 2, 1));
    assert_eq!(stage2(Granule::K64, 48, 48), (1, 2, 1));
    assert_eq!(stage2(Granule::K64, 52, 52), (1, 2, 1));
}

#[test]
fn r25_no_shape_is_beyond_the_architecture() {
    for granule in [Granule::K4, Granule::K16, Granule::K64] {
        for output_bits in [32, 36, 40, 42, 44, 48, 52] {
            if output_bits == 52 && granule != Granule::K64 {
                continue;
            }
            for input_bits in 32..=output_bits {
                let (start_level, _, tables) = stage2(granule, input_bits, output_bits);
                assert!(tables <= 16, "{granule}, {input_bits} to {output_bits} bits: {tables} tables");
                assert!(start_level <= 2);
            }
        }
    }
}

#[test]
fn sizes_out_of_range_are_refused() {
    for input_bits in [0, 31, 49, 255] {
        let error = geometry(Stage::Stage1, Granule::K4, input_bits, 48).unwrap_err();
        assert_eq!(error, TableError::InputBits { input_bits });
    }
    for output_bits in [0, 31, 41, 52] {
        let error = geometry(Stage::Stage2, Granule::K4, 32, output_bits).unwrap_err();
        assert_eq!(error, TableError::OutputBits { output_bits });
    }
    assert!(geometry(Stage::Stage1, Granule::K64, 53, 52).is_err());
    assert!(geometry(Stage::Stage1, Granule::K16, 48, 52).is_err());
    let upper = TableConfig { half: Half::Upper, ..TableConfig::new(Stage::Stage2, Granule::K4, 40, 40) };
    assert_eq!(Geometry::new(&upper), Err(TableError::UpperHalfAtStage2));
    let tracked = TableConfig {
        contiguous: true,
        tracking: Tracking::HardwareAccess,
        ..TableConfig::new(Stage::Stage1, Granule::K4, 40, 40)
    };
    assert_eq!(Geometry::new(&tracked), Err(TableError::ContiguousAndTracked));
    let error = geometry(Stage::Stage2, Granule::K4, 41, 40).unwrap_err();
    assert_eq!(error, TableError::InputExceedsOutput { input_bits: 41, output_bits: 40 });
    assert!(geometry(Stage::Stage1, Granule::K4, 48, 40).is_ok(), "stage 1 may have more input than output");
}

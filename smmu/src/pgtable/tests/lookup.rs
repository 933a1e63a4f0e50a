//! New tables, walks and traces.

use std::string::ToString;

use super::{GRANULES, STAGES, config, table};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::pgtable::{Access, MemoryType, PageTable, Stage, TableConfig, TableError};
use crate::testing::TestPlatform;

#[test]
fn roots_are_aligned_to_their_size_and_nothing_is_left_behind() {
    for stage in STAGES {
        for granule in GRANULES {
            for bits in 32..=48 {
                let (platform, table) = table(config(stage, granule, bits));
                assert!(table.root().is_aligned(table.geometry.root_bytes() as u64));
                assert_eq!(table.t0sz(), 64 - bits);
                assert_eq!(table.walk(Iova::new((1 << bits) - 1)), None);
                drop(table);
                assert_eq!(platform.blocks(), 0);
            }
        }
    }
}

#[test]
fn no_memory_for_the_root() {
    let platform = TestPlatform::leaked();
    platform.allow_allocations(0);
    let error = PageTable::new(platform, &config(Stage::Stage1, Granule::K4, 48)).unwrap_err();
    assert!(matches!(error, TableError::OutOfDmaMemory(_)), "{error}");
}

/// The worked examples of the index split: each entry of memory is where the architecture says.
#[test]
fn entries_lie_where_the_address_says() {
    let iova = 0x4567_89ab_c000;
    let expected: [(Granule, u64, &[u64]); 3] = [
        (Granule::K4, iova, &[0x08a, 0x19e, 0x04d, 0x0bc]),
        (Granule::K16, iova, &[0, 0x456, 0x3c4, 0x6af]),
        (Granule::K64, iova & !0xffff, &[0x11, 0xb3c, 0x9ab]),
    ];
    for (granule, iova, indices) in expected {
        let (platform, table) = table(config(Stage::Stage1, granule, 48));
        table.map(Iova::new(iova), PhysAddr::new(0), granule.bytes(), Access::Read, MemoryType::WriteBack).unwrap();
        let mut address = table.root().get();
        for index in indices {
            let raw = platform.snooped_word(PhysAddr::new(address + 8 * index));
            assert_eq!(raw & 3, 3, "{granule}, index {index:#x}");
            address = raw & 0x0000_ffff_ffff_f000;
        }
        assert_eq!(address, 0, "the last was the page");
    }
}

#[test]
fn r25_a_concatenated_root_is_indexed_as_one_table() {
    let config = TableConfig { output_bits: 40, ..config(Stage::Stage2, Granule::K4, 40) };
    let (platform, table) = table(config);
    let iova = Iova::new(0xab_cdef_1000);
    table.map(iova, PhysAddr::new(0x5000), 0x1000, Access::ReadWrite, MemoryType::WriteBack).unwrap();
    let mut address = table.root().get();
    for index in [0x2af, 0x06f, 0x0f1] {
        let raw = platform.snooped_word(PhysAddr::new(address + 8 * index));
        address = raw & 0x0000_ffff_ffff_f000;
    }
    assert_eq!(address, 0x5000);
    assert_eq!((table.start_level(), table.sl0(), table.t0sz()), (1, 1, 24));
}

#[test]
fn walks_say_what_hardware_enforces() {
    for (stage, write) in [(Stage::Stage1, Access::ReadWrite), (Stage::Stage2, Access::Write)] {
        let (_, table) = table(config(stage, Granule::K4, 40));
        table.map(Iova::new(0x1000), PhysAddr::new(0x7000), 0x1000, Access::Write, MemoryType::Device).unwrap();
        let found = table.walk(Iova::new(0x1abc)).unwrap();
        assert_eq!((found.physical, found.level, found.leaf_bytes()), (PhysAddr::new(0x7abc), 3, 0x1000));
        assert_eq!((found.access(), found.memory()), (Some(write), Some(MemoryType::Device)));
        assert_eq!(Access::Write.enforced(stage), write);
        assert_eq!(table.walk(Iova::new(0x2000)), None);
        assert_eq!(table.walk(Iova::new(1 << 40 | 0x1000)), None, "not an input address");
    }
}

#[test]
fn a_trace_has_a_line_for_each_level() {
    let (_, table) = table(config(Stage::Stage1, Granule::K4, 39));
    table.map(Iova::new(0x1000), PhysAddr::new(0x7000), 0x1000, Access::Read, MemoryType::WriteBack).unwrap();
    let text = table.trace(Iova::new(0x1234)).to_string();
    let lines: std::vec::Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(lines[0], "0x1234 of stage 1, 4 KiB granule:");
    assert!(lines[1].starts_with("  level 1: 0x00000000800") && lines[1].contains("table at 0x800"), "{text}");
    assert_eq!(lines[3], "  level 3: 0x0060000000007fc7 0x7234 (level 3, 0x1000 bytes, read-only, write-back)");
    assert_eq!(table.trace(Iova::new(0x1234)).descriptor(0), None);
    assert!(table.trace(Iova::new(0x2000)).to_string().ends_with("0x0000000000000000 invalid"));
    assert!(table.trace(Iova::new(1 << 39)).to_string().ends_with("not an input address"));
}

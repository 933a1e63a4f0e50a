//! A table walk written from the architecture's tables, not from our formulas.

use crate::addr::PhysAddr;
use crate::arch::attributes::Granule;
use crate::pgtable::{Half, PageTable, Stage, Tracking};
use crate::testing::TestPlatform;

/// What a walk ended with: a leaf's address for the input, its level, and the raw descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) physical: u64,
    pub(super) level: usize,
    pub(super) raw: u64,
    /// Where that is.
    pub(super) at: PhysAddr,
}

/// The address in a descriptor.
fn output_address(table: &PageTable<TestPlatform>, raw: u64) -> u64 {
    match table.config().output_bits {
        52 => raw & 0x0000_ffff_ffff_0000 | (raw & 0xf000) << 36,
        _ => raw & 0x0000_ffff_ffff_f000,
    }
}

/// log2 of what an entry covers, by level.
pub(super) fn shifts(granule: Granule) -> [u32; 4] {
    match granule {
        Granule::K4 => [39, 30, 21, 12],
        Granule::K16 => [47, 36, 25, 14],
        Granule::K64 => [63, 42, 29, 16],
    }
}

fn start_level(table: &PageTable<TestPlatform>) -> usize {
    let granule = table.config().granule;
    match (table.config().stage, granule) {
        (Stage::Stage1, granule) => match (granule, table.t0sz()) {
            (Granule::K4, 16..=24) | (Granule::K16, 16) => 0,
            (Granule::K4, 25..=33) | (Granule::K16, 17..=27) | (Granule::K64, 12..=21) => 1,
            (Granule::K16, 28..=38) | (Granule::K64, 22..=34) => 2,
            other => panic!("no start level for {other:?}"),
        },
        (Stage::Stage2, Granule::K4) => 2 - usize::from(table.sl0()),
        (Stage::Stage2, Granule::K16 | Granule::K64) => 3 - usize::from(table.sl0()),
    }
}

/// Walks as hardware would. Reads memory behind the caches if the table says that the SMMU does not snoop.
pub(super) fn walk(platform: &TestPlatform, table: &PageTable<TestPlatform>, iova: u64) -> Option<Found> {
    let granule = table.config().granule;
    let n = 64 - table.t0sz();
    let upper = match table.config().half {
        Half::Lower => 0,
        Half::Upper => u64::MAX >> n,
    };
    if iova >> n != upper {
        return None;
    }
    let iova = iova & ((1 << n) - 1);
    let index_mask = granule.bytes() / 8 - 1;
    let start = start_level(table);
    let mut address = table.root().get();
    for (level, shift) in shifts(granule).into_iter().enumerate().skip(start) {
        let index = iova >> shift;
        let index = if level == start { index } else { index & index_mask };
        let at = PhysAddr::new(address + 8 * index);
        let raw = if table.config().coherent { platform.snooped_word(at) } else { platform.memory_word(at) };
        let output = output_address(table, raw);
        match (raw & 3, level) {
            (3, 0..=2) => address = output,
            (3, 3) | (1, 1..=2) => {
                let large = table.config().output_bits == 52;
                assert!(level != 1 || granule == Granule::K4 || large, "a block that this granule has not: {raw:#x}");
                assert_eq!(output & ((1 << shift) - 1), 0, "address bits below the size: {raw:#x}");
                let tracked = table.config().tracking != Tracking::Off;
                assert!(tracked || raw >> 10 & 1 == 1, "the Access flag: {raw:#x}");
                return Some(Found { physical: output | (iova & ((1 << shift) - 1)), level, raw, at });
            }
            _ => return None,
        }
    }
    None
}

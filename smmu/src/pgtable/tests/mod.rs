//! Page tables on the host, looked at from three sides: what the methods say, what is in memory, and what a walker
//! makes of it that shares no code with them.

mod changing;
mod concurrency;
mod emptying;
mod geometry;
mod lookup;
mod mapping;
mod reference;
mod shared;
mod splitting;
mod unmapping;
mod walker;

use super::{EmptyTables, PageTable, Stage, TableConfig};
use crate::arch::attributes::Granule;
use crate::testing::TestPlatform;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

const GRANULES: [Granule; 3] = [Granule::K4, Granule::K16, Granule::K64];
const STAGES: [Stage; 2] = [Stage::Stage1, Stage::Stage2];

fn config(stage: Stage, granule: Granule, bits: u8) -> TableConfig {
    TableConfig::new(stage, granule, bits, 48)
}

/// The same, with tables that do not stay when they are empty.
fn handing_back(config: TableConfig) -> TableConfig {
    TableConfig { empty_tables: EmptyTables::HandBack, ..config }
}

/// An empty table of a platform of its own.
fn table(config: TableConfig) -> (&'static TestPlatform, PageTable<TestPlatform>) {
    let platform = TestPlatform::leaked();
    let table = PageTable::new(platform, &config).unwrap();
    (platform, table)
}

/// The largest block that every granule has: at level 2.
fn block_bytes(granule: Granule) -> u64 {
    match granule {
        Granule::K4 => 2 * M,
        Granule::K16 => 32 * M,
        Granule::K64 => 512 * M,
    }
}

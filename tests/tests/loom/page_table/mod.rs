//! The page tables' sources, compiled once more over loom's atomics.
#![allow(dead_code, unreachable_pub, reason = "the scenarios need but some of it, and nobody else any")]

pub(crate) mod memory;
mod scenarios;

/// What tables are made of and changed with.
mod atomic {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};

    pub(super) use super::memory::Word as AtomicU64;
}

#[path = "../../../../smmu/src/pgtable/config.rs"]
mod config;
#[path = "../../../../smmu/src/pgtable/empty.rs"]
mod empty;
#[path = "../../../../smmu/src/pgtable/error.rs"]
mod error;
#[path = "../../../../smmu/src/pgtable/geometry.rs"]
mod geometry;
#[path = "../../../../smmu/src/pgtable/map.rs"]
mod map;
#[path = "../../../../smmu/src/pgtable/protect.rs"]
mod protect;
#[path = "../../../../smmu/src/pgtable/quick.rs"]
mod quick;
#[path = "../../../../smmu/src/pgtable/shared.rs"]
mod shared;
#[path = "../../../../smmu/src/pgtable/split.rs"]
mod split;
#[path = "../../../../smmu/src/pgtable/table.rs"]
mod table;
#[path = "../../../../smmu/src/pgtable/tables.rs"]
mod tables;
#[path = "../../../../smmu/src/pgtable/tracking.rs"]
mod tracking;
#[path = "../../../../smmu/src/pgtable/unmap.rs"]
mod unmap;
#[path = "../../../../smmu/src/pgtable/unmapped.rs"]
mod unmapped;
#[path = "../../../../smmu/src/pgtable/walk.rs"]
mod walk;

use config::{EmptyTables, Half, TableConfig};
use error::{MapError, RangeError, TableError};
use smmu::arch::descriptor::{Access, MemoryType, Permissions, Stage, Tracking};
use table::PageTable;
use unmapped::Unmapped;

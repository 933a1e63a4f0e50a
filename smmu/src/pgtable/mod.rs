//! Translation tables in memory: VMSAv8-64, stage 1 (either half, TTB0 and TTB1) and stage 2, with granules of 4, 16 and
//! 64 KiB (Arm ARM, D8.2; IHI 0070, 3.4).
//!
//! What lives here: mapping, unmapping, changing and looking up, without locks and without a heap. What does not: the bits of a
//! descriptor ([`crate::arch::descriptor`]), invalidation ([`crate::device`]), and who owns which addresses
//! ([`crate::iommu`]).
//!
//! Two rules keep hardware and the CPUs out of each other's way:
//!
//! * A table is removed only by an unmap that covers all the addresses it serves, so that whoever maps or unmaps other
//!   addresses is nowhere near it; or, where [`EmptyTables::HandBack`] is wanted, when it is empty and nobody is mapping into
//!   it.
//! * A removed table is given back twice: by the caller ([`PageTable::free`]), once the SMMU has forgotten it, and by the
//!   last method that was running when it was removed, which may still be reading it.
//!
#![doc = include_str!("shapes.md")]

mod config;
mod empty;
mod error;
mod geometry;
mod map;
mod protect;
mod quick;
mod shared;
mod split;
mod table;
mod tables;
#[cfg(test)]
mod tests;
mod tracking;
mod unmap;
mod unmapped;
mod walk;

pub use config::{EmptyTables, Half, TableConfig};
pub use error::{MapError, RangeError, SplitError, TableError};
pub use shared::{SharedConfig, SharedTable};
pub use split::Broken;
pub use table::PageTable;
pub use unmapped::Unmapped;
pub use walk::{Translation, Walk};

pub use crate::arch::descriptor::{Access, Execute, MemoryType, Permissions, Privilege, Stage, Tracking};

/// What tables are made of and changed with. Tests put loom's atomics in the place of these.
mod atomic {
    pub(super) use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}

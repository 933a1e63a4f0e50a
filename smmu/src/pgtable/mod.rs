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

mod config;
mod empty;
mod error;
mod geometry;
mod map;
mod protect;
mod quick;
mod shared;
mod split;
mod tables;
#[cfg(test)]
mod tests;
mod tracking;
mod unmap;
mod unmapped;
mod walk;

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

pub use config::{EmptyTables, Half, TableConfig};
pub use error::{MapError, RangeError, SplitError, TableError};
pub use shared::{SharedConfig, SharedTable};
pub use split::Broken;
pub use unmapped::Unmapped;
pub use walk::{Translation, Walk};

pub use crate::arch::descriptor::{Access, Execute, MemoryType, Permissions, Privilege, Stage, Tracking};

use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Mair;
use crate::arch::descriptor::{Format, LeafKinds};
use crate::memory::DmaMemory;
use crate::platform::Platform;
use geometry::Geometry;
use quick::ShortWay;
use tables::{TableList, Tables, Visit};

/// A page table, empty at first.
///
/// All methods may run on several CPUs at once. Maps and unmaps of disjoint ranges do not disturb each other. If the
/// ranges overlap, which is the caller's mistake, memory stays safe, but what ends up mapped is anyone's guess and tables
/// may leak.
///
/// Dropping it frees all tables: no STE or CD may point at it then, nor any TLB or walk cache remember it.
// In this order: see `Tables`.
#[repr(C)]
pub struct PageTable<P: Platform> {
    tables: Tables<P>,
    platform: &'static P,
    config: TableConfig,
    format: Format,
    leaves: LeafKinds,
    geometry: Geometry,
    /// The bits of an address that lie within a page.
    page_mask: u64,
    /// The first input address. What is called an offset here is an input address less this.
    first_address: u64,
    /// How many bytes there are input addresses for, and output addresses.
    input_bytes: u64,
    output_bytes: u64,
    short_way: ShortWay<P>,
    root: DmaMemory<P>,
    kept: AtomicBool,
}

impl<P: Platform> PageTable<P> {
    /// The memory attributes that stage-1 descriptors refer to: CD.MAIR0 and MAIR1.
    pub const MAIR: Mair = MemoryType::MAIR;

    /// Allocates an empty page table.
    ///
    /// # Errors
    ///
    /// [`TableError`] if the sizes are out of range or there is no memory for the root.
    pub fn new(platform: &'static P, config: &TableConfig) -> Result<Self, TableError> {
        let geometry = Geometry::new(config)?;
        let root_bytes = geometry.root_bytes();
        let root = DmaMemory::allocate(platform, root_bytes, root_bytes)?;
        let tables = Tables::new(platform, config.granule);
        let table = Self {
            platform,
            config: *config,
            format: Format { large_addresses: config.output_bits == 52, ..Format::new(config.stage, config.granule) },
            leaves: LeafKinds::new(config.stage, config.tracking),
            geometry,
            page_mask: config.granule.bytes() - 1,
            first_address: config.half.first_address(config.input_bits),
            input_bytes: 1 << config.input_bits,
            output_bytes: 1 << config.output_bits,
            short_way: ShortWay::new(config, geometry, tables.memory().arrays()),
            tables,
            root,
            kept: AtomicBool::new(false),
        };
        // Not even the zeroes have reached memory yet.
        table.clean(table.root.words());
        platform.write_barrier();
        Ok(table)
    }

    /// What the page table is like.
    #[must_use]
    pub fn config(&self) -> &TableConfig {
        &self.config
    }

    /// The start-level table, for CD.TTB0, CD.TTB1 or STE.S2TTB: aligned to its size, concatenated tables counted as one.
    #[must_use]
    pub fn root(&self) -> PhysAddr {
        self.root.physical()
    }

    /// CD.T0SZ, CD.T1SZ or STE.S2T0SZ: 64 minus the bits of an input address.
    #[must_use]
    pub fn t0sz(&self) -> u8 {
        64 - self.config.input_bits
    }

    /// The level at which walks start, 0 to 2.
    #[must_use]
    pub fn start_level(&self) -> u8 {
        self.geometry.start_level
    }

    /// STE.S2SL0: the start level in stage 2's code, which depends on the granule (IHI 0070, 5.2).
    #[must_use]
    pub fn sl0(&self) -> u8 {
        self.geometry.sl0(self.config.granule)
    }

    /// Never gives the tables' memory back: for a page table that an SMMU may go on walking after an error.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
        self.root.keep();
    }

    /// Frees all tables but the root.
    fn free_tables(&mut self) {
        let mut list = TableList::EMPTY;
        let visit = self.visit();
        visit.gather_below(self.root.words(), self.geometry.start_level, &mut list);
        drop(visit);
        self.tables.free_now(list);
        self.tables.free_waiting();
    }

    #[inline(always)]
    fn visit(&self) -> Visit<'_, P> {
        Visit::new(self)
    }

    /// Makes stores to descriptors visible to an SMMU that does not snoop, once a barrier follows.
    #[inline]
    fn clean(&self, words: &[core::sync::atomic::AtomicU64]) {
        if !self.config.coherent {
            self.platform.clean_cache(core::ptr::NonNull::from(words).cast(), size_of_val(words));
        }
    }

    /// Whether `size_bytes` bytes at `offset` are input addresses.
    #[inline]
    fn is_input(&self, offset: u64, size_bytes: u64) -> bool {
        fits(offset, size_bytes, self.input_bytes)
    }

    /// How far an address is from the first one. Beyond all if it is not one of this half.
    #[inline(always)]
    fn offset(&self, iova: Iova) -> u64 {
        iova.get() ^ self.first_address
    }

    /// The address so far from the first.
    fn iova(&self, offset: u64) -> Iova {
        Iova::new(offset ^ self.first_address)
    }
}

/// Whether `size_bytes` bytes from `start` on lie in a space of `space_bytes`.
#[inline]
fn fits(start: u64, size_bytes: u64, space_bytes: u64) -> bool {
    space_bytes.checked_sub(start).is_some_and(|rest| size_bytes <= rest)
}

impl<P: Platform> Drop for PageTable<P> {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            self.free_tables();
        }
    }
}

impl<P: Platform> fmt::Debug for PageTable<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageTable").field("config", &self.config).field("root", &self.root()).finish_non_exhaustive()
    }
}

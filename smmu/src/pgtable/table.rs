//! The page table as a whole: what it consists of, how it comes and goes.

use core::fmt;

use super::atomic::{AtomicBool, AtomicU64, Ordering};
use super::geometry::Geometry;
use super::quick::ShortWay;
use super::tables::{TableList, Tables, Visit};
use super::{MemoryType, Stage, TableConfig, TableError};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Mair;
use crate::arch::descriptor::{Format, LeafKinds};
use crate::memory::DmaMemory;
use crate::platform::Platform;

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
    pub(super) tables: Tables<P>,
    pub(super) platform: &'static P,
    pub(super) config: TableConfig,
    pub(super) format: Format,
    pub(super) leaves: LeafKinds,
    pub(super) geometry: Geometry,
    /// The bits of an address that lie within a page.
    pub(super) page_mask: u64,
    /// The first input address. What is called an offset here is an input address less this.
    first_address: u64,
    /// How many bytes there are input addresses for, and output addresses.
    pub(super) input_bytes: u64,
    pub(super) output_bytes: u64,
    pub(super) short_way: ShortWay<P>,
    pub(super) root: DmaMemory<P>,
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
            leaves: leaves(config),
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
    pub(super) fn visit(&self) -> Visit<'_, P> {
        Visit::new(self)
    }

    /// Makes stores to descriptors visible to an SMMU that does not snoop, once a barrier follows.
    #[inline]
    pub(super) fn clean(&self, words: &[AtomicU64]) {
        if !self.config.coherent {
            self.platform.clean_cache(core::ptr::NonNull::from(words).cast(), size_of_val(words));
        }
    }

    /// Whether `size_bytes` bytes at `offset` are input addresses.
    #[inline]
    pub(super) fn is_input(&self, offset: u64, size_bytes: u64) -> bool {
        fits(offset, size_bytes, self.input_bytes)
    }

    /// How far an address is from the first one. Beyond all if it is not one of this half.
    #[inline(always)]
    pub(super) fn offset(&self, iova: Iova) -> u64 {
        iova.get() ^ self.first_address
    }

    /// The address so far from the first.
    pub(super) fn iova(&self, offset: u64) -> Iova {
        Iova::new(offset ^ self.first_address)
    }
}

/// Whether `size_bytes` bytes from `start` on lie in a space of `space_bytes`.
#[inline]
pub(super) fn fits(start: u64, size_bytes: u64, space_bytes: u64) -> bool {
    space_bytes.checked_sub(start).is_some_and(|rest| size_bytes <= rest)
}

/// What its leaves look like.
fn leaves(config: &TableConfig) -> LeafKinds {
    let plain = LeafKinds::new(config.stage, config.tracking);
    if config.stage == Stage::Stage2 && config.force_write_back { plain.forcing_write_back() } else { plain }
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

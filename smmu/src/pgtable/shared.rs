//! A stage-2 table that somebody else owns: a hypervisor lets an SMMU walk what its CPUs walk.

use core::fmt;

use super::geometry::Geometry;
use super::walk::{Translation, translation};
use super::{Stage, TableConfig, TableError};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::arch::descriptor::{Descriptor, Format, LAST_LEVEL};

/// What VTTBR_EL2 and VTCR_EL2 say about the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedConfig {
    /// The start-level table; concatenated tables lie one after the other.
    pub root: PhysAddr,
    /// The granule. The SMMU must support it (IDR5).
    pub granule: Granule,
    /// Bits of an intermediate physical address: 64 minus T0SZ.
    pub input_bits: u8,
    /// Bits of an output address, as S2PS will say: 32, 36, 40, 42, 44 or 48, or 52 with a granule of 64 KiB.
    pub output_bits: u8,
    /// The level at which walks start, 0 to 3 (not SL0, which is a code for it).
    pub start_level: u8,
}

/// A stage-2 table of which only the first address and the shape are known: enough for an STE, and to look things up.
///
/// The owner maps, unmaps and invalidates, in the SMMU too, and keeps the table as long as an STE points at it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SharedTable {
    config: SharedConfig,
    format: Format,
    geometry: Geometry,
}

impl SharedTable {
    /// Checks that an SMMU can walk a table of this shape (Arm ARM, D8.2.2 and D8.2.8 to D8.2.10).
    ///
    /// # Errors
    ///
    /// [`TableError`] if the sizes are out of range, do not go with the start level, or the root is not aligned to its size.
    pub fn new(config: &SharedConfig) -> Result<Self, TableError> {
        let SharedConfig { root, granule, input_bits, output_bits, start_level } = *config;
        let own = TableConfig::new(Stage::Stage2, granule, input_bits, output_bits);
        let geometry = Geometry::starting_at(&own, start_level)?;
        let alignment_bytes = geometry.root_bytes() as u64;
        if !root.is_aligned(alignment_bytes) {
            return Err(TableError::MisalignedRoot { root, alignment_bytes });
        }
        let format = Format { large_addresses: output_bits == 52, ..Format::new(Stage::Stage2, granule) };
        Ok(Self { config: *config, format, geometry })
    }

    /// What the table is like.
    #[must_use]
    pub fn config(&self) -> &SharedConfig {
        &self.config
    }

    /// STE.S2T0SZ.
    #[must_use]
    pub fn t0sz(&self) -> u8 {
        64 - self.config.input_bits
    }

    /// STE.S2SL0.
    #[must_use]
    pub fn sl0(&self) -> u8 {
        self.geometry.sl0(self.config.granule)
    }

    /// What an intermediate physical address is translated to, as the SMMU would find it; `None` if it is not mapped.
    ///
    /// `read` reads a descriptor, 64 bits in the CPU's order, at a physical address, or says that there is no memory. It is
    /// called at most once for each level, with addresses that the table's descriptors name.
    pub fn walk(&self, address: Iova, read: impl Fn(PhysAddr) -> Option<u64>) -> Option<Translation> {
        if address.get() >> self.config.input_bits != 0 {
            return None;
        }
        let mut table = self.config.root;
        for level in self.geometry.start_level..=LAST_LEVEL {
            let shift = self.format.entry_log2_bytes(level);
            let entries =
                if level == self.geometry.start_level { u64::MAX } else { self.config.granule.bytes() / 8 - 1 };
            let index = address.get() >> shift & entries;
            let raw = read(table.checked_add(index.checked_mul(8)?)?)?;
            match self.format.decode(level, raw) {
                Descriptor::Invalid => return None,
                Descriptor::Table(next) => table = next,
                Descriptor::Leaf(leaf) => return Some(translation(level, shift, leaf, address)),
            }
        }
        None
    }
}

impl fmt::Debug for SharedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedTable").field(&self.config).finish()
    }
}

//! What a page table is to be like.

use super::{Stage, Tracking};
use crate::arch::attributes::Granule;

/// What a page table is to be like. [`TableConfig::new`] has what is usual for all that is not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// The stage.
    pub stage: Stage,
    /// The granule. The SMMU must support it (IDR5).
    pub granule: Granule,
    /// Bits of an input address, 32 to 48, or to 52 with a granule of 64 KiB (IDR5.VAX); at stage 2 no more than `output_bits`.
    pub input_bits: u8,
    /// Bits of an output address, as CD.IPS or STE.S2PS will say: 32, 36, 40, 42, 44 or 48, or 52 with a granule of 64 KiB.
    pub output_bits: u8,
    /// Which input addresses it is for.
    pub half: Half,
    /// Whether the SMMU's table walks snoop the CPUs' caches. If not, every change is cleaned to memory.
    pub coherent: bool,
    /// What becomes of tables that an unmap leaves empty.
    pub empty_tables: EmptyTables,
    /// What is recorded of devices' accesses. The SMMU must support it (IDR0.HTTU), and the CD or STE switch it on
    /// ([`Tracking::hardware_update`]).
    pub tracking: Tracking,
    /// Whether leaves that lie side by side on both sides are marked as a group that the TLB may hold as one (the contiguous
    /// bit). Such a group is mapped, unmapped and protected as a whole, like a block. Not where anything is tracked: hardware
    /// would record it for any one of them.
    pub contiguous: bool,
    /// At stage 2: whether it decides alone on cacheability, so that what is mapped as write-back is that whatever a guest's
    /// stage 1 says. The SMMU must support it (IDR3.FWB), and the STE switch it on (S2FWB): leaves then have other codes.
    pub force_write_back: bool,
}

impl TableConfig {
    /// A table for the lower half, which a coherent SMMU walks; one level of empty tables is kept, and nothing tracked.
    #[must_use]
    pub const fn new(stage: Stage, granule: Granule, input_bits: u8, output_bits: u8) -> Self {
        Self {
            stage,
            granule,
            input_bits,
            output_bits,
            half: Half::Lower,
            coherent: true,
            empty_tables: EmptyTables::KeepOneLevel,
            tracking: Tracking::Off,
            contiguous: false,
            force_write_back: false,
        }
    }
}

/// One of the two halves of a stage-1 address space, each of which has a page table (Arm ARM, D8.2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Half {
    /// From 0 upward: CD.TTB0.
    #[default]
    Lower,
    /// Up to the last address of 64 bits: CD.TTB1.
    Upper,
}

impl Half {
    /// The first of the half's addresses, of which there are `1 << input_bits`.
    #[must_use]
    pub const fn first_address(self, input_bits: u8) -> u64 {
        match self {
            Self::Lower => 0,
            Self::Upper => u64::MAX << input_bits,
        }
    }
}

/// What becomes of a table that an unmap leaves empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyTables {
    /// A table stays for the next mapping, until an unmap covers all addresses that the table above it serves: whoever maps
    /// and unmaps the same few addresses all day allocates once, and touches nothing but the entries. An unmap of all that a
    /// table of blocks serves takes that table too.
    #[default]
    KeepOneLevel,
    /// It goes with what was unmapped ([`Unmapped`](super::Unmapped)), and so do the tables above that are then empty. No
    /// memory is held that the mappings do not need, but every map and unmap has to look for more than its entries.
    HandBack,
}

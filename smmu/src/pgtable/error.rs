//! What can go wrong, with the values that made it go wrong.

use core::fmt;

use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::platform::OutOfDmaMemory;

/// Why a page table could not be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// The input address size is not one of 32 to 48 bits, or 52 with a granule of 64 KiB.
    InputBits {
        /// What was asked for.
        input_bits: u8,
    },
    /// The output address size is not one that IPS and S2PS can express, or is 52 bits without a granule of 64 KiB.
    OutputBits {
        /// What was asked for.
        output_bits: u8,
    },
    /// A stage-2 input address would be wider than the output address (Arm ARM, D8.2.8: the least T0SZ per PA size).
    InputExceedsOutput {
        /// The input address size that was asked for.
        input_bits: u8,
        /// The output address size that was asked for.
        output_bits: u8,
    },
    /// Stage 2 has no upper half.
    UpperHalfAtStage2,
    /// Accesses to members of a contiguous group are recorded for any one of them.
    ContiguousAndTracked,
    /// Stage 2 cannot start at this level: the first table would have less than two entries, or be more than 16 tables; or
    /// the output addresses are so small that tables have to be concatenated instead.
    StartLevel {
        /// The level.
        start_level: u8,
        /// The input address size.
        input_bits: u8,
        /// The output address size.
        output_bits: u8,
        /// The granule.
        granule: Granule,
    },
    /// The first table is not aligned to its size.
    MisalignedRoot {
        /// Where it is.
        root: PhysAddr,
        /// What its address must be a multiple of.
        alignment_bytes: u64,
    },
    /// No memory for the start-level table.
    OutOfDmaMemory(OutOfDmaMemory),
}

impl From<OutOfDmaMemory> for TableError {
    fn from(error: OutOfDmaMemory) -> Self {
        Self::OutOfDmaMemory(error)
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InputBits { input_bits } => {
                write!(
                    f,
                    "input addresses of {input_bits} bits: page tables take 32 to 48 bits, or 52 with 64 KiB granules"
                )
            }
            Self::OutputBits { output_bits } => {
                write!(
                    f,
                    "output addresses of {output_bits} bits: choose 32, 36, 40, 42, 44 or 48, or 52 with 64 KiB granules"
                )
            }
            Self::InputExceedsOutput { input_bits, output_bits } => write!(
                f,
                "stage-2 input addresses of {input_bits} bits with output addresses of {output_bits}: make them no wider"
            ),
            Self::UpperHalfAtStage2 => f.write_str("stage 2 has no upper half of input addresses: that is stage 1's"),
            Self::ContiguousAndTracked => {
                f.write_str("contiguous groups where accesses are tracked: choose one of the two")
            }
            Self::StartLevel { start_level, input_bits, output_bits, granule } => write!(
                f,
                "stage 2 cannot start at level {start_level} for input addresses of {input_bits} bits, output addresses of \
                 {output_bits} and a granule of {granule}"
            ),
            Self::MisalignedRoot { root, alignment_bytes } => {
                write!(f, "the start-level table at {root} is not aligned to its size, {alignment_bytes:#x} bytes")
            }
            Self::OutOfDmaMemory(error) => write!(f, "no memory for the start-level table: {error}"),
        }
    }
}

impl core::error::Error for TableError {}

/// Why nothing was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The range is empty.
    Empty {
        /// Where it was to start.
        iova: Iova,
    },
    /// An address or the size is not a multiple of the granule.
    Misaligned {
        /// The input address.
        iova: Iova,
        /// The output address.
        physical: PhysAddr,
        /// The size.
        size_bytes: u64,
        /// What all three must be multiples of.
        granule: Granule,
    },
    /// The range does not end within the input addresses.
    InputOutOfRange {
        /// Where it starts.
        iova: Iova,
        /// Its size.
        size_bytes: u64,
        /// How many bits an input address has.
        input_bits: u8,
    },
    /// The output does not end within the output addresses.
    OutputOutOfRange {
        /// Where it starts.
        physical: PhysAddr,
        /// Its size.
        size_bytes: u64,
        /// How many bits an output address has.
        output_bits: u8,
    },
    /// Something is mapped in the range already.
    Overlap {
        /// The first address that is: inside the range.
        iova: Iova,
    },
    /// The table is a [shared](super::SharedTable) one: whoever owns it maps.
    NotOwned {
        /// Where the range was to start.
        iova: Iova,
    },
    /// No memory for a table.
    OutOfDmaMemory(OutOfDmaMemory),
}

impl From<OutOfDmaMemory> for MapError {
    fn from(error: OutOfDmaMemory) -> Self {
        Self::OutOfDmaMemory(error)
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { iova } => write!(f, "an empty range at {iova} cannot be mapped"),
            Self::NotOwned { iova } => {
                write!(f, "{iova} cannot be mapped in a table that somebody else owns; map it there")
            }
            Self::Misaligned { iova, physical, size_bytes, granule } => write!(
                f,
                "{size_bytes:#x} bytes at {iova}, to {physical}, cannot be mapped: all three must be multiples of {granule}"
            ),
            Self::InputOutOfRange { iova, size_bytes, input_bits } => {
                write!(f, "{size_bytes:#x} bytes at {iova} do not fit in input addresses of {input_bits} bits")
            }
            Self::OutputOutOfRange { physical, size_bytes, output_bits } => {
                write!(
                    f,
                    "{size_bytes:#x} bytes of memory at {physical} do not fit in output addresses of {output_bits} bits"
                )
            }
            Self::Overlap { iova } => write!(f, "{iova} is mapped already: unmap it first"),
            Self::OutOfDmaMemory(error) => write!(f, "no memory for a table: {error}"),
        }
    }
}

impl core::error::Error for MapError {}

/// Why a range was not unmapped, protected or looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// The range is empty.
    Empty {
        /// Where it was to start.
        iova: Iova,
    },
    /// The address or the size is not a multiple of the granule.
    Misaligned {
        /// The input address.
        iova: Iova,
        /// The size.
        size_bytes: u64,
        /// What both must be multiples of.
        granule: Granule,
    },
    /// The range does not end within the input addresses.
    InputOutOfRange {
        /// Where it starts.
        iova: Iova,
        /// Its size.
        size_bytes: u64,
        /// How many bits an input address has.
        input_bits: u8,
    },
    /// Nothing is mapped at an address in the range.
    NotMapped {
        /// The first such address.
        iova: Iova,
    },
    /// The range begins or ends within a block, or a contiguous group.
    SplitsBlock {
        /// Where the block or group starts.
        iova: Iova,
        /// How large it is.
        block_bytes: u64,
    },
    /// The table is a [shared](super::SharedTable) one: whoever owns it unmaps and protects.
    NotOwned {
        /// Where the range was to start.
        iova: Iova,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { iova } => write!(f, "the range at {iova} is empty"),
            Self::NotOwned { iova } => {
                write!(f, "{iova} cannot be changed in a table that somebody else owns; change it there")
            }
            Self::Misaligned { iova, size_bytes, granule } => {
                write!(f, "{size_bytes:#x} bytes at {iova}: both must be multiples of the granule, {granule}")
            }
            Self::InputOutOfRange { iova, size_bytes, input_bits } => {
                write!(f, "{size_bytes:#x} bytes at {iova} do not fit in input addresses of {input_bits} bits")
            }
            Self::NotMapped { iova } => write!(f, "{iova} is not mapped"),
            Self::SplitsBlock { iova, block_bytes } => write!(
                f,
                "the range covers a part of the block of {block_bytes:#x} bytes at {iova}: take all of it, or split it first"
            ),
        }
    }
}

impl core::error::Error for RangeError {}

/// Why nothing was split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// It is no input address.
    InputOutOfRange {
        /// The address.
        iova: Iova,
        /// How many bits an input address has.
        input_bits: u8,
    },
    /// Nothing is mapped there.
    NotMapped {
        /// The address.
        iova: Iova,
    },
    /// No memory for a table.
    OutOfDmaMemory(OutOfDmaMemory),
}

impl From<OutOfDmaMemory> for SplitError {
    fn from(error: OutOfDmaMemory) -> Self {
        Self::OutOfDmaMemory(error)
    }
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InputOutOfRange { iova, input_bits } => {
                write!(f, "{iova} is no input address of {input_bits} bits")
            }
            Self::NotMapped { iova } => write!(f, "{iova} is not mapped"),
            Self::OutOfDmaMemory(error) => write!(f, "no memory for a table: {error}"),
        }
    }
}

impl core::error::Error for SplitError {}

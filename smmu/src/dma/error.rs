//! Why a buffer could not be given to a device, or taken back.

use core::fmt;

use crate::iommu::UnmapError;
use crate::pgtable::MapError;
use crate::platform::OutOfDmaMemory;

/// An error of the DMA API. Whatever was begun has been undone, except for [`Unmap`](Self::Unmap).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DmaError {
    /// The buffer is empty.
    Empty,
    /// No run of I/O virtual addresses that is long enough is left below the device's limit.
    OutOfAddresses {
        /// Length of the run in pages.
        pages: usize,
    },
    /// The buffer, or a bounce buffer for it, needs DMA memory that is not there.
    OutOfDmaMemory(OutOfDmaMemory),
    /// The buffer is not in ordinary memory.
    NotMemory {
        /// The first address that is not, as the CPU sees it.
        pointer: usize,
    },
    /// The device's DMA is not translated, so that there is nothing to map it in.
    NotTranslated,
    /// Another CPU has the device's group in hand and does not let go of it.
    Busy,
    /// The page table refused.
    Map(MapError),
    /// The buffer could not be taken back from the device.
    Unmap(UnmapError),
}

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the buffer is empty"),
            Self::OutOfAddresses { pages } => {
                write!(f, "no run of {pages} pages is left among the addresses that the device can use")
            }
            Self::OutOfDmaMemory(error) => error.fmt(f),
            Self::NotMemory { pointer } => write!(f, "the buffer at {pointer:#x} is not in ordinary memory"),
            Self::NotTranslated => f.write_str("the device's DMA is not translated"),
            Self::Busy => f.write_str("another CPU is moving the device's group to another domain; try again"),
            Self::Map(error) => error.fmt(f),
            Self::Unmap(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DmaError {}

impl From<OutOfDmaMemory> for DmaError {
    fn from(error: OutOfDmaMemory) -> Self {
        Self::OutOfDmaMemory(error)
    }
}

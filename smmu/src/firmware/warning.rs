//! What is odd in a device tree without making it unusable. What makes it unusable is in [`error`](super::error).

use alloc::string::String;
use core::fmt;

use super::error::{Place, PropertyProblem};
use crate::addr::PhysAddr;
use crate::addr::StreamId;
use crate::iommu::fwspec::Phandle;

/// Something odd that does not stop the tree from being used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareWarning {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub oddity: Oddity,
}

impl fmt::Display for FirmwareWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.oddity)
    }
}

/// What is odd, and how it is dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// An SMMU's registers do not start at a multiple of 64 KiB.
    UnalignedWindow {
        /// Where they start.
        base: PhysAddr,
    },
    /// The interrupts cannot be read; none is used.
    UnusableInterrupts {
        /// Why.
        problem: PropertyProblem,
    },
    /// `interrupts` and `interrupt-names` differ in number; pairs are used while both last.
    InterruptCount {
        /// Number of interrupts.
        interrupts: usize,
        /// Number of names.
        names: usize,
    },
    /// An interrupt's name is not one of the binding's; the interrupt is ignored.
    UnknownInterrupt {
        /// The name.
        name: String,
    },
    /// An interrupt's name comes twice; the second is ignored.
    RepeatedInterrupt {
        /// The name.
        name: String,
    },
    /// "combined" stands next to other names; only "combined" is used.
    CombinedAmongOthers,
    /// There is no interrupt of this name, nor "combined".
    NoInterrupt {
        /// The name.
        name: &'static str,
    },
    /// A device names the same StreamID twice; it counts once.
    RepeatedStreamId {
        /// The IOMMU.
        iommu: Phandle,
        /// The StreamID.
        stream_id: StreamId,
    },
    /// `iommu-map-mask` is wider than a requester ID, which has 16 bits.
    WideMask {
        /// The mask.
        mask: u32,
    },
    /// A tuple of length 0 matches nothing.
    EmptyTuple,
    /// A tuple reaches beyond requester ID 0xffff.
    BeyondRequesterIds {
        /// The tuple's rid-base.
        rid_base: u32,
        /// Its length.
        length: u32,
    },
    /// A tuple overlaps an earlier one, which wins.
    OverlappingTuples {
        /// Byte offset of the earlier tuple.
        earlier_offset_bytes: usize,
    },
    /// `pasid-num-bits` is more than the 20 bits of a PASID; 20 are used.
    TooManyPasidBits {
        /// What it says.
        bits: u32,
    },
    /// `dma-can-stall` of a PCI device, which must not be kept waiting; it is ignored.
    StallingPci,
    /// A region of `iommu-addresses` is empty; it is ignored.
    EmptyRegion {
        /// Where it would start.
        address: u64,
    },
    /// A region of `iommu-addresses` is not at the addresses of its memory: it is kept free, and not mapped.
    MemoryElsewhere {
        /// Where it starts for the device.
        address: u64,
        /// Where the memory starts.
        memory: u64,
    },
    /// A region does not consist of whole pages; the pages that it touches are reserved.
    PartOfPage {
        /// Where it starts.
        address: u64,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// `iommu-addresses` is read with two cells for each address and size: with those of the device's bus it makes no sense.
    TwoCellsEach,
    /// A tuple names a disabled IOMMU. It is kept: its devices wait for that IOMMU instead of running unchecked.
    DisabledIommu {
        /// The IOMMU's phandle.
        phandle: Phandle,
        /// Path of its node.
        target: String,
    },
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnalignedWindow { base } => write!(f, "{base} is not a multiple of 64 KiB; check the address"),
            Self::UnusableInterrupts { problem } => write!(f, "{problem} (until then no interrupt is used; poll)"),
            Self::InterruptCount { interrupts, names } => {
                write!(f, "{names} names for {interrupts} interrupts; the pairs that exist are used")
            }
            Self::UnknownInterrupt { name } => write!(f, "unknown interrupt \"{name}\" ignored"),
            Self::RepeatedInterrupt { name } => write!(f, "a second interrupt \"{name}\" ignored"),
            Self::CombinedAmongOthers => f.write_str("\"combined\" among other names; only \"combined\" is used"),
            Self::NoInterrupt { name } => write!(f, "no interrupt \"{name}\"; poll instead"),
            Self::RepeatedStreamId { iommu, stream_id } => {
                write!(f, "StreamID {stream_id} of IOMMU {iommu} is named twice; it counts once")
            }
            Self::WideMask { mask } => write!(f, "{mask:#x} is wider than the 16 bits of a requester ID"),
            Self::EmptyTuple => f.write_str("a tuple of length 0 matches nothing"),
            Self::BeyondRequesterIds { rid_base, length } => {
                write!(f, "{length:#x} requester IDs from {rid_base:#x} reach beyond 0xffff")
            }
            Self::OverlappingTuples { earlier_offset_bytes } => {
                write!(f, "overlaps the tuple at byte {earlier_offset_bytes}, which wins")
            }
            Self::TooManyPasidBits { bits } => write!(f, "{bits} bits, but a PASID has 20 at most; 20 are used"),
            Self::StallingPci => f.write_str("a PCI device must not be kept waiting; ignored"),
            Self::EmptyRegion { address } => write!(f, "the region at {address:#x} is empty; ignored"),
            Self::MemoryElsewhere { address, memory } => write!(
                f,
                "the region at {address:#x} has its memory at {memory:#x}; it is kept free and not mapped; for a mapping \
                 make them the same"
            ),
            Self::PartOfPage { address, size_bytes } => {
                write!(
                    f,
                    "{size_bytes:#x} bytes from {address:#x} are not whole pages; the pages they touch are reserved"
                )
            }
            Self::TwoCellsEach => f.write_str("read with two cells for each address and size, unlike the device's bus"),
            Self::DisabledIommu { phandle, target } => {
                write!(f, "IOMMU {target} (phandle {phandle}) is disabled; devices behind it stay blocked")
            }
        }
    }
}

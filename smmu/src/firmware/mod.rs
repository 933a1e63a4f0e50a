//! Device tree to [`Fwspec`](crate::iommu::fwspec::Fwspec): which SMMUs there are, and which StreamIDs a device presents
//! to them.
//!
//! What lives here: everything in this crate that knows `fdt` or a device tree binding (`arm,smmu-v3`, `iommus`,
//! `iommu-map`, `iommu-addresses`, `dma-ranges`). What does not: the devices themselves and PCI enumeration, which are the kernel's, and what is made of
//! the result ([`crate::iommu`]).
//!
//! A device tree is untrusted input. It is checked and indexed once by [`DeviceTree::new`]; after that every reader
//! takes time that grows with the tree's size but not with its square, and fails with an error that names node,
//! property and byte.

mod address;
mod blob;
mod bus_limits;
mod error;
mod interrupts;
mod iommu_map;
mod iommus;
mod property;
mod reserved_memory;
mod smmu_node;
mod tree;
mod warning;

#[cfg(test)]
mod tests;

pub use blob::check_blob;
pub use error::{BlobProblem, FirmwareError, Place, PropertyError, PropertyProblem};
pub use interrupts::{Interrupt, SmmuInterrupts};
pub use iommu_map::{IommuMap, RequesterId};
pub use iommus::Iommus;
pub use reserved_memory::ReservedMemory;
pub use smmu_node::{SmmuNode, SmmuQuirks};
pub use tree::DeviceTree;
pub use warning::{FirmwareWarning, Oddity};

/// The most entries read from any list in a property: far above real devices (tens), and the bound on the work and
/// memory that a hostile property can cause.
const MAX_ENTRIES: usize = 1024;

/// What address spaces are divided into here, in bytes: the least that an IOMMU maps.
const PAGE_BYTES: u64 = 4096;

/// A window with the rest of the pages that it touches, but without the last page of the 64-bit space, which has no end.
fn page_out(window: address::Window) -> address::Window {
    let start = window.address & !(PAGE_BYTES - 1);
    let end = window.end().checked_next_multiple_of(PAGE_BYTES).unwrap_or(!(PAGE_BYTES - 1));
    address::Window { address: start, size_bytes: end.saturating_sub(start) }
}

//! Device tree to [`Fwspec`](crate::iommu::fwspec::Fwspec): which SMMUs there are, and which StreamIDs a device presents
//! to them.
//!
//! What lives here: everything in this crate that knows `fdt` or a device tree binding (`arm,smmu-v3`, `iommus`,
//! `iommu-map`). What does not: the devices themselves and PCI enumeration, which are the kernel's, and what is made of
//! the result ([`crate::iommu`]).
//!
//! A device tree is untrusted input. It is checked and indexed once by [`DeviceTree::new`]; after that every reader
//! takes time that grows with the tree's size but not with its square, and fails with an error that names node,
//! property and byte.

mod address;
mod blob;
mod error;
mod interrupts;
mod iommu_map;
mod iommus;
mod property;
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
pub use smmu_node::{SmmuNode, SmmuQuirks};
pub use tree::DeviceTree;
pub use warning::{FirmwareWarning, Oddity};

/// The most entries read from any list in a property: far above real devices (tens), and the bound on the work and
/// memory that a hostile property can cause.
const MAX_ENTRIES: usize = 1024;

//! The IOMMU core: which device sits behind which instance, what its DMA may reach, and who is told when it strays.
//!
//! What lives here: fwspecs, the registry of instances and devices, domains and attachments, fault reports. What does
//! not: how firmware describes all this ([`crate::firmware`]), registers and queues ([`crate::device`]), buffers and
//! IOVA allocation ([`crate::dma`]).

mod attachment;
mod client;
mod domain;
mod dump;
mod error;
mod fault;
mod fault_counts;
mod fault_handler;
pub mod fwspec;
mod live;
mod registry;
#[cfg(test)]
mod tests;

pub use attachment::Attachment;
pub use client::{AtsPolicy, Device};
pub use domain::PagingDomain;
pub use dump::AttachmentDump;
pub use error::{IommuError, UnmapError};
pub use fault::FaultReport;
pub use fault_counts::FaultCounts;
pub use fault_handler::FaultHandler;
pub use registry::{Configuration, Iommus};

//! The IOMMU core: which device sits behind which instances, what its DMA may reach, and who is told when it strays.
//!
//! What lives here: fwspecs, the registry of instances and devices and how the two come together, groups, domains,
//! attachments and bindings, fault reports, and the SMMUv3 as the core's first driver ([`smmuv3`]). What does not: how
//! firmware describes all this ([`crate::firmware`]), registers and queues ([`crate::device`]), buffers and IOVA allocation
//! ([`crate::dma`]).
//!
//! # Locks
//!
//! The core's locks are leaves: nobody takes one while holding another, and none is held while a driver is called or
//! hardware is waited for. What takes longer is claimed by a flag instead: a device by whoever attaches it, a group by whoever
//! changes what it goes through, in this order; what brings a device together with its instances, or parts them, has it in
//! hand in the registry and claims its group within. Faults are attributed under the registry's lock alone.
//!
#![doc = include_str!("integration.md")]

mod attachment;
mod binding;
mod device;
mod domain;
mod domain_config;
mod driver;
mod dump;
mod error;
mod fault;
mod fault_counts;
mod fault_handler;
pub mod fwspec;
mod group;
mod leaving;
mod ownership;
mod probe;
mod registry;
mod reserved;
pub mod smmuv3;
#[cfg(test)]
mod tests;

pub use attachment::{Attachment, Configuration};
pub use binding::{BindError, Binding, BusDevice};
pub use device::{AtsPolicy, Device, DeviceDescription, WithoutIommu};
pub use domain::{Domain, DomainPolicy};
pub use domain_config::DomainConfig;
pub use driver::{Iommu, NestedDomain, PagingDomain, Refusal, Stream};
pub use dump::AttachmentDump;
pub use error::{DriverError, IommuError, UnmapError};
pub use fault::FaultReport;
pub use fault_counts::FaultCounts;
pub use fault_handler::FaultHandler;
pub use ownership::GroupOwnership;
pub use probe::{Registration, Unready};
pub use registry::{Iommus, Missing, MissingReason};
pub use reserved::{ReservedKind, ReservedRegion};

//! The SMMUv3 as the core's first driver.
//!
//! What lives here: what the core asks of an instance ([`Iommu`](super::Iommu)), in terms of stream table entries, context
//! descriptors and identifiers. What does not: how one SMMU is driven ([`crate::device`]), and what no SMMU need know of,
//! groups and deferral for instance (the rest of [`crate::iommu`]).

mod change;
mod config;
mod domain;
mod instance;
mod live;
mod nested;
mod tables;

pub use domain::SmmuDomain;
pub use nested::{GuestRights, SmmuNestedDomain, VirtualSmmu};
pub use tables::ReadDescriptor;

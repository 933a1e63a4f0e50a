//! What can go wrong between a device and its IOMMUs.

use alloc::string::String;
use core::fmt;

use super::fwspec::{Phandle, StreamIdTooLarge};
use crate::device::DeviceError;
use crate::pgtable::{MapError, RangeError, TableError};

/// An error of the core. Whatever was begun has been undone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IommuError {
    /// An instance is registered under this phandle already, or is being registered.
    AlreadyRegistered {
        /// The instance.
        iommu: Phandle,
    },
    /// No instance is registered under this phandle.
    NotRegistered {
        /// The phandle.
        iommu: Phandle,
    },
    /// One of the device's IOMMUs could not be brought up, and will not come.
    InstanceFailed {
        /// The instance.
        iommu: Phandle,
        /// Why.
        reason: String,
    },
    /// The device was removed, or never added.
    UnknownDevice {
        /// Its name.
        device: String,
    },
    /// Another CPU is bringing the device together with its IOMMUs, or moving its group to another domain.
    Busy {
        /// The device's name.
        device: String,
    },
    /// Devices that are in different groups already cannot be isolated from this one.
    GroupsDiffer {
        /// The device's name.
        device: String,
        /// One device of each of two such groups.
        others: [String; 2],
    },
    /// The device's group belongs to another kind of owner: to drivers where somebody wants it as a whole, or the reverse.
    GroupOwned {
        /// The device's name.
        device: String,
    },
    /// The firmware gives a device a StreamID that its IOMMU cannot see.
    StreamIdTooLarge(StreamIdTooLarge),
    /// One of the device's IOMMUs cannot use the page tables that the others can.
    Incompatible {
        /// The instance.
        iommu: Phandle,
        /// What it lacks.
        lacks: &'static str,
    },
    /// The domain is one of another driver.
    ForeignDomain {
        /// The instance that was to use it.
        iommu: Phandle,
        /// The driver of the instance.
        driver: &'static str,
        /// The driver that made the domain.
        made_by: &'static str,
    },
    /// The device is attached already.
    AlreadyAttached {
        /// Its name.
        device: String,
    },
    /// The device was attached, and is not any more: one of its IOMMUs was taken away.
    Detached {
        /// Its name.
        device: String,
    },
    /// Other devices of the group go through all of memory, which this one's policy does not allow it.
    GroupUntranslated {
        /// Its name.
        device: String,
    },
    /// The device's policy is that it does no DMA.
    BlockedByPolicy {
        /// Its name.
        device: String,
    },
    /// The device did not give up translations that it had cached, and reaches nothing any more.
    Quarantined {
        /// Its name.
        device: String,
    },
    /// A range that the device uses from the start could not be mapped.
    ReservedRegion {
        /// The device's name.
        device: String,
        /// Why not.
        error: MapError,
    },
    /// An instance failed.
    Device {
        /// The instance.
        iommu: Phandle,
        /// How.
        error: DriverError,
    },
}

impl fmt::Display for IommuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRegistered { iommu } => write!(f, "IOMMU {iommu} is registered already"),
            Self::NotRegistered { iommu } => write!(f, "IOMMU {iommu} is not registered"),
            Self::InstanceFailed { iommu, reason } => write!(f, "IOMMU {iommu} failed: {reason}"),
            Self::UnknownDevice { device } => write!(f, "{device} is not known; add it first"),
            Self::Busy { device } => write!(f, "{device} is being configured by another CPU; try again"),
            Self::GroupsDiffer { device, others: [one, other] } => write!(
                f,
                "{device} cannot be isolated from {one} and from {other}, which are in different groups; add it before them"
            ),
            Self::GroupOwned { device } => {
                write!(f, "the group of {device} has another owner; unbind its other devices first")
            }
            Self::StreamIdTooLarge(error) => error.fmt(f),
            Self::Incompatible { iommu, lacks } => write!(f, "IOMMU {iommu} cannot use the domain: it lacks {lacks}"),
            Self::ForeignDomain { iommu, driver, made_by } => {
                write!(f, "IOMMU {iommu} is driven by {driver} and cannot use a domain made by {made_by}")
            }
            Self::AlreadyAttached { device } => write!(f, "{device} is attached already"),
            Self::Detached { device } => {
                write!(f, "{device} was detached when one of its IOMMUs was taken away; unbind it and bind it again")
            }
            Self::GroupUntranslated { device } => write!(
                f,
                "{device} is to be translated, and its group's other devices are not; give them one policy, or unbind them"
            ),
            Self::BlockedByPolicy { device } => write!(f, "{device} does no DMA, by policy"),
            Self::Quarantined { device } => write!(
                f,
                "{device} does not answer ATC invalidations and is quarantined; reset it, then end its quarantine"
            ),
            Self::ReservedRegion { device, error } => {
                write!(
                    f,
                    "what {device} uses from the start cannot be mapped: {error}; correct its firmware description"
                )
            }
            Self::Device { iommu, error } => write!(f, "IOMMU {iommu}: {error}"),
        }
    }
}

impl core::error::Error for IommuError {}

impl From<StreamIdTooLarge> for IommuError {
    fn from(error: StreamIdTooLarge) -> Self {
        Self::StreamIdTooLarge(error)
    }
}

/// An error of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverError {
    /// Of the SMMUv3 driver.
    Smmu(DeviceError),
    /// The first page table of a domain could not be made.
    Table(TableError),
    /// The instance does not have what a domain was asked to be.
    Lacks(&'static str),
    /// Of a driver that is not in this crate.
    Other {
        /// The driver.
        driver: &'static str,
        /// What happened, and what to do about it.
        what: &'static str,
        /// The value that goes with it: of a register, say.
        found: u64,
    },
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smmu(error) => error.fmt(f),
            Self::Table(error) => write!(f, "no page table: {error}"),
            Self::Lacks(lacks) => {
                write!(f, "no such domain: the IOMMU lacks {lacks}; ask for another, or leave it to the driver")
            }
            Self::Other { driver, what, found } => write!(f, "{driver}: {what} (found {found:#x})"),
        }
    }
}

impl core::error::Error for DriverError {}

impl From<DeviceError> for DriverError {
    fn from(error: DeviceError) -> Self {
        Self::Smmu(error)
    }
}

/// Why a range could not be unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmapError {
    /// The range does not consist of whole mappings. Nothing has changed.
    Table(RangeError),
    /// An instance did not confirm that it forgot the range. It was closed: all traffic through it aborts.
    Invalidation(DriverError),
    /// An instance neither forgot the range nor confirmed that it was closed. Devices may still reach what was mapped
    /// there: never use that memory for anything else.
    Stuck(DriverError),
}

impl fmt::Display for UnmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(error) => error.fmt(f),
            Self::Stuck(error) => write!(
                f,
                "an IOMMU does not answer, devices may still reach what was unmapped; reset the machine: {error}"
            ),
            Self::Invalidation(error) => write!(f, "an IOMMU did not forget the range and was closed: {error}"),
        }
    }
}

impl core::error::Error for UnmapError {}

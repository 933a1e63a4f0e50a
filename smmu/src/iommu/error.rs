//! What can go wrong between a device and its IOMMUs.

use alloc::string::String;
use core::fmt;

use super::fwspec::{Phandle, StreamIdTooLarge};
use crate::addr::StreamId;
use crate::device::DeviceError;
use crate::pgtable::{RangeError, TableError};

/// An error of the core. Whatever was begun has been undone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IommuError {
    /// An instance is registered under this phandle already.
    AlreadyRegistered {
        /// The instance.
        iommu: Phandle,
    },
    /// Two devices present the same StreamID: they cannot be isolated from one another.
    StreamShared {
        /// The StreamID.
        stream: StreamId,
        /// The device that has it.
        owner: String,
        /// The device that was to get it.
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
    /// The device is attached already.
    AlreadyAttached {
        /// Its name.
        device: String,
    },
    /// The device did not give up translations that it had cached, and reaches nothing any more.
    Quarantined {
        /// Its name.
        device: String,
    },
    /// An instance failed.
    Device {
        /// The instance.
        iommu: Phandle,
        /// How.
        error: DeviceError,
    },
    /// No page table could be made.
    Table(TableError),
}

impl fmt::Display for IommuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRegistered { iommu } => write!(f, "IOMMU {iommu} is registered already"),
            Self::StreamShared { stream, owner, device } => write!(
                f,
                "{device} and {owner} have the same StreamID {stream} and cannot be isolated from one another; {device} stays blocked"
            ),
            Self::StreamIdTooLarge(error) => error.fmt(f),
            Self::Incompatible { iommu, lacks } => {
                write!(f, "IOMMU {iommu} cannot share the device's page tables: it lacks {lacks}")
            }
            Self::AlreadyAttached { device } => write!(f, "{device} is attached already"),
            Self::Quarantined { device } => write!(
                f,
                "{device} does not answer ATC invalidations and is quarantined; reset it, then end its quarantine"
            ),
            Self::Device { iommu, error } => write!(f, "IOMMU {iommu}: {error}"),
            Self::Table(error) => write!(f, "no page table: {error}"),
        }
    }
}

impl core::error::Error for IommuError {}

impl From<StreamIdTooLarge> for IommuError {
    fn from(error: StreamIdTooLarge) -> Self {
        Self::StreamIdTooLarge(error)
    }
}

impl From<TableError> for IommuError {
    fn from(error: TableError) -> Self {
        Self::Table(error)
    }
}

/// Why a range could not be unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmapError {
    /// The range does not consist of whole mappings. Nothing has changed.
    Table(RangeError),
    /// An SMMU did not confirm that it forgot the range. It was closed: all traffic through it aborts.
    Invalidation(DeviceError),
    /// An SMMU neither forgot the range nor confirmed that it was closed. Devices may still reach what was mapped there:
    /// never use that memory for anything else.
    Stuck(DeviceError),
}

impl fmt::Display for UnmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(error) => error.fmt(f),
            Self::Stuck(error) => {
                write!(
                    f,
                    "an SMMU does not answer, devices may still reach what was unmapped; reset the machine: {error}"
                )
            }
            Self::Invalidation(error) => write!(f, "an SMMU did not forget the range and was closed: {error}"),
        }
    }
}

impl core::error::Error for UnmapError {}

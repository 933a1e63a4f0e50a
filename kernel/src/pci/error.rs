//! What can be wrong with a host bridge or a function, and how it is told.

use alloc::string::String;
use core::fmt;

use fdt::FdtError;
use smmu::addr::PhysAddr;
use virtio_drivers::transport::pci::bus::DeviceFunction;

use crate::devicetree::DeviceTreeError;
use crate::memory::MapMmioError;

/// Why a host bridge or a function behind it cannot be used.
#[derive(Debug)]
pub enum PciError {
    /// The device tree does not parse, or a property that every node can have is malformed.
    Tree(DeviceTreeError),
    /// A property of a host bridge's node is missing or makes no sense.
    Property {
        /// Path of the node.
        node: String,
        /// Name of the property.
        property: &'static str,
        /// What was expected of it.
        expected: &'static str,
    },
    /// The configuration space is too small for the buses in `bus-range`, or not aligned to 1 MiB.
    ConfigurationSpace {
        /// Path of the node.
        node: String,
        /// Where `reg` says that it starts.
        ecam_base: PhysAddr,
        /// How large `reg` says that it is, in bytes.
        size_bytes: usize,
        /// What the buses need, in bytes.
        needed_bytes: usize,
    },
    /// The CPU cannot reach registers.
    Map(MapMmioError),
    /// A bridge got no bus number for what lies behind it, which stays unreachable.
    BridgeLeftOut {
        /// The bridge.
        bridge: DeviceFunction,
        /// The last number that it could have had.
        last_bus: u8,
        /// How many bridges deep the kernel looks.
        levels: usize,
    },
    /// A BAR is of a reserved type, or its size is no power of two.
    MalformedBar {
        /// The function.
        function: DeviceFunction,
        /// Number of the BAR.
        index: u8,
    },
    /// No window of the host bridge has room for a BAR, which stays unassigned.
    OutOfSpace {
        /// The function.
        function: DeviceFunction,
        /// Number of the BAR.
        index: u8,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// A driver wants a memory BAR that the function has not, that was not assigned, or that is taken.
    NoBar {
        /// The function.
        function: DeviceFunction,
        /// Number of the BAR.
        index: u8,
    },
    /// A BAR is smaller than the registers that a driver expects behind it.
    BarTooSmall {
        /// Physical address of the BAR.
        physical: PhysAddr,
        /// Its size in bytes.
        size_bytes: u64,
        /// What the driver needs, in bytes.
        needed_bytes: u64,
    },
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => write!(f, "PCI host bridges: {error}"),
            Self::Property { node, property, expected } => {
                write!(f, "PCI host bridge {node}: property `{property}`: expected {expected}")
            }
            Self::ConfigurationSpace { node, ecam_base, size_bytes, needed_bytes } => write!(
                f,
                "PCI host bridge {node}: `reg` gives {size_bytes:#x} bytes of configuration space at {ecam_base}; \
                 the buses in `bus-range` need {needed_bytes:#x} bytes, aligned to 1 MiB"
            ),
            Self::Map(error) => write!(f, "PCI: {error}"),
            Self::BridgeLeftOut { bridge, last_bus, levels } => write!(
                f,
                "PCI bridge {bridge}: no bus number up to {last_bus:#04x} is free, or it lies more than {levels} \
                 bridges deep; nothing behind it is used"
            ),
            Self::MalformedBar { function, index } => {
                write!(f, "PCI function {function}: BAR {index} has a reserved type or an impossible size; left alone")
            }
            Self::OutOfSpace { function, index, size_bytes } => write!(
                f,
                "PCI function {function}: BAR {index} needs {size_bytes:#x} bytes, more than the host bridge's \
                 windows have left; not assigned"
            ),
            Self::NoBar { function, index } => {
                write!(f, "PCI function {function}: memory BAR {index} is absent, unassigned or taken")
            }
            Self::BarTooSmall { physical, size_bytes, needed_bytes } => write!(
                f,
                "PCI BAR at {physical}: {size_bytes:#x} bytes long, the driver expects at least {needed_bytes:#x}"
            ),
        }
    }
}

impl core::error::Error for PciError {}

impl From<DeviceTreeError> for PciError {
    fn from(error: DeviceTreeError) -> Self {
        Self::Tree(error)
    }
}

impl From<FdtError> for PciError {
    fn from(error: FdtError) -> Self {
        Self::Tree(error.into())
    }
}

impl From<MapMmioError> for PciError {
    fn from(error: MapMmioError) -> Self {
        Self::Map(error)
    }
}

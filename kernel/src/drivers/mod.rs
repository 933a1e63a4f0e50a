//! Drivers of the PCI devices that the kernel shows an SMMU with, and the table that says which driver a device gets.
//!
//! What lives here: how each device is operated. What does not: who may reach memory. Drivers are handed bus addresses
//! ([`Iova`](smmu::addr::Iova)), or something to make them with ([`dma::DeviceDma`]); they know of no SMMU, and none of
//! them turns bus mastering on: that is for whoever has attached the device to a domain
//! ([`PciFunction::bus_master`]).
//!
//! All of them poll, and every wait has an end ([`crate::timer::wait_for`]).

pub mod dma;
pub mod edu;
pub mod iommu_testdev;
pub mod ohci;
pub mod virtio;

use core::fmt;

use crate::pci::PciFunction;

/// The drivers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// [`virtio::Block`].
    VirtioBlock,
    /// [`virtio::Entropy`].
    VirtioEntropy,
    /// [`edu::Edu`].
    Edu,
    /// [`iommu_testdev::IommuTestdev`].
    IommuTestdev,
    /// [`ohci::Ohci`].
    Ohci,
}

/// Which vendor and device IDs go with which driver. virtio devices have two: transitional, and 1.0 or newer.
const DRIVERS: [(u16, u16, DriverKind); 7] = [
    (0x1af4, 0x1001, DriverKind::VirtioBlock),
    (0x1af4, 0x1042, DriverKind::VirtioBlock),
    (0x1af4, 0x1005, DriverKind::VirtioEntropy),
    (0x1af4, 0x1044, DriverKind::VirtioEntropy),
    (0x1234, 0x11e8, DriverKind::Edu),
    (0x1b36, 0x0005, DriverKind::IommuTestdev),
    (0x106b, 0x003f, DriverKind::Ohci),
];

impl DriverKind {
    /// The driver for `function`, if there is one.
    #[must_use]
    pub fn of(function: &PciFunction) -> Option<Self> {
        let id = (function.info.vendor_id, function.info.device_id);
        DRIVERS.iter().find(|(vendor, device, _)| (*vendor, *device) == id).map(|(.., kind)| *kind)
    }

    /// The driver's name, for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::VirtioBlock => "virtio-blk",
            Self::VirtioEntropy => "virtio-rng",
            Self::Edu => "edu",
            Self::IommuTestdev => "iommu-testdev",
            Self::Ohci => "ohci",
        }
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

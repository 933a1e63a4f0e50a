//! virtio devices on PCI, version 1.0 and newer (Virtual I/O Device Specification 1.2), operated through the
//! `virtio-drivers` crate.
//!
//! What lives here is what that crate leaves to its user or does without: memory for one device and no other ([`hal`]),
//! the promise that the device's DMA is translated (VIRTIO_F_ACCESS_PLATFORM, in [`transport`]), checks of what the
//! device claims before the crate relies on it ([`capabilities`]), and an end to every wait. What does not: how memory
//! is mapped ([`super::dma::DeviceDma`]).

mod astray;
mod block;
mod capabilities;
mod entropy;
mod hal;
mod transport;

use core::fmt;
use core::time::Duration;

use virtio_drivers::transport::pci::VirtioPciError;
use virtio_drivers::transport::pci::bus::DeviceFunction;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use astray::Astray;
pub use block::{Block, Chunk, SECTOR_BYTES};
pub use entropy::Entropy;
pub use hal::SLOTS;

use crate::pci::PciError;

/// A page of memory for a device, and for nothing else.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Why a virtio device cannot be used, or did not do what it was asked.
#[derive(Debug)]
pub struct VirtioError {
    /// The function.
    pub function: DeviceFunction,
    /// What went wrong with it.
    pub reason: Reason,
}

/// What can go wrong with a virtio device.
#[derive(Debug)]
pub enum Reason {
    /// Its registers are out of reach.
    Pci(PciError),
    /// The slot that the driver was given is no slot, or another device's.
    SlotTaken {
        /// The slot.
        slot: usize,
    },
    /// A virtio capability points outside configuration space or its BAR, or the list of them has no end.
    Capability {
        /// Offset in configuration space of the capability, in bytes.
        offset: u8,
    },
    /// A BAR does not hold the address any more that enumeration wrote to it.
    BarsMoved,
    /// The crate does not take to its registers.
    Transport(VirtioPciError),
    /// It does not offer VIRTIO_F_ACCESS_PLATFORM: its DMA would go around the SMMU.
    NotTranslated {
        /// The feature bits that it offers.
        offered: u64,
    },
    /// It did not accept the features chosen from those that it offers.
    FeaturesRefused,
    /// The domain had no room for a buffer, or refused it. The device was told an address that is never mapped.
    NotMapped,
    /// A request was not done in time: the device was stopped, or is stuck. It has been reset and takes no more.
    Stopped {
        /// How long was waited.
        limit: Duration,
    },
    /// A request is under way, and it takes one at a time.
    Busy,
    /// An earlier request failed so that the device had to be reset; it takes no more.
    Gone,
    /// It does not get out of reset.
    ResetStuck {
        /// How long was waited.
        limit: Duration,
    },
    /// What is asked for lies beyond the device's end.
    OutOfRange {
        /// The first sector.
        first_sector: u64,
        /// How many bytes from there on.
        length_bytes: usize,
        /// How many sectors the device has.
        capacity_sectors: u64,
    },
    /// It reports an error, or broke the virtqueue's rules.
    Device(virtio_drivers::Error),
    /// The kernel heap is used up.
    OutOfMemory,
}

impl fmt::Display for VirtioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtio device {}: {}", self.function, self.reason)
    }
}

impl core::error::Error for VirtioError {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(error) => error.fmt(f),
            Self::SlotTaken { slot } => write!(f, "DMA slot {slot} is taken, or not one of the {SLOTS} that there are"),
            Self::Capability { offset } => {
                write!(f, "the capability at {offset:#04x} of configuration space is malformed or the list has no end")
            }
            Self::BarsMoved => f.write_str("a BAR does not hold the address that was written to it"),
            Self::Transport(error) => error.fmt(f),
            Self::NotTranslated { offered } => write!(
                f,
                "it offers features {offered:#x}, without VIRTIO_F_ACCESS_PLATFORM (bit 33), so its DMA would go \
                 around the SMMU; with QEMU, give it iommu_platform=on,disable-legacy=on"
            ),
            Self::FeaturesRefused => {
                f.write_str("it refused the features chosen: FEATURES_OK did not stay set in its status")
            }
            Self::NotMapped => f.write_str("a buffer could not be mapped for it"),
            Self::Stopped { limit } => {
                write!(f, "a request was not done after {limit:?}; it was reset and takes no more requests")
            }
            Self::Busy => f.write_str("it is busy with another request"),
            Self::Gone => f.write_str("it has failed before, and takes no more requests"),
            Self::ResetStuck { limit } => {
                write!(f, "its status was expected to read 0 after a reset, and did not in {limit:?}")
            }
            Self::OutOfRange { first_sector, length_bytes, capacity_sectors } => {
                write!(
                    f,
                    "{length_bytes} bytes from sector {first_sector} on are beyond the {capacity_sectors} sectors it has"
                )
            }
            Self::Device(error) => error.fmt(f),
            Self::OutOfMemory => f.write_str("out of kernel heap"),
        }
    }
}

impl From<PciError> for Reason {
    fn from(error: PciError) -> Self {
        Self::Pci(error)
    }
}

impl From<VirtioPciError> for Reason {
    fn from(error: VirtioPciError) -> Self {
        Self::Transport(error)
    }
}

impl From<virtio_drivers::Error> for Reason {
    fn from(error: virtio_drivers::Error) -> Self {
        Self::Device(error)
    }
}

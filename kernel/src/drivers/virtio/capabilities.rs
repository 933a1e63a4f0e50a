//! The virtio capabilities in configuration space (4.1.4), checked for what `virtio-drivers` takes for granted: that the
//! list ends, and that what it points to exists.

use virtio_drivers::transport::pci::bus::PCI_CAP_ID_VNDR;
use virtio_drivers::transport::pci::{
    VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG,
};

use super::Reason;
use crate::pci::{PciError, PciFunction};

/// The bytes of a capability that are looked at: `virtio_pci_notify_cap`, the longest.
const CAPABILITY_BYTES: u8 = 20;
/// The kinds of capability that point to a structure in a BAR.
const STRUCTURES: [u8; 4] =
    [VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_CAP_DEVICE_CFG];
/// The most capabilities that fit configuration space.
const MAX_CAPABILITIES: usize = (256 - 64) / 4;

/// Checks all virtio capabilities of `function`.
pub(super) fn check(function: &PciFunction) -> Result<(), Reason> {
    let configuration = function.configuration();
    for (index, capability) in configuration.capabilities(function.address).enumerate() {
        let malformed = Reason::Capability { offset: capability.offset };
        if index >= MAX_CAPABILITIES {
            return Err(malformed);
        }
        if capability.id != PCI_CAP_ID_VNDR {
            continue;
        }
        if capability.offset.checked_add(CAPABILITY_BYTES).is_none() {
            return Err(malformed);
        }
        let [_, kind] = capability.private_header.to_le_bytes();
        if STRUCTURES.contains(&kind) && !structure_exists(function, capability.offset)? {
            return Err(malformed);
        }
    }
    Ok(())
}

/// Whether the structure that the `virtio_pci_cap` at `offset` describes lies inside its BAR.
///
/// # Errors
///
/// [`PciError::NoBar`] if that BAR is not to be had.
fn structure_exists(function: &PciFunction, offset: u8) -> Result<bool, PciError> {
    let [index, ..] = function.read_configuration(offset + 4).to_le_bytes();
    let start = function.read_configuration(offset + 8);
    let length = function.read_configuration(offset + 12);
    let Some(bar) = function.bars.get(usize::from(index)) else {
        return Ok(false);
    };
    let bar = bar.as_ref().ok_or(PciError::NoBar { function: function.address, index })?;
    Ok(start.checked_add(length).is_some_and(|end| u64::from(end) <= bar.size_bytes))
}

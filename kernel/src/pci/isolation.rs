//! Whether the functions of a device are kept from each other (Access Control Services, PCI Express Base Specification,
//! 6.12). If they are not, one may reach another's registers without any IOMMU seeing it.

use virtio_drivers::transport::pci::bus::DeviceFunction;

use super::Ecam;

/// Where extended capabilities begin, and how many fit behind that.
const EXTENDED_CAPABILITIES: u16 = 0x100;
const MAX_CAPABILITIES: usize = (4096 - 256) / 8;
/// ID of the capability, in bits 15:0 of its first register; bits 31:20 are the offset of the next.
const ACCESS_CONTROL: u32 = 0x000d;
/// Offset of the register with the capabilities in its lower half and the switches for them in the upper.
const CONTROL: u16 = 4;
/// Source validation, and request redirect, completion redirect and upstream forwarding.
const WANTED: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4;

/// Has `function` send all of its requests upstream, where an IOMMU sees them. Returns whether it can be told to.
pub(super) fn isolate(ecam: &mut Ecam, function: DeviceFunction) -> bool {
    let Some(offset) = find(ecam, function).and_then(|capability| capability.checked_add(CONTROL)) else {
        return false;
    };
    let capabilities = ecam.read_extended(function, offset) & 0xffff;
    ecam.write_extended(function, offset, capabilities | (capabilities & WANTED) << 16);
    true
}

fn find(ecam: &Ecam, function: DeviceFunction) -> Option<u16> {
    let mut offset = EXTENDED_CAPABILITIES;
    for _ in 0..MAX_CAPABILITIES {
        let header = ecam.read_extended(function, offset);
        if header == 0 || header == u32::MAX {
            return None;
        }
        if header & 0xffff == ACCESS_CONTROL {
            return Some(offset);
        }
        offset = (header >> 20) as u16 & 0xffc;
        if offset < EXTENDED_CAPABILITIES {
            return None;
        }
    }
    None
}

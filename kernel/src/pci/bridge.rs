//! What is peculiar to bridges: the registers that say which buses and addresses they forward (PCI-to-PCI Bridge
//! Architecture Specification 1.2, 3.2.5), and in whose name they do it.

use core::ops::Range;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};

use super::Ecam;
use super::function::requester_id;

const BUS_NUMBERS: u8 = 0x18;
const IO_WINDOW: u8 = 0x1c;
const MEMORY_WINDOW: u8 = 0x20;
const PREFETCHABLE_WINDOW: u8 = 0x24;
const PREFETCHABLE_BASE_UPPER: u8 = 0x28;
const PREFETCHABLE_LIMIT_UPPER: u8 = 0x2c;
const IO_WINDOW_UPPER: u8 = 0x30;

/// A memory window whose base lies above its limit forwards nothing.
const CLOSED: u32 = 0x0000_fff0;
/// The same for the I/O window, whose fields are half as wide.
const IO_CLOSED: u32 = 0x00f0;
/// In PREFETCHABLE_WINDOW: the window has 64-bit addresses.
const IS_64_BIT: u32 = 1;

/// ID of the PCI Express capability, and the device/port type of a PCI Express to PCI bridge in bits 7:4 of its register.
pub(super) const EXPRESS_CAPABILITY: u8 = 0x10;
const EXPRESS_TO_PCI: u16 = 7;
/// The most capabilities that fit configuration space.
pub(super) const MAX_CAPABILITIES: usize = (256 - 64) / 4;

/// Makes a bridge forward nothing: no bus, no address.
pub(super) fn close(ecam: &mut Ecam, bridge: DeviceFunction) {
    ecam.write_word(bridge, BUS_NUMBERS, 0);
    ecam.write_word(bridge, IO_WINDOW, IO_CLOSED);
    ecam.write_word(bridge, IO_WINDOW_UPPER, 0);
    set_windows(ecam, bridge, 0..0, 0..0);
}

/// Sets what a bridge answers to in configuration space: its own bus, and `secondary..=subordinate` behind it.
pub(super) fn set_bus_numbers(ecam: &mut Ecam, bridge: DeviceFunction, secondary: u8, subordinate: u8) {
    ecam.write_word(bridge, BUS_NUMBERS, u32::from_le_bytes([bridge.bus, secondary, subordinate, 0]));
}

/// Whether the bridge's prefetchable window can lie above 4 GiB.
pub(super) fn forwards_high(ecam: &Ecam, bridge: DeviceFunction) -> bool {
    ecam.read_word(bridge, PREFETCHABLE_WINDOW) & 0xf == IS_64_BIT
}

/// Sets the memory addresses that a bridge forwards: `low` in its window of 32-bit addresses, `high` in the
/// prefetchable one. Both are multiples of 1 MiB; an empty one is closed. The I/O window stays closed.
pub(super) fn set_windows(ecam: &mut Ecam, bridge: DeviceFunction, low: Range<u64>, high: Range<u64>) {
    ecam.write_word(bridge, MEMORY_WINDOW, window(&low));
    ecam.write_word(bridge, PREFETCHABLE_WINDOW, window(&high));
    let (base, limit) = if high.is_empty() { (0, 0) } else { (high.start, high.end - 1) };
    ecam.write_word(bridge, PREFETCHABLE_BASE_UPPER, (base >> 32) as u32);
    ecam.write_word(bridge, PREFETCHABLE_LIMIT_UPPER, (limit >> 32) as u32);
}

/// Base and limit as a window register holds them: address bits 31:20 in bits 15:4 and 31:20.
fn window(addresses: &Range<u64>) -> u32 {
    if addresses.is_empty() {
        return CLOSED;
    }
    let (base, limit) = (addresses.start as u32, (addresses.end - 1) as u32);
    limit & 0xfff0_0000 | base >> 16 & 0xfff0
}

/// The Requester ID that a bridge gives to what it forwards from its `secondary` bus; `None` if each transaction keeps its
/// own, as behind all ports of PCI Express. A bridge to a conventional bus has to lend one, there being none on such a bus
/// (PCI Express to PCI/PCI-X Bridge Specification 1.0, 2.3).
pub(super) fn alias(configuration: &PciRoot<Ecam>, bridge: DeviceFunction, secondary: u8) -> Option<u16> {
    let mut capabilities = configuration.capabilities(bridge).take(MAX_CAPABILITIES);
    match capabilities.find(|capability| capability.id == EXPRESS_CAPABILITY) {
        None => Some(requester_id(bridge)),
        Some(express) if express.private_header >> 4 & 0xf == EXPRESS_TO_PCI => {
            Some(requester_id(DeviceFunction { bus: secondary, device: 0, function: 0 }))
        }
        Some(_) => None,
    }
}

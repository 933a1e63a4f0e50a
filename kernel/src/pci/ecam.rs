//! Configuration space through ECAM, the memory-mapped access mechanism of PCI Express (Base Specification, 7.2.2):
//! 4 KiB of registers per function, 1 MiB per bus.

use core::ptr::NonNull;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

/// Configuration space of a function in bytes, of which the first 256 are not extended.
const FUNCTION_BYTES: u16 = 4096;
/// What a read returns where nothing answers.
const ABSENT: u32 = u32::MAX;

/// log2 of the bytes of configuration space per bus.
pub(super) const BUS_SHIFT: u32 = 20;

/// The configuration space of one host bridge, which may start at any bus and hold fewer than 256.
///
/// Copies reach the same registers; each [`super::PciFunction`] has one and writes the registers of its own function
/// (and switches on the bridges above it, which no function ever switches off). A read outside the space returns all
/// ones, a write there has no effect: it looks like a function that is not there.
#[derive(Clone, Copy, Debug)]
pub struct Ecam {
    base: NonNull<u8>,
    first_bus: u8,
    last_bus: u8,
}

// SAFETY: the pointer is to device registers, which are not bound to a CPU; accesses are single and volatile.
unsafe impl Send for Ecam {}

impl Ecam {
    /// Takes over the configuration space of buses `first_bus..=last_bus`.
    ///
    /// # Safety
    ///
    /// `base` is 4-byte aligned and maps 1 MiB for each of the buses as Device memory, for as long as the kernel runs.
    pub(super) unsafe fn new(base: NonNull<u8>, first_bus: u8, last_bus: u8) -> Self {
        Self { base, first_bus, last_bus }
    }

    /// Reads the register at `offset` in bytes, a multiple of 4 below 4096.
    pub(super) fn read_extended(&self, function: DeviceFunction, offset: u16) -> u32 {
        match self.register(function, offset) {
            // SAFETY: `register` returns only addresses inside the space that `new` was promised.
            Some(register) => u32::from_le(unsafe { register.read_volatile() }),
            None => ABSENT,
        }
    }

    /// Writes the register at `offset` in bytes, a multiple of 4 below 4096.
    pub(super) fn write_extended(&mut self, function: DeviceFunction, offset: u16, data: u32) {
        if let Some(register) = self.register(function, offset) {
            // SAFETY: `register` returns only addresses inside the space that `new` was promised.
            unsafe { register.write_volatile(data.to_le()) }
        }
    }

    /// Where the register at `offset` of `function` lies, if the space holds it.
    fn register(&self, function: DeviceFunction, offset: u16) -> Option<NonNull<u32>> {
        let is_register = offset < FUNCTION_BYTES && offset.is_multiple_of(4);
        if !function.valid() || function.bus > self.last_bus || !is_register {
            return None;
        }
        let bus = usize::from(function.bus.checked_sub(self.first_bus)?);
        let offset = bus << BUS_SHIFT
            | usize::from(function.device) << 15
            | usize::from(function.function) << 12
            | usize::from(offset);
        // SAFETY: bus, device, function and offset were just found to be inside the space that `new` was promised.
        Some(unsafe { self.base.add(offset) }.cast())
    }
}

impl ConfigurationAccess for Ecam {
    fn read_word(&self, device_function: DeviceFunction, register_offset: u8) -> u32 {
        self.read_extended(device_function, register_offset.into())
    }

    fn write_word(&mut self, device_function: DeviceFunction, register_offset: u8, data: u32) {
        self.write_extended(device_function, register_offset.into(), data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}

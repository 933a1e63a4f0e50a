//! One PCI function as the drivers see it: who it is, where its registers lie, and the switches for memory decoding and
//! bus mastering.

use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

use safe_mmio::UniqueMmioPointer;
use smmu::addr::PhysAddr;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, PciRoot};

use super::{BusMaster, Ecam, PciError};
use crate::memory;

/// A memory BAR with an address. It stands for the right to the registers behind it: there is one of each, and a
/// driver that takes it ([`PciFunction::take_bar`]) has it alone.
#[derive(Debug, PartialEq, Eq)]
pub struct Bar {
    /// The address on the bus, which is what the BAR holds.
    pub bus_address: u64,
    /// The physical address at which the CPU reaches it.
    pub physical: PhysAddr,
    /// Size in bytes, a power of two.
    pub size_bytes: u64,
    /// Whether reads have no side effects.
    pub prefetchable: bool,
}

impl Bar {
    /// Maps the BAR for the CPU, whole, and returns where it is.
    ///
    /// # Errors
    ///
    /// [`PciError::Map`] if the CPU cannot reach it.
    pub fn map(&self) -> Result<NonNull<[u8]>, PciError> {
        let size_bytes = self.size_bytes as usize;
        Ok(NonNull::slice_from_raw_parts(memory::map_mmio(self.physical, size_bytes)?, size_bytes))
    }

    /// Maps the BAR and gives access to the registers at its start.
    ///
    /// `T` is a `repr(C)` struct of `safe_mmio` fields that describes them.
    ///
    /// # Errors
    ///
    /// [`PciError::BarTooSmall`] if `T` does not fit; [`PciError::Map`] as for [`Self::map`].
    pub fn registers<T>(self) -> Result<UniqueMmioPointer<'static, T>, PciError> {
        let needed_bytes = size_of::<T>() as u64;
        if needed_bytes > self.size_bytes {
            return Err(PciError::BarTooSmall { physical: self.physical, size_bytes: self.size_bytes, needed_bytes });
        }
        let registers = self.map()?;
        // SAFETY: mapped for good, large enough, aligned to its own size, and the only `Bar` for it was just consumed.
        Ok(unsafe { UniqueMmioPointer::new(registers.cast()) })
    }
}

/// A function found behind a host bridge.
///
/// It starts with memory decoding off, interrupts masked (drivers poll) and bus mastering off: it cannot read or write
/// memory until [`Self::bus_master`] is switched on, which comes after its stream has been attached to a domain.
#[derive(Debug)]
pub struct PciFunction {
    /// Bus, device and function number; displayed as `00:03.0`.
    pub address: DeviceFunction,
    /// Vendor, device, class and header type.
    pub info: DeviceFunctionInfo,
    /// The memory BARs that have an address, by number; I/O BARs are left unassigned and switched off.
    pub bars: [Option<Bar>; 6],
    /// Requester IDs that bridges above it may put in place of its own, nearest bridge first.
    pub(super) aliases: Vec<u16>,
    /// Whether it is kept from the other functions of its device.
    pub(super) is_isolated: bool,
    /// The bridges between the host bridge and the function, outermost first.
    pub(super) bridges: Vec<DeviceFunction>,
    pub(super) configuration: Ecam,
}

impl PciFunction {
    /// The function's own Requester ID: its address.
    #[must_use]
    pub fn requester_id(&self) -> u16 {
        requester_id(self.address)
    }

    /// The Requester IDs that the function's transactions may bear when they reach the host bridge, which is what
    /// `iommu-map` translates: its own, and those of bridges, which lend them to all on the conventional bus behind them.
    pub fn requester_ids(&self) -> impl Iterator<Item = u16> + '_ {
        [self.requester_id()].into_iter().chain(self.aliases.iter().copied())
    }

    /// Whether this and another are functions of one device that does not keep them from each other, so that no IOMMU sees
    /// what passes between them.
    #[must_use]
    pub fn is_inseparable_from(&self, other: &Self) -> bool {
        let device = |function: &Self| (function.address.bus, function.address.device);
        device(self) == device(other) && !(self.is_isolated && other.is_isolated)
    }

    /// Reads the 32-bit register at `offset` (a multiple of 4, in bytes) of the function's configuration space.
    #[must_use]
    pub fn read_configuration(&self, offset: u8) -> u32 {
        self.configuration.read_word(self.address, offset)
    }

    /// Access to configuration space, for what this type has no method for.
    #[must_use]
    pub fn configuration(&self) -> PciRoot<Ecam> {
        PciRoot::new(self.configuration)
    }

    /// Hands out a memory BAR, once.
    ///
    /// # Errors
    ///
    /// [`PciError::NoBar`] if there is none with this number, or it has no address, or it is taken.
    pub fn take_bar(&mut self, index: u8) -> Result<Bar, PciError> {
        let bar = self.bars.get_mut(usize::from(index)).and_then(Option::take);
        bar.ok_or(PciError::NoBar { function: self.address, index })
    }

    /// Lets the function answer at the addresses in its memory BARs.
    pub fn enable_memory(&mut self) {
        let mut configuration = self.configuration();
        let (_, command) = configuration.get_status_command(self.address);
        configuration.set_command(self.address, command | Command::MEMORY_SPACE);
    }

    /// The switch that lets the function read and write memory.
    #[must_use]
    pub fn bus_master(&self) -> BusMaster {
        BusMaster::new(self.configuration, self.address, &self.bridges)
    }
}

/// An address as a Requester ID (PCI Express Base Specification, 2.2.6.2): bus in bits 15:8, device in 7:3, function in 2:0.
pub(super) fn requester_id(address: DeviceFunction) -> u16 {
    u16::from(address.bus) << 8 | u16::from(address.device) << 3 | u16::from(address.function)
}

impl fmt::Display for PciFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:04x}:{:04x}", self.address, self.info.vendor_id, self.info.device_id)
    }
}

//! Slots that devices are taken out of and put into while the machine runs (PCI Express Base Specification, 6.7), and
//! functions that come back to the place that they had.

use alloc::vec::Vec;

use smmu::addr::PhysAddr;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, PciRoot};

use super::bridge::{EXPRESS_CAPABILITY, MAX_CAPABILITIES};
use super::enumerate::{ABSENT, BAR0, VENDOR_DEVICE};
use super::{Bar, Ecam, PciFunction};

/// Offset, in the PCI Express capability, of Slot Control (lower half) and Slot Status (upper half).
const SLOT: u8 = 0x18;
/// In Slot Control: the fields of the power indicator and the power controller, and what is in them when power is off.
const POWER: u32 = 0b111 << 8;
const POWER_OFF: u32 = 0b111 << 8;
/// The power indicator on, and the power controller, which counts the other way round.
const POWER_ON: u32 = 0b001 << 8;
/// In Slot Status: all events, which are cleared by writing ones.
const EVENTS: u32 = 0x1f << 16;
const BUTTON_PRESSED: u32 = 1 << 16;
const PRESENT: u32 = 1 << 22;

/// The slot of a root port or downstream port.
#[derive(Debug)]
pub struct Slot {
    configuration: Ecam,
    port: DeviceFunction,
    register: u8,
}

impl Slot {
    /// The slot that `function` is in; `None` if the bridge above it has none.
    #[must_use]
    pub fn of(function: &PciFunction) -> Option<Self> {
        let (configuration, port) = (function.configuration, *function.bridges.last()?);
        let root = PciRoot::new(configuration);
        let mut capabilities = root.capabilities(port).take(MAX_CAPABILITIES);
        let express = capabilities.find(|capability| capability.id == EXPRESS_CAPABILITY)?;
        Some(Self { configuration, port, register: express.offset.checked_add(SLOT)? })
    }

    /// Whether somebody wants to take the device out, or to have one taken in.
    #[must_use]
    pub fn is_button_pressed(&self) -> bool {
        self.read() & BUTTON_PRESSED != 0
    }

    /// Whether there is a device in it.
    #[must_use]
    pub fn is_occupied(&self) -> bool {
        self.read() & PRESENT != 0
    }

    /// Switches the power of the slot, and forgets what has happened to it. Without power its device may be taken out.
    pub fn set_power(&mut self, on: bool) {
        let control = self.read() & 0xffff & !POWER;
        let power = if on { POWER_ON } else { POWER_OFF };
        self.configuration.write_word(self.port, self.register, control | power | EVENTS);
    }

    fn read(&self) -> u32 {
        self.configuration.read_word(self.port, self.register)
    }
}

/// What a BAR was given.
#[derive(Clone, Copy, Debug)]
struct Assignment {
    bus_address: u64,
    physical: PhysAddr,
    size_bytes: u64,
    prefetchable: bool,
}

/// Where a function is, and which addresses its registers have there.
#[derive(Debug)]
pub struct Placement {
    address: DeviceFunction,
    info: DeviceFunctionInfo,
    /// Not rights to registers, which a [`Bar`] is: those ended with the function.
    bars: [Option<Assignment>; 6],
    aliases: Vec<u16>,
    is_isolated: bool,
    bridges: Vec<DeviceFunction>,
    configuration: Ecam,
}

impl Placement {
    /// That of a function whose BARs nobody has taken yet.
    #[must_use]
    pub fn of(function: &PciFunction) -> Self {
        let assigned = |bar: &Option<Bar>| {
            let &Bar { bus_address, physical, size_bytes, prefetchable } = bar.as_ref()?;
            Some(Assignment { bus_address, physical, size_bytes, prefetchable })
        };
        Self {
            address: function.address,
            info: function.info.clone(),
            bars: function.bars.each_ref().map(assigned),
            aliases: function.aliases.clone(),
            is_isolated: function.is_isolated,
            bridges: function.bridges.clone(),
            configuration: function.configuration,
        }
    }

    /// A function of the same kind that has been put there in place of the one before, which is gone, with the same
    /// addresses; `None` while nothing of that kind answers.
    #[must_use]
    pub fn take_up(&self) -> Option<PciFunction> {
        let mut configuration = PciRoot::new(self.configuration);
        let id = self.configuration.read_word(self.address, VENDOR_DEVICE);
        let same = u32::from(self.info.device_id) << 16 | u32::from(self.info.vendor_id);
        if id == ABSENT || id != same {
            return None;
        }
        configuration.set_command(self.address, Command::INTERRUPT_DISABLE);
        let mut bars = [const { None }; 6];
        for (index, (slot, bar)) in (0..).zip(bars.iter_mut().zip(&self.bars)) {
            let Some(Assignment { bus_address, physical, size_bytes, prefetchable }) = *bar else { continue };
            if self.configuration.read_word(self.address, BAR0 + 4 * index) & 0b111 == 0b100 {
                configuration.set_bar_64(self.address, index, bus_address);
            } else {
                configuration.set_bar_32(self.address, index, bus_address as u32);
            }
            *slot = Some(Bar { bus_address, physical, size_bytes, prefetchable });
        }
        Some(PciFunction {
            address: self.address,
            info: self.info.clone(),
            bars,
            aliases: self.aliases.clone(),
            is_isolated: self.is_isolated,
            bridges: self.bridges.clone(),
            configuration: self.configuration,
        })
    }
}

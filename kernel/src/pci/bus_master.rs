//! Bus mastering: whether a function may send requests of its own (PCI Local Bus Specification 3.0, 6.2.2).

use alloc::vec::Vec;

use virtio_drivers::transport::pci::bus::{Command, DeviceFunction, PciRoot};

use super::Ecam;

/// The switch for the bus mastering of a function, or of several that are one device to its driver. It may be kept
/// apart from the function, whose registers its driver has.
#[derive(Clone, Debug)]
pub struct BusMaster {
    configuration: Ecam,
    functions: Vec<DeviceFunction>,
    /// All bridges between the host bridge and one of the functions, outer ones first.
    bridges: Vec<DeviceFunction>,
}

impl BusMaster {
    /// The switch of `function`, which is behind `bridges`, outermost first.
    pub(super) fn new(configuration: Ecam, function: DeviceFunction, bridges: &[DeviceFunction]) -> Self {
        Self { configuration, functions: Vec::from([function]), bridges: bridges.to_vec() }
    }

    /// One switch for the functions of both, which are behind the same host bridge.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.functions.extend(other.functions);
        self.bridges.extend(other.bridges);
        self
    }

    /// Lets the functions read and write memory, or stops them: then, what they have sent has arrived when this returns.
    ///
    /// The bridges above are opened with them, and stay open for others when they are stopped.
    pub fn set(&mut self, enabled: bool) {
        if enabled {
            let path = self.bridges.iter().chain(&self.functions);
            return path.for_each(|&address| self.update(address, |command| command | Command::BUS_MASTER));
        }
        for &address in &self.functions {
            self.update(address, |command| command - Command::BUS_MASTER);
            // The answer to a read pushes what the function has written before (PCI Express Base Specification, 2.4.1).
            let _ = self.is_enabled(address);
        }
    }

    /// Whether any of the functions may read and write memory.
    #[must_use]
    pub fn is_any_enabled(&self) -> bool {
        self.functions.iter().any(|&function| self.is_enabled(function))
    }

    fn is_enabled(&self, address: DeviceFunction) -> bool {
        PciRoot::new(self.configuration).get_status_command(address).1.contains(Command::BUS_MASTER)
    }

    fn update(&self, address: DeviceFunction, change: impl FnOnce(Command) -> Command) {
        let mut configuration = PciRoot::new(self.configuration);
        let (_, command) = configuration.get_status_command(address);
        configuration.set_command(address, change(command));
    }
}

//! Finding every function behind a host bridge, and giving out bus numbers and addresses.
//!
//! Firmware's programming is not kept: everything is switched off first, then numbered and assigned anew, depth first.
//! Root buses keep their numbers, which are wired (a `pxb-pcie` expander adds more of them); a bridge below one root bus
//! is never given a number that belongs to the next.

use alloc::vec::Vec;

use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, HeaderType, MemoryBarType, PciRoot,
};

use super::function::{Bar, PciFunction, requester_id};
use super::window::Window;
use super::{Ecam, HostBridge, PciError, bridge, isolation};

// Registers of configuration space (PCI Local Bus Specification 3.0, 6.1).
pub(super) const VENDOR_DEVICE: u8 = 0x00;
const CLASS_REVISION: u8 = 0x08;
const HEADER: u8 = 0x0c;
pub(super) const BAR0: u8 = 0x10;

/// What VENDOR_DEVICE reads where there is no function.
pub(super) const ABSENT: u32 = u32::MAX;
/// In HEADER: the device has more functions than number 0.
const MULTI_FUNCTION: u32 = 1 << 23;
/// How many bridges deep the search goes.
const MAX_DEPTH: usize = 32;

/// The state of one host bridge's enumeration, and in the end its result.
pub(super) struct Enumeration<'a> {
    ecam: Ecam,
    /// Requester IDs of functions that are not to lose the bus.
    working: &'a [u16],
    low: Option<Window>,
    high: Option<Window>,
    pub(super) functions: Vec<PciFunction>,
    pub(super) problems: Vec<PciError>,
}

/// What lies between the host bridge and a bus.
struct Upstream {
    /// Outermost first.
    bridges: Vec<DeviceFunction>,
    /// Whether all of them can forward a prefetchable window above 4 GiB.
    forwards_high: bool,
    /// The Requester IDs that they put in place of those of the functions behind them, innermost first.
    aliases: Vec<u16>,
}

impl<'a> Enumeration<'a> {
    /// Enumerates all buses of `host`, whose configuration space is `ecam`. Functions that are `working` keep the bus.
    pub(super) fn run(host: &HostBridge, ecam: Ecam, working: &'a [u16]) -> Self {
        let mut this =
            Self { ecam, working, low: host.low, high: host.high, functions: Vec::new(), problems: Vec::new() };
        let buses = host.first_bus..=host.last_bus;
        // From the last bus up: a bridge loses its bus numbers only when all that is behind it has been silenced.
        for bus in buses.clone().rev() {
            for (function, info) in this.present(bus) {
                this.silence(function, &info);
            }
        }
        // With no bridge numbered, only root buses answer.
        let roots: Vec<u8> = buses.filter(|&bus| !this.present(bus).is_empty()).collect();
        for (index, &root) in roots.iter().enumerate() {
            let last_bus = roots.get(index + 1).map_or(host.last_bus, |next| next - 1);
            this.scan(root, last_bus, &Upstream { bridges: Vec::new(), forwards_high: true, aliases: Vec::new() });
        }
        this
    }

    /// The functions that answer on `bus`.
    fn present(&self, bus: u8) -> Vec<(DeviceFunction, DeviceFunctionInfo)> {
        let mut found = Vec::new();
        for device in 0..32 {
            let mut functions = 1;
            for function in 0..8 {
                if function == functions {
                    break;
                }
                let address = DeviceFunction { bus, device, function };
                let id = self.ecam.read_word(address, VENDOR_DEVICE);
                if id == ABSENT {
                    continue;
                }
                let header = self.ecam.read_word(address, HEADER);
                if header & MULTI_FUNCTION != 0 {
                    functions = 8;
                }
                let [revision, prog_if, subclass, class] = self.ecam.read_word(address, CLASS_REVISION).to_le_bytes();
                let header_type = HeaderType::from((header >> 16) as u8 & 0x7f);
                let (vendor_id, device_id) = (id as u16, (id >> 16) as u16);
                let info = DeviceFunctionInfo { vendor_id, device_id, class, subclass, prog_if, revision, header_type };
                found.push((address, info));
            }
        }
        found
    }

    /// Takes from a function the bus, unless it is working, its addresses and its interrupt; from a bridge what lies behind
    /// it, too.
    fn silence(&mut self, function: DeviceFunction, info: &DeviceFunctionInfo) {
        let mut root = PciRoot::new(self.ecam);
        let is_working = self.working.contains(&requester_id(function));
        let kept =
            if is_working { root.get_status_command(function).1 & Command::BUS_MASTER } else { Command::empty() };
        root.set_command(function, Command::INTERRUPT_DISABLE | kept);
        if info.header_type == HeaderType::PciPciBridge {
            bridge::close(&mut self.ecam, function);
        }
    }

    /// Takes up everything on `bus` and behind it; numbers up to `last_bus` are free. Returns the last one used.
    fn scan(&mut self, bus: u8, last_bus: u8, upstream: &Upstream) -> u8 {
        let mut used = bus;
        for (address, info) in self.present(bus) {
            self.silence(address, &info);
            let is_bridge = info.header_type == HeaderType::PciPciBridge;
            let bars = self.assign_bars(address, info.header_type, upstream);
            let (bridges, aliases) = (upstream.bridges.clone(), upstream.aliases.clone());
            let is_isolated = isolation::isolate(&mut self.ecam, address);
            let configuration = self.ecam;
            self.functions.push(PciFunction { address, info, bars, aliases, is_isolated, bridges, configuration });
            if is_bridge {
                used = self.scan_behind(address, used, last_bus, upstream);
            }
        }
        used
    }

    /// Numbers a bridge, takes up what is behind it and opens its windows. Numbers up to `used` are taken, those up to
    /// `last_bus` free. Returns the last one used.
    fn scan_behind(&mut self, address: DeviceFunction, used: u8, last_bus: u8, upstream: &Upstream) -> u8 {
        let secondary = used.checked_add(1).filter(|&bus| bus <= last_bus && upstream.bridges.len() < MAX_DEPTH);
        let Some(secondary) = secondary else {
            self.problems.push(PciError::BridgeLeftOut { bridge: address, last_bus, levels: MAX_DEPTH });
            return used;
        };
        bridge::set_bus_numbers(&mut self.ecam, address, secondary, last_bus);
        let forwards_high = upstream.forwards_high && bridge::forwards_high(&self.ecam, address);
        // Where one such bridge lies behind another, each may or may not have its say.
        let alias = bridge::alias(&PciRoot::new(self.ecam), address, secondary);
        let aliases = alias.into_iter().chain(upstream.aliases.iter().copied()).collect();
        let bridges = upstream.bridges.iter().copied().chain([address]).collect();
        let start = self.boundaries();
        let subordinate = self.scan(secondary, last_bus, &Upstream { bridges, forwards_high, aliases });
        let end = self.boundaries();
        bridge::set_bus_numbers(&mut self.ecam, address, secondary, subordinate);
        bridge::set_windows(&mut self.ecam, address, start.0..end.0, start.1..end.1);
        PciRoot::new(self.ecam).set_command(address, Command::INTERRUPT_DISABLE | Command::MEMORY_SPACE);
        subordinate
    }

    /// Where a bridge's windows, low and high, can begin or end next.
    fn boundaries(&mut self) -> (u64, u64) {
        let boundary = |window: &mut Option<Window>| window.as_mut().map_or(0, Window::next_bridge_boundary);
        (boundary(&mut self.low), boundary(&mut self.high))
    }

    /// Sizes and assigns the memory BARs of a function, whose memory decoding is off.
    fn assign_bars(&mut self, function: DeviceFunction, header: HeaderType, upstream: &Upstream) -> [Option<Bar>; 6] {
        let count = match header {
            HeaderType::Standard => 6,
            HeaderType::PciPciBridge => 2,
            HeaderType::PciCardbusBridge | HeaderType::Unrecognised(_) => 0,
        };
        let mut bars = [const { None }; 6];
        let mut upper_half = false;
        for (slot, index) in bars.iter_mut().zip(0..count) {
            if core::mem::take(&mut upper_half) {
                continue;
            }
            match self.bar_info(function, index, count) {
                Ok(Some(info)) => {
                    upper_half = info.takes_two_entries();
                    match self.assign_bar(function, index, &info, upstream) {
                        Ok(bar) => *slot = bar,
                        Err(problem) => self.problems.push(problem),
                    }
                }
                Ok(None) => {}
                Err(problem) => self.problems.push(problem),
            }
        }
        bars
    }

    /// Type and size of BAR `index` of the `count` that the function has.
    fn bar_info(&self, function: DeviceFunction, index: u8, count: u8) -> Result<Option<BarInfo>, PciError> {
        let malformed = PciError::MalformedBar { function, index };
        let is_64_bit = self.ecam.read_word(function, BAR0 + 4 * index) & 0b111 == 0b100;
        if is_64_bit && index + 1 == count {
            return Err(malformed);
        }
        PciRoot::new(self.ecam).bar_info(function, index).map_err(|_| malformed)
    }

    /// Gives one BAR an address and writes it there. I/O BARs stay as they are, I/O decoding being off.
    fn assign_bar(
        &mut self,
        function: DeviceFunction,
        index: u8,
        info: &BarInfo,
        upstream: &Upstream,
    ) -> Result<Option<Bar>, PciError> {
        let BarInfo::Memory { address_type, prefetchable, size: size_bytes, .. } = *info else {
            return Ok(None);
        };
        // An address in no window, in case another BAR gets the function's decoding switched on.
        self.write_bar(function, index, address_type, 0);
        if address_type == MemoryBarType::Below1MiB || !size_bytes.is_power_of_two() {
            return Err(PciError::MalformedBar { function, index });
        }
        let reaches_high = address_type == MemoryBarType::Width64
            && (upstream.bridges.is_empty() || prefetchable && upstream.forwards_high);
        let high = self.high.as_mut().filter(|_| reaches_high);
        let (bus_address, physical) = high
            .and_then(|window| window.allocate(size_bytes))
            .or_else(|| self.low.as_mut()?.allocate(size_bytes))
            .ok_or(PciError::OutOfSpace { function, index, size_bytes })?;
        self.write_bar(function, index, address_type, bus_address);
        Ok(Some(Bar { bus_address, physical, size_bytes, prefetchable }))
    }

    fn write_bar(&mut self, function: DeviceFunction, index: u8, address_type: MemoryBarType, bus_address: u64) {
        let mut root = PciRoot::new(self.ecam);
        match address_type {
            MemoryBarType::Width64 => root.set_bar_64(function, index, bus_address),
            // The low window ends below 4 GiB.
            MemoryBarType::Width32 | MemoryBarType::Below1MiB => root.set_bar_32(function, index, bus_address as u32),
        }
    }
}

//! The console: a PL011 found through the device tree, text for people, records for programs.
//!
//! What lives here: output, [`log`] and [`record!`](crate::record). What does not: input.

mod logger;
pub mod record;

use core::fmt::{self, Write};
use core::str;
use core::time::Duration;

use arm_pl011_uart::{DataBits, LineConfig, PL011Registers, Parity, StopBits, Uart, UniqueMmioPointer};
use smmu::addr::PhysAddr;

use crate::devicetree::{self, DeviceTree, DeviceTreeError, Node, NodeName};
use crate::memory::{self, MapMmioError};
use crate::sync::IrqMutex;
use crate::timer;

/// How long the UART's FIFO may be full. At 1200 baud a byte takes 8 ms.
const ROOM_LIMIT: Duration = Duration::from_secs(1);

const COMPATIBLE: &[&str] = &["arm,pl011"];

/// Why there is no console.
#[derive(Debug)]
pub enum ConsoleError {
    /// The device tree does not name a usable UART.
    DeviceTree(DeviceTreeError),
    /// Its registers cannot be mapped.
    Map(MapMmioError),
    /// Its registers are misplaced or too few.
    Registers {
        /// Where they are said to be.
        at: PhysAddr,
        /// Their size in bytes.
        size_bytes: usize,
    },
}

impl From<DeviceTreeError> for ConsoleError {
    fn from(error: DeviceTreeError) -> Self {
        Self::DeviceTree(error)
    }
}

impl fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceTree(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::Registers { at, size_bytes } => {
                let needed = size_of::<PL011Registers>();
                write!(f, "PL011 at {at}: {size_bytes:#x} bytes of registers, {needed:#x} aligned ones are needed")
            }
        }
    }
}

struct Console {
    uart: Uart<'static>,
    /// The last byte found no room in time; the next ones are not waited for.
    is_stuck: bool,
}

static CONSOLE: IrqMutex<Option<Console>> = IrqMutex::new(None);

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.write_byte(b'\r');
            }
            self.write_byte(byte);
        }
        Ok(())
    }
}

impl Console {
    /// Sends a byte, unless the UART has stopped sending: a kernel that nobody hears goes on all the same.
    fn write_byte(&mut self, byte: u8) {
        let limit = if self.is_stuck { Duration::ZERO } else { ROOM_LIMIT };
        let has_room = || !self.uart.is_tx_fifo_full();
        self.is_stuck = !has_room() && !timer::wait_for(limit, has_room);
        if !self.is_stuck {
            self.uart.write_word(byte);
        }
    }
}

/// Finds the UART, sets it up, and makes it the output of [`print!`](crate::print), [`log`] and records.
///
/// # Errors
///
/// [`ConsoleError`]; output then goes nowhere.
pub(crate) fn init(tree: &DeviceTree) -> Result<(), ConsoleError> {
    let node = find_uart(tree)?;
    let (at, size_bytes) = devicetree::reg(&node, 0)?;
    if size_bytes < size_of::<PL011Registers>() || !at.is_aligned(align_of::<PL011Registers>() as u64) {
        return Err(ConsoleError::Registers { at, size_bytes });
    }
    let registers = memory::map_mmio(at, size_bytes).map_err(ConsoleError::Map)?;
    // SAFETY: these are a PL011's registers, mapped for good, and only the console uses them.
    let mut uart = Uart::new(unsafe { UniqueMmioPointer::new(registers.cast()) });
    if let Some(clock_hz) = clock_hz(tree, &node)? {
        let config = LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };
        // A clock too slow for this speed leaves the line as firmware set it.
        let _ = uart.enable(config, 115_200, clock_hz);
    }
    *CONSOLE.lock() = Some(Console { uart, is_stuck: false });
    logger::init();
    Ok(())
}

/// The UART that `/chosen/stdout-path` names, by path or alias, if it is a PL011; else the first PL011.
fn find_uart(tree: &DeviceTree) -> Result<Node, DeviceTreeError> {
    if let Some(node) = stdout_node(tree)? {
        let compatible = node.raw_property("compatible")?.map_or(&[][..], |property| property.value);
        if compatible.split(|&byte| byte == 0).any(|name| COMPATIBLE.iter().any(|known| known.as_bytes() == name)) {
            return Ok(node);
        }
    }
    devicetree::find_compatible(tree, COMPATIBLE)
}

fn stdout_node(tree: &DeviceTree) -> Result<Option<Node>, DeviceTreeError> {
    let Some(path) = string_property(tree, "/chosen", "stdout-path")? else { return Ok(None) };
    // After a colon come the line's parameters.
    let path = path.split(':').next().unwrap_or_default();
    let path = if path.starts_with('/') { Some(path) } else { string_property(tree, "/aliases", path)? };
    path.map_or(Ok(None), |path| Ok(tree.find_node(path)?))
}

fn string_property(tree: &DeviceTree, node: &str, name: &str) -> Result<Option<&'static str>, DeviceTreeError> {
    let Some(node) = tree.find_node(node)? else { return Ok(None) };
    let property = node.raw_property(name)?;
    Ok(property.and_then(|property| property.value.split_last()).and_then(|(_, text)| str::from_utf8(text).ok()))
}

/// The frequency of the UART's first clock in Hz, if it is a fixed one.
fn clock_hz(tree: &DeviceTree, uart: &Node) -> Result<Option<u32>, DeviceTreeError> {
    let Some(clocks) = uart.raw_property("clocks")? else { return Ok(None) };
    let bad = DeviceTreeError::Property {
        node: NodeName::of(uart),
        property: "clocks",
        expected: "phandles of nodes that exist",
    };
    let Some(phandle) = clocks.value.first_chunk() else { return Err(bad) };
    let phandle = fdt::properties::PHandle::new(u32::from_be_bytes(*phandle));
    let Some(clock) = tree.root()?.resolve_phandle(phandle)? else { return Err(bad) };
    let frequency = clock.raw_property("clock-frequency")?;
    Ok(frequency.and_then(|property| property.as_value().ok()))
}

/// Prints what [`print!`](crate::print) formatted.
pub fn print(arguments: fmt::Arguments<'_>) {
    if let Some(console) = CONSOLE.lock().as_mut() {
        // Writing to the UART cannot fail; a failing `Display` only cuts its own text short.
        let _ = console.write_fmt(arguments);
    }
}

/// Frees the console for the report of a panic or an exception that happened while something was being printed.
///
/// # Safety
///
/// Whoever holds the lock will never run again.
pub(crate) unsafe fn seize() {
    if CONSOLE.is_locked() {
        // SAFETY: the holder will not run again, by the caller's promise.
        unsafe { CONSOLE.force_unlock() }
    }
}

/// Prints text to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::print(format_args!($($argument)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($argument)*))) };
}

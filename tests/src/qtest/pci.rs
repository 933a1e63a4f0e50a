//! The least PCI that the machine's DMA engines need: a BAR and the right to use it.

use qemu::devicetree::Tree;

use super::QtestError;
use super::connection::{Batch, Connection};

/// Vendor in the lower half, device in the upper.
const IDENTIFICATION: u64 = 0x00;
/// COMMAND in the lower half; in STATUS, the upper, zeroes change nothing.
const COMMAND: u64 = 0x04;
/// COMMAND.Memory Space Enable and COMMAND.Bus Master Enable.
const MEMORY_AND_BUS_MASTER: u32 = 1 << 1 | 1 << 2;
/// The first base address register: 32 bits, memory.
const BAR0: u64 = 0x10;
/// What every slot gets of the window, in bytes: no engine needs more.
const BAR_BYTES: u64 = 1 << 20;
/// In the first cell of `ranges`, what kind of space it is; and 32-bit memory among those.
const SPACE: u32 = 3 << 24;
const MEMORY32: u32 = 2 << 24;

/// The host bridge.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostBridge {
    /// Where configuration space starts.
    ecam: u64,
    /// Where the window for 32-bit BARs starts, the same on both sides.
    window: u64,
}

impl HostBridge {
    /// The host bridge of the machine that `tree` describes.
    pub(super) fn find(tree: &Tree) -> Result<Self, QtestError> {
        let missing = |what| QtestError::Missing { what };
        let node = tree.compatible("pci-host-ecam-generic").into_iter().next().ok_or(missing("PCI host bridge"))?;
        let reg = tree.cells(&node, "reg")?;
        let &[high, low, ..] = &reg[..] else { return Err(missing("address of the PCI host bridge")) };
        let ranges = tree.cells(&node, "ranges")?;
        // Three cells of PCI address, two of CPU address, two of size.
        let window = ranges.as_chunks().0.iter().find_map(|&[space, _, pci, cpu_high, cpu_low, _, _]| {
            (space & SPACE == MEMORY32 && cpu_high == 0 && pci == cpu_low).then_some(u64::from(cpu_low))
        });
        Ok(Self {
            ecam: u64::from(high) << 32 | u64::from(low),
            window: window.ok_or(missing("window for 32-bit BARs"))?,
        })
    }

    /// Makes function 0 in `slot` of bus 0 a bus master with a BAR 0, and returns where that is.
    pub(super) fn enable(self, connection: &Connection, slot: u8, expected: u32) -> Result<u64, QtestError> {
        let configuration = self.ecam + (u64::from(slot) << 15);
        let found = connection.ask(|line| line.read32(configuration + IDENTIFICATION))? as u32;
        if found != expected {
            return Err(QtestError::WrongFunction { slot, expected, found });
        }
        let bar = self.window + u64::from(slot) * BAR_BYTES;
        let mut batch = Batch::default();
        batch.write32(configuration + BAR0, bar as u32);
        batch.write32(configuration + COMMAND, MEMORY_AND_BUS_MASTER);
        connection.request(&batch)?;
        Ok(bar)
    }
}

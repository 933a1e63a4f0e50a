//! Memory: what there is, the CPU's page tables, the kernel heap, pages for devices.
//!
//! What lives here: ownership of physical memory and of the CPU's address space. What does not: the SMMU's page tables
//! (`smmu::pgtable`) and what devices may reach.

pub mod dma;
pub mod heap;
pub mod layout;
mod paging;
mod ram;

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

pub use paging::{MapMmioError, map_mmio};
pub use ram::PAGE_BYTES;

use smmu::addr::PhysAddr;

use crate::devicetree::{DeviceTree, DeviceTreeError};
use crate::sync::IrqMutex;

/// Why memory cannot be set up.
#[derive(Debug)]
pub enum MemoryError {
    /// The device tree does not say what there is.
    DeviceTree(DeviceTreeError),
    /// It cannot be mapped.
    Map(MapMmioError),
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceTree(error) => error.fmt(f),
            Self::Map(error) => write!(f, "mapping the memory that the device tree names: {error}"),
        }
    }
}

impl core::error::Error for MemoryError {}

/// Finds memory through the device tree, turns on the final page tables, and hands what is free, and not `inherited` from
/// the run before, to [`dma`].
///
/// # Errors
///
/// [`MemoryError`]; the early map is then still in force.
pub(crate) fn init(tree: &DeviceTree, inherited: &[Range<u64>]) -> Result<(), MemoryError> {
    let ram = ram::read(tree, inherited).map_err(MemoryError::DeviceTree)?;
    paging::init(&ram.usable).map_err(MemoryError::Map)?;
    dma::init(&ram.free);
    *MEMORY.lock() = ram.usable;
    *INHERITED.lock() = inherited.to_vec();
    Ok(())
}

/// What of the physical address space is ordinary memory.
static MEMORY: IrqMutex<Vec<Range<u64>>> = IrqMutex::new(Vec::new());

/// What of that the run before has left for hardware.
static INHERITED: IrqMutex<Vec<Range<u64>>> = IrqMutex::new(Vec::new());

/// Whether `size_bytes` bytes at `physical` are memory that the run before has left for hardware.
#[must_use]
pub fn is_inherited(physical: PhysAddr, size_bytes: usize) -> bool {
    let Some(end) = physical.checked_add(size_bytes as u64) else { return false };
    let holds = |range: &Range<u64>| range.start <= physical.get() && end.get() <= range.end;
    INHERITED.lock().iter().any(holds) && MEMORY.lock().iter().any(holds)
}

/// Whether an address is in ordinary memory, and not a device's register.
#[must_use]
pub fn is_memory(physical: PhysAddr) -> bool {
    memory_bytes_from(physical) != 0
}

/// How many bytes of ordinary memory there are from an address on.
#[must_use]
pub fn memory_bytes_from(physical: PhysAddr) -> u64 {
    let memory = MEMORY.lock();
    let range = memory.iter().find(|range| range.contains(&physical.get()));
    range.map_or(0, |range| range.end - physical.get())
}

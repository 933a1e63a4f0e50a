//! Which addresses a bus lets a device put on it: `dma-ranges`, and the windows of a PCI host bridge (Devicetree
//! Specification 0.4, 2.3.9; PCI Bus Binding to IEEE 1275).

use alloc::vec::Vec;

use super::address::{Window, address_cells, size_cells};
use super::error::{FirmwareError, PropertyError, PropertyProblem};
use super::page_out;
use super::property::Property;
use super::tree::DeviceTree;
use crate::addr::Iova;
use crate::iommu::{ReservedKind, ReservedRegion};

/// Cells of a PCI address: the space, and 64 bits within it.
const PCI_CELLS: u32 = 3;

impl DeviceTree<'_> {
    /// The I/O virtual addresses that devices on a bus cannot use, as [holes](ReservedKind::Hole) in ascending order that
    /// neither touch nor overlap. `node_path` is a PCI host bridge, for the functions behind it, or a platform device.
    ///
    /// Those are all addresses outside `dma-ranges`, if the bus has any, and for a PCI host bridge the windows (`ranges`) at
    /// which functions answer one another before anything reaches the IOMMU.
    ///
    /// # Errors
    ///
    /// [`FirmwareError::NoSuchNode`], or [`FirmwareError::Property`] with the byte at which one of the two goes wrong.
    pub fn unusable_addresses(&self, node_path: &str) -> Result<Vec<ReservedRegion>, FirmwareError> {
        let node = self.find(node_path)?;
        let mut holes = Vec::new();
        let bus = if node.is_pci() { Some(node) } else { node.parent() };
        if let Some(ranges) = bus.and_then(|bus| bus.property("dma-ranges")).filter(|ranges| !ranges.value.is_empty()) {
            holes = outside(reachable(ranges)?);
        }
        if let Some(ranges) = node.property("ranges").filter(|ranges| node.is_pci() && !ranges.value.is_empty()) {
            holes.extend(read(ranges)?.into_iter().filter(|range| range.is_memory).map(|range| range.window));
        }
        Ok(merged(holes))
    }
}

/// An entry of `ranges` or `dma-ranges`, as the bus sees it.
struct Range {
    offset_bytes: usize,
    window: Window,
    /// Memory space, 32 or 64 bits. All is that but on PCI.
    is_memory: bool,
}

fn read(ranges: Property<'_>) -> Result<Vec<Range>, PropertyError> {
    let bus = ranges.node;
    let child_cells = if bus.is_pci() { PCI_CELLS } else { address_cells(bus)? };
    let parent_cells = address_cells(bus.parent().unwrap_or(bus))?;
    let size_cells = size_cells(bus)?;
    let mut cells = ranges.entries(child_cells.saturating_add(parent_cells).saturating_add(size_cells))?;
    let mut read = Vec::new();
    while !cells.is_empty() {
        let offset_bytes = cells.offset_bytes();
        let is_memory = !bus.is_pci() || cells.next()? >> 24 & 2 != 0;
        let address = cells.number(child_cells.min(2))?;
        cells.number(parent_cells)?;
        let window = Window::new(address, cells.number(size_cells)?, ranges, offset_bytes)?;
        read.push(Range { offset_bytes, window, is_memory });
    }
    Ok(read)
}

/// What `dma-ranges` lets through, in ascending order.
fn reachable(ranges: Property<'_>) -> Result<Vec<Window>, PropertyError> {
    let mut read = read(ranges)?;
    read.sort_by_key(|range| range.window.address);
    for (one, next) in read.iter().zip(read.iter().skip(1)) {
        if one.window.end() > next.window.address {
            let problem = PropertyProblem::RegionsOverlap { address: next.window.address, other: one.window.address };
            return Err(ranges.error(next.offset_bytes, problem));
        }
    }
    Ok(read.into_iter().map(|range| range.window).collect())
}

/// What lies between windows that are in ascending order, before the first, and after the last.
fn outside(windows: Vec<Window>) -> Vec<Window> {
    let mut holes = Vec::new();
    let mut start = 0;
    for window in windows {
        holes.push(Window { address: start, size_bytes: window.address.saturating_sub(start) });
        start = window.end();
    }
    if start != 0 {
        holes.push(Window { address: start, size_bytes: u64::MAX - start });
    }
    holes
}

/// Whole pages, in ascending order, in as few pieces as can be.
fn merged(mut holes: Vec<Window>) -> Vec<ReservedRegion> {
    holes.retain(|hole| hole.size_bytes != 0);
    holes.sort_by_key(|hole| hole.address);
    let mut merged: Vec<Window> = Vec::new();
    for hole in holes.into_iter().map(page_out).filter(|hole| hole.size_bytes != 0) {
        match merged.last_mut() {
            Some(last) if last.end() >= hole.address => {
                last.size_bytes = last.end().max(hole.end()).saturating_sub(last.address);
            }
            _ => merged.push(hole),
        }
    }
    let region = |hole: Window| ReservedRegion {
        start: Iova::new(hole.address),
        size_bytes: hole.size_bytes,
        kind: ReservedKind::Hole,
    };
    merged.into_iter().map(region).collect()
}

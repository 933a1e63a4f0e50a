//! A node's register window, translated to physical addresses (Devicetree Specification 0.4, 2.3.6 and 2.3.8).

use alloc::vec::Vec;

use super::error::{PropertyError, PropertyProblem};
use super::property::Property;
use super::tree::Node;

/// A range of addresses on some bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) address: u64,
    pub(super) size_bytes: u64,
}

impl Window {
    /// The window at `address` if it ends before the end of the 64-bit space.
    pub(super) fn new(
        address: u64,
        size_bytes: u64,
        property: Property<'_>,
        offset_bytes: usize,
    ) -> Result<Self, PropertyError> {
        match address.checked_add(size_bytes) {
            Some(_) => Ok(Self { address, size_bytes }),
            None => Err(property.error(offset_bytes, PropertyProblem::AddressOverflow { address, size_bytes })),
        }
    }

    /// The first address after it.
    pub(super) const fn end(self) -> u64 {
        self.address.saturating_add(self.size_bytes)
    }
}

/// All entries of `reg` of a node, as its bus sees them.
pub(super) fn windows(reg: Property<'_>, node: Node<'_>) -> Result<Vec<Window>, PropertyError> {
    let bus = node.parent().unwrap_or(node);
    let (address_cells, size_cells) = (address_cells(bus)?, size_cells(bus)?);
    let mut cells = reg.entries(address_cells.saturating_add(size_cells))?;
    let mut windows = Vec::new();
    while !cells.is_empty() {
        let offset_bytes = cells.offset_bytes();
        let address = cells.number(address_cells)?;
        windows.push(Window::new(address, cells.number(size_cells)?, reg, offset_bytes)?);
    }
    Ok(windows)
}

/// The first entry of `reg`, as the CPU sees it.
pub(super) fn register_window(node: Node<'_>) -> Result<Window, PropertyError> {
    let reg = node.required("reg")?;
    let mut bus = node.parent().unwrap_or(node);
    let (address_cells, size_cells) = (address_cells(bus)?, size_cells(bus)?);
    let mut cells = reg.entries(address_cells.saturating_add(size_cells))?;
    let address = cells.number(address_cells)?;
    let mut window = Window::new(address, cells.number(size_cells)?, reg, 0)?;
    while let Some(above) = bus.parent() {
        window = through(bus, above, window)?;
        bus = above;
    }
    Ok(window)
}

/// Translates a window on `bus` to the bus above it.
fn through(bus: Node<'_>, above: Node<'_>, window: Window) -> Result<Window, PropertyError> {
    let ranges = bus.required("ranges")?;
    if ranges.value.is_empty() {
        return Ok(window);
    }
    let (child_cells, parent_cells, size_cells) = (address_cells(bus)?, address_cells(above)?, size_cells(bus)?);
    let entry_cells = child_cells.saturating_add(parent_cells).saturating_add(size_cells);
    let mut cells = ranges.entries(entry_cells)?;
    while !cells.is_empty() {
        let entry_at = cells.offset_bytes();
        let child = cells.number(child_cells)?;
        let parent = cells.number(parent_cells)?;
        let length = cells.number(size_cells)?;
        let Some(distance) = window.address.checked_sub(child) else { continue };
        if distance.checked_add(window.size_bytes).is_none_or(|end| end > length) {
            continue;
        }
        let overflow = PropertyProblem::AddressOverflow { address: parent, size_bytes: length };
        let address = parent.checked_add(distance).ok_or_else(|| ranges.error(entry_at, overflow))?;
        return Window::new(address, window.size_bytes, ranges, entry_at);
    }
    let Window { address, size_bytes } = window;
    Err(ranges.error(0, PropertyProblem::Untranslatable { address, size_bytes }))
}

/// `#address-cells` of a bus: 1 or 2, as for every bus between memory and an SMMU; 2 if absent.
pub(super) fn address_cells(bus: Node<'_>) -> Result<u32, PropertyError> {
    bus.property("#address-cells").map_or(Ok(2), |cells| cells.cell_count(1, 2))
}

/// `#size-cells` of a bus: 1 or 2; 1 if absent.
pub(super) fn size_cells(bus: Node<'_>) -> Result<u32, PropertyError> {
    bus.property("#size-cells").map_or(Ok(1), |cells| cells.cell_count(1, 2))
}

//! `iommu-addresses`: what of a device's address space has a meaning already (binding `reserved-memory.yaml`).

use alloc::vec::Vec;

use super::address::{Window, address_cells, size_cells, windows};
use super::error::{FirmwareError, PropertyError, PropertyProblem};
use super::property::Property;
use super::tree::{DeviceTree, Node};
use super::warning::{FirmwareWarning, Oddity};
use super::{MAX_ENTRIES, page_out};
use crate::addr::Iova;
use crate::iommu::fwspec::Phandle;
use crate::iommu::{ReservedKind, ReservedRegion};

const NAME: &str = "iommu-addresses";

/// What reserved memory says about one device's address space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservedMemory {
    /// The regions, in the order of the tree. They do not overlap, and consist of whole pages of 4 KiB.
    pub regions: Vec<ReservedRegion>,
    /// What is odd about them.
    pub warnings: Vec<FirmwareWarning>,
}

/// An entry of `iommu-addresses`.
struct Entry {
    offset_bytes: usize,
    device: Phandle,
    window: Window,
}

impl DeviceTree<'_> {
    /// Reads what the children of `/reserved-memory` say in `iommu-addresses` about the device at `node_path`. It is named
    /// there by its phandle; whether it names the region in turn (`memory-region`) does not matter.
    ///
    /// A region whose memory (`reg`) is at the same addresses is [`Direct`](ReservedKind::Direct): the device uses it
    /// already. All others are [holes](ReservedKind::Hole), also where the memory is elsewhere: nothing shows that firmware
    /// means it to be mapped. Regions that do not name the device are not looked at.
    ///
    /// # Errors
    ///
    /// [`FirmwareError::NoSuchNode`], or [`FirmwareError::Property`] with the byte at which a list that seems to name the
    /// device goes wrong, or the region overlaps another of the device.
    pub fn reserved_memory(&self, node_path: &str) -> Result<ReservedMemory, FirmwareError> {
        let device = self.find(node_path)?;
        let mut reserved = ReservedMemory::default();
        let Some(phandle) = device.property("phandle").and_then(|property| property.single().ok()) else {
            return Ok(reserved);
        };
        let is_region = |node: &Node<'_>| node.parent().is_some_and(|parent| parent.is_named("reserved-memory"));
        for region in self.nodes().filter(|node| is_region(node) && node.is_enabled()) {
            if let Some(property) = region.property(NAME).filter(|property| property.holds_cell(phandle)) {
                read(region, property, Phandle::new(phandle), &mut reserved)?;
            }
        }
        Ok(reserved)
    }
}

fn read(
    region: Node<'_>,
    property: Property<'_>,
    device: Phandle,
    reserved: &mut ReservedMemory,
) -> Result<(), PropertyError> {
    let memory = match region.property("reg") {
        Some(reg) => windows(reg, region)?,
        None => Vec::new(),
    };
    for Entry { offset_bytes, window, .. } in
        entries(property, reserved)?.into_iter().filter(|entry| entry.device == device)
    {
        let mut warn = |oddity| reserved.warnings.push(FirmwareWarning { place: property.place(offset_bytes), oddity });
        let whole = page_out(window);
        if window.size_bytes == 0 || whole.size_bytes == 0 {
            warn(Oddity::EmptyRegion { address: window.address });
            continue;
        }
        let is_direct = memory.contains(&window);
        if let (false, Some(memory)) = (is_direct, memory.first()) {
            warn(Oddity::MemoryElsewhere { address: window.address, memory: memory.address });
        }
        if whole != window {
            warn(Oddity::PartOfPage { address: window.address, size_bytes: window.size_bytes });
        }
        let kind = if is_direct { ReservedKind::Direct } else { ReservedKind::Hole };
        let new = ReservedRegion { start: Iova::new(whole.address), size_bytes: whole.size_bytes, kind };
        if let Some(other) = reserved.regions.iter().find(|other| other.overlaps(&new)) {
            let problem = PropertyProblem::RegionsOverlap { address: window.address, other: other.start.get() };
            return Err(property.error(offset_bytes, problem));
        }
        reserved.regions.push(new);
    }
    Ok(())
}

/// All entries, by the cell counts of the bus that each entry's device is on; or, where that makes no sense, by two cells for
/// address and size, as in the binding's own example.
fn entries(property: Property<'_>, reserved: &mut ReservedMemory) -> Result<Vec<Entry>, PropertyError> {
    let of_bus = |device: Node<'_>| {
        let bus = device.parent().unwrap_or(device);
        Ok((address_cells(bus)?, size_cells(bus)?))
    };
    parse(property, of_bus).or_else(|error| {
        let entries = parse(property, |_| Ok((2, 2))).map_err(|_| error)?;
        let warning = FirmwareWarning { place: property.place(0), oddity: Oddity::TwoCellsEach };
        reserved.warnings.push(warning);
        Ok(entries)
    })
}

fn parse(
    property: Property<'_>,
    cell_counts: impl Fn(Node<'_>) -> Result<(u32, u32), PropertyError>,
) -> Result<Vec<Entry>, PropertyError> {
    let mut entries = Vec::new();
    let mut cells = property.cells();
    for _ in 0..MAX_ENTRIES {
        let offset_bytes = cells.offset_bytes();
        let (device, node) = property.node.tree.resolve(property, offset_bytes, cells.next()?)?;
        let (address_cells, size_cells) = cell_counts(node)?;
        let address = cells.number(address_cells)?;
        let window = Window::new(address, cells.number(size_cells)?, property, offset_bytes)?;
        entries.push(Entry { offset_bytes, device, window });
        if cells.is_empty() {
            return Ok(entries);
        }
    }
    Err(property.too_many_entries(cells.offset_bytes()))
}

//! Host bridges in the device tree (binding `host-generic-pci`): where configuration space lies, which buses it holds,
//! and through which windows the CPU reaches the devices' registers.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use fdt::properties::Compatible;
use fdt::properties::cells::{AddressCells, CellSizes};
use fdt::properties::pci::{PciAddress, PciAddressSpace};
use smmu::addr::PhysAddr;

use super::PciError;
use super::ecam::BUS_SHIFT;
use super::window::Window;
use crate::devicetree::{self, DeviceTree, Node};

/// The `compatible` of host bridges whose configuration space is ECAM.
const ECAM_COMPATIBLE: &str = "pci-host-ecam-generic";

/// Cells of an address, and of a size, on a PCI bus (PCI Bus Binding to Open Firmware, 2.1.1).
const PCI_CELLS: CellSizes = CellSizes { address_cells: 3, size_cells: 2 };

/// A host bridge as the device tree describes it.
#[derive(Clone, Debug)]
pub(super) struct HostBridge {
    /// Path of its node, where `iommu-map` stands.
    pub(super) node_path: String,
    /// Where the configuration space starts.
    pub(super) ecam_base: PhysAddr,
    /// Its first bus.
    pub(super) first_bus: u8,
    /// Its last bus.
    pub(super) last_bus: u8,
    /// The largest window below 4 GiB, for BARs of every kind.
    pub(super) low: Option<Window>,
    /// The largest other window, for 64-bit BARs.
    pub(super) high: Option<Window>,
}

impl HostBridge {
    /// All host bridges with ECAM that the tree does not disable.
    ///
    /// # Errors
    ///
    /// [`PciError::Tree`] if the tree does not parse. A bridge that is described wrongly is an error of its own in
    /// the list, and no hindrance to the others.
    pub(super) fn find_all(tree: &DeviceTree) -> Result<Vec<Result<Self, PciError>>, PciError> {
        let mut found = Vec::new();
        let mut path: Vec<String> = Vec::new();
        for entry in tree.root()?.all_nodes()? {
            let (depth, node) = entry?;
            path.truncate(depth.saturating_sub(1));
            path.push(format!("/{}", node.name()?));
            let compatible = node.property::<Compatible<'_>>()?;
            if compatible.is_some_and(|list| list.compatible_with(ECAM_COMPATIBLE)) && devicetree::is_enabled(&node)? {
                found.push(Self::from_node(&node, path.concat()));
            }
        }
        Ok(found)
    }

    /// Reads the properties of one node.
    fn from_node(node: &Node, node_path: String) -> Result<Self, PciError> {
        let (first_bus, last_bus) = bus_range(node, &node_path)?;
        let (ecam_base, size_bytes) = devicetree::reg(node, 0)?;
        let (low, high) = windows(node, &node_path)?;
        let this = Self { node_path, ecam_base, first_bus, last_bus, low, high };
        let needed_bytes = this.ecam_bytes();
        if size_bytes < needed_bytes || !ecam_base.is_aligned(1 << BUS_SHIFT) {
            return Err(PciError::ConfigurationSpace { node: this.node_path, ecam_base, size_bytes, needed_bytes });
        }
        Ok(this)
    }

    /// Size in bytes of the configuration space of its buses.
    pub(super) fn ecam_bytes(&self) -> usize {
        (usize::from(self.last_bus - self.first_bus) + 1) << BUS_SHIFT
    }
}

/// The first and last bus; all buses if the node does not say.
fn bus_range(node: &Node, node_path: &str) -> Result<(u8, u8), PciError> {
    let Some(property) = node.raw_property("bus-range")? else {
        return Ok((0, u8::MAX));
    };
    match *property.value {
        // Two big-endian cells.
        [0, 0, 0, first, 0, 0, 0, last] if first <= last => Ok((first, last)),
        _ => Err(PciError::Property {
            node: node_path.into(),
            property: "bus-range",
            expected: "two cells, the first and the last bus, up to 255",
        }),
    }
}

/// The largest memory window below 4 GiB and the largest other one, from `ranges`.
fn windows(node: &Node, node_path: &str) -> Result<(Option<Window>, Option<Window>), PciError> {
    let wrong = |property, expected| PciError::Property { node: node_path.into(), property, expected };
    if node.property::<CellSizes>()? != Some(PCI_CELLS) {
        return Err(wrong("#address-cells", "3, and `#size-cells` 2"));
    }
    let expected = "whole entries, with addresses of at most two cells, in multiples of 4 KiB, that end below 2^64";
    let malformed = || wrong("ranges", expected);
    let parent = node.parent().map(|parent| parent.property::<AddressCells>()).transpose()?.flatten();
    let parent = parent.unwrap_or_default().0;
    if !(1..=2).contains(&parent) {
        return Err(malformed());
    }
    let entry_cells = PCI_CELLS.address_cells + parent + PCI_CELLS.size_cells;
    let bytes = node.raw_property("ranges")?.map_or(0, |property| property.value.len());
    if !bytes.is_multiple_of(4 * entry_cells) {
        return Err(malformed());
    }
    let (mut low, mut high): (Option<Window>, Option<Window>) = (None, None);
    for entry in node.ranges()?.into_iter().flat_map(|ranges| ranges.iter::<PciAddress, u64, u64>()) {
        let entry = entry.map_err(|_| malformed())?;
        let PciAddress { hi, mid, lo } = entry.child_bus_address;
        if !matches!(hi.address_space(), PciAddressSpace::Memory32 | PciAddressSpace::Memory64) {
            continue;
        }
        let bus_base = u64::from(mid) << 32 | u64::from(lo);
        let window = Window::new(bus_base, PhysAddr::new(entry.parent_bus_address), entry.len).ok_or_else(malformed)?;
        let best = if window.is_below_4_gib() && !hi.prefetchable() { &mut low } else { &mut high };
        if best.is_none_or(|best| best.size_bytes() < window.size_bytes()) {
            *best = Some(window);
        }
    }
    Ok((low, high))
}

//! The `iommus` property: the IOMMUs of a platform device (binding `iommu.txt`).

use alloc::vec::Vec;

use super::MAX_ENTRIES;
use super::error::{FirmwareError, PropertyError, PropertyProblem};
use super::property::Property;
use super::tree::{DeviceTree, Node};
use super::warning::{FirmwareWarning, Oddity};
use crate::addr::StreamId;
use crate::iommu::fwspec::{Fwspec, Phandle};

/// The most bits that a PASID has (PCI Express Base Specification, 6.20).
const PASID_BITS: u8 = 20;

/// What a device's `iommus` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Iommus {
    /// The device's IOMMUs and StreamIDs; empty if it is behind none.
    pub fwspec: Fwspec,
    /// How many bits of SubstreamID (PASID) the device sends (`pasid-num-bits`): 0 for none, 20 at most. The SMMU may have
    /// fewer ([`substream_id_bits`](crate::device::Features::substream_id_bits)).
    pub pasid_bits: u8,
    /// Whether the device may be kept waiting while a fault is handled (`dma-can-stall`). Never for PCI.
    pub can_stall: bool,
    /// What is odd about the properties.
    pub warnings: Vec<FirmwareWarning>,
}

impl DeviceTree<'_> {
    /// Reads `iommus` of the node at `node_path`, and what goes with it; without that property the device is behind no IOMMU. As in Linux,
    /// nodes above it do not count. On a PCI host bridge it describes the bridge itself, not the devices below.
    ///
    /// # Errors
    ///
    /// [`FirmwareError::NoSuchNode`], or [`FirmwareError::Property`] with the byte at which the list goes wrong. In
    /// particular [`PropertyProblem::IommuDisabled`] if an IOMMU is disabled: the device then has none.
    pub fn iommus(&self, node_path: &str) -> Result<Iommus, FirmwareError> {
        let node = self.find(node_path)?;
        let mut iommus = node.property("iommus").map_or_else(|| Ok(Iommus::default()), read)?;
        read_pasid_bits(node, &mut iommus)?;
        read_stall(node, &mut iommus);
        Ok(iommus)
    }
}

fn read(property: Property<'_>) -> Result<Iommus, PropertyError> {
    let mut iommus = Iommus::default();
    let mut cells = property.cells();
    for _ in 0..MAX_ENTRIES {
        let offset = cells.offset_bytes();
        let (iommu, target) = iommu(property, offset, cells.next()?)?;
        if !target.is_enabled() {
            let problem = PropertyProblem::IommuDisabled { phandle: iommu, target: target.path() };
            return Err(property.error(offset, problem));
        }
        let stream_id = StreamId::new(cells.next()?);
        if !iommus.fwspec.push(iommu, stream_id) {
            let oddity = Oddity::RepeatedStreamId { iommu, stream_id };
            iommus.warnings.push(FirmwareWarning { place: property.place(offset), oddity });
        }
        if cells.is_empty() {
            return Ok(iommus);
        }
    }
    Err(property.too_many_entries(cells.offset_bytes()))
}

fn read_pasid_bits(node: Node<'_>, iommus: &mut Iommus) -> Result<(), PropertyError> {
    let Some(property) = node.property("pasid-num-bits") else { return Ok(()) };
    let bits = property.single()?;
    iommus.pasid_bits = u8::try_from(bits).map_or(PASID_BITS, |bits| bits.min(PASID_BITS));
    if bits > PASID_BITS.into() {
        let oddity = Oddity::TooManyPasidBits { bits };
        iommus.warnings.push(FirmwareWarning { place: property.place(0), oddity });
    }
    Ok(())
}

fn read_stall(node: Node<'_>, iommus: &mut Iommus) {
    let Some(property) = node.property("dma-can-stall") else { return };
    if node.lineage().any(Node::is_pci) {
        iommus.warnings.push(FirmwareWarning { place: property.place(0), oddity: Oddity::StallingPci });
    } else {
        iommus.can_stall = true;
    }
}

/// The IOMMU with phandle `value`; its specifiers are one cell, a StreamID.
pub(super) fn iommu<'t>(
    property: Property<'t>,
    offset_bytes: usize,
    value: u32,
) -> Result<(Phandle, Node<'t>), PropertyError> {
    let (phandle, target) = property.node.tree.resolve(property, offset_bytes, value)?;
    let Some(cells) = target.property("#iommu-cells") else {
        return Err(property.error(offset_bytes, PropertyProblem::NotAnIommu { phandle, target: target.path() }));
    };
    cells.cell_count(1, 1)?;
    Ok((phandle, target))
}

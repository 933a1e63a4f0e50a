//! The `iommu-map` property: from a PCI function's requester ID to its StreamID (binding `pci-iommu.txt`).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::error::{FirmwareError, Place, PropertyError, PropertyProblem};
use super::iommus::iommu;
use super::property::Property;
use super::tree::DeviceTree;
use super::warning::{FirmwareWarning, Oddity};
use crate::addr::StreamId;
use crate::iommu::fwspec::{Fwspec, Phandle, stream_id_fits};

const MAP: &str = "iommu-map";
/// rid-base, phandle, iommu-base (one cell for an SMMUv3), length.
const TUPLE_CELLS: u32 = 4;
const LAST_REQUESTER_ID: u32 = 0xffff;

/// A PCI requester ID: bus in bits 15:8, device in 7:3, function in 2:0. Displays as `01:02.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequesterId(u16);

impl RequesterId {
    /// Wraps the raw number.
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self(value)
    }

    /// The raw number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for RequesterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value) = self;
        write!(f, "{:02x}:{:02x}.{}", value >> 8, value >> 3 & 0x1f, value & 7)
    }
}

/// A host bridge's `iommu-map`, read and checked as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IommuMap {
    host_bridge: String,
    mask: u32,
    tuples: Vec<Tuple>,
    warnings: Vec<FirmwareWarning>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    offset_bytes: usize,
    rid_base: u32,
    iommu: Phandle,
    iommu_base: u32,
    /// A count of requester IDs, not their end.
    length: u32,
}

impl DeviceTree<'_> {
    /// Reads `iommu-map` and `iommu-map-mask` of the PCI host bridge at `host_bridge_path`. `None` if there is no map:
    /// then no device below is behind an IOMMU.
    ///
    /// # Errors
    ///
    /// [`FirmwareError::NoSuchNode`], or [`FirmwareError::Property`] with the byte of the first tuple that is wrong,
    /// even one that no requester ID reaches.
    pub fn iommu_map(&self, host_bridge_path: &str) -> Result<Option<IommuMap>, FirmwareError> {
        Ok(self.find(host_bridge_path)?.property(MAP).map(read).transpose()?)
    }
}

impl IommuMap {
    /// The IOMMU and StreamID of a requester ID, or `None` if that device is behind no IOMMU: no SMMU checks its
    /// accesses. The first tuple that matches wins; the StreamID comes from the masked requester ID.
    ///
    /// The IOMMU may be disabled ([`Oddity::DisabledIommu`]): the device then waits for it in vain, and stays blocked.
    #[must_use]
    pub fn translate(&self, requester_id: RequesterId) -> Option<(Phandle, StreamId)> {
        let masked = u32::from(requester_id.get()) & self.mask;
        self.tuples.iter().find_map(|tuple| {
            let distance = masked.checked_sub(tuple.rid_base).filter(|&distance| distance < tuple.length)?;
            Some((tuple.iommu, StreamId::new(tuple.iommu_base.checked_add(distance)?)))
        })
    }

    /// The fwspec of a device that uses several requester IDs: its own and its DMA aliases, such as that of a bridge to
    /// conventional PCI above it.
    #[must_use]
    pub fn fwspec(&self, requester_ids: impl IntoIterator<Item = RequesterId>) -> Fwspec {
        let mut fwspec = Fwspec::new();
        for (iommu, stream_id) in requester_ids.into_iter().filter_map(|requester_id| self.translate(requester_id)) {
            fwspec.push(iommu, stream_id);
        }
        fwspec
    }

    /// What is odd about the map.
    #[must_use]
    pub fn warnings(&self) -> &[FirmwareWarning] {
        &self.warnings
    }

    /// Checks every StreamID that the map can yield for one IOMMU, once that one's `SMMU_IDR1.SIDSIZE` is known
    /// (in bits; IHI 0070, 6.3.2).
    ///
    /// # Errors
    ///
    /// [`PropertyProblem::StreamIdTooLarge`] for the first tuple that goes beyond.
    pub fn check_stream_ids(&self, iommu: Phandle, sidsize: u32) -> Result<(), FirmwareError> {
        for tuple in self.tuples.iter().filter(|tuple| tuple.iommu == iommu) {
            let Some(last) = tuple.last_distance(self.mask) else { continue };
            let stream_id = u64::from(tuple.iommu_base).saturating_add(u64::from(last));
            let fits = u32::try_from(stream_id).is_ok_and(|id| stream_id_fits(StreamId::new(id), sidsize));
            if !fits {
                let place = Place { node: self.host_bridge.clone(), property: MAP, offset_bytes: tuple.offset_bytes };
                let problem = PropertyProblem::StreamIdTooLarge { stream_id, iommu, sidsize };
                return Err(PropertyError { place, problem }.into());
            }
        }
        Ok(())
    }
}

impl Tuple {
    /// How far the last requester ID that exists and matches lies from the first; `None` if none does.
    fn last_distance(&self, mask: u32) -> Option<u32> {
        let last_masked = mask & LAST_REQUESTER_ID;
        Some(self.length.checked_sub(1)?.min(last_masked.checked_sub(self.rid_base)?))
    }

    /// The end of the masked requester IDs that match, exclusive.
    fn end(&self) -> u64 {
        u64::from(self.rid_base).saturating_add(u64::from(self.length))
    }

    fn overlaps(&self, other: &Self) -> bool {
        u64::from(self.rid_base.max(other.rid_base)) < self.end().min(other.end())
    }
}

fn read(property: Property<'_>) -> Result<IommuMap, PropertyError> {
    let node = property.node;
    let mut map = IommuMap { host_bridge: node.path(), mask: u32::MAX, tuples: Vec::new(), warnings: Vec::new() };
    if let Some(property) = node.property("iommu-map-mask") {
        map.mask = property.single()?;
        if map.mask > LAST_REQUESTER_ID {
            let oddity = Oddity::WideMask { mask: map.mask };
            map.warnings.push(FirmwareWarning { place: property.place(0), oddity });
        }
    }
    let mut cells = property.entries(TUPLE_CELLS)?;
    while !cells.is_empty() {
        let offset_bytes = cells.offset_bytes();
        let rid_base = cells.next()?;
        let (iommu, target) = iommu(property, cells.offset_bytes(), cells.next()?)?;
        let tuple = Tuple { offset_bytes, rid_base, iommu, iommu_base: cells.next()?, length: cells.next()? };
        map.check(property, &tuple)?;
        if !target.is_enabled() {
            let oddity = Oddity::DisabledIommu { phandle: iommu, target: target.path() };
            map.warnings.push(FirmwareWarning { place: property.place(offset_bytes), oddity });
        }
        map.tuples.push(tuple);
    }
    Ok(map)
}

impl IommuMap {
    /// Checks a tuple by itself and against those before it.
    fn check(&mut self, property: Property<'_>, tuple: &Tuple) -> Result<(), PropertyError> {
        let &Tuple { offset_bytes, rid_base, iommu_base, length, .. } = tuple;
        if rid_base & !self.mask != 0 {
            return Err(property.error(offset_bytes, PropertyProblem::BaseUnderMask { rid_base, mask: self.mask }));
        }
        if let Some(last) = tuple.last_distance(self.mask)
            && iommu_base.checked_add(last).is_none()
        {
            let problem = PropertyProblem::StreamIdOverflow { iommu_base, length: last.saturating_add(1) };
            return Err(property.error(offset_bytes, problem));
        }
        let mut warn = |oddity| self.warnings.push(FirmwareWarning { place: property.place(offset_bytes), oddity });
        if length == 0 {
            warn(Oddity::EmptyTuple);
        } else if tuple.end() > u64::from(LAST_REQUESTER_ID) + 1 {
            warn(Oddity::BeyondRequesterIds { rid_base, length });
        }
        if let Some(earlier) = self.tuples.iter().find(|earlier| earlier.overlaps(tuple)) {
            warn(Oddity::OverlappingTuples { earlier_offset_bytes: earlier.offset_bytes });
        }
        Ok(())
    }
}

//! I/O virtual addresses that are not to be handed out.

use alloc::vec::Vec;

use super::{Device, Domain, IommuError, PagingDomain};
use crate::addr::{Iova, PhysAddr};
use crate::pgtable::{Access, MapError, MemoryType};
use crate::platform::Platform;

/// A range of addresses that firmware or the bus has set aside in a device's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedRegion {
    /// The first address.
    pub start: Iova,
    /// Length in bytes, not zero. Both ends are multiples of a page.
    pub size_bytes: u64,
    /// What for.
    pub kind: ReservedKind,
}

impl ReservedRegion {
    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let end = |region: &Self| region.start.get().saturating_add(region.size_bytes);
        self.start.get() < end(other) && other.start.get() < end(self)
    }
}

/// What a reserved range is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedKind {
    /// The device uses the memory at the same physical addresses already, a framebuffer for instance: it is mapped before
    /// the device's DMA is translated, for reading and writing.
    Direct,
    /// Never mapped and never handed out: on the bus, something else answers there.
    Hole,
}

/// What was mapped for devices that use memory from the start; unmapped again when it is dropped, unless it is
/// [kept](Self::keep).
pub(super) struct DirectMappings<'a, P: Platform> {
    domain: &'a Domain<P>,
    mapped: Vec<ReservedRegion>,
}

impl<'a, P: Platform> DirectMappings<'a, P> {
    pub(super) fn new(domain: &'a Domain<P>) -> Self {
        Self { domain, mapped: Vec::new() }
    }

    /// Maps what a device reads and writes already. What is mapped so already, for another device of the group, stays.
    pub(super) fn add(&mut self, device: &Device) -> Result<(), IommuError> {
        let Some(paging) = self.domain.mappings() else { return Ok(()) };
        for &region in device.reserved().iter().filter(|region| region.kind == ReservedKind::Direct) {
            let ReservedRegion { start, size_bytes, .. } = region;
            let physical = PhysAddr::new(start.get());
            match paging.map(start, physical, size_bytes, Access::ReadWrite, MemoryType::WriteBack) {
                Ok(()) => self.mapped.push(region),
                Err(MapError::Overlap { .. }) if is_direct(paging, start, size_bytes) => {}
                Err(error) => return Err(IommuError::ReservedRegion { device: device.name().into(), error }),
            }
        }
        Ok(())
    }

    /// Leaves them mapped: the devices are attached.
    pub(super) fn keep(mut self) {
        self.mapped.clear();
    }
}

impl<P: Platform> Drop for DirectMappings<'_, P> {
    fn drop(&mut self) {
        let Some(paging) = self.domain.mappings() else { return };
        for region in self.mapped.drain(..) {
            // Should an instance not forget it: it is nobody's memory but the device's.
            let _ = paging.unmap(region.start, region.size_bytes);
        }
    }
}

/// Whether a whole range is mapped to the same physical addresses.
fn is_direct<P: Platform>(domain: &dyn PagingDomain<P>, start: Iova, size_bytes: u64) -> bool {
    let mut offset_bytes = 0;
    while offset_bytes < size_bytes {
        let Some(at) = start.checked_add(offset_bytes) else { return false };
        match domain.lookup(at) {
            Some(found) if found.physical.get() == at.get() => {
                let rest_bytes = found.leaf_bytes().saturating_sub(at.get() & found.leaf_bytes().saturating_sub(1));
                offset_bytes = offset_bytes.saturating_add(rest_bytes);
            }
            _ => return false,
        }
    }
    true
}

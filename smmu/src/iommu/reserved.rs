//! I/O virtual addresses that are not to be handed out.

use crate::addr::Iova;

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

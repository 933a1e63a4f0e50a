//! Windows: the parts of the CPU's address space behind which a host bridge's devices answer, and what of them is taken.

use smmu::addr::PhysAddr;

/// Bridges forward memory in multiples of this (PCI-to-PCI Bridge Architecture Specification 1.2, 3.2.5.8).
const BRIDGE_GRANULE_BYTES: u64 = 1 << 20;

/// Both ends of a translation are multiples of this, as the host bridges that exist have it.
const PAGE_BYTES: u64 = 1 << 12;

/// One entry of a host bridge's `ranges` for memory, given out from its start on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// The first address, as devices see it on the bus.
    bus_base: u64,
    /// Where the CPU finds it.
    physical_base: PhysAddr,
    /// One past the last address, on the bus.
    end: u64,
    /// What is below this is taken.
    next: u64,
}

impl Window {
    /// The window of `size_bytes` that devices see at `bus_base` and the CPU at `physical_base`; `None` if it passes the
    /// end of an address space, or if registers would be aligned for the devices and not for the CPU.
    pub(super) fn new(bus_base: u64, physical_base: PhysAddr, size_bytes: u64) -> Option<Self> {
        if !physical_base.is_aligned(PAGE_BYTES) || !bus_base.is_multiple_of(PAGE_BYTES) {
            return None;
        }
        let end = bus_base.checked_add(size_bytes)?;
        physical_base.checked_add(size_bytes)?;
        // A BAR at address 0 counts as unassigned.
        let next = bus_base.max(BRIDGE_GRANULE_BYTES).min(end);
        Some(Self { bus_base, physical_base, end, next })
    }

    /// Size in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.end - self.bus_base
    }

    /// Whether 32-bit BARs can reach all of it.
    pub(super) fn is_below_4_gib(&self) -> bool {
        self.end <= 1 << 32
    }

    /// Takes `size_bytes` (a power of two), aligned to their size as a BAR must be. Returns the address on the bus and
    /// the CPU's, or `None` if there is no room left.
    pub(super) fn allocate(&mut self, size_bytes: u64) -> Option<(u64, PhysAddr)> {
        let bus_address = self.next.checked_next_multiple_of(size_bytes)?;
        let next = bus_address.checked_add(size_bytes).filter(|&next| next <= self.end)?;
        let physical = self.physical_base.checked_add(bus_address.checked_sub(self.bus_base)?)?;
        self.next = next;
        Some((bus_address, physical))
    }

    /// Moves on to where a bridge's window can begin or end, and returns where that is, on the bus.
    pub(super) fn next_bridge_boundary(&mut self) -> u64 {
        let boundary = self.next.checked_next_multiple_of(BRIDGE_GRANULE_BYTES);
        self.next = boundary.map_or(self.end, |boundary| boundary.min(self.end));
        self.next
    }
}

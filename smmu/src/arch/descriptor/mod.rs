//! Translation table descriptors of 64 bits: VMSAv8-64, as the SMMU walks them (Arm ARM, D8.3; IHI 0070, 3.4).
//!
//! Here are kinds of descriptors, and addresses; in `permissions` is what a mapping may allow, and in `leaf` how that and
//! the memory type stand in a block or page.

mod leaf;
mod permissions;
#[cfg(test)]
mod tests;

use core::fmt;

use tock_registers::{LocalRegisterCopy, register_bitfields};

pub use leaf::{LeafAttributes, LeafKinds, MemoryType};
pub use permissions::{Access, Execute, Permissions, Privilege, Tracking};

use super::attributes::Granule;
use crate::addr::PhysAddr;

register_bitfields! { u64,
    /// What every descriptor starts with.
    DESCRIPTOR [
        VALID OFFSET(0) NUMBITS(1) [],
        /// 1: a table, or a page at the last level. 0: a block.
        TYPE OFFSET(1) NUMBITS(1) []
    ]
}

/// The level of pages; tables exist only above it.
pub const LAST_LEVEL: u8 = 3;

/// Which of the two translations a table serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From I/O virtual addresses, tagged with an ASID.
    Stage1,
    /// From intermediate physical addresses, tagged with a VMID.
    Stage2,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stage1 => "stage 1",
            Self::Stage2 => "stage 2",
        })
    }
}

/// A block or page, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The output address.
    pub physical: PhysAddr,
    /// The rest.
    pub attributes: LeafAttributes,
}

/// A descriptor, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// It faults: bit 0 is clear, or the encoding is reserved at its level.
    Invalid,
    /// The address of a table of the next level.
    Table(PhysAddr),
    /// A block or page.
    Leaf(Leaf),
}

/// The descriptor format of one table: everything that the meaning of a descriptor depends on, but its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// The stage.
    pub stage: Stage,
    /// The granule.
    pub granule: Granule,
    /// Whether output addresses have 52 bits. Only with a granule of 64 KiB (LPA; the others would need LPA2).
    pub large_addresses: bool,
}

impl Format {
    /// Bits 47:12, where output and table addresses lie. Lower bits, up to the size, are zero.
    const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
    /// Bits 15:12 of a table or leaf of 64 KiB granules, where bits 51:48 of the address lie.
    const HIGH_ADDRESS: u64 = 0xf000;

    /// The format of tables with output addresses of up to 48 bits.
    #[must_use]
    pub const fn new(stage: Stage, granule: Granule) -> Self {
        Self { stage, granule, large_addresses: false }
    }

    /// An address, aligned to the granule, as it stands in a descriptor.
    #[inline(always)]
    const fn address_bits(self, address: PhysAddr) -> u64 {
        let low = address.get() & Self::ADDRESS;
        match self.granule {
            Granule::K64 if self.large_addresses => low | (address.get() >> 36 & Self::HIGH_ADDRESS),
            _ => low,
        }
    }

    /// The address in a descriptor of something of `1 << log2_bytes` bytes.
    #[inline(always)]
    const fn address(self, raw: u64, log2_bytes: u32) -> PhysAddr {
        let low = raw & Self::ADDRESS & (u64::MAX << log2_bytes);
        PhysAddr::new(match self.granule {
            Granule::K64 if self.large_addresses => low | (raw & Self::HIGH_ADDRESS) << 36,
            _ => low,
        })
    }

    /// log2 of the bytes that one descriptor at `level` (0 to 3) covers.
    #[inline]
    #[must_use]
    pub const fn entry_log2_bytes(self, level: u8) -> u32 {
        let granule = self.granule.log2_bytes();
        granule + (LAST_LEVEL.saturating_sub(level) as u32) * (granule - 3)
    }

    /// The level at which one descriptor covers `1 << log2_bytes` bytes: [`entry_log2_bytes`](Self::entry_log2_bytes) the
    /// other way round. The last one for what is no size of an entry.
    #[inline]
    #[must_use]
    pub const fn level_of(self, log2_bytes: u32) -> u8 {
        let mut level = 0;
        while level < LAST_LEVEL && self.entry_log2_bytes(level) != log2_bytes {
            level += 1;
        }
        level
    }

    /// The first level with blocks: 1 GiB and 2 MiB for 4 KiB granules, 32 MiB for 16 KiB, 512 MiB for 64 KiB, and 4 TiB too
    /// with 52-bit addresses.
    #[must_use]
    pub const fn first_leaf_level(self) -> u8 {
        match self.granule {
            Granule::K4 => 1,
            Granule::K64 if self.large_addresses => 1,
            Granule::K16 | Granule::K64 => 2,
        }
    }

    /// log2 of the entries at `level` that make a contiguous group, which is aligned to its size on both sides
    /// (Arm ARM, D8.7).
    #[must_use]
    pub const fn contiguous_log2_entries(self, level: u8) -> u32 {
        match self.granule {
            Granule::K4 => 4,
            Granule::K16 if level == LAST_LEVEL => 7,
            Granule::K16 | Granule::K64 => 5,
        }
    }

    /// The descriptor of a table at `table`, which is aligned to the granule. Nothing is restricted for what is below.
    #[must_use]
    pub const fn table(self, table: PhysAddr) -> u64 {
        self.address_bits(table.align_down(self.granule.bytes())) | 0b11
    }

    /// The descriptor of a block or page at `level`. `physical` is aligned to its size.
    #[inline]
    #[must_use]
    pub const fn leaf(self, level: u8, physical: PhysAddr, attributes: LeafAttributes) -> u64 {
        let kind = if level == LAST_LEVEL { 0b11 } else { 0b01 };
        self.address_bits(physical) | attributes.bits() | kind
    }

    /// The table that a descriptor found at `level` points at, if it does. Address bits below the granule are RES0.
    #[inline(always)]
    #[must_use]
    pub const fn next_table(self, level: u8, raw: u64) -> Option<PhysAddr> {
        let is_table = level < LAST_LEVEL && raw & 0b11 == 0b11;
        if is_table { Some(self.table_address(raw)) } else { None }
    }

    /// The address in a descriptor that is known to lead to a table.
    #[inline(always)]
    #[must_use]
    pub const fn table_address(self, raw: u64) -> PhysAddr {
        self.address(raw, self.granule.log2_bytes())
    }

    /// Decodes a descriptor found at `level`.
    #[inline]
    #[must_use]
    pub fn decode(self, level: u8, raw: u64) -> Descriptor {
        if let Some(table) = self.next_table(level, raw) {
            return Descriptor::Table(table);
        }
        let kind = LocalRegisterCopy::<u64, DESCRIPTOR::Register>::new(raw);
        // Only a page has the type bit set now, and only a block may lack it.
        let reserved = level < self.first_leaf_level() || (level == LAST_LEVEL && !kind.is_set(DESCRIPTOR::TYPE));
        if reserved || !kind.is_set(DESCRIPTOR::VALID) {
            return Descriptor::Invalid;
        }
        Descriptor::Leaf(self.decode_leaf(self.entry_log2_bytes(level), raw))
    }

    /// Decodes a descriptor that is known to be a block or page, of `1 << log2_bytes` bytes.
    #[inline]
    #[must_use]
    pub const fn decode_leaf(self, log2_bytes: u32, raw: u64) -> Leaf {
        Leaf { physical: self.address(raw, log2_bytes), attributes: LeafAttributes::of_descriptor(self.stage, raw) }
    }
}

//! Translation table descriptors of 64 bits: VMSAv8-64, as the SMMU walks them (Arm ARM, D8.3; IHI 0070, 3.4).

use core::fmt;

use tock_registers::{LocalRegisterCopy, register_bitfields};

use super::attributes::{Granule, Mair, Shareability};
use crate::addr::PhysAddr;

register_bitfields! { u64,
    /// What every descriptor starts with.
    DESCRIPTOR [
        VALID OFFSET(0) NUMBITS(1) [],
        /// 1: a table, or a page at the last level. 0: a block.
        TYPE OFFSET(1) NUMBITS(1) []
    ],
    /// A stage-1 block or page.
    STAGE1 [
        AttrIndx OFFSET(2) NUMBITS(3) [],
        /// AP[1]: unprivileged transactions may access. Transactions are unprivileged unless they say otherwise.
        AP1 OFFSET(6) NUMBITS(1) [],
        /// AP[2]: read-only.
        AP2 OFFSET(7) NUMBITS(1) [],
        SH OFFSET(8) NUMBITS(2) [],
        AF OFFSET(10) NUMBITS(1) [],
        /// nG: tagged with the ASID.
        NotGlobal OFFSET(11) NUMBITS(1) [],
        PXN OFFSET(53) NUMBITS(1) [],
        UXN OFFSET(54) NUMBITS(1) []
    ],
    /// A stage-2 block or page.
    STAGE2 [
        MemAttr OFFSET(2) NUMBITS(4) [],
        S2AP OFFSET(6) NUMBITS(2) [
            None = 0,
            ReadOnly = 1,
            WriteOnly = 2,
            ReadWrite = 3
        ],
        SH OFFSET(8) NUMBITS(2) [],
        AF OFFSET(10) NUMBITS(1) [],
        /// 2 means "never" whether or not the SMMU has IDR3.XNX; 3 would let privileged fetches through where it has.
        XN OFFSET(53) NUMBITS(2) [
            Never = 2
        ]
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

/// What a device may do with a mapping. It may never fetch instructions from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read.
    Read,
    /// Write. Stage 1 cannot express this alone: there it becomes [`ReadWrite`](Self::ReadWrite).
    Write,
    /// Read and write.
    ReadWrite,
}

impl Access {
    /// What hardware makes of it at `stage`.
    #[must_use]
    pub const fn enforced(self, stage: Stage) -> Self {
        match (stage, self) {
            (Stage::Stage1, Self::Write) => Self::ReadWrite,
            (_, access) => access,
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read-only",
            Self::Write => "write-only",
            Self::ReadWrite => "read-write",
        })
    }
}

/// How a mapping's memory is accessed. At stage 2 the weaker of both stages wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryType {
    /// Normal memory, not cacheable: for devices that do not snoop the CPUs' caches.
    NonCacheable = 0,
    /// Normal memory, write-back, Inner Shareable: for devices that do.
    WriteBack = 1,
    /// Device-nGnRE: registers, doorbells.
    Device = 2,
}

impl MemoryType {
    /// The attributes that AttrIndx of every stage-1 descriptor here refers to: CD.MAIR0 and MAIR1.
    pub const MAIR: Mair =
        Mair::new([Mair::NORMAL_NON_CACHEABLE, Mair::NORMAL_WRITE_BACK, Mair::DEVICE_NGNRE, 0, 0, 0, 0, 0]);

    /// By [`attr_index`](Self::attr_index).
    const BY_ATTR_INDEX: [Option<Self>; 8] =
        [Some(Self::NonCacheable), Some(Self::WriteBack), Some(Self::Device), None, None, None, None, None];

    /// By [`stage2_mem_attr`](Self::stage2_mem_attr).
    const BY_STAGE2_MEM_ATTR: [Option<Self>; 16] = [
        None,
        Some(Self::Device),
        None,
        None,
        None,
        Some(Self::NonCacheable),
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        Some(Self::WriteBack),
    ];

    /// AttrIndx of a stage-1 leaf.
    #[must_use]
    pub const fn attr_index(self) -> u64 {
        self as u64
    }

    /// MemAttr of a stage-2 leaf, with S2FWB = 0 (Arm ARM, D8.6).
    #[must_use]
    pub const fn stage2_mem_attr(self) -> u64 {
        match self {
            Self::NonCacheable => 0b0101,
            Self::WriteBack => 0b1111,
            Self::Device => 0b0001,
        }
    }

    /// SH. What is not cacheable is Outer Shareable whatever the field says; so let it say so.
    #[must_use]
    pub const fn shareability(self) -> Shareability {
        match self {
            Self::WriteBack => Shareability::InnerShareable,
            Self::NonCacheable | Self::Device => Shareability::OuterShareable,
        }
    }
}

impl fmt::Display for MemoryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NonCacheable => "non-cacheable",
            Self::WriteBack => "write-back",
            Self::Device => "device",
        })
    }
}

/// A block or page, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The output address.
    pub physical: PhysAddr,
    /// What an unprivileged transaction may do; `None` for nothing.
    pub access: Option<Access>,
    /// The memory type; `None` for one that this crate never writes.
    pub memory: Option<MemoryType>,
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

/// The attribute bits of a leaf: all but its address and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafAttributes(u64);

impl LeafAttributes {
    /// Attributes of a leaf for DMA: Access flag set, never executable; at stage 1 open to unprivileged transactions
    /// and tagged with the ASID.
    #[must_use]
    pub const fn new(stage: Stage, access: Access, memory: MemoryType) -> Self {
        let shareability = memory.shareability().code();
        Self(match stage {
            Stage::Stage1 => {
                let read_only = matches!(access, Access::Read) as u64;
                STAGE1::AttrIndx.val(memory.attr_index()).value
                    | STAGE1::AP1::SET.value
                    | STAGE1::AP2.val(read_only).value
                    | STAGE1::SH.val(shareability).value
                    | STAGE1::AF::SET.value
                    | STAGE1::NotGlobal::SET.value
                    | STAGE1::PXN::SET.value
                    | STAGE1::UXN::SET.value
            }
            Stage::Stage2 => {
                let permission = match access {
                    Access::Read => STAGE2::S2AP::ReadOnly,
                    Access::Write => STAGE2::S2AP::WriteOnly,
                    Access::ReadWrite => STAGE2::S2AP::ReadWrite,
                };
                STAGE2::MemAttr.val(memory.stage2_mem_attr()).value
                    | permission.value
                    | STAGE2::SH.val(shareability).value
                    | STAGE2::AF::SET.value
                    | STAGE2::XN::Never.value
            }
        })
    }
}

/// The attributes of all kinds of leaves at one stage, so that a map looks them up instead of putting them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafKinds([LeafAttributes; 16]);

impl LeafKinds {
    /// Those of `stage`.
    #[must_use]
    pub fn new(stage: Stage) -> Self {
        let mut kinds = Self([LeafAttributes(0); 16]);
        for access in [Access::Read, Access::Write, Access::ReadWrite] {
            for memory in [MemoryType::NonCacheable, MemoryType::WriteBack, MemoryType::Device] {
                if let Some(kind) = kinds.0.get_mut(Self::index(access, memory)) {
                    *kind = LeafAttributes::new(stage, access, memory);
                }
            }
        }
        kinds
    }

    /// The attributes of leaves with this access and memory type.
    #[inline]
    #[must_use]
    pub fn of(&self, access: Access, memory: MemoryType) -> LeafAttributes {
        self.0.get(Self::index(access, memory)).copied().unwrap_or(LeafAttributes(0))
    }

    /// Less than 16, for all that the compiler knows.
    #[inline]
    const fn index(access: Access, memory: MemoryType) -> usize {
        ((access as usize) << 2 | memory as usize) & 0xf
    }
}

/// The descriptor format of one table: everything that the meaning of a descriptor depends on, but its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// The stage.
    pub stage: Stage,
    /// The granule.
    pub granule: Granule,
}

impl Format {
    /// Bits 47:12, where output and table addresses lie. Lower bits, up to the size, are zero.
    const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

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

    /// The first level with blocks: 1 GiB and 2 MiB for 4 KiB granules, 32 MiB for 16 KiB, 512 MiB for 64 KiB (larger ones
    /// need 52-bit addresses).
    #[must_use]
    pub const fn first_leaf_level(self) -> u8 {
        match self.granule {
            Granule::K4 => 1,
            Granule::K16 | Granule::K64 => 2,
        }
    }

    /// The descriptor of a table at `table`, which is aligned to the granule. Nothing is restricted for what is below.
    #[must_use]
    pub const fn table(self, table: PhysAddr) -> u64 {
        (table.align_down(self.granule.bytes()).get() & Self::ADDRESS) | 0b11
    }

    /// The descriptor of a block or page at `level`. `physical` is aligned to its size.
    #[inline]
    #[must_use]
    pub const fn leaf(self, level: u8, physical: PhysAddr, attributes: LeafAttributes) -> u64 {
        let kind = if level == LAST_LEVEL { 0b11 } else { 0b01 };
        (physical.get() & Self::ADDRESS) | attributes.0 | kind
    }

    /// The table that a descriptor found at `level` points at, if it does. Address bits below the granule are RES0.
    #[inline]
    #[must_use]
    pub const fn next_table(self, level: u8, raw: u64) -> Option<PhysAddr> {
        if level < LAST_LEVEL && raw & 0b11 == 0b11 { Some(PhysAddr::new(raw & Self::ADDRESS)) } else { None }
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
    pub fn decode_leaf(self, log2_bytes: u32, raw: u64) -> Leaf {
        let physical = PhysAddr::new(raw & Self::ADDRESS & (u64::MAX << log2_bytes));
        // Tables, because lookups are to be quick: the fields have few values.
        let (access, memory) = match self.stage {
            Stage::Stage1 => (
                [None, Some(Access::ReadWrite), None, Some(Access::Read)].get((raw >> 6 & 0b11) as usize),
                MemoryType::BY_ATTR_INDEX.get((raw >> 2 & 0b111) as usize),
            ),
            Stage::Stage2 => (
                [None, Some(Access::Read), Some(Access::Write), Some(Access::ReadWrite)]
                    .get((raw >> 6 & 0b11) as usize),
                MemoryType::BY_STAGE2_MEM_ATTR.get((raw >> 2 & 0b1111) as usize),
            ),
        };
        Leaf { physical, access: access.copied().flatten(), memory: memory.copied().flatten() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S1: Format = Format { stage: Stage::Stage1, granule: Granule::K4 };
    const S2: Format = Format { stage: Stage::Stage2, granule: Granule::K4 };
    const ADDRESS: PhysAddr = PhysAddr::new(0x0000_1234_5678_9000);
    /// PXN and UXN.
    const S1_NEVER: u64 = 0x0060_0000_0000_0000;
    const S2_NEVER: u64 = 0x0040_0000_0000_0000;

    fn page(format: Format, access: Access, memory: MemoryType) -> u64 {
        format.leaf(3, ADDRESS, LeafAttributes::new(format.stage, access, memory))
    }

    #[test]
    fn stage1_pages_bit_by_bit() {
        let base = ADDRESS.get() | S1_NEVER;
        assert_eq!(page(S1, Access::ReadWrite, MemoryType::WriteBack), base | 0xf47);
        assert_eq!(page(S1, Access::Write, MemoryType::WriteBack), base | 0xf47);
        assert_eq!(page(S1, Access::Read, MemoryType::WriteBack), base | 0xfc7);
        assert_eq!(page(S1, Access::ReadWrite, MemoryType::Device), base | 0xe4b);
        assert_eq!(page(S1, Access::ReadWrite, MemoryType::NonCacheable), base | 0xe43);
    }

    #[test]
    fn stage2_pages_bit_by_bit() {
        let base = ADDRESS.get() | S2_NEVER;
        assert_eq!(page(S2, Access::ReadWrite, MemoryType::WriteBack), base | 0x7ff);
        assert_eq!(page(S2, Access::Read, MemoryType::WriteBack), base | 0x77f);
        assert_eq!(page(S2, Access::Write, MemoryType::WriteBack), base | 0x7bf);
        assert_eq!(page(S2, Access::ReadWrite, MemoryType::Device), base | 0x6c7);
        assert_eq!(page(S2, Access::ReadWrite, MemoryType::NonCacheable), base | 0x6d7);
    }

    #[test]
    fn mair_bytes() {
        assert_eq!(MemoryType::MAIR.get(), 0x04_ff_44);
    }

    #[test]
    fn blocks_clear_the_type_bit() {
        let block = |format: Format, level, physical| {
            let attributes = LeafAttributes::new(format.stage, Access::ReadWrite, MemoryType::WriteBack);
            format.leaf(level, PhysAddr::new(physical), attributes)
        };
        assert_eq!(block(S1, 2, 0x0000_1234_5660_0000), 0x0000_1234_5660_0000 | S1_NEVER | 0xf45);
        assert_eq!(block(S1, 1, 0x0000_1234_4000_0000), 0x0000_1234_4000_0000 | S1_NEVER | 0xf45);
        for (granule, physical) in [(Granule::K16, 0x0000_1234_5600_0000), (Granule::K64, 0x0000_1234_4000_0000)] {
            let format = Format { stage: Stage::Stage2, granule };
            assert_eq!(block(format, 2, physical), physical | S2_NEVER | 0x7fd);
        }
        // An address beyond 48 bits never becomes an attribute.
        assert_eq!(block(S1, 2, 0xffff_1234_5660_0000), 0x0000_1234_5660_0000 | S1_NEVER | 0xf45);
    }

    #[test]
    fn tables() {
        assert_eq!(S1.table(ADDRESS), 0x0000_1234_5678_9003);
        assert_eq!(S2.table(ADDRESS), 0x0000_1234_5678_9003);
        assert_eq!(S1.decode(0, 0x0000_1234_5678_9003), Descriptor::Table(ADDRESS));
        // Bits 51:48 and the hierarchical attributes are no address.
        assert_eq!(S1.decode(2, 0xf8ff_1234_5678_9fff), Descriptor::Table(ADDRESS));
    }

    #[test]
    fn reserved_and_invalid_descriptors() {
        for format in [S1, S2] {
            assert_eq!(format.decode(3, 0x0000_1234_5678_9f45), Descriptor::Invalid, "a block at the last level");
            assert_eq!(format.decode(0, 0x0000_1234_5678_9f45), Descriptor::Invalid, "a block at level 0");
            assert_eq!(format.decode(3, 0x0000_1234_5678_9f46), Descriptor::Invalid, "bit 0 clear");
        }
        for granule in [Granule::K16, Granule::K64] {
            let format = Format { stage: Stage::Stage1, granule };
            assert_eq!(format.decode(1, 0x0000_1234_4000_0f45), Descriptor::Invalid, "a block at level 1");
        }
    }

    #[test]
    fn decoding_reads_permissions_and_memory_types() {
        let leaf = |access, memory| Descriptor::Leaf(Leaf { physical: ADDRESS, access, memory });
        let wb = Some(MemoryType::WriteBack);
        let page = ADDRESS.get();
        assert_eq!(S1.decode(3, page | 0xf47), leaf(Some(Access::ReadWrite), wb));
        assert_eq!(S1.decode(3, page | 0xfc7), leaf(Some(Access::Read), wb));
        assert_eq!(S1.decode(3, page | 0xe4b), leaf(Some(Access::ReadWrite), Some(MemoryType::Device)));
        assert_eq!(S1.decode(3, page | 0xf07), leaf(None, wb), "privileged only");
        assert_eq!(S1.decode(3, page | 0xf5f), leaf(Some(Access::ReadWrite), None), "AttrIndx 7");
        assert_eq!(S2.decode(3, page | 0x7ff), leaf(Some(Access::ReadWrite), wb));
        assert_eq!(S2.decode(3, page | 0x77f), leaf(Some(Access::Read), wb));
        assert_eq!(S2.decode(3, page | 0x7bf), leaf(Some(Access::Write), wb));
        assert_eq!(S2.decode(3, page | 0x73f), leaf(None, wb));
        assert_eq!(S2.decode(3, page | 0x7fb), leaf(Some(Access::ReadWrite), None), "write-through");
    }

    #[test]
    fn entry_sizes() {
        let sizes =
            |granule| [0, 1, 2, 3].map(|level| Format { stage: Stage::Stage1, granule }.entry_log2_bytes(level));
        assert_eq!(sizes(Granule::K4), [39, 30, 21, 12]);
        assert_eq!(sizes(Granule::K16), [47, 36, 25, 14]);
        assert_eq!(sizes(Granule::K64)[1..], [42, 29, 16]);
    }
}

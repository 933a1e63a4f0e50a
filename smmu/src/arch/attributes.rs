//! Memory attributes, granules and address sizes: enums that several structures encode, each in its own way.

use core::fmt;

/// Cacheability of the SMMU's own accesses to tables and queues (IHI 0070, 13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cacheability {
    /// Not cacheable.
    NonCacheable,
    /// Write-back, allocating on reads and writes.
    WriteBack,
    /// Write-through, allocating on reads.
    WriteThrough,
    /// Write-back, allocating on reads only.
    WriteBackNoWriteAllocate,
}

impl Cacheability {
    /// The code in CD.IRx, CD.ORx, STE.S2IR0 and STE.S2OR0.
    #[must_use]
    pub const fn walk_code(self) -> u64 {
        match self {
            Self::NonCacheable => 0,
            Self::WriteBack => 1,
            Self::WriteThrough => 2,
            Self::WriteBackNoWriteAllocate => 3,
        }
    }

    /// The code in STE.S1CIR and STE.S1COR, where 3 would mean "no read allocation": nothing here asks for that.
    #[must_use]
    pub const fn fetch_code(self) -> u64 {
        self.access_code() as u64
    }

    /// What a code in STE.S1CIR or STE.S1COR means, but for the hint not to allocate.
    #[must_use]
    pub const fn of_fetch_code(code: u64) -> Self {
        match code & 3 {
            0 => Self::NonCacheable,
            2 => Self::WriteThrough,
            _ => Self::WriteBack,
        }
    }

    /// The code in the fields of CR1, which knows no allocation hints; 3 is reserved there.
    #[must_use]
    pub const fn access_code(self) -> u32 {
        match self {
            Self::NonCacheable => 0,
            Self::WriteBack | Self::WriteBackNoWriteAllocate => 1,
            Self::WriteThrough => 2,
        }
    }
}

/// Shareability, in the code that CD.SHx, STE.S1CSH, STE.S2SH0, CR1, the interrupt registers and CMD_SYNC share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shareability {
    /// Non-shareable.
    NonShareable = 0,
    /// Outer Shareable.
    OuterShareable = 2,
    /// Inner Shareable.
    InnerShareable = 3,
}

impl Shareability {
    /// The two-bit code. (1 is reserved, and in SHCFG fields means "use incoming": see
    /// [`Shcfg`](super::stream_table::Shcfg).)
    #[must_use]
    pub const fn code(self) -> u64 {
        self as u64
    }

    /// What a two-bit code means. The reserved one acts as 0.
    #[must_use]
    pub const fn from_code(code: u64) -> Self {
        match code & 3 {
            2 => Self::OuterShareable,
            3 => Self::InnerShareable,
            _ => Self::NonShareable,
        }
    }
}

/// How the SMMU accesses tables, structures or queues in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WalkAttributes {
    /// Inner cacheability.
    pub inner: Cacheability,
    /// Outer cacheability.
    pub outer: Cacheability,
    /// Shareability; ignored, as Outer Shareable, where nothing is cacheable.
    pub shareability: Shareability,
}

impl WalkAttributes {
    /// For an SMMU whose accesses snoop the CPUs' caches (IDR0.COHACC = 1).
    pub const COHERENT: Self = Self {
        inner: Cacheability::WriteBack,
        outer: Cacheability::WriteBack,
        shareability: Shareability::InnerShareable,
    };

    /// For an SMMU that does not snoop: software cleans its caches (IDR0.COHACC = 0).
    pub const NON_COHERENT: Self = Self {
        inner: Cacheability::NonCacheable,
        outer: Cacheability::NonCacheable,
        shareability: Shareability::OuterShareable,
    };
}

/// The four-bit memory type of MemAttr fields: STE.MemAttr, GBPA.MemAttr, the interrupt registers and CMD_SYNC.MSIAttr
/// (IHI 0070, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemAttr(u8);

impl MemAttr {
    /// Device-nGnRE: right for the doorbell of an interrupt controller.
    pub const DEVICE_NGNRE: Self = Self(1);
    /// Normal memory, inner and outer write-back.
    pub const NORMAL_WRITE_BACK: Self = Self(0xf);
    /// Normal memory, inner and outer non-cacheable.
    pub const NORMAL_NON_CACHEABLE: Self = Self(0x5);

    /// The four-bit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// What a four-bit code means.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        Self(code & 0xf)
    }
}

/// A translation granule: the size of a page and of a full table (Arm ARM, D8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Granule {
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

impl Granule {
    /// log2 of the page size in bytes.
    #[must_use]
    pub const fn log2_bytes(self) -> u32 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// Page size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.log2_bytes()
    }

    /// The code in CD.TG0.
    #[must_use]
    pub const fn tg0(self) -> u64 {
        match self {
            Self::K4 => 0,
            Self::K64 => 1,
            Self::K16 => 2,
        }
    }

    /// The code in CD.TG1.
    #[must_use]
    pub const fn tg1(self) -> u64 {
        match self {
            Self::K16 => 1,
            Self::K4 => 2,
            Self::K64 => 3,
        }
    }

    /// The code in STE.S2TG.
    #[must_use]
    pub const fn s2tg(self) -> u64 {
        self.tg0()
    }

    /// The code in the TG field of range TLBI commands, where 0 means "no range" (IHI 0070, 4.4.1.1).
    #[must_use]
    pub const fn tlbi_tg(self) -> u64 {
        match self {
            Self::K4 => 1,
            Self::K16 => 2,
            Self::K64 => 3,
        }
    }
}

impl fmt::Display for Granule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.bytes() >> 10)
    }
}

/// A physical or intermediate physical address size, in the code that IDR5.OAS, CD.IPS and STE.S2PS share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressSize {
    /// 32 bits.
    Bits32 = 0,
    /// 36 bits.
    Bits36 = 1,
    /// 40 bits.
    Bits40 = 2,
    /// 42 bits.
    Bits42 = 3,
    /// 44 bits.
    Bits44 = 4,
    /// 48 bits.
    Bits48 = 5,
    /// 52 bits (SMMUv3.1).
    Bits52 = 6,
    /// 56 bits (SMMUv3.4 with 128-bit descriptors).
    Bits56 = 7,
}

impl AddressSize {
    const ALL: [Self; 8] = [
        Self::Bits32,
        Self::Bits36,
        Self::Bits40,
        Self::Bits42,
        Self::Bits44,
        Self::Bits48,
        Self::Bits52,
        Self::Bits56,
    ];

    /// The three-bit code.
    #[must_use]
    pub const fn code(self) -> u64 {
        self as u64
    }

    /// The size with this three-bit code; upper bits are ignored.
    #[must_use]
    pub const fn from_code(code: u64) -> Self {
        match code & 7 {
            0 => Self::Bits32,
            1 => Self::Bits36,
            2 => Self::Bits40,
            3 => Self::Bits42,
            4 => Self::Bits44,
            5 => Self::Bits48,
            6 => Self::Bits52,
            _ => Self::Bits56,
        }
    }

    /// The number of address bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Bits32 => 32,
            Self::Bits36 => 36,
            Self::Bits40 => 40,
            Self::Bits42 => 42,
            Self::Bits44 => 44,
            Self::Bits48 => 48,
            Self::Bits52 => 52,
            Self::Bits56 => 56,
        }
    }

    /// The smallest size that holds addresses of `bits` bits, or `None` above 56.
    #[must_use]
    pub fn holding(bits: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.bits() >= bits)
    }
}

impl fmt::Display for AddressSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bits", self.bits())
    }
}

/// Whether the SMMU updates descriptors by itself: the HA and HD bits of a CD, S2HA and S2HD of an STE (IHI 0070, 3.13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HardwareUpdate {
    /// Never.
    #[default]
    None,
    /// It sets the Access flag (IDR0.HTTU >= 1).
    AccessFlag,
    /// It sets the Access flag and the dirty state (IDR0.HTTU >= 2).
    AccessFlagAndDirtyState,
}

impl HardwareUpdate {
    /// The HA bit.
    #[must_use]
    pub const fn ha(self) -> u64 {
        !matches!(self, Self::None) as u64
    }

    /// The HD bit. It is never set without HA, which is reserved.
    #[must_use]
    pub const fn hd(self) -> u64 {
        matches!(self, Self::AccessFlagAndDirtyState) as u64
    }
}

/// The eight memory attributes that AttrIndx of a stage-1 descriptor chooses from: CD.MAIR0 and MAIR1, in the layout of
/// MAIR_EL1 (Arm ARM, D24.2; IHI 0070, 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mair(u64);

impl Mair {
    /// Attribute byte: Device-nGnRnE memory.
    pub const DEVICE_NGNRNE: u8 = 0x00;
    /// Attribute byte: Device-nGnRE memory.
    pub const DEVICE_NGNRE: u8 = 0x04;
    /// Attribute byte: Normal memory, inner and outer non-cacheable.
    pub const NORMAL_NON_CACHEABLE: u8 = 0x44;
    /// Attribute byte: Normal memory, inner and outer write-back, allocating on reads and writes.
    pub const NORMAL_WRITE_BACK: u8 = 0xff;

    /// Attributes 0 to 7, in this order.
    #[must_use]
    pub const fn new(attributes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(attributes))
    }

    /// The register value: attribute 0 in the lowest byte.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r24_cacheability_has_three_encodings() {
        use Cacheability::{NonCacheable, WriteBack, WriteBackNoWriteAllocate, WriteThrough};
        let all = [NonCacheable, WriteBack, WriteThrough, WriteBackNoWriteAllocate];
        assert_eq!(all.map(Cacheability::walk_code), [0, 1, 2, 3]);
        assert_eq!(all.map(Cacheability::fetch_code), [0, 1, 2, 1]);
        assert_eq!(all.map(Cacheability::access_code), [0, 1, 2, 1]);
    }

    #[test]
    fn r24_shareability() {
        use Shareability::{InnerShareable, NonShareable, OuterShareable};
        assert_eq!([NonShareable, OuterShareable, InnerShareable].map(Shareability::code), [0, 2, 3]);
    }

    #[test]
    fn r24_granules_have_three_encodings() {
        let all = [Granule::K4, Granule::K16, Granule::K64];
        assert_eq!(all.map(Granule::bytes), [0x1000, 0x4000, 0x1_0000]);
        assert_eq!(all.map(Granule::tg0), [0, 2, 1]);
        assert_eq!(all.map(Granule::s2tg), [0, 2, 1]);
        assert_eq!(all.map(Granule::tg1), [2, 1, 3]);
        assert_eq!(all.map(Granule::tlbi_tg), [1, 2, 3]);
    }

    #[test]
    fn r24_address_sizes() {
        let sizes = [0, 1, 2, 3, 4, 5, 6, 7].map(AddressSize::from_code);
        assert_eq!(sizes.map(AddressSize::bits), [32, 36, 40, 42, 44, 48, 52, 56]);
        assert_eq!(sizes.map(AddressSize::code), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(AddressSize::from_code(0xffd), AddressSize::Bits48);
        assert_eq!(AddressSize::holding(0), Some(AddressSize::Bits32));
        assert_eq!(AddressSize::holding(41), Some(AddressSize::Bits42));
        assert_eq!(AddressSize::holding(56), Some(AddressSize::Bits56));
        assert_eq!(AddressSize::holding(57), None);
    }

    #[test]
    fn r24_dirty_state_is_never_updated_without_the_access_flag() {
        use HardwareUpdate::{AccessFlag, AccessFlagAndDirtyState, None};
        let all = [None, AccessFlag, AccessFlagAndDirtyState];
        assert_eq!(all.map(HardwareUpdate::ha), [0, 1, 1]);
        assert_eq!(all.map(HardwareUpdate::hd), [0, 0, 1]);
    }

    #[test]
    fn r24_memory_types() {
        let codes = [MemAttr::DEVICE_NGNRE, MemAttr::NORMAL_NON_CACHEABLE, MemAttr::NORMAL_WRITE_BACK];
        assert_eq!(codes.map(MemAttr::code), [0b0001, 0b0101, 0b1111]);
        assert_eq!(Mair::new([0, 1, 2, 3, 4, 5, 6, 7]).get(), 0x0706_0504_0302_0100);
    }
}

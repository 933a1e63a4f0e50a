//! The attribute bits of blocks and pages, and the memory types (Arm ARM, D8.3 and D8.6).

use core::fmt;

use tock_registers::register_bitfields;

use super::{Access, Execute, Permissions, Privilege, Stage, Tracking};
use crate::arch::attributes::{Mair, Shareability};

register_bitfields! { u64,
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
            Always = 0,
            Never = 2
        ]
    ],
    /// What both stages have in the same place.
    LEAF [
        /// AP[1] or S2AP[0].
        Permission0 OFFSET(6) NUMBITS(1) [],
        /// AP[2], which forbids writing, or S2AP[1], which allows it.
        Permission1 OFFSET(7) NUMBITS(1) [],
        AF OFFSET(10) NUMBITS(1) [],
        /// Dirty Bit Modifier: a write changes bit 7 instead of faulting, if the SMMU updates the dirty state.
        DBM OFFSET(51) NUMBITS(1) [],
        ExecuteNever OFFSET(53) NUMBITS(2) [],
        Contiguous OFFSET(52) NUMBITS(1) [],
        /// For software: it was dirty when it became read-only.
        WasDirty OFFSET(55) NUMBITS(1) []
    ]
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

    const fn of_attr_index(code: u64) -> Option<Self> {
        match code {
            0 => Some(Self::NonCacheable),
            1 => Some(Self::WriteBack),
            2 => Some(Self::Device),
            _ => None,
        }
    }

    /// MemAttr of a stage-2 leaf, with S2FWB = 1 (Arm ARM, D8.6): write-back whatever stage 1 says.
    #[must_use]
    pub const fn forced_mem_attr(self) -> u64 {
        match self {
            Self::NonCacheable => 0b0101,
            Self::WriteBack => 0b0110,
            Self::Device => 0b0001,
        }
    }

    /// With S2FWB or without: what each means by 0110 and 1111 is not the same, but what is meant here is.
    const fn of_stage2_mem_attr(code: u64) -> Option<Self> {
        match code {
            0b0101 => Some(Self::NonCacheable),
            0b1111 | 0b0110 => Some(Self::WriteBack),
            0b0001 => Some(Self::Device),
            _ => None,
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

/// The attribute bits of a leaf: all but its address and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafAttributes {
    stage: Stage,
    bits: u64,
}

impl LeafAttributes {
    /// Attributes of a leaf for DMA: Access flag set; at stage 1 tagged with the ASID.
    #[must_use]
    pub const fn new(stage: Stage, permissions: Permissions, memory: MemoryType) -> Self {
        let shareability = memory.shareability().code();
        let bits = match stage {
            Stage::Stage1 => {
                STAGE1::AttrIndx.val(memory.attr_index()).value
                    | STAGE1::SH.val(shareability).value
                    | STAGE1::AF::SET.value
                    | STAGE1::NotGlobal::SET.value
            }
            Stage::Stage2 => {
                STAGE2::MemAttr.val(memory.stage2_mem_attr()).value
                    | STAGE2::SH.val(shareability).value
                    | STAGE2::AF::SET.value
            }
        };
        Self { stage, bits: bits | permission_bits(stage, permissions) }
    }

    /// Those of a descriptor of a block or page.
    #[inline]
    #[must_use]
    pub const fn of_descriptor(stage: Stage, raw: u64) -> Self {
        Self { stage, bits: raw }
    }

    /// The bits, in place.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// As a new leaf has them where accesses are tracked: not accessed, and clean.
    #[must_use]
    pub const fn tracked(self, tracking: Tracking) -> Self {
        match tracking {
            Tracking::Off => self,
            Tracking::SoftwareAccess | Tracking::HardwareAccess => self.with_access_flag(false),
            Tracking::HardwareAccessAndDirty if self.writes_now() => {
                let clean = (self.bits | LEAF::DBM::SET.value) ^ LEAF::Permission1::SET.value;
                Self { bits: clean, ..self }.with_access_flag(false)
            }
            Tracking::HardwareAccessAndDirty => self.with_access_flag(false),
        }
    }

    /// The Access flag.
    #[inline]
    #[must_use]
    pub const fn is_accessed(self) -> bool {
        self.bits & LEAF::AF::SET.value != 0
    }

    /// With the Access flag set or clear.
    #[inline]
    #[must_use]
    pub const fn with_access_flag(self, accessed: bool) -> Self {
        let without = self.bits & !LEAF::AF::SET.value;
        Self { bits: without | LEAF::AF.val(accessed as u64).value, ..self }
    }

    /// Whether a device has written to it since it was mapped or [cleaned](Self::cleaned), as far as that is tracked.
    #[inline]
    #[must_use]
    pub const fn is_dirty(self) -> bool {
        self.bits & LEAF::WasDirty::SET.value != 0 || (self.bits & LEAF::DBM::SET.value != 0 && self.writes_now())
    }

    /// Not dirty until the next write.
    #[inline]
    #[must_use]
    pub const fn cleaned(self) -> Self {
        let bits = self.bits & !LEAF::WasDirty::SET.value;
        let is_marked = bits & LEAF::DBM::SET.value != 0 && self.writes_now();
        Self { bits: if is_marked { bits ^ LEAF::Permission1::SET.value } else { bits }, ..self }
    }

    /// The contiguous bit: the leaf belongs to a group that the TLB may hold as one (Arm ARM, D8.7).
    #[inline]
    #[must_use]
    pub const fn is_contiguous(self) -> bool {
        self.bits & LEAF::Contiguous::SET.value != 0
    }

    /// With the contiguous bit.
    #[inline]
    #[must_use]
    pub const fn contiguous(self) -> Self {
        Self { bits: self.bits | LEAF::Contiguous::SET.value, ..self }
    }

    /// What the parts of a leaf have of it, on their own: all but address, type, contiguous bit and nT.
    #[inline]
    #[must_use]
    pub const fn inherited(self) -> Self {
        Self { bits: self.bits & 0xfff8_0000_0000_0ffc & !LEAF::Contiguous::SET.value, ..self }
    }

    /// What transactions may do: `None` for nothing.
    #[must_use]
    pub const fn permissions(self) -> Option<Permissions> {
        let first = self.bits & LEAF::Permission0::SET.value != 0;
        let writes = self.writes_now() || self.bits & LEAF::DBM::SET.value != 0;
        let (reads, privilege, never) = match self.stage {
            Stage::Stage1 if first => (true, Privilege::Any, STAGE1::UXN::SET.value),
            Stage::Stage1 => (true, Privilege::PrivilegedOnly, STAGE1::PXN::SET.value),
            Stage::Stage2 => (first, Privilege::Any, STAGE2::XN::Never.value),
        };
        let access = match (reads, writes) {
            (true, true) => Access::ReadWrite,
            (true, false) => Access::Read,
            (false, true) => Access::Write,
            (false, false) => return None,
        };
        let execute = if self.bits & never != 0 { Execute::Never } else { Execute::Allowed };
        Some(Permissions { access, execute, privilege })
    }

    /// What unprivileged transactions may do with data: `None` for nothing.
    #[must_use]
    pub const fn access(self) -> Option<Access> {
        match self.permissions() {
            Some(Permissions { access, privilege: Privilege::Any, .. }) => Some(access),
            _ => None,
        }
    }

    /// The memory type; `None` for one that this crate never writes.
    #[must_use]
    pub const fn memory(self) -> Option<MemoryType> {
        match (self.stage, self.bits >> 2 & 0b1111) {
            (Stage::Stage1, code) => MemoryType::of_attr_index(code & 0b111),
            (Stage::Stage2, code) => MemoryType::of_stage2_mem_attr(code),
        }
    }

    /// With other permissions. What was accessed stays so, and what was dirty.
    #[must_use]
    pub const fn with_permissions(self, permissions: Permissions, tracking: Tracking) -> Self {
        const CHANGED: u64 = LEAF::Permission0::SET.value
            | LEAF::Permission1::SET.value
            | LEAF::DBM::SET.value
            | STAGE2::XN.mask << STAGE2::XN.shift
            | LEAF::WasDirty::SET.value;
        let rest = Self { bits: self.bits & !CHANGED, ..self };
        let mut new = Self { bits: rest.bits | permission_bits(self.stage, permissions), ..self };
        if matches!(tracking, Tracking::HardwareAccessAndDirty) && new.writes_now() {
            new.bits |= LEAF::DBM::SET.value;
            if self.is_dirty() { new } else { new.cleaned() }
        } else {
            new.bits |= LEAF::WasDirty.val(self.is_dirty() as u64).value;
            new
        }
    }

    /// Whether a write would change nothing in the descriptor.
    const fn writes_now(self) -> bool {
        (self.bits & LEAF::Permission1::SET.value != 0) == matches!(self.stage, Stage::Stage2)
    }
}

/// The bits that say what transactions may do.
const fn permission_bits(stage: Stage, permissions: Permissions) -> u64 {
    let Permissions { access, execute, privilege } = permissions;
    let privileged_only = matches!(privilege, Privilege::PrivilegedOnly);
    let executable = matches!(execute, Execute::Allowed);
    match stage {
        Stage::Stage1 => {
            STAGE1::AP1.val(!privileged_only as u64).value
                | STAGE1::AP2.val(!access.writes() as u64).value
                | STAGE1::PXN.val(!executable as u64).value
                | STAGE1::UXN.val((!executable || privileged_only) as u64).value
        }
        Stage::Stage2 => {
            let data = match access {
                Access::Read => STAGE2::S2AP::ReadOnly,
                Access::Write => STAGE2::S2AP::WriteOnly,
                Access::ReadWrite => STAGE2::S2AP::ReadWrite,
            };
            data.value | if executable { STAGE2::XN::Always.value } else { STAGE2::XN::Never.value }
        }
    }
}

/// The attributes of all kinds of leaves at one stage, so that a map looks them up instead of putting them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafKinds {
    stage: Stage,
    bits: [u64; 64],
}

impl LeafKinds {
    /// Those of new leaves at `stage`.
    #[must_use]
    pub fn new(stage: Stage, tracking: Tracking) -> Self {
        let mut kinds = Self { stage, bits: [0; 64] };
        for access in [Access::Read, Access::Write, Access::ReadWrite] {
            for execute in [Execute::Never, Execute::Allowed] {
                for privilege in [Privilege::Any, Privilege::PrivilegedOnly] {
                    let permissions = Permissions { access, execute, privilege };
                    for memory in [MemoryType::NonCacheable, MemoryType::WriteBack, MemoryType::Device] {
                        if let Some(bits) = kinds.bits.get_mut(Self::index(permissions, memory)) {
                            *bits = LeafAttributes::new(stage, permissions, memory).tracked(tracking).bits;
                        }
                    }
                }
            }
        }
        kinds
    }

    /// The same where stage 2 decides alone on cacheability (STE.S2FWB), and MemAttr has codes of its own.
    #[must_use]
    pub fn forcing_write_back(mut self) -> Self {
        let [plain, forced] = [MemoryType::WriteBack.stage2_mem_attr(), MemoryType::WriteBack.forced_mem_attr()];
        for bits in self.bits.iter_mut().filter(|bits| STAGE2::MemAttr.read(**bits) == plain) {
            *bits = STAGE2::MemAttr.val(forced).modify(*bits);
        }
        self
    }

    /// The attributes of leaves with these permissions and this memory type.
    #[inline(always)]
    #[must_use]
    pub fn of(&self, permissions: Permissions, memory: MemoryType) -> LeafAttributes {
        let bits = self.bits.get(Self::index(permissions, memory)).copied().unwrap_or(0);
        LeafAttributes { stage: self.stage, bits }
    }

    /// Less than 64, for all that the compiler knows.
    #[inline(always)]
    const fn index(permissions: Permissions, memory: MemoryType) -> usize {
        let Permissions { access, execute, privilege } = permissions;
        ((privilege as usize) << 5 | (execute as usize) << 4 | (access as usize) << 2 | memory as usize) & 0x3f
    }
}

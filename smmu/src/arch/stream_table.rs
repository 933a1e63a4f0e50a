//! The stream table: what the SMMU does with the transactions of a stream (IHI 0070, 5.1 and 5.2).

use core::fmt;

use tock_registers::{LocalRegisterCopy, register_bitfields};

use super::attributes::{AddressSize, Granule, HardwareUpdate, WalkAttributes};
use crate::addr::{PhysAddr, Vmid};

register_bitfields! { u64,
    /// Bits 63:0 of a stream table entry.
    STE0 [
        V OFFSET(0) NUMBITS(1) [],
        Config OFFSET(1) NUMBITS(3) [],
        S1Fmt OFFSET(4) NUMBITS(2) [],
        /// In place: bits 55:6 of the address.
        S1ContextPtr OFFSET(6) NUMBITS(50) [],
        S1CDMax OFFSET(59) NUMBITS(5) []
    ],
    /// Bits 127:64.
    STE1 [
        S1DSS OFFSET(0) NUMBITS(2) [],
        S1CIR OFFSET(2) NUMBITS(2) [],
        S1COR OFFSET(4) NUMBITS(2) [],
        S1CSH OFFSET(6) NUMBITS(2) [],
        MEV OFFSET(19) NUMBITS(1) [],
        S2FWB OFFSET(25) NUMBITS(1) [],
        S1STALLD OFFSET(27) NUMBITS(1) [],
        EATS OFFSET(28) NUMBITS(2) [],
        STRW OFFSET(30) NUMBITS(2) [],
        SHCFG OFFSET(44) NUMBITS(2) []
    ],
    /// Bits 191:128.
    STE2 [
        S2VMID OFFSET(0) NUMBITS(16) [],
        S2T0SZ OFFSET(32) NUMBITS(6) [],
        S2SL0 OFFSET(38) NUMBITS(2) [],
        S2IR0 OFFSET(40) NUMBITS(2) [],
        S2OR0 OFFSET(42) NUMBITS(2) [],
        S2SH0 OFFSET(44) NUMBITS(2) [],
        S2TG OFFSET(46) NUMBITS(2) [],
        S2PS OFFSET(48) NUMBITS(3) [],
        S2AA64 OFFSET(51) NUMBITS(1) [],
        S2AFFD OFFSET(53) NUMBITS(1) [],
        S2PTW OFFSET(54) NUMBITS(1) [],
        S2HD OFFSET(55) NUMBITS(1) [],
        S2HA OFFSET(56) NUMBITS(1) [],
        S2S OFFSET(57) NUMBITS(1) [],
        S2R OFFSET(58) NUMBITS(1) []
    ],
    /// Bits 255:192.
    STE3 [
        /// In place: bits 55:4 of the address.
        S2TTB OFFSET(4) NUMBITS(52) []
    ]
}

/// STE.Config: what becomes of a stream's transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Config {
    /// They abort, and no event is recorded.
    Abort = 0,
    /// They pass untranslated.
    Bypass = 4,
    /// Stage 1 translates them.
    Stage1 = 5,
    /// Stage 2 translates them.
    Stage2 = 6,
    /// Stage 1, then stage 2.
    Nested = 7,
}

/// STE.S1Fmt: the format of the context descriptor table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum S1Fmt {
    /// One array of descriptors.
    #[default]
    Linear = 0,
    /// Two levels, with leaf tables of 64 descriptors (4 KiB). Needs IDR0.CD2L.
    TwoLevel4K = 1,
    /// Two levels, with leaf tables of 1024 descriptors (64 KiB). Needs IDR0.CD2L.
    TwoLevel64K = 2,
}

/// STE.S1DSS: a transaction without SubstreamID, on a stream that has substreams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum S1Dss {
    /// It aborts, and F_STREAM_DISABLED is recorded.
    Abort = 0,
    /// It bypasses stage 1.
    Bypass = 1,
    /// It uses context descriptor 0; SubstreamID 0 is then forbidden.
    #[default]
    Substream0 = 2,
}

/// STE.STRW: the exception level whose TLB entries a stage-1 stream shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strw {
    /// NS-EL1, tagged by ASID and, if stage 2 is implemented, by VMID.
    #[default]
    El1 = 0,
    /// EL2; with CR2.E2H, EL2-E2H. Needs IDR0.Hyp.
    El2 = 2,
}

/// STE.EATS: PCIe ATS on a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Eats {
    /// Translation requests are refused, and translated transactions with them if CR0.ATSCHK is 1.
    #[default]
    Off = 0,
    /// Full ATS.
    Full = 1,
    /// Split-stage ATS: the device caches stage 1 only. Needs [`Config::Nested`] and CR0.ATSCHK = 1.
    SplitStage = 2,
}

/// STE.SHCFG: the shareability that a transaction takes with it where stage 1 does not decide. Anything but
/// `UseIncoming` needs IDR1.ATTR_TYPES_OVR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shcfg {
    /// Non-shareable.
    NonShareable = 0,
    /// What the transaction came with.
    #[default]
    UseIncoming = 1,
    /// Outer Shareable.
    OuterShareable = 2,
    /// Inner Shareable.
    InnerShareable = 3,
}

/// The stage-1 half of a stream table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage1Stream {
    /// S1ContextPtr: the context descriptor table, aligned to its size (at least to 64 bytes). With stage 2 it is an
    /// intermediate physical address.
    pub context_table: PhysAddr,
    /// S1Fmt: its format.
    pub format: S1Fmt,
    /// S1CDMax: log2 of the number of context descriptors; 0 switches substreams off. At most IDR1.SSIDSIZE.
    pub log2_contexts: u8,
    /// S1DSS: transactions without SubstreamID. Written as [`S1Dss::Substream0`] while substreams are off: the field
    /// is then ignored, except by emulators that look at it all the same.
    pub default_substream: S1Dss,
    /// S1CIR, S1COR, S1CSH: how descriptors are fetched.
    pub walk: WalkAttributes,
    /// S1STALLD: the stream must not stall. Only where IDR0.STALL_MODEL is 0.
    pub stall_disabled: bool,
    /// STRW. Written as 0 in a nested entry, where it does not count.
    pub world: Strw,
    /// EATS.
    pub ats: Eats,
    /// SHCFG.
    pub shareability: Shcfg,
    /// MEV: similar events may be merged.
    pub merge_events: bool,
    /// S2VMID, which tags stage-1 translations too where stage 2 is implemented. A nested entry takes the VMID of its
    /// stage 2 instead.
    pub vmid: Vmid,
}

/// The stage-2 half of a stream table entry. The walk is VMSAv8-64, little-endian, and faults abort or stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage2Stream {
    /// S2VMID.
    pub vmid: Vmid,
    /// S2TTB: the start-level table, aligned to its size.
    pub table: PhysAddr,
    /// S2T0SZ: 64 minus the bits of an intermediate physical address.
    pub t0sz: u8,
    /// S2SL0: the code of the start level, which depends on the granule (Arm ARM, D8.2.8 to D8.2.10).
    pub sl0: u8,
    /// S2TG.
    pub granule: Granule,
    /// S2PS: size of output addresses.
    pub output_size: AddressSize,
    /// S2IR0, S2OR0, S2SH0: how tables are walked.
    pub walk: WalkAttributes,
    /// S2HA, S2HD.
    pub hardware_update: HardwareUpdate,
    /// S2AFFD: a clear Access flag is no fault.
    pub access_flag_fault_disabled: bool,
    /// S2PTW: a stage-1 walk that stage 2 maps to Device memory is a fault.
    pub protected_walk: bool,
    /// S2R: faults are recorded as events.
    pub record_faults: bool,
    /// S2S: faults stall.
    pub stall: bool,
    /// S2FWB: stage 2 decides alone on cacheability. Needs IDR3.FWB.
    pub force_write_back: bool,
    /// EATS; a nested entry takes the one of its stage 1 instead.
    pub ats: Eats,
    /// SHCFG; a nested entry takes the one of its stage 1 instead.
    pub shareability: Shcfg,
    /// MEV; a nested entry takes the one of its stage 1 instead.
    pub merge_events: bool,
}

/// A stream table entry: 64 bytes, aligned to 64 (IHI 0070, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamTableEntry {
    words: [u64; 8],
}

impl StreamTableEntry {
    /// Size in bytes.
    pub const BYTES: usize = 64;

    /// All zero: transactions abort, and C_BAD_STE is recorded.
    pub const INVALID: Self = Self { words: [0; 8] };

    /// An entry as read from memory.
    #[must_use]
    pub const fn from_words(words: [u64; 8]) -> Self {
        Self { words }
    }

    /// The eight words, lowest first.
    #[must_use]
    pub const fn words(&self) -> [u64; 8] {
        self.words
    }

    /// Transactions abort without an event.
    #[must_use]
    pub fn abort() -> Self {
        Self::configured(Config::Abort)
    }

    /// Transactions pass untranslated. `shareability` should be [`Shcfg::UseIncoming`].
    #[must_use]
    pub fn bypass(shareability: Shcfg) -> Self {
        let mut entry = Self::configured(Config::Bypass);
        entry.words[1] = STE1::SHCFG.val(shareability as u64).value;
        entry
    }

    /// Stage 1 translates.
    #[must_use]
    pub fn stage1(stage1: &Stage1Stream) -> Self {
        let mut entry = Self::configured(Config::Stage1);
        entry.words[0] |= stage1.word0();
        entry.words[1] = stage1.word1() | STE1::STRW.val(stage1.world as u64).value;
        entry.words[2] = STE2::S2VMID.val(stage1.vmid.get().into()).value;
        entry
    }

    /// Stage 2 translates.
    #[must_use]
    pub fn stage2(stage2: &Stage2Stream) -> Self {
        let mut entry = Self::configured(Config::Stage2);
        entry.words[1] = (STE1::EATS.val(stage2.ats as u64)
            + STE1::SHCFG.val(stage2.shareability as u64)
            + STE1::MEV.val(stage2.merge_events.into())
            + STE1::S2FWB.val(stage2.force_write_back.into()))
        .value;
        entry.words[2] = stage2.word2();
        entry.words[3] = stage2.word3();
        entry
    }

    /// Stage 1, then stage 2 translates. EATS, SHCFG and MEV are those of `stage1`, the VMID is that of `stage2`.
    #[must_use]
    pub fn nested(stage1: &Stage1Stream, stage2: &Stage2Stream) -> Self {
        let mut entry = Self::configured(Config::Nested);
        entry.words[0] |= stage1.word0();
        entry.words[1] = stage1.word1() | STE1::S2FWB.val(stage2.force_write_back.into()).value;
        entry.words[2] = stage2.word2();
        entry.words[3] = stage2.word3();
        entry
    }

    fn configured(config: Config) -> Self {
        let word0 = STE0::V::SET + STE0::Config.val(config as u64);
        Self { words: [word0.value, 0, 0, 0, 0, 0, 0, 0] }
    }

    fn word0(&self) -> LocalRegisterCopy<u64, STE0::Register> {
        LocalRegisterCopy::new(self.words[0])
    }

    fn word2(&self) -> LocalRegisterCopy<u64, STE2::Register> {
        LocalRegisterCopy::new(self.words[2])
    }

    /// V: the SMMU uses the entry.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.word0().is_set(STE0::V)
    }

    /// Config; it counts only in a valid entry.
    #[must_use]
    pub fn config(&self) -> Config {
        match self.word0().read(STE0::Config) {
            4 => Config::Bypass,
            5 => Config::Stage1,
            6 => Config::Stage2,
            7 => Config::Nested,
            _ => Config::Abort,
        }
    }

    /// S1ContextPtr.
    #[must_use]
    pub fn context_table(&self) -> PhysAddr {
        PhysAddr::new(self.word0().read(STE0::S1ContextPtr) << 6)
    }

    /// S1CDMax: log2 of the number of context descriptors.
    #[must_use]
    pub fn log2_contexts(&self) -> u8 {
        self.word0().read(STE0::S1CDMax) as u8
    }

    /// EATS is not 0.
    #[must_use]
    pub fn ats_enabled(&self) -> bool {
        STE1::EATS.is_set(self.words[1])
    }

    /// S2VMID.
    #[must_use]
    pub fn vmid(&self) -> Vmid {
        Vmid::new(self.word2().read(STE2::S2VMID) as u16)
    }

    /// S2TTB.
    #[must_use]
    pub fn stage2_table(&self) -> PhysAddr {
        PhysAddr::new(STE3::S2TTB.read(self.words[3]) << 4)
    }
}

impl Stage1Stream {
    /// The fields in word 0.
    fn word0(&self) -> u64 {
        (STE0::S1Fmt.val(self.format as u64)
            + STE0::S1ContextPtr.val(self.context_table.get() >> 6)
            + STE0::S1CDMax.val(self.log2_contexts.into()))
        .value
    }

    /// The fields in word 1, but for STRW.
    fn word1(&self) -> u64 {
        let default_substream = if self.log2_contexts == 0 { S1Dss::Substream0 } else { self.default_substream };
        (STE1::S1DSS.val(default_substream as u64)
            + STE1::S1CIR.val(self.walk.inner.fetch_code())
            + STE1::S1COR.val(self.walk.outer.fetch_code())
            + STE1::S1CSH.val(self.walk.shareability.code())
            + STE1::S1STALLD.val(self.stall_disabled.into())
            + STE1::EATS.val(self.ats as u64)
            + STE1::SHCFG.val(self.shareability as u64)
            + STE1::MEV.val(self.merge_events.into()))
        .value
    }
}

impl Stage2Stream {
    /// The fields in word 2.
    fn word2(&self) -> u64 {
        (STE2::S2VMID.val(self.vmid.get().into())
            + STE2::S2T0SZ.val(self.t0sz.into())
            + STE2::S2SL0.val(self.sl0.into())
            + STE2::S2IR0.val(self.walk.inner.walk_code())
            + STE2::S2OR0.val(self.walk.outer.walk_code())
            + STE2::S2SH0.val(self.walk.shareability.code())
            + STE2::S2TG.val(self.granule.s2tg())
            + STE2::S2PS.val(self.output_size.code())
            + STE2::S2AA64::SET
            + STE2::S2AFFD.val(self.access_flag_fault_disabled.into())
            + STE2::S2PTW.val(self.protected_walk.into())
            + STE2::S2HD.val(self.hardware_update.hd())
            + STE2::S2HA.val(self.hardware_update.ha())
            + STE2::S2S.val(self.stall.into())
            + STE2::S2R.val(self.record_faults.into()))
        .value
    }

    /// The fields in word 3.
    fn word3(&self) -> u64 {
        STE3::S2TTB.val(self.table.get() >> 4).value
    }
}

impl fmt::Display for StreamTableEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_valid() {
            return f.write_str("invalid");
        }
        match self.config() {
            Config::Abort => f.write_str("abort"),
            Config::Bypass => f.write_str("bypass"),
            Config::Stage1 => write!(f, "stage 1 by context table {}", self.context_table()),
            Config::Stage2 => write!(f, "stage 2 by table {}, VMID {}", self.stage2_table(), self.vmid().get()),
            Config::Nested => write!(
                f,
                "stage 1 by context table {}, then stage 2 by table {}, VMID {}",
                self.context_table(),
                self.stage2_table(),
                self.vmid().get()
            ),
        }
    }
}

register_bitfields! { u64,
    /// A level-1 stream table descriptor.
    L1STD [
        Span OFFSET(0) NUMBITS(5) [],
        /// In place: bits 55:6 of the address.
        L2Ptr OFFSET(6) NUMBITS(50) []
    ]
}

/// A level-1 stream table descriptor: where the entries of a run of StreamIDs are (IHI 0070, 5.1). 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L1StreamTableDescriptor(u64);

impl L1StreamTableDescriptor {
    /// No entries: the run's transactions abort, C_BAD_STREAMID.
    pub const INVALID: Self = Self(0);

    /// `2^(span - 1)` entries at `table`, which is aligned to their size, `2^(span + 5)` bytes. `span` is 1 to 11 and at
    /// most STRTAB_BASE_CFG.SPLIT + 1; others are invalid.
    #[must_use]
    pub fn new(table: PhysAddr, span: u8) -> Self {
        Self((L1STD::Span.val(span.into()) + L1STD::L2Ptr.val(table.get() >> 6)).value)
    }

    /// A descriptor as read from memory.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Where the entries are and log2 of how many, or `None` if Span is 0 or reserved.
    #[must_use]
    pub fn decode(self) -> Option<(PhysAddr, u8)> {
        match L1STD::Span.read(self.0) as u8 {
            span @ 1..=11 => Some((PhysAddr::new(L1STD::L2Ptr.read(self.0) << 6), span - 1)),
            _ => None,
        }
    }
}

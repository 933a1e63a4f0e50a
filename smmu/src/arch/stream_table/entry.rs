//! The stream table entry as words.

use core::fmt;

use tock_registers::{LocalRegisterCopy, register_bitfields};

use super::{Config, Eats, S1Dss, S1Fmt, Shcfg, Stage1Stream, Stage2Stream, Strw};
use crate::addr::{PhysAddr, Vmid};
use crate::arch::attributes::WalkAttributes;
use crate::arch::fields::{Fields, write_words};

register_bitfields! { u64,
    /// Bits 63:0 of a stream table entry.
    pub(super) STE0 [
        V OFFSET(0) NUMBITS(1) [],
        Config OFFSET(1) NUMBITS(3) [],
        S1Fmt OFFSET(4) NUMBITS(2) [],
        /// In place: bits 55:6 of the address.
        S1ContextPtr OFFSET(6) NUMBITS(50) [],
        S1CDMax OFFSET(59) NUMBITS(5) []
    ],
    /// Bits 127:64.
    pub(super) STE1 [
        S1DSS OFFSET(0) NUMBITS(2) [],
        S1CIR OFFSET(2) NUMBITS(2) [],
        S1COR OFFSET(4) NUMBITS(2) [],
        S1CSH OFFSET(6) NUMBITS(2) [],
        CONT OFFSET(13) NUMBITS(4) [],
        MEV OFFSET(19) NUMBITS(1) [],
        /// Software's own, ignored by hardware.
        Software OFFSET(20) NUMBITS(4) [],
        S2FWB OFFSET(25) NUMBITS(1) [],
        S1STALLD OFFSET(27) NUMBITS(1) [],
        EATS OFFSET(28) NUMBITS(2) [],
        STRW OFFSET(30) NUMBITS(2) [],
        SHCFG OFFSET(44) NUMBITS(2) []
    ],
    /// Bits 191:128.
    pub(super) STE2 [
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
    pub(super) STE3 [
        /// In place: bits 55:4 of the address.
        S2TTB OFFSET(4) NUMBITS(52) []
    ]
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

    /// Transactions pass untranslated. `shareability` should be what they came with.
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

    /// The same entry with other software bits (87:84): four bits that hardware ignores.
    #[must_use]
    pub fn with_software_bits(mut self, bits: u8) -> Self {
        let [_, word1, ..] = &mut self.words;
        *word1 = STE1::Software.val(bits.into()).modify(*word1);
        self
    }

    /// The software bits, 0 to 15.
    #[must_use]
    pub fn software_bits(&self) -> u8 {
        STE1::Software.read(self.words[1]) as u8
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

    /// The same entry with another EATS. For one that translates.
    #[must_use]
    pub fn with_ats(mut self, ats: Eats) -> Self {
        let [_, word1, ..] = &mut self.words;
        *word1 = STE1::EATS.val(ats as u64).modify(*word1);
        self
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

    /// S1Fmt; it counts only with more than one context descriptor. The reserved code acts as linear.
    #[must_use]
    pub fn format(&self) -> S1Fmt {
        match self.word0().read(STE0::S1Fmt) {
            1 => S1Fmt::TwoLevel4K,
            2 => S1Fmt::TwoLevel64K,
            _ => S1Fmt::Linear,
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
    /// A stream with a single context descriptor, at `context_table`: no substreams, no ATS, EL1, VMID 0.
    #[must_use]
    pub const fn with_one_context(context_table: PhysAddr, walk: WalkAttributes) -> Self {
        Self {
            context_table,
            format: S1Fmt::Linear,
            log2_contexts: 0,
            default_substream: S1Dss::Substream0,
            walk,
            stall_disabled: false,
            world: Strw::El1,
            ats: Eats::Off,
            shareability: Shcfg::UseIncoming,
            merge_events: false,
            vmid: Vmid::new(0),
        }
    }

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

/// What becomes of the stream's transactions; with `{:#}` also the words, field by field.
impl fmt::Display for StreamTableEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vmid = self.vmid().get();
        match self.config() {
            _ if !self.is_valid() => f.write_str("invalid")?,
            Config::Abort => f.write_str("abort")?,
            Config::Bypass => f.write_str("bypass")?,
            Config::Stage1 => write!(f, "stage 1 by context table {}", self.context_table())?,
            Config::Stage2 => write!(f, "stage 2 by table {}, VMID {vmid}", self.stage2_table())?,
            Config::Nested => write!(
                f,
                "stage 1 by context table {}, then stage 2 by table {}, VMID {vmid}",
                self.context_table(),
                self.stage2_table(),
            )?,
        }
        if !f.alternate() {
            return Ok(());
        }
        let [word0, word1, word2, word3, ..] = self.words;
        let fields: [&dyn fmt::Display; 8] = [
            &Fields::<u64, STE0::Register>::new(word0),
            &Fields::<u64, STE1::Register>::new(word1),
            &Fields::<u64, STE2::Register>::new(word2),
            &Fields::<u64, STE3::Register>::new(word3),
            &"",
            &"",
            &"",
            &"",
        ];
        write_words(f, self.words, fields)
    }
}

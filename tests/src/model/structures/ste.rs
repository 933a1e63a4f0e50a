//! Stream table entries (IHI 0070, 5.2).

use super::super::bits::{field, flag, mask};
use super::super::config::{Config, address_bits, most_address_bits};
use super::World;

/// What STE.Config asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum StreamConfig {
    Abort,
    Bypass,
    Stage1,
    Stage2,
    Nested,
}

impl StreamConfig {
    pub(in super::super) fn stage1(self) -> bool {
        matches!(self, Self::Stage1 | Self::Nested)
    }

    pub(in super::super) fn stage2(self) -> bool {
        matches!(self, Self::Stage2 | Self::Nested)
    }
}

/// A stream table entry. Fields are given by their bits in the whole entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Ste(pub(in super::super) [u64; 8]);

impl Ste {
    fn field(&self, high: usize, low: usize) -> u64 {
        field(&self.0, high, low)
    }

    fn flag(&self, position: usize) -> bool {
        flag(&self.0, position)
    }

    pub(in super::super) fn valid(&self) -> bool {
        self.flag(0)
    }

    pub(in super::super) fn config(&self) -> StreamConfig {
        match self.field(3, 1) {
            0b100 => StreamConfig::Bypass,
            0b101 => StreamConfig::Stage1,
            0b110 => StreamConfig::Stage2,
            0b111 => StreamConfig::Nested,
            _ => StreamConfig::Abort,
        }
    }

    /// S1Fmt: log2 of the CDs that a second level holds, or `None` for a linear table.
    pub(in super::super) fn log2_leaf_contexts(&self) -> Option<u32> {
        match self.field(5, 4) {
            1 => Some(6),
            2 => Some(10),
            _ => None,
        }
    }

    pub(in super::super) fn context_pointer(&self) -> u64 {
        self.0[0] & mask(51, 6)
    }

    /// S1CDMax: log2 of the number of CDs, 0 without substreams.
    pub(in super::super) fn log2_contexts(&self, config: &Config) -> u32 {
        if config.ssidsize == 0 { 0 } else { self.field(63, 59) as u32 }
    }

    pub(in super::super) fn s1dss(&self) -> u64 {
        self.field(65, 64)
    }

    /// S1CIR, S1COR, S1CSH in CR1's order: how CDs are read.
    pub(in super::super) fn context_attributes(&self) -> u32 {
        let [inner, outer, shareability] = [self.field(67, 66), self.field(69, 68), self.field(71, 70)];
        (inner | outer << 2 | shareability << 4) as u32
    }

    pub(in super::super) fn s1stalld(&self) -> bool {
        self.flag(91)
    }

    pub(in super::super) fn eats(&self) -> u64 {
        self.field(93, 92)
    }

    pub(in super::super) fn ppar(&self) -> bool {
        self.flag(82)
    }

    fn strw(&self) -> u64 {
        self.field(95, 94)
    }

    /// The world of stage 1; EL1 wherever STRW does not count.
    pub(in super::super) fn world(&self, config: &Config) -> World {
        if self.config() == StreamConfig::Stage1 && config.hyp && self.strw() == 2 { World::El2 } else { World::El1 }
    }

    /// PRIVCFG and INSTCFG: what they make of a transaction's privilege and instruction attribute.
    pub(in super::super) fn override_permissions(&self, privileged: bool, instruction: bool) -> (bool, bool) {
        let choose = |code, incoming| if code >= 2 { code == 3 } else { incoming };
        (choose(self.field(113, 112), privileged), choose(self.field(115, 114), instruction))
    }

    pub(in super::super) fn vmid(&self) -> u16 {
        self.field(143, 128) as u16
    }

    pub(in super::super) fn s2t0sz(&self) -> u32 {
        self.field(165, 160) as u32
    }

    /// S2IR0, S2OR0, S2SH0 in CR1's order: how stage 2 tables are walked.
    pub(in super::super) fn s2_walk_attributes(&self) -> u32 {
        self.field(173, 168) as u32
    }

    /// log2 of the stage 2 granule, if S2TG is not reserved.
    pub(in super::super) fn s2_granule(&self) -> Option<u32> {
        [Some(12), Some(16), Some(14), None][self.field(175, 174) as usize]
    }

    /// The start level of stage 2 by S2SL0, if that is not reserved (Arm ARM, D8.2).
    pub(in super::super) fn s2_start_level(&self, config: &Config) -> Option<i8> {
        let sl0 = self.field(167, 166) as i8;
        match (self.s2_granule()?, sl0) {
            (12, 3) => config.stt.then_some(3),
            (12, _) => Some(2 - sl0),
            (_, 3) => None,
            _ => Some(3 - sl0),
        }
    }

    /// Bits of a stage 2 output: S2PS, no more than OAS.
    pub(in super::super) fn s2_output_bits(&self, config: &Config) -> u32 {
        let most = self.s2_granule().map_or(48, most_address_bits);
        address_bits(self.field(178, 176)).min(config.oas_bits()).min(most)
    }

    pub(in super::super) fn s2aa64(&self) -> bool {
        self.flag(179)
    }

    pub(in super::super) fn s2affd(&self) -> bool {
        self.flag(181)
    }

    pub(in super::super) fn s2ptw(&self) -> bool {
        self.flag(182)
    }

    pub(in super::super) fn s2hd(&self) -> bool {
        self.flag(183)
    }

    pub(in super::super) fn s2ha(&self) -> bool {
        self.flag(184)
    }

    pub(in super::super) fn s2s(&self) -> bool {
        self.flag(185)
    }

    pub(in super::super) fn s2r(&self) -> bool {
        self.flag(186)
    }

    pub(in super::super) fn s2fwb(&self) -> bool {
        self.flag(89)
    }

    /// S2TTB without the low bits that its table's size takes for zero.
    pub(in super::super) fn s2ttb(&self) -> u64 {
        self.0[3] & mask(51, 4)
    }

    /// Why the entry is ILLEGAL (IHI 0070, 5.2.2), if it is.
    pub(in super::super) fn illegal(&self, config: &Config) -> Option<&'static str> {
        if !self.valid() {
            return Some("V is 0");
        }
        let meaning = self.config();
        let stage1 = meaning.stage1().then(|| self.illegal_stage1(config)).flatten();
        let stage2 = meaning.stage2().then(|| self.illegal_stage2(config)).flatten();
        let ats = (meaning.stage1() || meaning.stage2()).then(|| self.illegal_ats(config)).flatten();
        stage1.or(stage2).or(ats)
    }

    fn illegal_stage1(&self, config: &Config) -> Option<&'static str> {
        let s1cdmax = self.field(63, 59) as u32;
        let only_stage1 = self.config() == StreamConfig::Stage1;
        let pointer_bits = if only_stage1 { config.oas_bits() } else { config.ias_bits() };
        first(&[
            (!config.s1p, "stage 1 is not implemented"),
            (only_stage1 && config.hyp && self.strw() & 1 == 1, "STRW is reserved"),
            (self.s1stalld() && config.stall_model != 0, "S1STALLD although no stall is optional (STALL_MODEL)"),
            (config.ssidsize != 0 && s1cdmax > config.ssidsize, "S1CDMax is more than SSIDSIZE"),
            (
                config.ssidsize != 0 && s1cdmax != 0 && !config.cd2l && self.log2_leaf_contexts().is_some(),
                "S1Fmt asks for two levels without CD2L",
            ),
            (self.field(55, 6) << 6 >> pointer_bits != 0, "S1ContextPtr is out of range"),
            (only_stage1 && config.s2p && self.vmid_too_wide(config), "S2VMID has more bits than the SMMU"),
        ])
    }

    fn illegal_stage2(&self, config: &Config) -> Option<&'static str> {
        let granule = self.s2_granule();
        let implemented = match granule {
            Some(12) => config.gran4k,
            Some(14) => config.gran16k,
            Some(16) => config.gran64k,
            _ => false,
        };
        let endianness = if self.flag(180) { 2 } else { 3 };
        first(&[
            (!config.s2p, "stage 2 is not implemented"),
            (self.s2fwb() && (!self.s2aa64() || !config.fwb), "S2FWB without what it needs"),
            (self.s2s() && config.stall_model == 1, "S2S although nothing stalls (STALL_MODEL)"),
            (!self.s2s() && config.stall_model == 2, "S2S is 0 although everything stalls (STALL_MODEL)"),
            (config.ttf >> u32::from(self.s2aa64()) & 1 == 0, "S2AA64 asks for a format that the SMMU lacks"),
            ((self.s2ha() || self.s2hd()) && config.httu == 0, "S2HA or S2HD without HTTU"),
            (self.s2hd() && config.httu == 1, "S2HD without dirty state management"),
            (!implemented, "S2TG is reserved or not implemented"),
            (self.s2ttb() >> self.s2_output_bits(config) != 0, "S2TTB is out of range"),
            (!self.s2t0sz_in_range(config), "S2T0SZ is out of range"),
            (!self.s2_geometry_consistent(config), "S2T0SZ, S2SL0 and S2TG do not fit together"),
            (config.ttendian == endianness, "S2ENDI asks for an endianness that the SMMU lacks"),
            (self.vmid_too_wide(config), "S2VMID has more bits than the SMMU"),
        ])
    }

    fn illegal_ats(&self, config: &Config) -> Option<&'static str> {
        let split_stage = self.config() == StreamConfig::Nested && !self.s2s() && !config.ns1ats;
        first(&[
            (config.ats && self.eats() == 2 && !split_stage, "EATS asks for split-stage ATS"),
            (config.ats && self.eats() == 1 && self.config().stage2() && self.s2s(), "EATS with stage 2 stalls"),
        ])
    }

    fn vmid_too_wide(&self, config: &Config) -> bool {
        !config.vmid16 && self.vmid() > 0xff
    }

    fn s2t0sz_in_range(&self, config: &Config) -> bool {
        let granule = self.s2_granule().unwrap_or(12);
        let largest = match (config.stt, granule) {
            (false, _) => 39,
            (true, 16) => 47,
            (true, _) => 48,
        };
        let input_bits = config.ias_bits().min(most_address_bits(granule));
        (64 - input_bits..=largest).contains(&self.s2t0sz())
    }

    /// Whether walks may start where S2SL0 says, with at most 16 concatenated tables (Arm ARM, D8.2.2).
    fn s2_geometry_consistent(&self, config: &Config) -> bool {
        let (Some(granule), Some(level)) = (self.s2_granule(), self.s2_start_level(config)) else { return false };
        let input_bits = 64 - self.s2t0sz();
        let per_level = granule - 3;
        let shift = granule + per_level * (3 - level) as u32;
        let index_bits = input_bits.checked_sub(shift);
        // 16 KiB tables start at level 1 at the highest; 4 KiB ones only where the output is that large.
        let first_level = match granule {
            12 if config.oas_bits() >= 44 => 0,
            12 => 1,
            14 if config.oas_bits() >= 42 => 1,
            16 if config.oas_bits() >= 44 => 1,
            _ => 2,
        };
        // Level 0 cannot be concatenated without 52-bit addresses.
        let widest = per_level + if level == 0 || (granule == 16 && level == 1) { 0 } else { 4 };
        index_bits.is_some_and(|bits| (1..=widest).contains(&bits)) && level >= first_level
    }
}

/// The reason of the first rule that is broken.
pub(super) fn first(rules: &[(bool, &'static str)]) -> Option<&'static str> {
    rules.iter().find(|(broken, _)| *broken).map(|(_, why)| *why)
}

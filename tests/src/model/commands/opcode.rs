//! Command numbers (IHI 0070, 4.1.3).

use super::super::config::Config;

/// What a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "these are the architecture's commands, under the architecture's names")]
pub enum Opcode {
    PrefetchConfig,
    PrefetchAddr,
    CfgiSte,
    /// CMD_CFGI_ALL is the one with Range 31.
    CfgiSteRange,
    CfgiCd,
    CfgiCdAll,
    TlbiNhAll,
    TlbiNhAsid,
    TlbiNhVa,
    TlbiNhVaa,
    TlbiEl2All,
    TlbiEl2Asid,
    TlbiEl2Va,
    TlbiEl2Vaa,
    TlbiS12Vmall,
    TlbiS2Ipa,
    TlbiNsnhAll,
    AtcInv,
    PriResp,
    Resume,
    StallTerm,
    Sync,
    /// None that the Non-secure queue knows.
    Unknown(u8),
}

impl Opcode {
    pub(super) fn new(number: u64) -> Self {
        match number {
            0x01 => Self::PrefetchConfig,
            0x02 => Self::PrefetchAddr,
            0x03 => Self::CfgiSte,
            0x04 => Self::CfgiSteRange,
            0x05 => Self::CfgiCd,
            0x06 => Self::CfgiCdAll,
            0x10 => Self::TlbiNhAll,
            0x11 => Self::TlbiNhAsid,
            0x12 => Self::TlbiNhVa,
            0x13 => Self::TlbiNhVaa,
            0x20 => Self::TlbiEl2All,
            0x21 => Self::TlbiEl2Asid,
            0x22 => Self::TlbiEl2Va,
            0x23 => Self::TlbiEl2Vaa,
            0x28 => Self::TlbiS12Vmall,
            0x2a => Self::TlbiS2Ipa,
            0x30 => Self::TlbiNsnhAll,
            0x40 => Self::AtcInv,
            0x41 => Self::PriResp,
            0x44 => Self::Resume,
            0x45 => Self::StallTerm,
            0x46 => Self::Sync,
            other => Self::Unknown(other as u8),
        }
    }

    /// Whether it makes the SMMU forget translations.
    #[must_use]
    pub fn is_tlbi(self) -> bool {
        self.is_stage1_tlbi()
            || self.is_el2_tlbi()
            || matches!(self, Self::TlbiS12Vmall | Self::TlbiS2Ipa | Self::TlbiNsnhAll)
    }

    fn is_stage1_tlbi(self) -> bool {
        matches!(self, Self::TlbiNhAll | Self::TlbiNhAsid | Self::TlbiNhVa | Self::TlbiNhVaa)
    }

    fn is_el2_tlbi(self) -> bool {
        matches!(self, Self::TlbiEl2All | Self::TlbiEl2Asid | Self::TlbiEl2Va | Self::TlbiEl2Vaa)
    }

    /// What an SMMU of these features lacks for it, if anything: the command is illegal then.
    pub(super) fn lacks(self, config: &Config) -> Option<&'static str> {
        let needs = |present: bool, what| if present { None } else { Some(what) };
        match self {
            Self::CfgiCd | Self::CfgiCdAll => needs(config.s1p, "stage 1"),
            _ if self.is_stage1_tlbi() => needs(config.s1p, "stage 1"),
            _ if self.is_el2_tlbi() => needs(config.hyp, "EL2 (IDR0.Hyp)"),
            Self::TlbiS12Vmall | Self::TlbiS2Ipa => needs(config.s2p, "stage 2"),
            Self::AtcInv => needs(config.ats, "ATS"),
            Self::PriResp => needs(config.pri, "PRI"),
            Self::Resume | Self::StallTerm => needs(config.stall_model != 1, "the stall model"),
            Self::Unknown(_) => Some("any such command"),
            _ => None,
        }
    }

    /// The bits that a command of this kind may have set, both words.
    pub(super) fn defined(self, config: &Config) -> [u64; 2] {
        const SID: u64 = 0xffff_ffff << 32;
        const SSV: u64 = 1 << 11;
        const SSID: u64 = 0xf_ffff << 12;
        const VMID: u64 = 0xffff << 32;
        const ASID: u64 = 0xffff << 48;
        const ADDRESS: u64 = !0xfff;
        let (num_scale, ttl_tg) = if config.ril { (0x1f1_f000, 0xf00) } else { (0, 0) };
        let [first, second] = match self {
            Self::PrefetchConfig => [SID | SSV | SSID, 0],
            Self::PrefetchAddr => [SID | SSV | SSID, ADDRESS | 0x3ff],
            Self::CfgiSte => [SID, 1],
            Self::CfgiSteRange => [SID, 0x1f],
            Self::CfgiCd => [SID | SSID, 1],
            Self::CfgiCdAll | Self::StallTerm => [SID, 0],
            Self::TlbiNhAll | Self::TlbiS12Vmall => [VMID, 0],
            Self::TlbiNhAsid => [VMID | ASID, 0],
            Self::TlbiNhVa => [VMID | ASID | num_scale, ADDRESS | ttl_tg | 1],
            Self::TlbiNhVaa => [VMID | num_scale, ADDRESS | ttl_tg | 1],
            Self::TlbiEl2Asid => [ASID, 0],
            Self::TlbiEl2Va => [ASID | num_scale, ADDRESS | ttl_tg | 1],
            Self::TlbiEl2Vaa => [num_scale, ADDRESS | ttl_tg | 1],
            Self::TlbiS2Ipa => [VMID | num_scale, 0x000f_ffff_ffff_f000 | ttl_tg | 1],
            Self::TlbiEl2All | Self::TlbiNsnhAll => [0, 0],
            Self::AtcInv => [SID | SSV | SSID | 1 << 9, ADDRESS | 0x3f],
            Self::PriResp => [SID | SSV | SSID, 0x31ff],
            Self::Resume => [SID | 0x3000, 0xffff],
            Self::Sync => [SID | 0x3000 | 0xc0_0000 | 0xf00_0000, 0x000f_ffff_ffff_fffc],
            Self::Unknown(_) => [!0, !0],
        };
        [first | 0xff, second]
    }
}

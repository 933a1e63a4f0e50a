//! Opcodes by number and name (IHI 0070, 4.1.2).

use core::fmt;

/// Declares the enum together with its decoder and names.
macro_rules! opcodes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)*) => {
        /// The opcode of a command: bits 7:0 of its first word. 4 is both CMD_CFGI_STE_RANGE and CMD_CFGI_ALL.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Opcode {
            $(#[doc = concat!("CMD_", $name, ".")] $variant = $code,)*
        }

        impl Opcode {
            /// The opcode of an encoded command, or `None` for one that [`Command`](super::Command) does not have.
            #[must_use]
            pub const fn of(words: [u64; 2]) -> Option<Self> {
                match words[0] & 0xff {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The architecture's name, without the prefix `CMD_`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

opcodes! {
    PrefetchConfig = 0x01, "PREFETCH_CONFIG";
    CfgiSte = 0x03, "CFGI_STE";
    CfgiSteRange = 0x04, "CFGI_STE_RANGE";
    CfgiCd = 0x05, "CFGI_CD";
    CfgiCdAll = 0x06, "CFGI_CD_ALL";
    TlbiNhAll = 0x10, "TLBI_NH_ALL";
    TlbiNhAsid = 0x11, "TLBI_NH_ASID";
    TlbiNhVa = 0x12, "TLBI_NH_VA";
    TlbiNhVaa = 0x13, "TLBI_NH_VAA";
    TlbiEl2All = 0x20, "TLBI_EL2_ALL";
    TlbiEl2Asid = 0x21, "TLBI_EL2_ASID";
    TlbiEl2Va = 0x22, "TLBI_EL2_VA";
    TlbiEl2Vaa = 0x23, "TLBI_EL2_VAA";
    TlbiS12Vmall = 0x28, "TLBI_S12_VMALL";
    TlbiS2Ipa = 0x2a, "TLBI_S2_IPA";
    TlbiNsnhAll = 0x30, "TLBI_NSNH_ALL";
    AtcInv = 0x40, "ATC_INV";
    PriResp = 0x41, "PRI_RESP";
    Resume = 0x44, "RESUME";
    StallTerm = 0x45, "STALL_TERM";
    Sync = 0x46, "SYNC";
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CMD_{}", self.name())
    }
}

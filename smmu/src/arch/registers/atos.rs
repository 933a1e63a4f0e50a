//! Address translation operations: asking the SMMU how it would translate an address (IHI 0070, chapter 9). Present if
//! IDR0.ATOS is 1.

#![allow(missing_docs, reason = "register_bitfields! documents a field's module but not the constants it makes")]

use tock_registers::register_bitfields;

use super::{Register32, Register64};

/// Starts an operation.
pub const GATOS_CTRL: Register32<GATOS_CTRL::Register> = Register32::new(0x100, "GATOS_CTRL");
/// Whose translation.
pub const GATOS_SID: Register64<GATOS_SID::Register> = Register64::new(0x108, "GATOS_SID");
/// Of which address, and how it is accessed.
pub const GATOS_ADDR: Register64<GATOS_ADDR::Register> = Register64::new(0x110, "GATOS_ADDR");
/// The result.
pub const GATOS_PAR: Register64<GATOS_PAR::Register> = Register64::new(0x118, "GATOS_PAR");

register_bitfields! { u32,
    /// Fields of [`GATOS_CTRL`](const@GATOS_CTRL).
    pub GATOS_CTRL [
        /// Write 1 to start; reads as 1 until the result is there.
        RUN OFFSET(0) NUMBITS(1) []
    ]
}

register_bitfields! { u64,
    /// Fields of [`GATOS_SID`](const@GATOS_SID).
    pub GATOS_SID [
        /// The stream.
        STREAMID OFFSET(0) NUMBITS(32) [],
        /// The substream.
        SUBSTREAMID OFFSET(32) NUMBITS(20) [],
        /// SUBSTREAMID counts.
        SSID_VALID OFFSET(52) NUMBITS(1) []
    ],
    /// Fields of [`GATOS_ADDR`](const@GATOS_ADDR).
    pub GATOS_ADDR [
        /// Inhibits hardware updates of the tables.
        HTTUI OFFSET(6) NUMBITS(1) [],
        /// An instruction fetch.
        InD OFFSET(7) NUMBITS(1) [],
        /// A read.
        RnW OFFSET(8) NUMBITS(1) [],
        /// Privileged.
        PnU OFFSET(9) NUMBITS(1) [],
        /// Which stages.
        TYPE OFFSET(10) NUMBITS(2) [Stage1 = 1, Stage2 = 2, Both = 3],
        /// Bits 63:12 of the address.
        ADDR OFFSET(12) NUMBITS(52) []
    ],
    /// Fields of [`GATOS_PAR`](const@GATOS_PAR). FAULT says which of them count.
    pub GATOS_PAR [
        /// The translation failed: REASON, FAULTCODE and FADDR count; else SH, Size, ADDR and ATTR.
        FAULT OFFSET(0) NUMBITS(1) [],
        /// Where it failed: 0 stage 1 or other, 1 to 3 stage 2 for a CD, for a stage 1 descriptor, for the input.
        REASON OFFSET(1) NUMBITS(2) [],
        /// Shareability.
        SH OFFSET(8) NUMBITS(2) [],
        /// The number of an event, or 0xff INV_REQ, 0xfe INV_STAGE, 0xfd INTERNAL_ERR.
        FAULTCODE OFFSET(4) NUMBITS(8) [],
        /// 1: the lowest set bit N of ADDR says that the page has 2^(N + 1) bytes.
        Size OFFSET(11) NUMBITS(1) [],
        /// Bits 55:12 of the translated address, or of the faulting intermediate address (FADDR).
        ADDR OFFSET(12) NUMBITS(44) [],
        /// The memory attribute, as a byte of MAIR.
        ATTR OFFSET(56) NUMBITS(8) []
    ]
}

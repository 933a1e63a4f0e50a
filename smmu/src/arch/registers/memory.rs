//! Where the stream table and the queues are, their indexes, and where interrupts go (IHI 0070, 6.3.17 to 6.3.35 and
//! 6.3.95 to 6.3.98).
//!
//! Address fields hold the address without its low bits: the value for `ADDR` at bit 6 is the address shifted right
//! by 6.

#![allow(missing_docs, reason = "register_bitfields! documents a field's module but not the constants it makes")]

use tock_registers::register_bitfields;

use super::{Register32, Register64};

/// MSI address for global errors.
pub const GERROR_IRQ_CFG0: Register64<IRQ_CFG0::Register> = Register64::new(0x68, "GERROR_IRQ_CFG0");
/// MSI data for global errors.
pub const GERROR_IRQ_CFG1: Register32<IRQ_CFG1::Register> = Register32::new(0x70, "GERROR_IRQ_CFG1");
/// MSI attributes for global errors.
pub const GERROR_IRQ_CFG2: Register32<IRQ_CFG2::Register> = Register32::new(0x74, "GERROR_IRQ_CFG2");
/// Address of the stream table.
pub const STRTAB_BASE: Register64<STRTAB_BASE::Register> = Register64::new(0x80, "STRTAB_BASE");
/// Size and format of the stream table.
pub const STRTAB_BASE_CFG: Register32<STRTAB_BASE_CFG::Register> = Register32::new(0x88, "STRTAB_BASE_CFG");
/// Address and size of the command queue.
pub const CMDQ_BASE: Register64<CMDQ_BASE::Register> = Register64::new(0x90, "CMDQ_BASE");
/// Producer index of the command queue: software writes it.
pub const CMDQ_PROD: Register32<CMDQ_PROD::Register> = Register32::new(0x98, "CMDQ_PROD");
/// Consumer index of the command queue and its error code.
pub const CMDQ_CONS: Register32<CMDQ_CONS::Register> = Register32::new(0x9c, "CMDQ_CONS");
/// Address and size of the event queue.
pub const EVENTQ_BASE: Register64<OUTPUT_QUEUE_BASE::Register> = Register64::new(0xa0, "EVENTQ_BASE");
/// MSI address for the event queue.
pub const EVENTQ_IRQ_CFG0: Register64<IRQ_CFG0::Register> = Register64::new(0xb0, "EVENTQ_IRQ_CFG0");
/// MSI data for the event queue.
pub const EVENTQ_IRQ_CFG1: Register32<IRQ_CFG1::Register> = Register32::new(0xb8, "EVENTQ_IRQ_CFG1");
/// MSI attributes for the event queue.
pub const EVENTQ_IRQ_CFG2: Register32<IRQ_CFG2::Register> = Register32::new(0xbc, "EVENTQ_IRQ_CFG2");
/// Address and size of the page request queue.
pub const PRIQ_BASE: Register64<OUTPUT_QUEUE_BASE::Register> = Register64::new(0xc0, "PRIQ_BASE");
/// MSI address for the page request queue.
pub const PRIQ_IRQ_CFG0: Register64<IRQ_CFG0::Register> = Register64::new(0xd0, "PRIQ_IRQ_CFG0");
/// MSI data for the page request queue.
pub const PRIQ_IRQ_CFG1: Register32<IRQ_CFG1::Register> = Register32::new(0xd8, "PRIQ_IRQ_CFG1");
/// MSI attributes for the page request queue, and when it interrupts.
pub const PRIQ_IRQ_CFG2: Register32<IRQ_CFG2::Register> = Register32::new(0xdc, "PRIQ_IRQ_CFG2");

// The alias of these four on page 0 may read as zero and ignore writes (6.2.1), so page 1 it is.
/// Producer index of the event queue: the SMMU writes it. On page 1.
pub const EVENTQ_PROD: Register32<OUTPUT_QUEUE_PROD::Register> = Register32::new(0x1_00a8, "EVENTQ_PROD");
/// Consumer index of the event queue. On page 1.
pub const EVENTQ_CONS: Register32<OUTPUT_QUEUE_CONS::Register> = Register32::new(0x1_00ac, "EVENTQ_CONS");
/// Producer index of the page request queue: the SMMU writes it. On page 1.
pub const PRIQ_PROD: Register32<OUTPUT_QUEUE_PROD::Register> = Register32::new(0x1_00c8, "PRIQ_PROD");
/// Consumer index of the page request queue. On page 1.
pub const PRIQ_CONS: Register32<OUTPUT_QUEUE_CONS::Register> = Register32::new(0x1_00cc, "PRIQ_CONS");

register_bitfields! { u64,
    /// Fields of the three `*_IRQ_CFG0` registers.
    pub IRQ_CFG0 [
        /// Bits 55:2 of the address the MSI is written to; 0: no MSI.
        ADDR OFFSET(2) NUMBITS(54) []
    ],
    /// Fields of [`STRTAB_BASE`](const@STRTAB_BASE).
    pub STRTAB_BASE [
        /// Bits 55:6 of the address.
        ADDR OFFSET(6) NUMBITS(50) [],
        /// Read-allocate hint.
        RA OFFSET(62) NUMBITS(1) []
    ],
    /// Fields of [`CMDQ_BASE`](const@CMDQ_BASE).
    pub CMDQ_BASE [
        /// log2 of the number of entries of 16 bytes.
        LOG2SIZE OFFSET(0) NUMBITS(5) [],
        /// Bits 55:5 of the address.
        ADDR OFFSET(5) NUMBITS(51) [],
        /// Read-allocate hint.
        RA OFFSET(62) NUMBITS(1) []
    ],
    /// Fields of [`EVENTQ_BASE`](const@EVENTQ_BASE) and [`PRIQ_BASE`](const@PRIQ_BASE).
    pub OUTPUT_QUEUE_BASE [
        /// log2 of the number of entries: of 32 bytes (events) or of 16 bytes (page requests).
        LOG2SIZE OFFSET(0) NUMBITS(5) [],
        /// Bits 55:5 of the address.
        ADDR OFFSET(5) NUMBITS(51) [],
        /// Write-allocate hint.
        WA OFFSET(62) NUMBITS(1) []
    ]
}

register_bitfields! { u32,
    /// Fields of the three `*_IRQ_CFG1` registers.
    pub IRQ_CFG1 [
        /// The word the MSI writes.
        DATA OFFSET(0) NUMBITS(32) []
    ],
    /// Fields of the three `*_IRQ_CFG2` registers.
    pub IRQ_CFG2 [
        /// Memory type of the MSI write; see [`MemAttr`](crate::arch::attributes::MemAttr).
        MemAttr OFFSET(0) NUMBITS(4) [],
        /// Shareability of the MSI write.
        SH OFFSET(4) NUMBITS(2) [NonShareable = 0, OuterShareable = 2, InnerShareable = 3],
        /// PRIQ_IRQ_CFG2 only: interrupt on the last request of a group, not on a queue that becomes non-empty.
        LO OFFSET(31) NUMBITS(1) []
    ],
    /// Fields of [`STRTAB_BASE_CFG`](const@STRTAB_BASE_CFG).
    pub STRTAB_BASE_CFG [
        /// log2 of the number of StreamIDs covered.
        LOG2SIZE OFFSET(0) NUMBITS(6) [],
        /// Bits of the StreamID that the second level resolves.
        SPLIT OFFSET(6) NUMBITS(5) [Bits6 = 6, Bits8 = 8, Bits10 = 10],
        /// Format.
        FMT OFFSET(16) NUMBITS(2) [Linear = 0, TwoLevel = 1]
    ],
    /// Fields of [`CMDQ_PROD`](const@CMDQ_PROD).
    pub CMDQ_PROD [
        /// Index with the wrap bit above it.
        WR OFFSET(0) NUMBITS(20) []
    ],
    /// Fields of [`CMDQ_CONS`](const@CMDQ_CONS).
    pub CMDQ_CONS [
        /// Index with the wrap bit above it.
        RD OFFSET(0) NUMBITS(20) [],
        /// Why the command at RD failed; see [`CommandError`](crate::arch::command::CommandError).
        ERR OFFSET(24) NUMBITS(7) []
    ],
    /// Fields of [`EVENTQ_PROD`](const@EVENTQ_PROD) and [`PRIQ_PROD`](const@PRIQ_PROD).
    pub OUTPUT_QUEUE_PROD [
        /// Index with the wrap bit above it.
        WR OFFSET(0) NUMBITS(20) [],
        /// Differs from OVACKFLG while an overflow is unacknowledged.
        OVFLG OFFSET(31) NUMBITS(1) []
    ],
    /// Fields of [`EVENTQ_CONS`](const@EVENTQ_CONS) and [`PRIQ_CONS`](const@PRIQ_CONS).
    pub OUTPUT_QUEUE_CONS [
        /// Index with the wrap bit above it.
        RD OFFSET(0) NUMBITS(20) [],
        /// Made equal to OVFLG to acknowledge an overflow.
        OVACKFLG OFFSET(31) NUMBITS(1) []
    ]
}

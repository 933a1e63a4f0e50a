//! Switches and error state: CR0 to CR2, GBPA, interrupts, global errors (IHI 0070, 6.3.9 to 6.3.20).

#![allow(missing_docs, reason = "register_bitfields! documents a field's module but not the constants it makes")]

use tock_registers::register_bitfields;

use super::{Register32, Register64};

/// Enables. A change has happened when [`CR0ACK`](const@CR0ACK) shows it.
pub const CR0: Register32<CR0::Register> = Register32::new(0x20, "CR0");
/// What of [`CR0`](const@CR0) is in force.
pub const CR0ACK: Register32<CR0::Register> = Register32::new(0x24, "CR0ACK");
/// Attributes of table and queue accesses; written while the SMMU and its queues are off.
pub const CR1: Register32<CR1::Register> = Register32::new(0x28, "CR1");
/// More modes; written while the SMMU is off.
pub const CR2: Register32<CR2::Register> = Register32::new(0x2c, "CR2");
/// Stage-2 permission indirection: sixteen fields of four bits. Present if IDR3.S2PI is 1.
pub const S2PII: Register64<()> = Register64::new(0x30, "S2PII");
/// Status.
pub const STATUSR: Register32<STATUSR::Register> = Register32::new(0x40, "STATUSR");
/// What happens to transactions while the SMMU is off. Written with UPDATE set, while UPDATE reads as 0.
pub const GBPA: Register32<GBPA::Register> = Register32::new(0x44, "GBPA");
/// Implementation defined companion of GBPA.
pub const AGBPA: Register32<()> = Register32::new(0x48, "AGBPA");
/// Interrupt enables. A change has happened when [`IRQ_CTRLACK`](const@IRQ_CTRLACK) shows it.
pub const IRQ_CTRL: Register32<IRQ_CTRL::Register> = Register32::new(0x50, "IRQ_CTRL");
/// What of [`IRQ_CTRL`](const@IRQ_CTRL) is in force.
pub const IRQ_CTRLACK: Register32<IRQ_CTRL::Register> = Register32::new(0x54, "IRQ_CTRLACK");
/// Global errors: a bit that differs from [`GERRORN`](const@GERRORN) is active.
pub const GERROR: Register32<GERROR::Register> = Register32::new(0x60, "GERROR");
/// Acknowledgements of global errors.
pub const GERRORN: Register32<GERROR::Register> = Register32::new(0x64, "GERRORN");

register_bitfields! { u32,
    /// Fields of [`CR0`](const@CR0) and [`CR0ACK`](const@CR0ACK).
    pub CR0 [
        /// Translation; while 0, GBPA rules.
        SMMUEN OFFSET(0) NUMBITS(1) [],
        /// Page request queue.
        PRIQEN OFFSET(1) NUMBITS(1) [],
        /// Event queue.
        EVENTQEN OFFSET(2) NUMBITS(1) [],
        /// Command queue.
        CMDQEN OFFSET(3) NUMBITS(1) [],
        /// Translated transactions are checked against STE.EATS.
        ATSCHK OFFSET(4) NUMBITS(1) [],
        /// VMID wildcard: 0 exact, 1 to 4 low bits ignored.
        VMW OFFSET(6) NUMBITS(3) [],
        /// Device permission table walks.
        DPT_WALK_EN OFFSET(10) NUMBITS(1) []
    ],
    /// Fields of [`CR1`](const@CR1). Codes of [`Cacheability`](crate::arch::attributes::Cacheability) and
    /// [`Shareability`](crate::arch::attributes::Shareability).
    pub CR1 [
        /// Inner cacheability of queues.
        QUEUE_IC OFFSET(0) NUMBITS(2) [NonCacheable = 0, WriteBack = 1, WriteThrough = 2],
        /// Outer cacheability of queues.
        QUEUE_OC OFFSET(2) NUMBITS(2) [NonCacheable = 0, WriteBack = 1, WriteThrough = 2],
        /// Shareability of queues.
        QUEUE_SH OFFSET(4) NUMBITS(2) [NonShareable = 0, OuterShareable = 2, InnerShareable = 3],
        /// Inner cacheability of the stream table.
        TABLE_IC OFFSET(6) NUMBITS(2) [NonCacheable = 0, WriteBack = 1, WriteThrough = 2],
        /// Outer cacheability of the stream table.
        TABLE_OC OFFSET(8) NUMBITS(2) [NonCacheable = 0, WriteBack = 1, WriteThrough = 2],
        /// Shareability of the stream table.
        TABLE_SH OFFSET(10) NUMBITS(2) [NonShareable = 0, OuterShareable = 2, InnerShareable = 3]
    ],
    /// Fields of [`CR2`](const@CR2).
    pub CR2 [
        /// STRW = EL2 means EL2-E2H.
        E2H OFFSET(0) NUMBITS(1) [],
        /// C_BAD_STREAMID is recorded.
        RECINVSID OFFSET(1) NUMBITS(1) [],
        /// Broadcast TLB maintenance is ignored.
        PTM OFFSET(2) NUMBITS(1) [],
        /// Configuration errors of ATS and PRI traffic are recorded.
        REC_CFG_ATS OFFSET(3) NUMBITS(1) []
    ],
    /// Fields of [`STATUSR`](const@STATUSR).
    pub STATUSR [
        /// Caches hold nothing of structures and tables.
        DORMANT OFFSET(0) NUMBITS(1) []
    ],
    /// Fields of [`GBPA`](const@GBPA).
    pub GBPA [
        /// Memory type, if MTCFG; see [`MemAttr`](crate::arch::attributes::MemAttr).
        MemAttr OFFSET(0) NUMBITS(4) [],
        /// The memory type is replaced.
        MTCFG OFFSET(4) NUMBITS(1) [],
        /// Allocation hints: 0 use incoming.
        ALLOCCFG OFFSET(8) NUMBITS(4) [],
        /// Shareability.
        SHCFG OFFSET(12) NUMBITS(2) [NonShareable = 0, UseIncoming = 1, OuterShareable = 2, InnerShareable = 3],
        /// Privilege.
        PRIVCFG OFFSET(16) NUMBITS(2) [UseIncoming = 0, Unprivileged = 2, Privileged = 3],
        /// Data or instruction.
        INSTCFG OFFSET(18) NUMBITS(2) [UseIncoming = 0, Data = 2, Instruction = 3],
        /// Every transaction aborts while CR0.SMMUEN is 0.
        ABORT OFFSET(20) NUMBITS(1) [],
        /// Write 1 to change the register; reads as 1 until it has.
        UPDATE OFFSET(31) NUMBITS(1) []
    ],
    /// Fields of [`IRQ_CTRL`](const@IRQ_CTRL) and [`IRQ_CTRLACK`](const@IRQ_CTRLACK).
    pub IRQ_CTRL [
        /// Global error interrupt.
        GERROR_IRQEN OFFSET(0) NUMBITS(1) [],
        /// Page request queue interrupt.
        PRIQ_IRQEN OFFSET(1) NUMBITS(1) [],
        /// Event queue interrupt.
        EVENTQ_IRQEN OFFSET(2) NUMBITS(1) []
    ],
    /// Fields of [`GERROR`](const@GERROR) and [`GERRORN`](const@GERRORN) (IHI 0070, 7.5).
    pub GERROR [
        /// A command failed: CMDQ_CONS.ERR says why. The command queue stands still.
        CMDQ_ERR OFFSET(0) NUMBITS(1) [],
        /// A write to the event queue aborted.
        EVENTQ_ABT_ERR OFFSET(2) NUMBITS(1) [],
        /// A write to the page request queue aborted.
        PRIQ_ABT_ERR OFFSET(3) NUMBITS(1) [],
        /// The MSI of a CMD_SYNC aborted.
        MSI_CMDQ_ABT_ERR OFFSET(4) NUMBITS(1) [],
        /// The MSI of the event queue aborted.
        MSI_EVENTQ_ABT_ERR OFFSET(5) NUMBITS(1) [],
        /// The MSI of the page request queue aborted.
        MSI_PRIQ_ABT_ERR OFFSET(6) NUMBITS(1) [],
        /// The MSI of a global error aborted; raises no interrupt.
        MSI_GERROR_ABT_ERR OFFSET(7) NUMBITS(1) [],
        /// Service failure mode: the SMMU has stopped for good.
        SFM_ERR OFFSET(8) NUMBITS(1) [],
        /// An enhanced command queue failed.
        CMDQP_ERR OFFSET(9) NUMBITS(1) [],
        /// A device permission table lookup failed.
        DPT_ERR OFFSET(10) NUMBITS(1) []
    ]
}

//! Who may access which register how, and when (IHI 0070, 6.2 and 6.3).

use super::super::config::Config;
use super::offset::*;

/// The enables in CR0 and IRQ_CTRL.
pub(in super::super) mod enable {
    pub(in super::super::super) const SMMUEN: u32 = 1 << 0;
    pub(in super::super::super) const PRIQEN: u32 = 1 << 1;
    pub(in super::super::super) const EVENTQEN: u32 = 1 << 2;
    pub(in super::super::super) const CMDQEN: u32 = 1 << 3;
    pub(in super::super::super) const ATSCHK: u32 = 1 << 4;
    pub(in super::super::super) const GERROR_IRQEN: u32 = 1 << 0;
    pub(in super::super::super) const PRIQ_IRQEN: u32 = 1 << 1;
    pub(in super::super::super) const EVENTQ_IRQEN: u32 = 1 << 2;
}
use enable::*;

/// What must be 0, acknowledged, for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    None,
    /// Enables in CR0.
    Cr0(u32),
    /// Enables in IRQ_CTRL.
    IrqCtrl(u32),
}

/// One register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) offset: usize,
    pub(super) name: &'static str,
    pub(super) bytes: usize,
    /// The bits that software may set; none for a register that it may only read.
    pub(super) writable: u64,
    pub(super) guard: Guard,
}

const fn word(offset: usize, name: &'static str, writable: u64, guard: Guard) -> Rule {
    Rule { offset, name, bytes: 4, writable, guard }
}

const fn double(offset: usize, name: &'static str, writable: u64, guard: Guard) -> Rule {
    Rule { offset, name, bytes: 8, writable, guard }
}

/// The index and wrap bits of a queue register, and its overflow flag.
const INDEX: u64 = 0xf_ffff;
const OVERFLOW: u64 = 1 << 31;
/// ADDR of an MSI: 51:2 up to SMMUv3.3.
const MSI_ADDRESS: u64 = 0x000f_ffff_ffff_fffc;
/// RA or WA, ADDR 51:5, LOG2SIZE.
const QUEUE_BASE: u64 = 1 << 62 | 0x000f_ffff_ffff_ffff;

pub(super) const RULES: [Rule; 52] = [
    word(IDR0, "IDR0", 0, Guard::None),
    word(IDR1, "IDR1", 0, Guard::None),
    word(IDR2, "IDR2", 0, Guard::None),
    word(IDR3, "IDR3", 0, Guard::None),
    word(IDR4, "IDR4", 0, Guard::None),
    word(IDR5, "IDR5", 0, Guard::None),
    word(IIDR, "IIDR", 0, Guard::None),
    word(AIDR, "AIDR", 0, Guard::None),
    word(CR0, "CR0", 0x1df, Guard::None),
    word(CR0ACK, "CR0ACK", 0, Guard::None),
    // Queue and table attributes have guards of their own: see `guard`.
    word(CR1, "CR1", 0xfff, Guard::None),
    word(CR2, "CR2", 0xf, Guard::Cr0(SMMUEN)),
    word(STATUSR, "STATUSR", 0, Guard::None),
    word(GBPA, "GBPA", 0x801f_3f1f, Guard::None),
    word(AGBPA, "AGBPA", 0, Guard::None),
    word(IRQ_CTRL, "IRQ_CTRL", 0x7, Guard::None),
    word(IRQ_CTRLACK, "IRQ_CTRLACK", 0, Guard::None),
    word(GERROR, "GERROR", 0, Guard::None),
    word(GERRORN, "GERRORN", 0x1fd, Guard::None),
    double(GERROR_IRQ_CFG0, "GERROR_IRQ_CFG0", MSI_ADDRESS, Guard::IrqCtrl(GERROR_IRQEN)),
    word(GERROR_IRQ_CFG1, "GERROR_IRQ_CFG1", 0xffff_ffff, Guard::IrqCtrl(GERROR_IRQEN)),
    word(GERROR_IRQ_CFG2, "GERROR_IRQ_CFG2", 0x3f, Guard::IrqCtrl(GERROR_IRQEN)),
    double(STRTAB_BASE, "STRTAB_BASE", 1 << 62 | 0x000f_ffff_ffff_ffc0, Guard::Cr0(SMMUEN)),
    word(STRTAB_BASE_CFG, "STRTAB_BASE_CFG", 0x3_07ff, Guard::Cr0(SMMUEN)),
    double(CMDQ_BASE, "CMDQ_BASE", QUEUE_BASE, Guard::Cr0(CMDQEN)),
    word(CMDQ_PROD, "CMDQ_PROD", INDEX, Guard::None),
    word(CMDQ_CONS, "CMDQ_CONS", INDEX | 0x7f00_0000, Guard::Cr0(CMDQEN)),
    double(EVENTQ_BASE, "EVENTQ_BASE", QUEUE_BASE, Guard::Cr0(EVENTQEN)),
    double(EVENTQ_IRQ_CFG0, "EVENTQ_IRQ_CFG0", MSI_ADDRESS, Guard::IrqCtrl(EVENTQ_IRQEN)),
    word(EVENTQ_IRQ_CFG1, "EVENTQ_IRQ_CFG1", 0xffff_ffff, Guard::IrqCtrl(EVENTQ_IRQEN)),
    word(EVENTQ_IRQ_CFG2, "EVENTQ_IRQ_CFG2", 0x3f, Guard::IrqCtrl(EVENTQ_IRQEN)),
    double(PRIQ_BASE, "PRIQ_BASE", QUEUE_BASE, Guard::Cr0(PRIQEN)),
    double(PRIQ_IRQ_CFG0, "PRIQ_IRQ_CFG0", MSI_ADDRESS, Guard::IrqCtrl(PRIQ_IRQEN)),
    word(PRIQ_IRQ_CFG1, "PRIQ_IRQ_CFG1", 0xffff_ffff, Guard::IrqCtrl(PRIQ_IRQEN)),
    word(PRIQ_IRQ_CFG2, "PRIQ_IRQ_CFG2", 0x8000_003f, Guard::IrqCtrl(PRIQ_IRQEN)),
    // What the model has registers for, and does nothing with: those who do without leave them alone.
    double(S2PII, "S2PII", !0, Guard::Cr0(SMMUEN)),
    word(GATOS_CTRL, "GATOS_CTRL", 1, Guard::None),
    double(GATOS_SID, "GATOS_SID", 0x001f_ffff_ffff_ffff, Guard::None),
    double(GATOS_ADDR, "GATOS_ADDR", !0x3f, Guard::None),
    double(GATOS_PAR, "GATOS_PAR", 0, Guard::None),
    word(MPAMIDR, "MPAMIDR", 0, Guard::None),
    word(GMPAM, "GMPAM", 0x80ff_ffff, Guard::None),
    word(GBPMPAM, "GBPMPAM", 0x80ff_ffff, Guard::None),
    word(VATOS_SEL, "VATOS_SEL", 0xffff, Guard::None),
    word(IDR6, "IDR6", 0, Guard::None),
    double(DPT_BASE, "DPT_BASE", !0, Guard::None),
    word(DPT_BASE_CFG, "DPT_BASE_CFG", 0xffff_ffff, Guard::None),
    double(DPT_CFG_FAR, "DPT_CFG_FAR", !0, Guard::None),
    word(EVENTQ_PROD, "EVENTQ_PROD", INDEX | OVERFLOW, Guard::Cr0(EVENTQEN)),
    word(EVENTQ_CONS, "EVENTQ_CONS", INDEX | OVERFLOW, Guard::None),
    word(PRIQ_PROD, "PRIQ_PROD", INDEX | OVERFLOW, Guard::Cr0(PRIQEN)),
    word(PRIQ_CONS, "PRIQ_CONS", INDEX | OVERFLOW, Guard::None),
];

/// The register that holds the byte at `offset`, if there is one.
pub(super) fn rule(offset: usize) -> Option<&'static Rule> {
    RULES.iter().find(|rule| (rule.offset..rule.offset + rule.bytes).contains(&offset))
}

impl Rule {
    /// Why this SMMU does not have the register, if so.
    pub(super) fn absent(&self, config: &Config) -> Option<&'static str> {
        match self.offset {
            PRIQ_BASE | PRIQ_PROD | PRIQ_CONS | PRIQ_IRQ_CFG0 | PRIQ_IRQ_CFG1 | PRIQ_IRQ_CFG2 if !config.pri => {
                Some("IDR0.PRI is 0")
            }
            GATOS_CTRL | GATOS_SID | GATOS_ADDR | GATOS_PAR if !config.announces(IDR0, 15) => Some("IDR0.ATOS is 0"),
            VATOS_SEL if !config.announces(IDR0, 20) => Some("IDR0.VATOS is 0"),
            IDR6 if !config.announces(IDR1, 31) => Some("IDR1.ECMDQ is 0"),
            MPAMIDR | GMPAM | GBPMPAM if !config.announces(IDR3, 7) => Some("IDR3.MPAM is 0"),
            DPT_BASE | DPT_BASE_CFG | DPT_CFG_FAR if !config.announces(IDR3, 15) => Some("IDR3.DPT is 0"),
            S2PII if !config.announces(IDR3, 19) => Some("IDR3.S2PI is 0"),
            _ => None,
        }
    }

    /// What must be 0 for a write that changes the bits in `changed`.
    pub(super) fn guard(&self, changed: u64) -> Guard {
        if self.offset != CR1 {
            return self.guard;
        }
        let tables = if changed & 0xfc0 == 0 { 0 } else { SMMUEN };
        let queues = if changed & 0x3f == 0 { 0 } else { CMDQEN | EVENTQEN | PRIQEN };
        Guard::Cr0(tables | queues)
    }

    /// The bits that software may set on an SMMU of these features.
    pub(super) fn writable(&self, config: &Config) -> u64 {
        let absent = match self.offset {
            CR0 => {
                let unless = |present: bool, bits: u64| if present { 0 } else { bits };
                unless(config.pri, 1 << 1) | unless(config.ats, 1 << 4) | unless(config.vmw, 7 << 6)
            }
            CR2 if !config.atsrecerr => 1 << 3,
            CR2 if !config.hyp => 1 << 0,
            GERRORN if !config.pri => 1 << 3 | 1 << 6,
            _ => 0,
        };
        self.writable & !absent
    }
}

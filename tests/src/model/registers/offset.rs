//! Where the registers are, in bytes from the start of page 0 (IHI 0070, 6.1).

use std::ops::RangeInclusive;

pub(in super::super) const IDR0: usize = 0x0;
pub(in super::super) const IDR1: usize = 0x4;
pub(in super::super) const IDR2: usize = 0x8;
pub(in super::super) const IDR3: usize = 0xc;
pub(in super::super) const IDR4: usize = 0x10;
pub(in super::super) const IDR5: usize = 0x14;
pub(in super::super) const IIDR: usize = 0x18;
pub(in super::super) const AIDR: usize = 0x1c;
pub(in super::super) const CR0: usize = 0x20;
pub(in super::super) const CR0ACK: usize = 0x24;
pub(in super::super) const CR1: usize = 0x28;
pub(in super::super) const CR2: usize = 0x2c;
pub(super) const S2PII: usize = 0x30;
pub(in super::super) const STATUSR: usize = 0x40;
pub(in super::super) const GBPA: usize = 0x44;
pub(in super::super) const AGBPA: usize = 0x48;
pub(in super::super) const IRQ_CTRL: usize = 0x50;
pub(in super::super) const IRQ_CTRLACK: usize = 0x54;
pub(in super::super) const GERROR: usize = 0x60;
pub(in super::super) const GERRORN: usize = 0x64;
pub(in super::super) const GERROR_IRQ_CFG0: usize = 0x68;
pub(in super::super) const GERROR_IRQ_CFG1: usize = 0x70;
pub(in super::super) const GERROR_IRQ_CFG2: usize = 0x74;
pub(in super::super) const STRTAB_BASE: usize = 0x80;
pub(in super::super) const STRTAB_BASE_CFG: usize = 0x88;
pub(in super::super) const CMDQ_BASE: usize = 0x90;
pub(in super::super) const CMDQ_PROD: usize = 0x98;
pub(in super::super) const CMDQ_CONS: usize = 0x9c;
pub(in super::super) const EVENTQ_BASE: usize = 0xa0;
pub(in super::super) const EVENTQ_IRQ_CFG0: usize = 0xb0;
pub(in super::super) const EVENTQ_IRQ_CFG1: usize = 0xb8;
pub(in super::super) const EVENTQ_IRQ_CFG2: usize = 0xbc;
pub(in super::super) const PRIQ_BASE: usize = 0xc0;
pub(in super::super) const PRIQ_IRQ_CFG0: usize = 0xd0;
pub(in super::super) const PRIQ_IRQ_CFG1: usize = 0xd8;
pub(in super::super) const PRIQ_IRQ_CFG2: usize = 0xdc;
pub(super) const GATOS_CTRL: usize = 0x100;
pub(super) const GATOS_SID: usize = 0x108;
pub(super) const GATOS_ADDR: usize = 0x110;
pub(super) const GATOS_PAR: usize = 0x118;
pub(super) const MPAMIDR: usize = 0x130;
pub(super) const GMPAM: usize = 0x138;
pub(super) const GBPMPAM: usize = 0x13c;
pub(super) const VATOS_SEL: usize = 0x180;
pub(super) const IDR6: usize = 0x190;
pub(super) const DPT_BASE: usize = 0x200;
pub(super) const DPT_BASE_CFG: usize = 0x208;
pub(super) const DPT_CFG_FAR: usize = 0x210;
pub(in super::super) const EVENTQ_PROD: usize = 0x100a8;
pub(in super::super) const EVENTQ_CONS: usize = 0x100ac;
pub(in super::super) const PRIQ_PROD: usize = 0x100c8;
pub(in super::super) const PRIQ_CONS: usize = 0x100cc;

/// CoreSight identification: may be read, says nothing here.
pub(super) const CORESIGHT: RangeInclusive<usize> = 0xfd0..=0xffc;

//! Register contents, accesses, and changes that hardware acknowledges later.

use std::collections::BTreeMap;

use super::super::Machine;
use super::super::bits::bit;
use super::super::config::Config;
use super::super::laws::Law;
use super::super::log::Entry;
use super::offset::*;
use super::rules::{Guard, Rule, rule};

/// GBPA.Update.
const UPDATE: u32 = 1 << 31;
/// The bits of GERROR that exist.
const ERRORS: u32 = 0x1fd;

/// The contents of the registers, by offset; 64-bit registers as two halves.
#[derive(Clone, Debug)]
pub(in super::super) struct RegisterFile {
    values: BTreeMap<usize, u32>,
    /// Changes that were written and not acknowledged yet: the register, and how many ticks are left.
    pending: Vec<(usize, u32)>,
}

impl RegisterFile {
    pub(in super::super) fn new(config: &Config) -> Self {
        let mut values: BTreeMap<_, _> = config.identification().into_iter().collect();
        // Reset: enables and errors are 0, GBPA is up to the implementation, all else is unknown.
        for offset in [CR1, CR2, STRTAB_BASE, STRTAB_BASE_CFG, CMDQ_BASE, CMDQ_PROD, CMDQ_CONS, EVENTQ_BASE] {
            values.insert(offset, 0xfead_f00d);
        }
        for offset in [EVENTQ_PROD, EVENTQ_CONS] {
            values.insert(offset, 0x000d_f00d);
        }
        values.insert(GBPA, config.gbpa);
        Self { values, pending: Vec::new() }
    }

    /// A 32-bit register, or half of a 64-bit one.
    pub(in super::super) fn get(&self, offset: usize) -> u32 {
        self.values.get(&offset).copied().unwrap_or(0)
    }

    pub(in super::super) fn set(&mut self, offset: usize, value: u32) {
        self.values.insert(offset, value);
    }

    pub(in super::super) fn get64(&self, offset: usize) -> u64 {
        u64::from(self.get(offset)) | u64::from(self.get(offset + 4)) << 32
    }

    fn load(&self, offset: usize, bytes: usize) -> u64 {
        if bytes == 8 { self.get64(offset) } else { self.get(offset).into() }
    }

    fn store(&mut self, offset: usize, bytes: usize, value: u64) {
        self.set(offset, value as u32);
        if bytes == 8 {
            self.set(offset + 4, (value >> 32) as u32);
        }
    }

    /// The errors that are active: bits of GERROR that differ from GERRORN.
    pub(in super::super) fn active_errors(&self) -> u32 {
        (self.get(GERROR) ^ self.get(GERRORN)) & ERRORS
    }

    /// Whether all of these enables are in force: acknowledged.
    pub(in super::super) fn enabled(&self, enables: u32) -> bool {
        self.get(CR0ACK) & enables == enables
    }

    fn is_pending(&self, offset: usize) -> bool {
        self.pending.iter().any(|&(pending, _)| pending == offset)
    }

    fn blocks(&self, guard: Guard) -> bool {
        match guard {
            Guard::None => false,
            Guard::Cr0(enables) => (self.get(CR0) | self.get(CR0ACK)) & enables != 0,
            Guard::IrqCtrl(enables) => (self.get(IRQ_CTRL) | self.get(IRQ_CTRLACK)) & enables != 0,
        }
    }
}

impl Machine {
    /// A read of `bytes` bytes by software.
    pub(in super::super) fn read_register(&mut self, offset: usize, bytes: usize) -> u64 {
        self.platform.register_read();
        self.tick();
        if self.faults.registers_read_ones {
            return u64::MAX;
        }
        match self.check_access(offset, bytes) {
            Some(_) => {
                if matches!(offset, EVENTQ_PROD | PRIQ_PROD) {
                    self.note_news(offset);
                }
                self.registers.load(offset, bytes)
            }
            None => 0,
        }
    }

    /// A write of `bytes` bytes by software.
    pub(in super::super) fn write_register(&mut self, offset: usize, bytes: usize, value: u64) {
        self.log.push(Entry::Write { offset, value });
        if self.faults.registers_read_ones {
            return;
        }
        let Some(rule) = self.check_access(offset, bytes) else { return };
        let shift = (offset - rule.offset) * 8;
        let changed = (self.registers.load(offset, bytes) ^ value) << shift;
        if self.registers.blocks(rule.guard(changed)) {
            let details = format!("{} was written ({value:#x}) while it is enabled", rule.name);
            return self.violation(Law::GuardedRegister, details);
        }
        if rule.writable == 0 {
            return self.violation(Law::RegisterAccess, format!("{} is read-only", rule.name));
        }
        let reserved = (value << shift) & !rule.writable(&self.config);
        if reserved != 0 {
            self.violation(Law::ReservedBit, format!("{}: reserved bits {reserved:#x} written as 1", rule.name));
        }
        self.write_checked(offset, bytes, (value << shift & rule.writable) >> shift);
    }

    /// The register at `offset`, if software may access it with this size.
    fn check_access(&self, offset: usize, bytes: usize) -> Option<&'static Rule> {
        if CORESIGHT.contains(&offset) && bytes == 4 {
            return None;
        }
        let found = rule(offset).filter(|rule| offset.is_multiple_of(bytes) && bytes <= rule.bytes);
        let absent = found.and_then(|rule| rule.absent(&self.config));
        if found.is_none() || absent.is_some() {
            let why = absent.unwrap_or("no register of that size is there");
            self.violation(Law::RegisterAccess, format!("{bytes} bytes at {offset:#x}: {why}"));
            return None;
        }
        found
    }

    fn write_checked(&mut self, offset: usize, bytes: usize, value: u64) {
        let low = value as u32;
        match offset {
            CR0 => self.write_acknowledged(CR0, CR0ACK, low),
            IRQ_CTRL => self.write_acknowledged(IRQ_CTRL, IRQ_CTRLACK, low),
            GBPA => self.write_gbpa(low),
            GERRORN => self.write_gerrorn(low),
            CMDQ_PROD => self.write_command_producer(low),
            EVENTQ_CONS => self.write_consumer(EVENTQ_CONS, low),
            PRIQ_CONS => self.write_consumer(PRIQ_CONS, low),
            _ => self.registers.store(offset, bytes, value),
        }
    }

    /// CR0 and IRQ_CTRL: fields take effect when the acknowledgement shows them (IHI 0070, 6.3.9 and 6.3.20).
    fn write_acknowledged(&mut self, register: usize, acknowledgement: usize, value: u32) {
        let old = self.registers.get(register);
        let unacknowledged = old ^ self.registers.get(acknowledgement);
        if (old ^ value) & unacknowledged != 0 {
            let details = format!("register {register:#x} changed again before it was acknowledged");
            self.violation(Law::UpdateProtocol, details);
        }
        self.registers.set(register, value);
        self.acknowledge_later(register);
    }

    fn acknowledge_later(&mut self, register: usize) {
        if !self.registers.is_pending(register) {
            self.registers.pending.push((register, self.config.acknowledge_after));
        }
        self.acknowledge_due();
    }

    /// GBPA: ignored without Update, and while an update is under way (IHI 0070, 6.3.15).
    fn write_gbpa(&mut self, value: u32) {
        if value & UPDATE == 0 || self.registers.get(GBPA) & UPDATE != 0 {
            return self
                .violation(Law::UpdateProtocol, format!("GBPA written ({value:#x}) without or during an update"));
        }
        self.registers.set(GBPA, value);
        self.acknowledge_later(GBPA);
    }

    /// GERRORN: acknowledges active errors, and nothing else (IHI 0070, 6.3.19).
    fn write_gerrorn(&mut self, value: u32) {
        let toggled = (self.registers.get(GERRORN) ^ value) & ERRORS;
        let inactive = toggled & !self.registers.active_errors();
        if inactive != 0 {
            self.violation(Law::UpdateProtocol, format!("GERRORN toggles errors that are not active: {inactive:#x}"));
        }
        self.registers.set(GERRORN, value);
        if bit(toggled.into(), 0) {
            self.resume_commands();
        }
    }

    /// Time passes: one register read, or one call of `relax`.
    pub(in super::super) fn tick(&mut self) {
        self.registers.pending.iter_mut().for_each(|(_, ticks)| *ticks = ticks.saturating_sub(1));
        self.acknowledge_due();
        self.tick_commands();
    }

    fn acknowledge_due(&mut self) {
        if self.faults.never_acknowledge {
            return;
        }
        while let Some(index) = self.registers.pending.iter().position(|&(_, ticks)| ticks == 0) {
            let (register, _) = self.registers.pending.remove(index);
            match register {
                CR0 => self.acknowledge_cr0(),
                IRQ_CTRL => self.registers.set(IRQ_CTRLACK, self.registers.get(IRQ_CTRL)),
                _ => self.registers.set(GBPA, self.registers.get(GBPA) & !UPDATE),
            }
        }
    }

    fn acknowledge_cr0(&mut self) {
        let (old, new) = (self.registers.get(CR0ACK), self.registers.get(CR0));
        self.registers.set(CR0ACK, new);
        self.enables_changed(old, new);
    }
}

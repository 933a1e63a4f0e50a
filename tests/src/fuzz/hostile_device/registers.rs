//! The registers of an SMMU that means harm: behaving by default, and otherwise as a script of bytes says.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smmu::platform::Registers;

use super::super::platform::{FuzzPlatform, Memory};
use super::reach::{Reach, Told};

const IDR0: usize = 0x00;
const IDR1: usize = 0x04;
const IDR3: usize = 0x0c;
const IDR5: usize = 0x14;
const CR0: usize = 0x20;
const CR0ACK: usize = 0x24;
const GBPA: usize = 0x44;
const IRQ_CTRL: usize = 0x50;
const IRQ_CTRLACK: usize = 0x54;
const GERROR: usize = 0x60;
const GERRORN: usize = 0x64;
pub(super) const STRTAB_BASE: usize = 0x80;
pub(super) const STRTAB_BASE_CFG: usize = 0x88;
pub(super) const CMDQ_BASE: usize = 0x90;
const CMDQ_PROD: usize = 0x98;
const CMDQ_CONS: usize = 0x9c;
pub(super) const EVENTQ_BASE: usize = 0xa0;
pub(super) const PRIQ_BASE: usize = 0xc0;
const EVENTQ_PROD: usize = 0x1_00a8;
const PRIQ_PROD: usize = 0x1_00c8;

/// Bits 55:5 of a queue's base.
pub(super) const QUEUE_ADDRESS: u64 = 0x00ff_ffff_ffff_ffe0;
/// Register reads that one call of the driver may take: some waits of 25 turns each, and a queue of events.
const READS_MAX: u32 = 5_000;

/// The register block.
pub(in super::super) struct HostileRegisters(pub(super) &'static FuzzPlatform);

/// What the SMMU is and what it is about to do.
pub(in super::super) struct Hardware {
    registers: BTreeMap<usize, u32>,
    script: Vec<u8>,
    next: usize,
    /// Register reads for which it goes on behaving.
    quiet: u8,
    /// Whether it consumes no commands.
    stalled: bool,
    /// Whether it heeds no writes.
    deaf: bool,
    reads: u32,
    reach: Reach,
}

impl Hardware {
    pub(in super::super) fn new([idr0, idr1, idr3]: [u32; 3], script: &[u8]) -> Self {
        let registers = [(IDR0, idr0), (IDR1, idr1), (IDR3, idr3), (IDR5, 0x74), (GBPA, 0x1000)];
        Self {
            registers: registers.into(),
            script: script.to_vec(),
            next: 0,
            quiet: 0,
            stalled: false,
            deaf: false,
            reads: 0,
            reach: Reach::default(),
        }
    }

    pub(in super::super) fn begin_call(&mut self) {
        self.reads = 0;
    }

    /// Notes what the hardware may have read by now.
    pub(in super::super) fn look(&mut self, memory: &Memory) {
        self.reach.look(memory);
    }

    /// Why `block` must not be freed, if it must not.
    pub(in super::super) fn check_free(&mut self, memory: &Memory, block: Range<u64>) -> Option<String> {
        self.reach.look(memory);
        self.reach.holds(&block)
    }

    fn get(&self, offset: usize) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn get64(&self, offset: usize) -> u64 {
        u64::from(self.get(offset)) | u64::from(self.get(offset + 4)) << 32
    }

    /// The next byte of the script; zero, which is good behaviour, after its end.
    fn byte(&mut self) -> u8 {
        let byte = self.script.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        byte
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Something happens, or not. Returns a lie to tell about the register that is being read.
    fn misbehave(&mut self, memory: &Memory, offset: usize) -> Option<u32> {
        if self.quiet != 0 {
            self.quiet -= 1;
            return None;
        }
        match self.byte() {
            quiet @ 0..=0x7f => self.quiet = quiet,
            0x80..=0x8f => return Some(self.number()),
            0x90..=0x97 => return Some(u32::MAX),
            0x98..=0x9f => return Some(self.get(offset) ^ 1 << (self.byte() & 31)),
            0xa0..=0xa7 => return Some(self.get(offset).wrapping_add(u32::from(self.byte())).wrapping_sub(16)),
            0xa8..=0xaf => {
                let value = self.number();
                self.registers.insert(offset, value);
            }
            0xb0..=0xb7 => {
                let gerror = self.get(GERROR) ^ u32::from(self.byte()) ^ u32::from(self.byte() & 1) << 8;
                self.registers.insert(GERROR, gerror);
            }
            0xb8..=0xbf => self.refuse_command(),
            0xc0..=0xcb => self.record(memory, EVENTQ_BASE, EVENTQ_PROD, 4),
            0xcc..=0xcf => self.record(memory, PRIQ_BASE, PRIQ_PROD, 2),
            number @ 0xd0..=0xd7 => {
                let value = self.number();
                self.registers.insert(if number < 0xd5 { EVENTQ_PROD } else { PRIQ_PROD }, value);
            }
            0xd8..=0xdf => {
                self.stalled = true;
                let value = self.number();
                self.registers.insert(CMDQ_CONS, value);
            }
            0xe0..=0xe7 => self.stalled = !self.stalled,
            0xe8..=0xef => self.deaf = !self.deaf,
            _ => self.overwrite_command(memory),
        }
        None
    }

    /// Stops at a command with CMDQ_CONS.ERR and GERROR.CMDQ_ERR.
    fn refuse_command(&mut self) {
        let (code, back) = (self.byte(), self.byte());
        let index = self.get(CMDQ_PROD).wrapping_sub(u32::from(back & 7)) & 0xf_ffff;
        self.registers.insert(CMDQ_CONS, u32::from(code & 0x7f) << 24 | index);
        self.stalled = true;
        let inactive = !(self.get(GERROR) ^ self.get(GERRORN)) & 1;
        self.registers.insert(GERROR, self.get(GERROR) ^ inactive);
    }

    /// Writes a record of some words where the next one belongs, room or not.
    fn record(&mut self, memory: &Memory, base: usize, producer: usize, words: usize) {
        let (base, index) = (self.get64(base), self.get(producer));
        let slot = u64::from(index) & ((1 << (base & 0x1f)) - 1);
        let start = (base & QUEUE_ADDRESS) + slot * words as u64 * 8;
        for word in memory.words(start).iter().take(words) {
            word.store(u64::from(self.number()) << 32 | u64::from(self.number()), Ordering::Relaxed);
        }
        self.registers.insert(producer, index.wrapping_add(1));
    }

    fn overwrite_command(&mut self, memory: &Memory) {
        let base = self.get64(CMDQ_BASE);
        let slot = u64::from(self.byte()) & ((1 << (base & 0x1f)) - 1);
        if let Some(word) = memory.words((base & QUEUE_ADDRESS) + slot * 16).first() {
            word.store(self.number().into(), Ordering::Relaxed);
        }
    }

    fn read(&mut self, memory: &Memory, offset: usize) -> u32 {
        self.reads += 1;
        assert!(self.reads <= READS_MAX, "one call read registers {READS_MAX} times, the last at {offset:#x}");
        if !self.stalled {
            self.registers.insert(CMDQ_CONS, self.get(CMDQ_CONS) & 0x7f00_0000 | self.get(CMDQ_PROD));
        }
        let lie = self.misbehave(memory, offset);
        let value = lie.unwrap_or_else(|| self.get(offset));
        match offset {
            CR0ACK => self.reach.told(Told::Enabled(value)),
            CMDQ_CONS => self.reach.told(Told::Consumed(value)),
            _ => {}
        }
        value
    }

    fn write(&mut self, memory: &Memory, offset: usize, value: u32) {
        match offset {
            CR0 => self.reach.enable(memory, value),
            CMDQ_PROD => self.reach.publish(memory, value),
            GERRORN if (self.get(GERRORN) ^ value) & 1 != 0 => {
                self.reach.told(Told::Refused);
                self.stalled = false;
            }
            _ => {}
        }
        self.reach.program(offset, value);
        if self.deaf && matches!(offset, CR0 | IRQ_CTRL | GBPA) {
            return;
        }
        let value = if offset == GBPA { value & !(1 << 31) } else { value };
        self.registers.insert(offset, value);
        match offset {
            CR0 => self.registers.insert(CR0ACK, value),
            IRQ_CTRL => self.registers.insert(IRQ_CTRLACK, value),
            _ => None,
        };
    }
}

impl Registers for HostileRegisters {
    fn read32(&self, offset: usize) -> u32 {
        self.0.advance(Duration::from_nanos(100));
        self.0.hardware().read(&self.0.memory(), offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.0.hardware().write(&self.0.memory(), offset, value);
    }

    fn read64(&self, offset: usize) -> u64 {
        u64::from(self.read32(offset)) | u64::from(self.read32(offset + 4)) << 32
    }

    fn write64(&self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }
}

//! An SMMU for unit tests: registers that answer, a command queue that is consumed, an event queue to record into.
//!
//! It decodes with numbers of its own, and panics where the architecture says that the outcome is unpredictable.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::addr::PhysAddr;
use crate::platform::Registers;
use crate::testing::{Step, TestPlatform};

pub(crate) const IDR0: usize = 0x00;
pub(crate) const IDR1: usize = 0x04;
pub(crate) const IDR3: usize = 0x0c;
pub(crate) const IDR5: usize = 0x14;
pub(crate) const AIDR: usize = 0x1c;
pub(crate) const CR0: usize = 0x20;
pub(crate) const CR0ACK: usize = 0x24;
pub(crate) const CR1: usize = 0x28;
pub(crate) const CR2: usize = 0x2c;
pub(crate) const GBPA: usize = 0x44;
pub(crate) const IRQ_CTRL: usize = 0x50;
pub(crate) const IRQ_CTRLACK: usize = 0x54;
pub(crate) const GERROR: usize = 0x60;
pub(crate) const GERRORN: usize = 0x64;
pub(crate) const STRTAB_BASE: usize = 0x80;
pub(crate) const STRTAB_BASE_CFG: usize = 0x88;
pub(crate) const CMDQ_BASE: usize = 0x90;
pub(crate) const CMDQ_PROD: usize = 0x98;
pub(crate) const CMDQ_CONS: usize = 0x9c;
pub(crate) const EVENTQ_BASE: usize = 0xa0;
pub(crate) const EVENTQ_PROD: usize = 0x1_00a8;
pub(crate) const EVENTQ_CONS: usize = 0x1_00ac;

const SMMUEN: u32 = 1;
const EVENTQEN: u32 = 4;
const CMDQEN: u32 = 8;
const GBPA_ABORT: u32 = 1 << 20;
const GBPA_UPDATE: u32 = 1 << 31;
/// Bits 55:5 of a queue's base.
const ADDRESS: u64 = 0x00ff_ffff_ffff_ffe0;

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is carried out.
    Done,
    /// The queue stops at it with this code in CMDQ_CONS.ERR.
    Refused(u32),
    /// It is never completed.
    Stuck,
}

/// The SMMU. Tests keep one `Arc` of it and give another to the driver.
pub(crate) struct FakeSmmu {
    platform: &'static TestPlatform,
    name: &'static str,
    state: Mutex<State>,
}

struct State {
    registers: BTreeMap<usize, u32>,
    /// Whether a register write goes unheeded.
    ignores: Box<dyn FnMut(usize, u32) -> bool + Send>,
    outcome: Box<dyn FnMut([u64; 2]) -> Outcome + Send>,
    /// Reads of CMDQ_CONS that one command takes; 0: commands complete at once.
    reads_per_command: u32,
    reads: u32,
    /// All reads of CMDQ_CONS.
    consumer_reads: u32,
    loses_messages: bool,
}

impl FakeSmmu {
    /// An SMMU with the features of QEMU's, as after reset.
    pub(crate) fn new(platform: &'static TestPlatform, name: &'static str) -> Arc<Self> {
        let reset = [(IDR0, 0x0d44_101b), (IDR1, 0x0273_0010), (IDR3, 0x1414), (IDR5, 0x74), (GBPA, 0x1000)];
        let state = State {
            registers: reset.into(),
            ignores: Box::new(|_, _| false),
            outcome: Box::new(|_| Outcome::Done),
            reads_per_command: 0,
            reads: 0,
            consumer_reads: 0,
            loses_messages: false,
        };
        Arc::new(Self { platform, name, state: Mutex::new(state) })
    }

    /// The value of a register.
    pub(crate) fn get(&self, offset: usize) -> u32 {
        self.state().get(offset)
    }

    /// Makes a register have a value, as if by hardware.
    pub(crate) fn set(&self, offset: usize, value: u32) {
        self.state().registers.insert(offset, value);
    }

    /// Lets writes pass unheeded for which `ignores` says so.
    pub(crate) fn ignore(&self, ignores: impl FnMut(usize, u32) -> bool + Send + 'static) {
        self.state().ignores = Box::new(ignores);
    }

    /// Decides what becomes of commands.
    pub(crate) fn on_command(&self, outcome: impl FnMut([u64; 2]) -> Outcome + Send + 'static) {
        self.state().outcome = Box::new(outcome);
    }

    /// Makes a command take that many reads of CMDQ_CONS.
    pub(crate) fn delay_commands(&self, reads: u32) {
        self.state().reads_per_command = reads;
    }

    /// Reads of CMDQ_CONS so far.
    pub(crate) fn consumer_reads(&self) -> u32 {
        self.state().consumer_reads
    }

    /// Lets no message of a CMD_SYNC arrive.
    pub(crate) fn lose_messages(&self) {
        self.state().loses_messages = true;
    }

    /// Activates those of the global errors in `bits` that are not active.
    pub(crate) fn raise(&self, bits: u32) {
        self.state().raise(bits);
    }

    /// Records an event, or notes that there was no room for it.
    pub(crate) fn record(&self, event: [u64; 4]) {
        let mut state = self.state();
        assert_ne!(state.get(CR0ACK) & EVENTQEN, 0, "nothing is recorded while EVENTQEN is 0");
        let base = state.get64(EVENTQ_BASE);
        let entries = 1 << (base & 0x1f);
        let (producer, consumer) = (state.get(EVENTQ_PROD), state.get(EVENTQ_CONS));
        let used = producer.wrapping_sub(consumer) & (2 * entries - 1);
        if used == entries {
            // OVFLG differs from OVACKFLG while an overflow is not acknowledged.
            let overflow = !consumer & 1 << 31;
            state.registers.insert(EVENTQ_PROD, producer & !(1 << 31) | overflow);
            return;
        }
        let slot = (base & ADDRESS) + u64::from(producer & (entries - 1)) * 32;
        let snoops = state.snoops_queues();
        for (index, word) in event.into_iter().enumerate() {
            self.platform.write_word(PhysAddr::new(slot + index as u64 * 8), word, snoops);
        }
        let next = producer & 1 << 31 | producer.wrapping_add(1) & (2 * entries - 1);
        state.registers.insert(EVENTQ_PROD, next);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out as many commands as there are, at most `limit`.
    fn consume(&self, state: &mut State, limit: u32) {
        let base = state.get64(CMDQ_BASE);
        let entries = 1 << (base & 0x1f);
        for _ in 0..limit {
            let consumer = state.get(CMDQ_CONS) & (2 * entries - 1);
            let halted = (state.get(GERROR) ^ state.get(GERRORN)) & 1 != 0;
            if halted || state.get(CR0ACK) & CMDQEN == 0 || consumer == state.get(CMDQ_PROD) & (2 * entries - 1) {
                return;
            }
            let slot = (base & ADDRESS) + u64::from(consumer & (entries - 1)) * 16;
            let words = [slot, slot + 8].map(|address| {
                let address = PhysAddr::new(address);
                let snoops = state.snoops_queues();
                if snoops { self.platform.snooped_word(address) } else { self.platform.memory_word(address) }
            });
            // The code of an earlier error stays in CMDQ_CONS.ERR.
            let leftover = state.get(CMDQ_CONS) & 0x7f00_0000;
            match (state.outcome)(words) {
                Outcome::Done => {
                    self.platform.note(Step::Command(self.name, words));
                    state.registers.insert(CMDQ_CONS, leftover | (consumer + 1) & (2 * entries - 1));
                    if !state.loses_messages {
                        self.send_message(words);
                    }
                }
                Outcome::Refused(code) => {
                    state.registers.insert(CMDQ_CONS, code << 24 | consumer);
                    state.raise(1);
                }
                Outcome::Stuck => return,
            }
        }
    }

    /// CMD_SYNC with CS 1 and an address writes 32 bits there.
    fn send_message(&self, [word, address]: [u64; 2]) {
        if word & 0x30ff == 0x1046 && address != 0 {
            assert_eq!(address & 7, 0, "the driver uses the low halves of words");
            let address = PhysAddr::new(address);
            let high = self.platform.snooped_word(address) & !0xffff_ffff;
            self.platform.write_word(address, high | word >> 32, true);
        }
    }
}

impl State {
    fn get(&self, offset: usize) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn get64(&self, offset: usize) -> u64 {
        u64::from(self.get(offset)) | u64::from(self.get(offset + 4)) << 32
    }

    /// CR1.QUEUE_IC: not "non-cacheable".
    fn snoops_queues(&self) -> bool {
        self.get(CR1) & 3 != 0
    }

    fn raise(&mut self, bits: u32) {
        let inactive = !(self.get(GERROR) ^ self.get(GERRORN));
        let gerror = self.get(GERROR) ^ inactive & bits;
        self.registers.insert(GERROR, gerror);
    }

    /// Panics if the register must not be written now.
    fn check_guard(&self, offset: usize) {
        let guard = match offset {
            CR1 | CR2 | STRTAB_BASE | STRTAB_BASE_CFG => SMMUEN,
            CMDQ_BASE | CMDQ_CONS => CMDQEN,
            EVENTQ_BASE | EVENTQ_PROD => EVENTQEN,
            _ => 0,
        };
        assert_eq!(self.get(CR0ACK) & guard, 0, "register {offset:#x} is guarded by CR0 bits {guard:#x}");
    }

    fn write(&mut self, offset: usize, value: u32) {
        self.check_guard(offset);
        match offset {
            CR0 => {
                let switched_off = self.get(CR0ACK) & !value & SMMUEN != 0;
                let aborts = self.get(GBPA) & GBPA_ABORT != 0;
                assert!(!switched_off || aborts || thread::panicking(), "switched off with GBPA.ABORT clear");
                self.registers.insert(CR0ACK, value);
            }
            IRQ_CTRL => {
                self.registers.insert(IRQ_CTRLACK, value);
            }
            GERRORN => {
                let toggled = self.get(GERRORN) ^ value;
                let active = self.get(GERROR) ^ self.get(GERRORN);
                assert_eq!(toggled & !active, 0, "inactive errors were acknowledged");
            }
            _ => {}
        }
        // GBPA takes a value only together with UPDATE, which reads as 0 when that has happened.
        match offset {
            GBPA if value & GBPA_UPDATE == 0 => None,
            GBPA => self.registers.insert(GBPA, value & !GBPA_UPDATE),
            _ => self.registers.insert(offset, value),
        };
    }
}

impl Registers for Arc<FakeSmmu> {
    fn read32(&self, offset: usize) -> u32 {
        let mut state = self.state();
        state.consumer_reads += u32::from(offset == CMDQ_CONS);
        if offset == CMDQ_CONS && state.reads_per_command != 0 {
            state.reads += 1;
            if state.reads.is_multiple_of(state.reads_per_command) {
                self.consume(&mut state, 1);
            }
        }
        state.get(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        let mut state = self.state();
        self.platform.note(Step::Write(self.name, offset, value.into()));
        if (state.ignores)(offset, value) {
            return;
        }
        state.write(offset, value);
        if matches!(offset, CR0 | CMDQ_PROD | GERRORN) && state.reads_per_command == 0 {
            self.consume(&mut state, u32::MAX);
        }
    }

    fn read64(&self, offset: usize) -> u64 {
        self.state().get64(offset)
    }

    fn write64(&self, offset: usize, value: u64) {
        self.platform.note(Step::Write(self.name, offset, value));
        let mut state = self.state();
        state.check_guard(offset);
        state.registers.insert(offset, value as u32);
        state.registers.insert(offset + 4, (value >> 32) as u32);
    }
}

//! The command queue: published, consumed in order, halted by an error until that is acknowledged (IHI 0070, 3.5, 7.1).

use std::collections::VecDeque;

use super::super::Machine;
use super::super::bits::bits;
use super::super::config::Pace;
use super::super::events::GlobalError;
use super::super::laws::Law;
use super::super::log::Entry;
use super::super::memory::{BusError, View};
use super::super::registers::{enable, offset};
use super::super::ring::Ring;
use super::{Command, Opcode};

/// The reasons in CMDQ_CONS.ERR (IHI 0070, 7.1).
const CERROR_ILL: u32 = 1;
const CERROR_ABT: u32 = 2;
pub(super) const CERROR_ATC_INV_SYNC: u32 = 3;

/// The state of the command queue beyond its registers.
#[derive(Debug, Default)]
pub(in super::super) struct CommandQueue {
    /// What the slots from CONS to PROD held when they were published.
    published: VecDeque<[u64; 2]>,
    /// Ticks until the next command.
    countdown: u32,
    /// Invalidations that were accepted and not carried out: as late as the architecture permits, at the next CMD_SYNC.
    pub(super) unsynced: Vec<Command>,
}

impl Machine {
    fn command_ring(&self) -> Ring {
        Ring::of_base(self.registers.get64(offset::CMDQ_BASE), self.config.cmdqs)
    }

    /// CMDQ_CONS.RD with its wrap bit.
    fn command_consumer(&self) -> u32 {
        self.registers.get(offset::CMDQ_CONS) & 0xf_ffff
    }

    /// A write of CMDQ_PROD publishes commands.
    pub(in super::super) fn write_command_producer(&mut self, value: u32) {
        let (ring, consumer) = (self.command_ring(), self.command_consumer());
        let old = self.registers.get(offset::CMDQ_PROD);
        self.registers.set(offset::CMDQ_PROD, value);
        if !self.registers.enabled(enable::CMDQEN) {
            return;
        }
        let (before, after) = (ring.distance(old, consumer), ring.distance(value, consumer));
        let repairing = self.registers.active_errors() & GlobalError::Cmdq.bit() != 0;
        if ring.wrapped(value) != value || after > ring.entries() || (after < before && !repairing) {
            let details = format!("CMDQ_PROD went from {old:#x} to {value:#x} with CMDQ_CONS {consumer:#x}");
            self.violation(Law::QueueIndex, details);
        }
        self.check_publishing();
        self.commands.published.truncate(after as usize);
        for index in before..after {
            let words = self.read_command(ring, consumer.wrapping_add(index)).unwrap_or([0; 2]);
            self.commands.published.push_back(words);
            let stream = (words[0] >> 32) as u32;
            match Opcode::new(words[0] & 0xff) {
                Opcode::CfgiSte => self.watch_stream(stream),
                Opcode::CfgiCd => self.watch_context(stream, bits(words[0], 31, 12) as u32),
                _ => {}
            }
        }
        self.sample_live_entries();
        if before == 0 {
            self.start_countdown();
        }
        if self.config.pace == Pace::Immediate {
            while self.consume_command() {}
        }
    }

    /// The command that CMDQ_CONS points at, if there is one, as memory has it now.
    pub(in super::super) fn next_command(&self) -> Option<[u64; 2]> {
        self.commands.published.front()?;
        self.read_command(self.command_ring(), self.command_consumer()).ok()
    }

    /// The command error was acknowledged (IHI 0070, 7.1).
    pub(in super::super) fn resume_commands(&mut self) {
        if let Some(&published) = self.commands.published.front() {
            self.check_repair(published);
        }
        self.restart_commands();
    }

    /// The queue was enabled, or an error acknowledged: commands are fetched afresh (IHI 0070, 7.1).
    pub(in super::super) fn restart_commands(&mut self) {
        if !self.registers.enabled(enable::CMDQEN) {
            return;
        }
        let (ring, consumer) = (self.command_ring(), self.command_consumer());
        let used = ring.distance(self.registers.get(offset::CMDQ_PROD), consumer).min(ring.entries());
        let slots = (0..used).map(|index| self.read_command(ring, consumer.wrapping_add(index)).unwrap_or([0; 2]));
        self.commands.published = slots.collect();
        self.start_countdown();
        if self.config.pace == Pace::Immediate {
            while self.consume_command() {}
        }
    }

    fn start_countdown(&mut self) {
        if let Pace::After(ticks) = self.config.pace {
            self.commands.countdown = ticks;
        }
    }

    /// Time passes for the queue.
    pub(in super::super) fn tick_commands(&mut self) {
        if matches!(self.config.pace, Pace::After(_)) && !self.commands.published.is_empty() {
            self.commands.countdown = self.commands.countdown.saturating_sub(1);
            if self.commands.countdown == 0 {
                self.start_countdown();
                self.consume_command();
            }
        }
    }

    fn read_command(&self, ring: Ring, index: u32) -> Result<[u64; 2], BusError> {
        let base = self.registers.get64(offset::CMDQ_BASE);
        let slot = ring.base(base, 16) + u64::from(ring.slot(index)) * 16;
        let view = self.queue_view();
        Ok([self.read_memory(slot, view)?, self.read_memory(slot + 8, view)?])
    }

    /// How the SMMU's own accesses to queues see memory (CR1.QUEUE_*).
    pub(in super::super) fn queue_view(&self) -> View {
        self.view(self.registers.get(offset::CR1))
    }

    /// Consumes the next command, if the queue runs and has one. Whether it did.
    pub(in super::super) fn consume_command(&mut self) -> bool {
        let (ring, consumer) = (self.command_ring(), self.command_consumer());
        let halted = self.registers.active_errors() & GlobalError::Cmdq.bit() != 0;
        let stopped = halted || self.faults.service_failure || !self.registers.enabled(enable::CMDQEN);
        let Some(&published) = self.commands.published.front().filter(|_| !stopped) else { return false };
        let Ok(words) = self.read_command(ring, consumer) else {
            self.command_error(CERROR_ABT);
            return false;
        };
        if words != published {
            let details = format!("slot {} changed after it was published: {words:#x?}", ring.slot(consumer));
            self.violation(Law::PublishedSlot, details);
        }
        let opcode = Opcode::new(words[0] & 0xff);
        if self.faults.hang == Some(opcode) {
            return false;
        }
        if self.faults.refuse.is_some_and(|(refused, _)| refused == opcode) {
            let (_, error) = self.faults.refuse.take().unwrap_or((opcode, CERROR_ILL));
            self.command_error(error);
            return false;
        }
        let wildcard = self.vmid_wildcard();
        let result = match Command::decode(words, &self.config, wildcard) {
            Ok(command) => self.execute(command),
            Err(details) => {
                self.violation(Law::Command, details);
                Err(CERROR_ILL)
            }
        };
        if let Err(error) = result {
            self.command_error(error);
            return false;
        }
        self.log.push(Entry::Command { opcode, words });
        self.commands.published.pop_front();
        // ERR keeps its value: it means something only while the error is active.
        let cons = self.registers.get(offset::CMDQ_CONS) & !0xf_ffff | ring.wrapped(consumer.wrapping_add(1));
        self.registers.set(offset::CMDQ_CONS, cons);
        self.after_sync(words);
        true
    }

    /// CR0.VMW, with values beyond 4 acting as 0 (IHI 0070, 6.3.9).
    fn vmid_wildcard(&self) -> u32 {
        let bits = self.registers.get(offset::CR0ACK) >> 6 & 7;
        if bits <= 4 { bits } else { 0 }
    }

    /// Stops at the command that CMDQ_CONS points at. ERR is visible before GERROR (IHI 0070, 7.1).
    fn command_error(&mut self, error: u32) {
        let cons = self.registers.get(offset::CMDQ_CONS) & 0x80ff_ffff | error << 24;
        self.registers.set(offset::CMDQ_CONS, cons);
        self.log.push(Entry::CommandError(error));
        self.await_repair();
        self.raise(GlobalError::Cmdq);
    }
}

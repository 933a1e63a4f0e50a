//! The command queue of one SMMU: batches go in from any number of CPUs, a CMD_SYNC ends each request, errors are repaired
//! (IHI 0070, 3.5, 4 and 7.1).
//!
//! What lives here: sending. [`batch`] has the commands of a caller, [`reservation`] says whose slots are whose, [`waiting`]
//! what to do until they are consumed, [`completion`] how a CMD_SYNC reports, [`refusal`] and [`repair`] what becomes of bad
//! commands, [`gate`] when there are none. What does not: which commands to send.
//!
//! Nobody holds anything while waiting for the SMMU, and no CPU waits for another one while it could get on by itself. But
//! slots are consumed in order: a CPU that is held up between reserving slots and filling them, for a few dozen
//! instructions, holds up those behind it. If that goes on for longer than anybody waits, they get an error, as they do when
//! the SMMU stands still. What that means for interrupt handlers is said at [`Smmu`](super::Smmu).

mod batch;
mod completion;
mod gate;
mod refusal;
mod repair;
mod reservation;
#[cfg(test)]
mod tests;
mod waiting;

/// The atomics of [`reservation`] and [`refusal`].
mod atomic {
    pub(super) use core::sync::atomic::{AtomicU64, Ordering};
}

use core::ops::Range;
use core::sync::atomic::Ordering;

use lock_api::Mutex;

use self::batch::Batch;
use self::completion::Signal;
use self::gate::Gate;
use self::refusal::{Refusals, Verdict};
use self::reservation::Reservations;
use super::control::{Control, wait_until};
use super::global_error::GlobalErrors;
use super::ring::Ring;
use super::{DeviceError, Features, queue_base};
use crate::addr::PhysAddr;
use crate::arch::command::{Command, CommandError};
use crate::arch::registers::{CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, IDR1};
use crate::memory::DmaMemory;
use crate::platform::Platform;

/// Words of one command.
const WORDS: usize = 2;
/// Commands that the queue holds, as log2: 2^8 of 16 bytes are one page.
const LOG2_COMMANDS: u8 = reservation::LOG2_ENTRIES_MAX;

/// The command queue of one SMMU.
#[derive(Debug)]
pub(super) struct CommandQueue<P: Platform> {
    memory: DmaMemory<P>,
    ring: Ring,
    /// Commands of one batch: as many as fit in with a CMD_SYNC behind them, if that makes sense.
    batch_commands: usize,
    coherent: bool,
    signal: Signal<P>,
    reservations: Reservations,
    refusals: Refusals,
    repairing: Mutex<P::Lock, ()>,
    gate: Gate<P>,
}

impl<P: Platform> CommandQueue<P> {
    /// Allocates a queue that is as long as the SMMU permits and as anybody needs. `coherent` says whether the SMMU snoops the
    /// CPU's caches when it reads it.
    pub(super) fn new(platform: &'static P, features: &Features, coherent: bool) -> Result<Self, DeviceError> {
        let ring = Ring::new(LOG2_COMMANDS.min(features.log2_commands_max()));
        let size_bytes = ring.entries() as usize * WORDS * size_of::<u64>();
        Ok(Self {
            // The hardware takes the base's low bits for zero: align it to the queue's size, at least 32 bytes.
            memory: DmaMemory::allocate(platform, size_bytes, size_bytes.max(32))?,
            ring,
            batch_commands: (ring.entries() as usize).saturating_sub(1).clamp(1, batch::COMMANDS_MAX),
            coherent,
            signal: Signal::new(platform, features, ring.entries())?,
            reservations: Reservations::new(ring.log2_entries()),
            refusals: Refusals::new(),
            repairing: Mutex::new(()),
            gate: Gate::new(),
        })
    }

    /// Tells the SMMU where the queue is, which is empty from now on. CR0.CMDQEN is 0, and the queue new or paused.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Timeout`] if somebody still waits for commands from before.
    pub(super) fn program(&self, control: &Control<P>) -> Result<(), DeviceError> {
        self.wait_for_senders(control)?;
        let index = self.register_value(self.reservations.restart());
        control.write64(CMDQ_BASE, queue_base(self.memory.physical(), self.ring));
        control.write(CMDQ_PROD, index);
        control.write(CMDQ_CONS, index);
        Ok(())
    }

    /// Never gives the queue's memory back: the SMMU may still reach it.
    pub(super) fn keep(&self) {
        self.memory.keep();
        self.signal.keep();
    }

    /// Waits for the last message, or never gives the words back that messages go to: one may be on its way when its CMD_SYNC has
    /// long been consumed, and even when the queue is off. A later CMD_SYNC that is complete tells that it is not (IHI 0070,
    /// 4.7.3), and this one is complete when its own message is there.
    pub(super) fn settle_messages(&self, control: &Control<P>, errors: &GlobalErrors<P>) {
        let has_come = || {
            self.run(control, errors, []).ok()?;
            let end = self.reservations.published();
            let slot = self.slot(end.wrapping_sub(1));
            wait_until(control.platform(), || self.signal.has_come(control.platform(), slot, end).then_some(())).ok()
        };
        if self.signal.is_message() && has_come().is_none() {
            self.signal.keep();
        }
    }

    /// Where the queue is.
    pub(super) fn physical(&self) -> PhysAddr {
        self.memory.physical()
    }

    /// Bytes of DMA memory that the queue takes.
    pub(super) fn size_bytes(&self) -> usize {
        self.memory.size_bytes().saturating_add(self.signal.size_bytes())
    }

    /// Commands sent and commands refused since bring-up.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.reservations.published(), self.refusals.count())
    }

    /// Sends `commands`, closes them with a CMD_SYNC and waits until the SMMU has carried all of them out.
    ///
    /// Up to [`batch::COMMANDS_MAX`] commands go into the queue in one piece; those beyond follow when these are consumed.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Command`] if one of these commands was refused (those of others do not count), with
    /// [`CommandError::AtcInvSync`] if a device did not obey one of these CMD_ATC_INVs; [`DeviceError::Timeout`] if the SMMU
    /// does not get on. What the commands were to do may then not have happened: memory that was to become unreachable must
    /// not be reused. Commands after those that failed may not have been sent.
    #[inline]
    pub(super) fn run(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        commands: impl IntoIterator<Item = Command>,
    ) -> Result<(), DeviceError> {
        let mut batch = Batch::new();
        for command in commands {
            if batch.commands.len() >= self.batch_commands {
                self.send(control, errors, &batch, false)?;
                batch.clear();
            }
            batch.push(command);
        }
        self.send(control, errors, &batch, true)
    }

    /// [`run`](Self::run) for one command.
    #[inline]
    pub(super) fn run_one(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        command: Command,
    ) -> Result<(), DeviceError> {
        let refusals_before = self.refusals.count();
        let encoded = command.encode();
        match self.reservations.reserve(2) {
            Some(range) => self.send_at(control, errors, range, &[encoded], refusals_before),
            None => self.run(control, errors, [command]),
        }
    }

    /// Sends a batch, behind it a CMD_SYNC if it is the request's last, and waits until it is consumed.
    ///
    /// A batch with a CMD_ATC_INV has a CMD_SYNC of its own, and both go in together: somebody else's CMD_SYNC in between
    /// would get the error.
    fn send(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        batch: &Batch,
        is_last: bool,
    ) -> Result<(), DeviceError> {
        let commands = batch.commands.as_slice();
        let has_sync = is_last || batch.invalidates_atc;
        let refusals_before = self.refusals.count();
        match self.reservations.reserve(slots(commands, has_sync)) {
            Some(range) => self.send_at(control, errors, range, commands, refusals_before),
            None => self.send_as_space_permits(control, errors, batch, has_sync),
        }
    }

    /// Sends a batch through a queue that is full, or shorter than the batch: in pieces, but for a CMD_ATC_INV.
    #[cold]
    fn send_as_space_permits(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        batch: &Batch,
        has_sync: bool,
    ) -> Result<(), DeviceError> {
        let _waiting = self.gate.enter()?;
        let mut commands = batch.commands.as_slice();
        if batch.invalidates_atc {
            self.check_room_for_atc(control)?;
        }
        loop {
            let wanted = slots(commands, has_sync);
            let refusals_before = self.refusals.count();
            let range = self.wait_for_space(control, errors, wanted, batch.invalidates_atc)?;
            let count = range.end.wrapping_sub(range.start);
            let piece = commands.split_off(..commands.len().min(count as usize)).unwrap_or_default();
            self.send_at(control, errors, range, piece, refusals_before)?;
            if count == wanted {
                return Ok(());
            }
        }
    }

    /// Fills the slots of `range` with `commands` and, if there is one more, a CMD_SYNC; hands them over, and waits until they
    /// are consumed.
    fn send_at(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        range: Range<u64>,
        commands: &[[u64; WORDS]],
        refusals_before: u64,
    ) -> Result<(), DeviceError> {
        for (position, words) in (range.start..).zip(commands) {
            self.write_slot(position, *words);
        }
        let behind = range.start.wrapping_add(commands.len() as u64);
        let ends_in_sync = behind != range.end;
        if ends_in_sync {
            self.write_slot(behind, self.signal.sync(self.slot(behind), range.end));
        }
        self.clean(control, &range);
        self.reservations.hand_over(&range, |end| self.publish(control, end));
        let consumed = self.wait(control, errors, &range, ends_in_sync);
        self.reservations.retire(&range);
        consumed?;
        self.check_verdict(&range, refusals_before)
    }

    /// Whether a CMD_ATC_INV and its CMD_SYNC fit into the queue together.
    fn check_room_for_atc(&self, control: &Control<P>) -> Result<(), DeviceError> {
        if self.ring.entries() >= 2 {
            return Ok(());
        }
        let needed = "a command queue of two commands (CMDQS 1) before devices may cache translations";
        Err(DeviceError::Unsupported { register: IDR1.name(), found: control.read(IDR1).get(), needed })
    }

    /// Makes everything before `end` the SMMU's.
    #[inline]
    fn publish(&self, control: &Control<P>, end: u64) {
        let index = self.register_value(end);
        // The slots first, then the index.
        control.platform().write_barrier();
        control.write(CMDQ_PROD, index);
    }

    /// Writes one command into the slot of `position`, which the SMMU does not own.
    #[inline]
    fn write_slot(&self, position: u64, command: [u64; WORDS]) {
        let slot = self.memory.words().get(self.slot(position) * WORDS..).and_then(<[_]>::first_chunk);
        if let Some([first, second]) = slot {
            first.store(command[0].to_le(), Ordering::Relaxed);
            second.store(command[1].to_le(), Ordering::Relaxed);
        }
    }

    /// Lets an SMMU that does not snoop see some slots.
    #[inline]
    fn clean(&self, control: &Control<P>, range: &Range<u64>) {
        if !self.coherent {
            self.clean_slots(control, range);
        }
    }

    #[cold]
    #[inline(never)]
    fn clean_slots(&self, control: &Control<P>, range: &Range<u64>) {
        for position in range.clone() {
            self.memory.clean(self.slot(position) * WORDS, WORDS);
        }
        // Another CPU may publish them, and its barrier completes its own maintenance only.
        control.platform().write_barrier();
    }

    /// Tells if a command in `range` was refused; all of them are consumed.
    #[inline]
    fn check_verdict(&self, range: &Range<u64>, refusals_before: u64) -> Result<(), DeviceError> {
        match self.refusals.verdict(range, refusals_before) {
            Verdict::Accepted => Ok(()),
            Verdict::Refused(code) => Err(DeviceError::Command(CommandError::from_code(code))),
            // One of ours may be among them.
            Verdict::Unknown => Err(DeviceError::Command(CommandError::Ill)),
        }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "a slot is the low bits of a position")]
    fn slot(&self, position: u64) -> usize {
        self.ring.slot(position as u32)
    }

    /// CMDQ_PROD's value for a position.
    #[allow(clippy::cast_possible_truncation, reason = "the register holds the low bits of the count")]
    fn register_value(&self, position: u64) -> u32 {
        self.ring.wrapped(position as u32)
    }
}

/// How many slots some commands take.
fn slots(commands: &[[u64; WORDS]], has_sync: bool) -> u64 {
    (commands.len() as u64).saturating_add(has_sync.into())
}

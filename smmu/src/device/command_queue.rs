//! The command queue: batches go in, a CMD_SYNC ends each request, errors are repaired (IHI 0070, 3.5, 4 and 7.1).
//!
//! Positions in the queue are counted in 64 bits and never wrap, so that requests of different laps can be told apart.
//! A short lock covers filling slots and publishing CMDQ_PROD; nobody holds it while waiting for the SMMU.

use core::iter;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use lock_api::Mutex;

use super::DeviceError;
use super::control::{Control, Deadline};
use super::global_error::GlobalErrors;
use super::queue_base;
use super::ring::Ring;
use crate::arch::command::{Command, CommandError, Completion};
use crate::arch::registers::{CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, GERROR};
use crate::memory::DmaMemory;
use crate::platform::Platform;

/// Commands that the queue holds: 2^8 of 16 bytes are one page.
pub(super) const LOG2_COMMANDS: u8 = 8;
/// Words of one command.
const WORDS: usize = 2;
/// Refused commands that are remembered until whoever sent them has looked.
const REMEMBERED_FAILURES: usize = 16;

/// A command that the SMMU refused.
#[derive(Clone, Copy, Debug)]
struct Failure {
    position: u64,
    error: CommandError,
}

/// What producers share under the lock.
#[derive(Debug)]
struct Producer {
    /// The latest refused commands, in a ring by their number.
    failures: [Option<Failure>; REMEMBERED_FAILURES],
    /// Set once the SMMU cannot read the queue any more: nothing sent later is carried out.
    halted: Option<CommandError>,
    /// Why commands are refused, if they are. [`DeviceError::Closed`] is for good.
    refusal: Option<DeviceError>,
}

/// The command queue of one SMMU.
#[derive(Debug)]
pub(super) struct CommandQueue<P: Platform> {
    memory: DmaMemory<P>,
    ring: Ring,
    coherent: bool,
    /// Commands published so far. Written under the lock, before CMDQ_PROD, so that it never lags behind CMDQ_CONS.
    produced: AtomicU64,
    /// Commands that the SMMU has consumed, as far as anybody has looked.
    consumed: AtomicU64,
    /// Commands refused so far.
    refused: AtomicU64,
    producer: Mutex<P::Lock, Producer>,
    /// Calls of [`run`](CommandQueue::run) that are under way: as long as there are any, CMDQ_CONS may be read.
    senders: AtomicUsize,
}

/// Counts as a sender while it lives.
struct Sender<'a>(&'a AtomicUsize);

impl<'a> Sender<'a> {
    fn new(senders: &'a AtomicUsize) -> Self {
        senders.fetch_add(1, Ordering::SeqCst);
        Self(senders)
    }
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl<P: Platform> CommandQueue<P> {
    /// Allocates a queue of `2^log2_entries` commands.
    pub(super) fn new(platform: &'static P, log2_entries: u8, coherent: bool) -> Result<Self, DeviceError> {
        let ring = Ring::new(log2_entries);
        let size_bytes = ring.entries() as usize * WORDS * size_of::<u64>();
        Ok(Self {
            // The hardware takes the base's low bits for zero: align it to the queue's size, at least 32 bytes.
            memory: DmaMemory::allocate(platform, size_bytes, size_bytes.max(32))?,
            ring,
            coherent,
            produced: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            producer: Mutex::new(Producer { failures: [None; REMEMBERED_FAILURES], halted: None, refusal: None }),
            senders: AtomicUsize::new(0),
        })
    }

    /// Tells the SMMU where the queue is, which is empty from now on. CR0.CMDQEN is 0.
    pub(super) fn program(&self, control: &Control<P>) {
        let produced = self.produced.load(Ordering::Acquire);
        self.consumed.store(produced, Ordering::Release);
        let index = self.register_value(produced);
        control.write64(CMDQ_BASE, queue_base(self.memory.physical(), self.ring));
        control.write(CMDQ_PROD, index);
        control.write(CMDQ_CONS, index);
    }

    /// Refuses every command from here on, for good.
    pub(super) fn close(&self) {
        self.producer.lock().refusal = Some(DeviceError::Closed);
    }

    /// Refuses every command from here on, for this reason, until [`open`](Self::open).
    pub(super) fn pause(&self, reason: DeviceError) {
        self.refuse(Some(reason));
    }

    /// Takes commands again, unless the queue was closed.
    pub(super) fn open(&self) {
        self.refuse(None);
    }

    fn refuse(&self, refusal: Option<DeviceError>) {
        let mut producer = self.producer.lock();
        if producer.refusal != Some(DeviceError::Closed) {
            producer.refusal = refusal;
        }
    }

    /// Waits until the SMMU has consumed all commands that it was given and whoever sent them has seen it. The queue is
    /// paused: nobody reads its registers afterwards, which may lose their power.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), but for refused commands: they are their senders' business.
    pub(super) fn finish(&self, control: &Control<P>, errors: &GlobalErrors<P>) -> Result<(), DeviceError> {
        let end = self.produced.load(Ordering::Acquire);
        let deadline = Deadline::start(control.platform());
        loop {
            let missed = deadline.missed(control.platform());
            if self.consumed(control, errors)? >= end && self.senders.load(Ordering::SeqCst) == 0 {
                return Ok(());
            }
            if let Some(waited) = missed {
                return Err(self.stuck(control, waited));
            }
            control.platform().relax();
        }
    }

    /// Whether the SMMU cannot read the queue any more.
    pub(super) fn is_halted(&self) -> bool {
        self.producer.lock().halted.is_some()
    }

    /// Never gives the queue's memory back: the SMMU may still reach it.
    pub(super) fn keep(&self) {
        self.memory.keep();
    }

    /// Bytes of DMA memory that the queue takes.
    pub(super) fn size_bytes(&self) -> usize {
        self.memory.size_bytes()
    }

    /// Commands sent and commands refused since bring-up.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.produced.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// Sends `commands`, closes them with a CMD_SYNC and waits until the SMMU has carried all of them out.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Command`] if one of these commands was refused (those of others do not count),
    /// [`DeviceError::Timeout`] if the SMMU does not get on. What the commands were to do may then not have happened:
    /// memory that was to become unreachable must not be reused.
    pub(super) fn run(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        commands: impl IntoIterator<Item = Command>,
    ) -> Result<(), DeviceError> {
        let _sender = Sender::new(&self.senders);
        let sync = Command::Sync { completion: Completion::None };
        let mut commands = commands.into_iter().chain(iter::once(sync)).peekable();
        let refused_before = self.refused.load(Ordering::Acquire);
        let deadline = Deadline::start(control.platform());
        let mut sent: Option<Range<u64>> = None;
        while commands.peek().is_some() {
            let published = self.publish(control, &mut commands)?;
            if published.is_empty() {
                let missed = deadline.missed(control.platform());
                self.consumed(control, errors)?;
                if let Some(waited) = missed {
                    return Err(self.stuck(control, waited));
                }
                control.platform().relax();
            } else {
                sent = Some(sent.map_or(published.start, |range| range.start)..published.end);
            }
        }
        match sent {
            Some(range) => self.wait(control, errors, range, refused_before),
            None => Ok(()),
        }
    }

    /// Fills as many slots as are free and publishes them together. Returns the positions, none if the queue is full.
    fn publish(
        &self,
        control: &Control<P>,
        commands: &mut impl Iterator<Item = Command>,
    ) -> Result<Range<u64>, DeviceError> {
        let producer = self.producer.lock();
        if let Some(refusal) = producer.refusal {
            return Err(refusal);
        }
        if let Some(error) = producer.halted {
            return Err(DeviceError::Command(error));
        }
        let start = self.produced.load(Ordering::Relaxed);
        let in_flight = start.saturating_sub(self.consumed.load(Ordering::Acquire));
        let free = u64::from(self.ring.entries()).saturating_sub(in_flight);
        let mut end = start;
        for (position, command) in (start..start.saturating_add(free)).zip(commands) {
            self.write_slot(position, command);
            end = position.saturating_add(1);
        }
        if end != start {
            self.produced.store(end, Ordering::Release);
            let index = self.register_value(end);
            // Slots and count first, then the index that makes the slots the SMMU's.
            control.platform().write_barrier();
            control.write(CMDQ_PROD, index);
        }
        Ok(start..end)
    }

    /// Writes one command into the slot of `position`, which the SMMU does not own.
    fn write_slot(&self, position: u64, command: Command) {
        let first = self.ring.slot(self.register_value(position)) * WORDS;
        for (word, value) in self.memory.words().iter().skip(first).zip(command.encode()) {
            word.store(value.to_le(), Ordering::Relaxed);
        }
        if !self.coherent {
            self.memory.clean(first, WORDS);
        }
    }

    /// CMDQ_PROD's value for a position.
    #[allow(clippy::cast_possible_truncation, reason = "the register holds the low bits of the count")]
    fn register_value(&self, position: u64) -> u32 {
        self.ring.wrapped(position as u32)
    }

    /// Reads CMDQ_CONS, repairs the queue if it stopped at a bad command, and returns how many commands the SMMU has
    /// consumed.
    fn consumed(&self, control: &Control<P>, errors: &GlobalErrors<P>) -> Result<u64, DeviceError> {
        // The order matters: a count from before the register was read is at most the truth, one from after at least.
        let known = self.consumed.load(Ordering::Acquire);
        let register = control.read(CMDQ_CONS);
        // What was stored before the commands were the SMMU's, or before it was told to go on, is seen from here on.
        control.platform().read_barrier();
        let produced = self.produced.load(Ordering::Acquire);
        let count = self.ring.extend(known, register.get());
        if count > produced {
            return Err(DeviceError::QueueCorrupt {
                register: CMDQ_CONS.name(),
                found: register.get(),
                producer: self.register_value(produced),
            });
        }
        self.consumed.fetch_max(count, Ordering::AcqRel);
        if register.read(CMDQ_CONS::ERR) != 0 {
            self.repair(control, errors);
        }
        Ok(count)
    }

    /// Waits until everything before `range.end` is consumed, then tells whether a command in `range` was refused.
    fn wait(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        range: Range<u64>,
        refused_before: u64,
    ) -> Result<(), DeviceError> {
        let deadline = Deadline::start(control.platform());
        loop {
            let missed = deadline.missed(control.platform());
            let done = self.consumed(control, errors)? >= range.end;
            let refused = self.refused.load(Ordering::Acquire).wrapping_sub(refused_before);
            if refused != 0 {
                self.check_refused(&range, refused)?;
            }
            if done {
                return Ok(());
            }
            if let Some(waited) = missed {
                return Err(self.stuck(control, waited));
            }
            control.platform().relax();
        }
    }

    /// Whether one of the latest `refused` failures concerns a command in `range`.
    fn check_refused(&self, range: &Range<u64>, refused: u64) -> Result<(), DeviceError> {
        let producer = self.producer.lock();
        let culprit = producer.failures.iter().flatten().find(|failure| range.contains(&failure.position));
        // More failures than are remembered: one of them may have been ours.
        let forgotten = (refused > REMEMBERED_FAILURES as u64).then_some(CommandError::Ill);
        match producer.halted.or(culprit.map(|failure| failure.error)).or(forgotten) {
            Some(error) => Err(DeviceError::Command(error)),
            None => Ok(()),
        }
    }

    fn stuck(&self, control: &Control<P>, waited: Duration) -> DeviceError {
        DeviceError::Timeout {
            register: CMDQ_CONS.name(),
            expected: self.register_value(self.produced.load(Ordering::Acquire)),
            found: control.read(CMDQ_CONS).get(),
            mask: self.ring.wrapped(u32::MAX),
            waited,
        }
    }

    /// Gets a queue going again that stopped at a bad command: the culprit becomes a CMD_SYNC, the error is remembered
    /// for whoever sent it and acknowledged (IHI 0070, 7.1). Does nothing when no command error is active: CMDQ_CONS.ERR
    /// alone may be a leftover.
    pub(super) fn repair(&self, control: &Control<P>, errors: &GlobalErrors<P>) {
        let mut producer = self.producer.lock();
        let active = errors.active(control).is_set(GERROR::CMDQ_ERR);
        if !active || producer.halted.is_some() {
            return;
        }
        let register = control.read(CMDQ_CONS);
        let position = self.ring.extend(self.consumed.load(Ordering::Acquire), register.get());
        let error = CommandError::from_code(register.read(CMDQ_CONS::ERR) as u8);
        let number = self.refused.load(Ordering::Relaxed);
        if let Some(slot) = producer.failures.get_mut(number as usize % REMEMBERED_FAILURES) {
            *slot = Some(Failure { position, error });
        }
        // Before the SMMU goes on: whoever then finds its commands consumed also finds that one was refused.
        self.refused.store(number.wrapping_add(1), Ordering::Release);
        if error == CommandError::Abt {
            // The queue's own memory cannot be read. To acknowledge it now would only make the SMMU stumble again.
            producer.halted = Some(error);
        } else {
            self.write_slot(position, Command::Sync { completion: Completion::None });
            control.platform().write_barrier();
            errors.acknowledge(control, GERROR::CMDQ_ERR::SET.value);
        }
    }
}

//! A command queue over loom: what the driver does around its core, and an SMMU. Nobody waits here, because loom tries every
//! schedule, those included in which nobody but the waiting CPUs runs: what is not done at first is finished by
//! [`Queue::settle`] after the race.

use std::ops::Range;

use loom::cell::UnsafeCell;
use loom::sync::Mutex;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicBool, AtomicU64};

use super::refusal::{Refusals, Verdict};
use super::reservation::Reservations;

/// A command that the SMMU refuses.
pub(crate) const BAD: u64 = u64::MAX;
/// What a refused command is replaced with.
pub(crate) const REPLACED: u64 = u64::MAX - 1;
/// CMDQ_CONS.ERR of a refused command.
const ILL: u8 = 1;

/// The queue and the registers. Registers are written with release and read with acquire: that is what the driver's
/// barriers beside them amount to.
pub(crate) struct Queue {
    reservations: Reservations,
    refusals: Refusals,
    slots: Vec<UnsafeCell<u64>>,
    /// CMDQ_PROD and CMDQ_CONS, as positions.
    produced: AtomicU64,
    consumed: AtomicU64,
    /// GERROR.CMDQ_ERR is active.
    error: AtomicBool,
    repairing: Mutex<()>,
    /// Read with every access to a register, written to when the SMMU loses its power: loom notices a race.
    power: UnsafeCell<()>,
}

/// Commands that were sent.
pub(crate) struct Sent {
    range: Range<u64>,
    is_bad: bool,
    refusals_before: u64,
}

impl Queue {
    /// A queue of `2^log2_entries` slots.
    pub(crate) fn new(log2_entries: u8) -> Self {
        Self {
            reservations: Reservations::new(log2_entries),
            refusals: Refusals::new(),
            slots: (0..1 << log2_entries).map(|_| UnsafeCell::new(0)).collect(),
            produced: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            error: AtomicBool::new(false),
            repairing: Mutex::new(()),
            power: UnsafeCell::new(()),
        }
    }

    /// Sends commands together, if there is space.
    pub(crate) fn send(&self, commands: &[u64]) -> Option<Sent> {
        let refusals_before = self.refusals.count();
        let count = commands.len() as u64;
        let range = self.reservations.reserve(count).or_else(|| {
            if self.reservations.is_shut() {
                return None;
            }
            self.reservations.consumed_to(self.look());
            self.reservations.reserve(count)
        })?;
        range.clone().zip(commands).for_each(|(position, command)| self.write(position, *command));
        self.reservations.hand_over(&range, |end| self.publish(end));
        Some(Sent { range, is_bad: commands.contains(&BAD), refusals_before })
    }

    /// Looks once whether commands are consumed: whoever sent a bad one must know it then, and nobody else may be told.
    pub(crate) fn is_done(&self, sent: &Sent) -> bool {
        let done = self.look() >= sent.range.end;
        if done {
            let expected = if sent.is_bad { Verdict::Refused(ILL) } else { Verdict::Accepted };
            assert_eq!(self.refusals.verdict(&sent.range, sent.refusals_before), expected);
        }
        done
    }

    /// What whoever sent commands does when it does not wait for them any more.
    pub(crate) fn retire(&self, sent: &Sent) {
        self.reservations.retire(&sent.range);
    }

    /// Takes no more commands. Whether all senders have gone by now: then the power goes, too.
    pub(crate) fn suspend(&self) -> bool {
        self.reservations.shut();
        let idle = self.reservations.is_idle();
        if idle {
            self.power.with_mut(|_| ());
        }
        idle
    }

    /// Takes commands again.
    pub(crate) fn resume(&self) {
        self.reservations.reopen();
    }

    /// What whoever waits does in between.
    pub(crate) fn get_on(&self) {
        self.reservations.help(|end| self.publish(end));
        self.repair();
    }

    /// Makes an end of what was sent.
    pub(crate) fn settle(&self, consumed: &mut Vec<u64>, sent: &[Sent]) {
        // Whoever looks once more when all the others have gone finds whatever they have left unpublished.
        self.get_on();
        let end = sent.iter().map(|sent| sent.range.end).max().unwrap_or(0);
        assert_eq!(self.produced.load(Relaxed), end, "what was filled out of turn is forgotten");
        // One turn for each thing that may be missing.
        for _ in 0..=consumed.len() + sent.len() * 4 {
            self.get_on();
            self.consume(consumed);
        }
        assert!(sent.iter().all(|sent| self.is_done(sent)), "something got lost");
    }

    fn publish(&self, end: u64) {
        self.power.with(|_| ());
        assert!(self.produced.load(Relaxed) < end, "CMDQ_PROD goes back");
        assert!(end <= self.reservations.published(), "CMDQ_CONS may be past what is published");
        self.produced.store(end, Release);
    }

    /// Reads CMDQ_CONS.
    fn look(&self) -> u64 {
        self.power.with(|_| ());
        let consumed = self.consumed.load(Acquire);
        assert!(consumed <= self.reservations.published(), "CMDQ_CONS is past what is published");
        consumed
    }

    fn repair(&self) {
        // Instead of CMDQ_CONS.ERR.
        if !self.error.load(Acquire) {
            return;
        }
        let _one_at_a_time = self.repairing.lock().unwrap();
        if self.error.load(Acquire) {
            let position = self.consumed.load(Acquire);
            self.refusals.record(position, ILL);
            self.write(position, REPLACED);
            self.error.store(false, Release);
        }
    }

    /// The SMMU: consumes what it has been handed, up to a bad command. One thread at a time does this.
    pub(crate) fn consume(&self, commands: &mut Vec<u64>) {
        let produced = self.produced.load(Acquire);
        assert!(produced >= commands.len() as u64, "CMDQ_PROD went back");
        if self.error.load(Acquire) {
            return;
        }
        for position in commands.len() as u64..produced {
            let command = self.read(position);
            if command == BAD {
                self.error.store(true, Release);
                return;
            }
            commands.push(command);
            self.consumed.store(position + 1, Release);
        }
    }

    fn write(&self, position: u64, command: u64) {
        // SAFETY: loom checks that nobody else is at it.
        self.slot(position).with_mut(|slot| unsafe { *slot = command });
    }

    fn read(&self, position: u64) -> u64 {
        // SAFETY: loom checks that nobody writes meanwhile.
        self.slot(position).with(|slot| unsafe { *slot })
    }

    fn slot(&self, position: u64) -> &UnsafeCell<u64> {
        &self.slots[position as usize % self.slots.len()]
    }
}

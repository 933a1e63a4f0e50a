//! Waiting for the SMMU: until there is space, until commands are consumed. Each wait is bounded, and nothing is held
//! meanwhile.

use core::ops::Range;
use core::time::Duration;

use super::CommandQueue;
use crate::arch::registers::{CMDQ_CONS, CMDQ_PROD};
use crate::device::DeviceError;
use crate::device::control::{Control, Deadline, wait_until};
use crate::device::global_error::GlobalErrors;
use crate::platform::Platform;

/// What CMDQ_CONS says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Consumed {
    /// How many commands the SMMU has consumed.
    pub(super) count: u64,
    /// Whether there is an error code. It may be a leftover.
    stopped: bool,
}

impl<P: Platform> CommandQueue<P> {
    /// Waits until there is space, and reserves `count` positions; fewer if that many are not free and they need not be
    /// `together`.
    pub(super) fn wait_for_space(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        count: u64,
        together: bool,
    ) -> Result<Range<u64>, DeviceError> {
        let found =
            wait_until(control.platform(), || self.look_for_space(control, errors, count, together).transpose());
        found.unwrap_or_else(|waited| Err(self.stuck(control, self.reservations.published(), waited)))
    }

    /// Reserves positions if there are any to be had at this moment.
    fn look_for_space(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        count: u64,
        together: bool,
    ) -> Result<Option<Range<u64>>, DeviceError> {
        let consumed = self.look(control)?;
        self.reservations.consumed_to(consumed.count);
        let least = if together { count } else { count.min(self.reservations.free()).max(1) };
        if let Some(range) = self.reservations.reserve(least) {
            return Ok(Some(range));
        }
        self.get_on(control, errors, consumed)?;
        if self.reservations.is_shut() {
            self.gate.check()?;
        }
        Ok(None)
    }

    /// Waits until everything in `range` is consumed. If its last command is a CMD_SYNC, everything is also complete.
    #[inline]
    pub(super) fn wait(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        range: &Range<u64>,
        ends_in_sync: bool,
    ) -> Result<(), DeviceError> {
        // As a rule the first look finds it done.
        if !self.signal.is_message() && self.look(control)?.count >= range.end {
            return Ok(());
        }
        self.wait_for_long(control, errors, range, ends_in_sync)
    }

    #[inline(never)]
    fn wait_for_long(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        range: &Range<u64>,
        ends_in_sync: bool,
    ) -> Result<(), DeviceError> {
        let last_slot = self.slot(range.end.wrapping_sub(1));
        let deadline = Deadline::start(control.platform());
        loop {
            // Whose commands are not even the SMMU's yet has no signal to wait for, but perhaps something to publish.
            let signals = ends_in_sync && self.reservations.published() >= range.end;
            if signals && self.signal.has_come(control.platform(), last_slot, range.end) {
                self.note_consumed(self.reservations.consumed(), range.end);
                return Ok(());
            }
            // The clock is read before the register: a CPU that was held up in between still looks once more.
            let missed = deadline.missed(control.platform());
            let consumed = self.look(control)?;
            if consumed.count >= range.end {
                return Ok(());
            }
            self.get_on(control, errors, consumed)?;
            if let Some(waited) = missed {
                return Err(self.stuck(control, range.end, waited));
            }
            if signals {
                self.signal.relax(control.platform());
            } else {
                control.platform().relax();
            }
        }
    }

    /// Reads CMDQ_CONS.
    #[inline]
    pub(super) fn look(&self, control: &Control<P>) -> Result<Consumed, DeviceError> {
        // The order matters: a count from before the register was read is at most the truth, one from after at least.
        let known = self.reservations.consumed();
        let register = control.read(CMDQ_CONS);
        // What was stored before the commands were the SMMU's, or before it was told to go on, is seen from here on.
        control.platform().read_barrier();
        let published = self.reservations.published();
        let count = self.ring.extend(known, register.get());
        if count > published {
            return Err(self.corrupt(register.get(), published));
        }
        self.note_consumed(known, count);
        Ok(Consumed { count, stopped: register.read(CMDQ_CONS::ERR) != 0 })
    }

    /// Keeps `count` for those who need space, if what they know lags behind by half the queue. More often would only make
    /// CPUs fight for it.
    #[inline]
    fn note_consumed(&self, known: u64, count: u64) {
        if count.wrapping_sub(known) > self.reservations.entries() / 2 {
            self.reservations.consumed_to(count);
        }
    }

    /// Does what a waiting CPU can do for the queue: publishes what others have filled, repairs.
    pub(super) fn get_on(
        &self,
        control: &Control<P>,
        errors: &GlobalErrors<P>,
        consumed: Consumed,
    ) -> Result<(), DeviceError> {
        self.reservations.help(|end| self.publish(control, end));
        if consumed.stopped {
            self.repair(control, errors);
        }
        self.gate.check_halted()
    }

    /// What to say of an SMMU that does not consume what lies before `end`, or of a CPU that does not fill its slots.
    pub(super) fn stuck(&self, control: &Control<P>, end: u64, waited: Duration) -> DeviceError {
        let (register, found) = if self.reservations.published() < end {
            (CMDQ_PROD.name(), control.read(CMDQ_PROD).get())
        } else {
            (CMDQ_CONS.name(), control.read(CMDQ_CONS).get())
        };
        let (expected, mask) = (self.register_value(end), self.ring.wrapped(u32::MAX));
        DeviceError::Timeout { register, expected, found, mask, waited }
    }

    #[cold]
    fn corrupt(&self, found: u32, published: u64) -> DeviceError {
        DeviceError::QueueCorrupt { register: CMDQ_CONS.name(), found, producer: self.register_value(published) }
    }
}

//! The life of one SMMU after bring-up: suspended and resumed, closed, shut down or handed over.
//!
//! Whoever changes its phase has it to himself: the others are told that it is suspended, and touch no register.

use super::features::check_power;
use super::phase::Phase;
use super::{DeviceError, Smmu, bring_up};
use crate::arch::registers::{CR0, CR0ACK};
use crate::platform::Platform;

/// What becomes of an SMMU that this driver is done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handover {
    /// It is off, and aborts all traffic.
    #[default]
    Abort,
    /// It goes on translating what is attached, for a next owner that adopts it. Its tables stay in memory for good, and
    /// so must whatever they lead to. Queues and interrupts are off.
    Running,
}

impl<P: Platform> Smmu<P> {
    /// Whether it was closed after an error: all traffic through it aborts, and it does nothing any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lifecycle.phase().is_closed()
    }

    /// Whether it is suspended, or about to be, or not yet resumed.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        matches!(self.lifecycle.phase(), Phase::Changing | Phase::Suspended)
    }

    /// Switches the SMMU off with all traffic aborted, for good: what is left when it does not do as it is told. Commands
    /// are refused from here on, and once it is off those under way end with [`DeviceError::Closed`].
    ///
    /// # Errors
    ///
    /// [`DeviceError::Timeout`] if it does not even do that: then it may go on reading its tables.
    /// [`DeviceError::HandedOver`] if it is not this driver's any more.
    pub fn close(&self) -> Result<(), DeviceError> {
        let before = self.lifecycle.close();
        self.commands.close();
        // Nor does anybody who is bringing it up on another CPU at this moment switch anything on any more.
        self.control.enables.seal();
        match before {
            Phase::Running | Phase::Changing => self.stop_for_good()?,
            // It is off, and maybe without power: its registers are left alone.
            Phase::Suspended | Phase::ClosedAsleep => {}
            // It was told before, by somebody who may be at it still. Every further wait for it would be in vain.
            Phase::Closed => {
                self.lifecycle.wait_for_closers(self.control.platform());
                bring_up::stop_at_once(&self.control)?;
            }
            Phase::HandedOver => return Err(DeviceError::HandedOver),
        }
        // Nothing is reached any more, so nobody has to wait for commands that were under way.
        self.commands.halt();
        Ok(())
    }

    fn stop_for_good(&self) -> Result<(), DeviceError> {
        let _closing = self.lifecycle.closing();
        bring_up::stop(&self.control)
    }

    /// Ends this driver's part in the SMMU. What is asked of it afterwards fails.
    ///
    /// # Errors
    ///
    /// With [`Handover::Abort`] as [`close`](Self::close). With [`Handover::Running`] [`DeviceError::Suspended`],
    /// [`DeviceError::Closed`] or [`DeviceError::HandedOver`] if it does not run; any other means that it did not do as it
    /// was told, and has been closed.
    pub fn shutdown(&self, handover: Handover) -> Result<(), DeviceError> {
        match handover {
            Handover::Abort => self.close(),
            Handover::Running => {
                self.begin()?;
                self.let_go().and_then(|()| self.finish(Phase::HandedOver)).or_else(|error| self.give_up(error))
            }
        }
    }

    /// Switches everything off but translation. GBPA.ABORT has been in force since bring-up.
    fn let_go(&self) -> Result<(), DeviceError> {
        self.commands.pause(DeviceError::HandedOver);
        self.commands.finish(&self.control, &self.errors)?;
        self.control.interrupts.write(&self.control, 0)?;
        let translation = self.control.read(CR0ACK).get() & (CR0::SMMUEN::SET + CR0::ATSCHK::SET).value;
        self.control.enables.write(&self.control, translation)?;
        self.streams.keep();
        Ok(())
    }

    /// Switches the SMMU off, all traffic aborted, so that it may lose its power. Everything it needs stays in memory.
    ///
    /// Until [`resume`](Self::resume) no register is touched, and attaching is refused with [`DeviceError::Suspended`], as is
    /// everything else that the SMMU would have to do. Mapping, unmapping and detaching go on: the SMMU remembers nothing
    /// when it is switched on again.
    ///
    /// Interrupt handlers that are taking records on other CPUs at this moment may still do so: wait for them, too, before
    /// its power goes.
    ///
    /// An SMMU that has lost its power may let all traffic pass (its reset value of GBPA) from when it is powered up again
    /// until the first register write of `resume`. Whoever has an SMMU like that keeps its devices quiet until then.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Suspended`], [`DeviceError::Closed`] or [`DeviceError::HandedOver`] if it does not run.
    /// [`DeviceError::Busy`] if somebody else does not finish with it, and [`DeviceError::Timeout`] for GBPA if it would let
    /// everything pass once it is off: then it goes on as it was. Any other means that it did not do as it was told, and has
    /// been closed.
    pub fn suspend(&self) -> Result<(), DeviceError> {
        self.begin()?;
        if let Err(error) = bring_up::abort(&self.control) {
            return self.finish(Phase::Running).and(Err(error));
        }
        self.fall_asleep().and_then(|()| self.finish(Phase::Suspended)).or_else(|error| self.give_up(error))
    }

    /// Switches translation off, with everything aborted, and then all the rest.
    fn fall_asleep(&self) -> Result<(), DeviceError> {
        self.control.enables.clear(&self.control, CR0::SMMUEN::SET.value)?;
        // With translation off nothing refills the caches. Once this is synced, what was translated before is over too.
        self.forget_everything()?;
        self.commands.pause(DeviceError::Suspended);
        self.commands.finish(&self.control, &self.errors)?;
        bring_up::switch_off(&self.control)?;
        self.park_queues();
        Ok(())
    }

    /// The same for an SMMU that may not carry out commands: it forgets everything when it is brought up again.
    fn fall_asleep_at_once(&self) -> Result<(), DeviceError> {
        // Off first: as long as it translates, whoever unmaps is to hear of commands that are not carried out.
        self.control.enables.clear(&self.control, CR0::SMMUEN::SET.value)?;
        if self.control.read(CR0ACK).is_set(CR0::CMDQEN) {
            // What was translated meanwhile is to be over. If that cannot be had, then at least it is off.
            let _ = self.forget_everything();
        }
        self.commands.pause(DeviceError::Suspended);
        bring_up::stop(&self.control)?;
        self.park_queues();
        Ok(())
    }

    fn park_queues(&self) {
        self.events.park(&self.control);
        self.page_requests.iter().for_each(|queue| queue.park(&self.control));
    }

    /// Brings a suspended SMMU up again as it was, whether it has lost its power or not. Does nothing if it runs.
    ///
    /// As after [`enable_interrupts`](Self::enable_interrupts) look at everything once: what is in the queues by now raises
    /// no interrupt.
    ///
    /// # Errors
    ///
    /// [`DeviceError::PoweredOff`] if it does not answer yet, with nothing done; or any error of bring-up, with the SMMU
    /// switched off again. Either way it stays suspended, and one may try again. If it does not even switch off it is
    /// closed. [`DeviceError::Closed`] and [`DeviceError::HandedOver`] if it is not suspended.
    pub fn resume(&self) -> Result<(), DeviceError> {
        if let Err(phase) = self.lifecycle.change(Phase::Suspended, Phase::Changing) {
            return phase.refusal().map_or(Ok(()), Err);
        }
        if let Err(error) = check_power(&self.control) {
            self.finish(Phase::Suspended)?;
            return Err(error);
        }
        match self.wake_up() {
            Ok(()) => self.finish(Phase::Running).or_else(|error| self.give_up(error)),
            Err(error) => {
                let asleep = self.fall_asleep_at_once().and_then(|()| self.finish(Phase::Suspended));
                asleep.or_else(|error| self.give_up(error))?;
                Err(error)
            }
        }
    }

    fn wake_up(&self) -> Result<(), DeviceError> {
        bring_up::stop(&self.control)?;
        self.start()?;
        self.restore_interrupts()
    }

    /// Takes a running SMMU's phase to change it, and waits for those who are at its registers.
    fn begin(&self) -> Result<(), DeviceError> {
        let begun = self.lifecycle.change(Phase::Running, Phase::Changing);
        // The phase may have become "running" since it was found to be another.
        begun.map_err(|phase| phase.refusal().unwrap_or(DeviceError::Suspended))?;
        match self.lifecycle.wait_for_users(self.control.platform()) {
            Ok(()) => Ok(()),
            Err(error) => self.finish(Phase::Running).and(Err(error)),
        }
    }

    /// Ends a change, unless the SMMU was closed in the meantime.
    fn finish(&self, phase: Phase) -> Result<(), DeviceError> {
        self.lifecycle.change(Phase::Changing, phase).map_err(|_| DeviceError::Closed)
    }

    /// Closes an SMMU in the middle of a change that went wrong. The worse of the errors is the one to know.
    fn give_up(&self, error: DeviceError) -> Result<(), DeviceError> {
        self.lifecycle.close();
        self.commands.close();
        self.control.enables.seal();
        self.stop_for_good()?;
        self.commands.halt();
        Err(error)
    }
}

impl<P: Platform> Drop for Smmu<P> {
    fn drop(&mut self) {
        match self.lifecycle.phase() {
            // Off already, and maybe without power; or without queues, and the tables are the next owner's.
            Phase::Suspended | Phase::ClosedAsleep | Phase::HandedOver => {}
            Phase::Running | Phase::Changing | Phase::Closed => {
                self.commands.settle_messages(&self.control, &self.errors);
                if bring_up::stop(&self.control).is_err() {
                    // It may still read them: memory that hardware reaches is not given back.
                    self.keep_memory();
                }
            }
        }
    }
}

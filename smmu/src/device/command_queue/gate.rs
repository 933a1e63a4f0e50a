//! Whether the queue takes commands, and how to see that nobody is at it any more.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lock_api::Mutex;

use super::CommandQueue;
use crate::arch::command::CommandError;
use crate::device::DeviceError;
use crate::device::control::{Control, wait_until};
use crate::device::global_error::GlobalErrors;
use crate::platform::Platform;

/// Why there are no commands to be had. Those who find space never come here.
#[derive(Debug)]
pub(super) struct Gate<P: Platform> {
    /// Why commands are refused, if they are. [`DeviceError::Closed`] is for good.
    refusal: Mutex<P::Lock, Option<DeviceError>>,
    /// Set once the SMMU cannot read the queue any more: nothing sent later is carried out.
    halted: AtomicBool,
    /// How many wait for space, and read CMDQ_CONS without having reserved anything.
    waiting: AtomicUsize,
}

/// Somebody who waits for space, as long as it lives.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl<P: Platform> Gate<P> {
    pub(super) const fn new() -> Self {
        Self { refusal: Mutex::new(None), halted: AtomicBool::new(false), waiting: AtomicUsize::new(0) }
    }

    /// Begins to wait for space, unless commands are refused.
    pub(super) fn enter(&self) -> Result<Waiting<'_>, DeviceError> {
        // Counted before the reason is looked at, under the lock: whoever refuses commands afterwards sees the count.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        self.check()?;
        Ok(waiting)
    }

    /// Why commands are refused, if they are.
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        let halted = || self.halted.load(Ordering::Acquire).then_some(DeviceError::Command(CommandError::Abt));
        self.refusal.lock().or_else(halted).map_or(Ok(()), Err)
    }

    /// Why what is in the queue is not carried out any more, if so.
    pub(super) fn check_halted(&self) -> Result<(), DeviceError> {
        if !self.halted.load(Ordering::Acquire) {
            return Ok(());
        }
        match *self.refusal.lock() {
            Some(DeviceError::Closed) => Err(DeviceError::Closed),
            _ => Err(DeviceError::Command(CommandError::Abt)),
        }
    }
}

impl<P: Platform> CommandQueue<P> {
    /// Refuses every command from here on, for good.
    pub(in crate::device) fn close(&self) {
        self.pause(DeviceError::Closed);
    }

    /// Refuses every command from here on, for this reason, until [`open`](Self::open).
    pub(in crate::device) fn pause(&self, reason: DeviceError) {
        let mut refusal = self.gate.refusal.lock();
        if *refusal != Some(DeviceError::Closed) {
            *refusal = Some(reason);
        }
        self.reservations.shut();
    }

    /// Takes commands again, unless the queue was closed or has halted.
    pub(in crate::device) fn open(&self) {
        let mut refusal = self.gate.refusal.lock();
        if *refusal != Some(DeviceError::Closed) {
            *refusal = None;
            if !self.is_halted() {
                self.reservations.reopen();
            }
        }
    }

    /// Whether the SMMU cannot read the queue any more.
    pub(in crate::device) fn is_halted(&self) -> bool {
        self.gate.halted.load(Ordering::Acquire)
    }

    /// Notes that the SMMU does not read the queue any more: who waits for it waits no longer.
    pub(in crate::device) fn halt(&self) {
        self.gate.halted.store(true, Ordering::Release);
        self.reservations.shut();
    }

    /// Waits until the SMMU has consumed all commands that it was given and whoever sent them has seen it. The queue is
    /// paused: nobody reads its registers afterwards, which may lose their power.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), but for refused commands: they are their senders' business.
    pub(in crate::device) fn finish(&self, control: &Control<P>, errors: &GlobalErrors<P>) -> Result<(), DeviceError> {
        self.wait_for_senders(control)?;
        // Those who gave up have left commands behind.
        let end = self.reservations.published();
        self.wait(control, errors, &(end..end), false)
    }

    /// Waits until nobody is sending commands or waiting for them. The queue is paused.
    pub(super) fn wait_for_senders(&self, control: &Control<P>) -> Result<(), DeviceError> {
        let is_idle = || self.gate.waiting.load(Ordering::Acquire) == 0 && self.reservations.is_idle();
        wait_until(control.platform(), || is_idle().then_some(()))
            .map_err(|waited| self.stuck(control, self.reservations.published(), waited))
    }
}

//! Where one SMMU is in its life, and who may be at its registers.
//!
//! What lives here: the phase, over atomics. What does not: what is done on the way from one to another
//! ([`lifecycle`](super::lifecycle)).

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::DeviceError;
use super::control::wait_until;
use crate::platform::Platform;

/// Where an SMMU is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running = 0,
    /// On the way from one of the others to another.
    Changing = 1,
    Suspended = 2,
    HandedOver = 3,
    Closed = 4,
    /// Closed while it was suspended: maybe without power.
    ClosedAsleep = 5,
}

/// The phase of one SMMU, and who relies on it.
#[derive(Debug)]
pub(super) struct Lifecycle {
    phase: AtomicU8,
    /// How many are at the registers of an SMMU that runs or is closed. Sequentially consistent, as is the phase next to it:
    /// of one who counts himself and one who changes the phase, one at least sees the other.
    users: AtomicUsize,
    /// How many are switching it off for good.
    closers: AtomicUsize,
}

/// Somebody at the registers, as long as it lives: they do not go to sleep meanwhile.
pub(super) struct Held<'a>(&'a AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Phase {
    fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Running,
            1 => Self::Changing,
            2 => Self::Suspended,
            3 => Self::HandedOver,
            5 => Self::ClosedAsleep,
            _ => Self::Closed,
        }
    }

    /// Why nothing can be done in this phase, if so.
    pub(super) fn refusal(self) -> Option<DeviceError> {
        match self {
            Self::Running => None,
            Self::Changing | Self::Suspended => Some(DeviceError::Suspended),
            Self::HandedOver => Some(DeviceError::HandedOver),
            Self::Closed | Self::ClosedAsleep => Some(DeviceError::Closed),
        }
    }

    pub(super) fn is_closed(self) -> bool {
        matches!(self, Self::Closed | Self::ClosedAsleep)
    }

    /// What it becomes when it is closed.
    fn closed(self) -> Option<Self> {
        match self {
            Self::HandedOver => None,
            Self::Suspended | Self::ClosedAsleep => Some(Self::ClosedAsleep),
            Self::Running | Self::Changing | Self::Closed => Some(Self::Closed),
        }
    }
}

impl Lifecycle {
    pub(super) const fn new() -> Self {
        Self::in_phase(Phase::Running)
    }

    /// Of an SMMU that is another owner's, up to [`take`](Self::take).
    pub(super) const fn of_another() -> Self {
        Self::in_phase(Phase::HandedOver)
    }

    const fn in_phase(phase: Phase) -> Self {
        Self { phase: AtomicU8::new(phase as u8), users: AtomicUsize::new(0), closers: AtomicUsize::new(0) }
    }

    /// Makes another owner's SMMU this driver's.
    pub(super) fn take(&self) {
        self.phase.store(Phase::Running as u8, Ordering::Release);
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::from_code(self.phase.load(Ordering::SeqCst))
    }

    /// Goes from one phase to another; only one of several who want to does.
    pub(super) fn change(&self, from: Phase, to: Phase) -> Result<(), Phase> {
        let changed = self.phase.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst);
        changed.map(|_| ()).map_err(Phase::from_code)
    }

    /// Closes it unless it is somebody else's by now, and says what it was.
    pub(super) fn close(&self) -> Phase {
        let close = |code| Phase::from_code(code).closed().map(|phase| phase as u8);
        let before = self.phase.fetch_update(Ordering::SeqCst, Ordering::SeqCst, close);
        Phase::from_code(before.unwrap_or_else(|code| code))
    }

    /// Counts one who is switching it off for good.
    pub(super) fn closing(&self) -> Held<'_> {
        self.closers.fetch_add(1, Ordering::AcqRel);
        Held(&self.closers)
    }

    /// Waits until nobody is switching it off any more, or too long.
    pub(super) fn wait_for_closers<P: Platform>(&self, platform: &P) {
        let _ = wait_until(platform, || (self.closers.load(Ordering::Acquire) == 0).then_some(()));
    }

    /// Refuses what is to be done with a running SMMU, unless it runs.
    pub(super) fn check_running(&self) -> Result<(), DeviceError> {
        self.phase().refusal().map_or(Ok(()), Err)
    }

    /// Refuses what can be taken away from an SMMU that runs or sleeps, and from no other.
    pub(super) fn check_ours(&self) -> Result<(), DeviceError> {
        match self.phase().refusal() {
            None | Some(DeviceError::Suspended) => Ok(()),
            Some(refusal) => Err(refusal),
        }
    }

    /// Holds the registers of a running SMMU.
    pub(super) fn hold_running(&self) -> Result<Held<'_>, DeviceError> {
        let held = self.count();
        self.check_running().map(|()| held)
    }

    /// Holds the registers if there are any to look at: not while they may be without power, nor once they are another
    /// owner's.
    pub(super) fn hold_registers(&self) -> Option<Held<'_>> {
        let held = self.count();
        matches!(self.phase(), Phase::Running | Phase::Closed).then_some(held)
    }

    fn count(&self) -> Held<'_> {
        self.users.fetch_add(1, Ordering::SeqCst);
        Held(&self.users)
    }

    /// Waits until nobody holds the registers. The phase does not permit it any more.
    pub(super) fn wait_for_users<P: Platform>(&self, platform: &P) -> Result<(), DeviceError> {
        let gone = || (self.users.load(Ordering::SeqCst) == 0).then_some(());
        wait_until(platform, gone).map_err(|waited| DeviceError::Busy { waited })
    }

    /// Whether the registers are another owner's.
    pub(super) fn is_handed_over(&self) -> bool {
        self.phase() == Phase::HandedOver
    }
}

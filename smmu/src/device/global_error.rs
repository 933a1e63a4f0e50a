//! GERROR and GERRORN: errors of the SMMU itself, each acknowledged once (IHI 0070, 7.5).

use core::fmt;

use lock_api::Mutex;
use tock_registers::LocalRegisterCopy;

use super::Smmu;
use super::control::Control;
use crate::arch::registers::{GERROR, GERRORN};
use crate::platform::Platform;

/// The global errors that were found active, as GERROR bits. [`Smmu::handle_global_errors`] says what was done about each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalErrorReport(u32);

/// The errors in GERROR's order, with what each means.
const MEANINGS: [(u32, &str); 8] = [
    (1 << 0, "CMDQ_ERR: a command was refused"),
    (1 << 2, "EVENTQ_ABT_ERR: event records were lost, the event queue could not be written"),
    (1 << 3, "PRIQ_ABT_ERR: page requests were lost"),
    (1 << 4, "MSI_CMDQ_ABT_ERR: the command queue's interrupt could not be sent"),
    (1 << 5, "MSI_EVENTQ_ABT_ERR: the event queue's interrupt could not be sent"),
    (1 << 6, "MSI_PRIQ_ABT_ERR: the page request queue's interrupt could not be sent"),
    (1 << 7, "MSI_GERROR_ABT_ERR: the global error interrupt could not be sent"),
    (1 << 8, "SFM_ERR: the SMMU entered service failure mode and stopped"),
];

impl GlobalErrorReport {
    /// Whether nothing was active.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The active errors, as GERROR bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for GlobalErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no global error");
        }
        let mut separator = "";
        for (bit, meaning) in MEANINGS {
            if self.0 & bit != 0 {
                write!(f, "{separator}{meaning}")?;
                separator = "; ";
            }
        }
        Ok(())
    }
}

const CMDQ_ERR: u32 = GERROR::CMDQ_ERR::SET.value;
const EVENTQ_ABT_ERR: u32 = GERROR::EVENTQ_ABT_ERR::SET.value;
const PRIQ_ABT_ERR: u32 = GERROR::PRIQ_ABT_ERR::SET.value;
const SFM_ERR: u32 = GERROR::SFM_ERR::SET.value;

/// The state of the global errors: what GERRORN holds, and who deals with which.
#[derive(Debug)]
pub(super) struct GlobalErrors<P: Platform> {
    state: Mutex<P::Lock, State>,
}

#[derive(Debug)]
struct State {
    /// GERRORN.
    acknowledged: u32,
    /// Errors that somebody is dealing with, and will acknowledge.
    in_hand: u32,
}

impl<P: Platform> GlobalErrors<P> {
    pub(super) const fn new() -> Self {
        Self { state: Mutex::new(State { acknowledged: 0, in_hand: 0 }) }
    }

    /// Acknowledges everything that a former owner left active, or that power-on did.
    pub(super) fn restart(&self, control: &Control<P>) {
        let mut state = self.state.lock();
        let gerror = control.read(GERROR).get();
        *state = State { acknowledged: gerror, in_hand: 0 };
        control.write(GERRORN, gerror);
    }

    /// The errors that are active: those whose bit in GERROR differs from the one in GERRORN.
    pub(super) fn active(&self, control: &Control<P>) -> LocalRegisterCopy<u32, GERROR::Register> {
        LocalRegisterCopy::new((control.read(GERROR).get() ^ self.state.lock().acknowledged) & known())
    }

    /// Acknowledges those of `bits` that are active; toggling another would raise an error that is none.
    pub(super) fn acknowledge(&self, control: &Control<P>, bits: u32) {
        let mut state = self.state.lock();
        let active = (control.read(GERROR).get() ^ state.acknowledged) & known() & bits;
        state.acknowledged ^= active;
        state.in_hand &= !bits;
        control.write(GERRORN, state.acknowledged);
    }

    /// The active errors that nobody deals with yet. Whoever gets them does, and acknowledges them.
    fn take_in_hand(&self, control: &Control<P>) -> u32 {
        let mut state = self.state.lock();
        let active = (control.read(GERROR).get() ^ state.acknowledged) & known() & !state.in_hand;
        state.in_hand |= active;
        active
    }
}

/// The bits of GERROR that this driver knows.
fn known() -> u32 {
    MEANINGS.iter().fold(0, |mask, (bit, _)| mask | bit)
}

impl<P: Platform> Smmu<P> {
    /// Looks for global errors and deals with them. Call it from the global error interrupt, or poll. Returns what was
    /// active; each error once.
    ///
    /// * A refused command is replaced, and whoever sent it is told.
    /// * A queue of events or page requests that could not be written is emptied and set up again. Stalled transactions
    ///   whose events went with it wait for [`terminate_stalled`](Self::terminate_stalled). A full event queue, which
    ///   some emulators report this way, keeps its events.
    /// * A message interrupt that could not be sent is wired from here on: poll, if no wire is connected.
    /// * An SMMU that cannot read its command queue any more, and so cannot be told to forget anything, and one in service
    ///   failure mode, are [closed](Self::close).
    pub fn handle_global_errors(&self) -> GlobalErrorReport {
        let Some(_held) = self.lifecycle.hold_registers() else { return GlobalErrorReport::default() };
        let errors = self.errors.take_in_hand(&self.control);
        if errors & CMDQ_ERR != 0 {
            self.commands.repair(&self.control, &self.errors);
        }
        // What is begun here and fails leaves nothing worse than the error itself: no records, no interrupts.
        if errors & EVENTQ_ABT_ERR != 0 && !self.events.is_full(&self.control) {
            let _ = self.events.rebuild(&self.control);
        }
        if let Some(queue) = self.page_requests.as_ref().filter(|_| errors & PRIQ_ABT_ERR != 0) {
            let _ = queue.rebuild(&self.control);
        }
        let _ = self.wire_failed_messages(errors);
        let mut dealt_with = errors & !CMDQ_ERR;
        if self.commands.is_halted() {
            dealt_with |= CMDQ_ERR;
        }
        if (errors & SFM_ERR) | (dealt_with & CMDQ_ERR) != 0 {
            // It may not even do that. Then it stays as it is, and whoever waits for it is told.
            let _ = self.close();
        }
        // A command error that was repaired has been acknowledged: what is active by now is the next one.
        self.errors.acknowledge(&self.control, dealt_with);
        GlobalErrorReport(errors)
    }
}

//! GERROR and GERRORN: errors of the SMMU itself, each acknowledged once (IHI 0070, 7.5).

use core::fmt;

use lock_api::Mutex;
use tock_registers::LocalRegisterCopy;

use super::control::Control;
use crate::arch::registers::{GERROR, GERRORN};
use crate::platform::Platform;

/// The global errors that were found active, as GERROR bits.
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

/// The acknowledged state of the global errors: what GERRORN holds.
#[derive(Debug)]
pub(super) struct GlobalErrors<P: Platform> {
    acknowledged: Mutex<P::Lock, u32>,
}

impl<P: Platform> GlobalErrors<P> {
    /// Starts with everything acknowledged that a former owner of the SMMU left active.
    pub(super) fn new(control: &Control<P>) -> Self {
        let gerror = control.read(GERROR).get();
        control.write(GERRORN, gerror);
        Self { acknowledged: Mutex::new(gerror) }
    }

    /// The errors that are active: those whose bit in GERROR differs from the one in GERRORN.
    pub(super) fn active(&self, control: &Control<P>) -> LocalRegisterCopy<u32, GERROR::Register> {
        LocalRegisterCopy::new((control.read(GERROR).get() ^ *self.acknowledged.lock()) & known())
    }

    /// Acknowledges those of `bits` that are active; toggling another would raise an error that is none.
    pub(super) fn acknowledge(&self, control: &Control<P>, bits: u32) {
        let mut acknowledged = self.acknowledged.lock();
        let active = (control.read(GERROR).get() ^ *acknowledged) & known() & bits;
        *acknowledged ^= active;
        control.write(GERRORN, *acknowledged);
    }

    /// What is active, for a report.
    pub(super) fn report(&self, control: &Control<P>) -> GlobalErrorReport {
        GlobalErrorReport(self.active(control).get())
    }
}

/// The bits of GERROR that this driver knows.
fn known() -> u32 {
    MEANINGS.iter().fold(0, |mask, (bit, _)| mask | bit)
}

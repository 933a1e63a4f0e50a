//! A queue that stopped at a bad command, and how it gets going again (IHI 0070, 7.1).

use super::CommandQueue;
use crate::arch::command::{Command, CommandError, Completion};
use crate::arch::registers::{CMDQ_CONS, GERROR};
use crate::device::control::Control;
use crate::device::global_error::GlobalErrors;
use crate::platform::Platform;

impl<P: Platform> CommandQueue<P> {
    /// Gets a queue going again that stopped at a bad command: the culprit becomes a CMD_SYNC, the error is remembered for
    /// whoever sent it and acknowledged. Does nothing when no command error is active: CMDQ_CONS.ERR alone may be a
    /// leftover.
    ///
    /// A CMD_SYNC that reports a device's failure to invalidate stays as it is and is carried out once more: its message,
    /// if it has one, still comes. A queue that cannot be read stays halted; to acknowledge that would only make the SMMU
    /// stumble again.
    ///
    /// Called by waiters and by the handler of the global error interrupt, on any CPU at any time; the lock lets one at a
    /// time do it. The slot that CMDQ_CONS points at is nobody else's to write while the error is active.
    pub(in crate::device) fn repair(&self, control: &Control<P>, errors: &GlobalErrors<P>) {
        let _one_at_a_time = self.repairing.lock();
        if !errors.active(control).is_set(GERROR::CMDQ_ERR) || self.is_halted() {
            return;
        }
        let register = control.read(CMDQ_CONS);
        let position = self.ring.extend(self.reservations.consumed(), register.get());
        let code = register.read(CMDQ_CONS::ERR) as u8;
        // Otherwise CMDQ_CONS lies, and the slot may be somebody's.
        if position < self.reservations.published() {
            self.refusals.record(position, code);
            match CommandError::from_code(code) {
                CommandError::Abt => return self.halt(),
                CommandError::AtcInvSync => {}
                _ => {
                    self.write_slot(position, Command::Sync { completion: Completion::None }.encode());
                    self.clean(control, &(position..position.saturating_add(1)));
                }
            }
        }
        // The record and the slot first, then what makes the SMMU go on.
        control.platform().write_barrier();
        errors.acknowledge(control, GERROR::CMDQ_ERR::SET.value);
    }
}

//! From power-on, or from whatever firmware left behind, to an SMMU that aborts every stream (IHI 0070, 3.11); and back.
//!
//! The order is the point. Traffic is aborted from the first register write on: GBPA.ABORT is in force before SMMUEN
//! falls, and stays in force while the SMMU is off.

use core::time::Duration;

use super::control::Control;
use super::features::Features;
use super::{DeviceError, Smmu};
use crate::arch::command::Command;
use crate::arch::registers::{
    CR0, CR0ACK, CR1, CR2, EVENTQ_IRQ_CFG0, GBPA, GERROR_IRQ_CFG0, IRQ_CTRL, IRQ_CTRLACK, STRTAB_BASE, STRTAB_BASE_CFG,
};
use crate::platform::Platform;

/// Looks at the hardware, stops it with all traffic aborted, and says what it can do. What turns out to be of no use is
/// left in that state too.
pub(super) fn quiesce<P: Platform>(control: &Control<P>, firmware_coherent: bool) -> Result<Features, DeviceError> {
    let features = Features::read(control, firmware_coherent)?;
    let was_enabled = control.read(CR0ACK).is_set(CR0::SMMUEN);
    abort_while_disabled(control)?;
    if was_enabled {
        // What firmware translates would pass from here on, if GBPA did not hold.
        control.wait(GBPA, GBPA::ABORT::SET.value, GBPA::ABORT::SET.value)?;
    }
    switch_off(control)?;
    features.check()?;
    Ok(features)
}

/// Switches translation, queues and interrupts off, with every transaction aborted from before to after. An SMMU that
/// would let everything pass while it is off stays on.
pub(super) fn stop<P: Platform>(control: &Control<P>) -> Result<(), DeviceError> {
    abort_while_disabled(control)?;
    control.wait(GBPA, GBPA::ABORT::SET.value, GBPA::ABORT::SET.value)?;
    switch_off(control)
}

fn switch_off<P: Platform>(control: &Control<P>) -> Result<(), DeviceError> {
    control.write(CR0, 0);
    control.wait(CR0ACK, CR0_KNOWN, 0)?;
    control.write(IRQ_CTRL, 0);
    control.wait(IRQ_CTRLACK, IRQ_CTRL_KNOWN, 0)
}

/// Whether the SMMU is off with its traffic aborted, as [`stop`] leaves it, without waiting for that.
pub(super) fn is_off<P: Platform>(control: &Control<P>) -> Result<(), DeviceError> {
    let found = control.read(CR0ACK).get();
    if found & CR0_KNOWN == 0 && aborts_while_disabled(control) {
        return Ok(());
    }
    Err(DeviceError::Timeout { register: CR0ACK.name(), expected: 0, found, mask: CR0_KNOWN, waited: Duration::ZERO })
}

/// Sets GBPA.ABORT by its update protocol (IHI 0070, 6.3.15).
fn abort_while_disabled<P: Platform>(control: &Control<P>) -> Result<(), DeviceError> {
    let update = GBPA::UPDATE::SET.value;
    control.wait(GBPA, update, 0)?;
    let value = control.read(GBPA).get() | GBPA::ABORT::SET.value | update;
    control.write(GBPA, value);
    control.wait(GBPA, update, 0)
}

/// Whether GBPA took the abort: parts older than the architecture's GBPA (early emulators) ignore it.
pub(super) fn aborts_while_disabled<P: Platform>(control: &Control<P>) -> bool {
    control.read(GBPA).is_set(GBPA::ABORT)
}

/// The CR0 fields that this driver sets or must see cleared.
const CR0_KNOWN: u32 = CR0::SMMUEN::SET.value
    | CR0::PRIQEN::SET.value
    | CR0::EVENTQEN::SET.value
    | CR0::CMDQEN::SET.value
    | CR0::ATSCHK::SET.value;

/// Likewise for IRQ_CTRL.
const IRQ_CTRL_KNOWN: u32 =
    IRQ_CTRL::GERROR_IRQEN::SET.value | IRQ_CTRL::PRIQ_IRQEN::SET.value | IRQ_CTRL::EVENTQ_IRQEN::SET.value;

impl<P: Platform> Smmu<P> {
    /// Programs a quiesced SMMU and switches it on. Every stream aborts before, during and after.
    pub(super) fn start(&self) -> Result<(), DeviceError> {
        self.control.write(CR1, self.access_attributes());
        self.control.write(CR2, (CR2::PTM::SET + CR2::RECINVSID::SET).value);
        let (base, config) = self.streams.registers();
        self.control.write64(STRTAB_BASE, base);
        self.control.write(STRTAB_BASE_CFG, config);
        self.control.platform().write_barrier();

        self.commands.program(&self.control);
        let mut enabled = CR0::CMDQEN::SET.value;
        self.enable(enabled)?;
        // Reset leaves the caches' contents unknown. Configuration goes first: an old STE could refill the TLB.
        self.run([Command::CfgiAll])?;
        self.run(self.features.hyp().then_some(Command::TlbiEl2All).into_iter().chain([Command::TlbiNsnhAll]))?;

        self.events.program(&self.control);
        enabled |= CR0::EVENTQEN::SET.value;
        self.enable(enabled)?;
        self.enable(enabled | CR0::SMMUEN::SET.value)
    }

    /// Writes CR0 and waits until CR0ACK shows it.
    fn enable(&self, value: u32) -> Result<(), DeviceError> {
        self.control.write(CR0, value);
        self.control.wait(CR0ACK, CR0_KNOWN, value)
    }

    /// CR1: how the SMMU reads tables and queues.
    fn access_attributes(&self) -> u32 {
        if self.features.coherent() {
            (CR1::QUEUE_IC::WriteBack
                + CR1::QUEUE_OC::WriteBack
                + CR1::QUEUE_SH::InnerShareable
                + CR1::TABLE_IC::WriteBack
                + CR1::TABLE_OC::WriteBack
                + CR1::TABLE_SH::InnerShareable)
                .value
        } else {
            (CR1::QUEUE_SH::OuterShareable + CR1::TABLE_SH::OuterShareable).value
        }
    }

    /// Lets the SMMU raise its event and global-error interrupts (IHI 0070, 3.18).
    ///
    /// Call it once the handlers are in place. What happened before raises no interrupt, so look at both afterwards:
    /// [`drain_events`](Self::drain_events) and [`handle_global_errors`](Self::handle_global_errors).
    ///
    /// # Errors
    ///
    /// [`DeviceError::Timeout`] if IRQ_CTRLACK does not follow.
    pub fn enable_interrupts(&self) -> Result<(), DeviceError> {
        if self.features.message_interrupts() {
            // An address of 0 keeps the wired lines in use.
            self.control.write64(GERROR_IRQ_CFG0, 0);
            self.control.write64(EVENTQ_IRQ_CFG0, 0);
        }
        let enabled = (IRQ_CTRL::GERROR_IRQEN::SET + IRQ_CTRL::EVENTQ_IRQEN::SET).value;
        self.control.write(IRQ_CTRL, enabled);
        self.control.wait(IRQ_CTRLACK, IRQ_CTRL_KNOWN, enabled)
    }
}

//! From power-on, or from whatever firmware left behind, to an SMMU that aborts every stream (IHI 0070, 3.11); and back.
//!
//! The order is the point. Traffic is aborted from the first register write on: GBPA.ABORT is in force before SMMUEN
//! falls, and stays in force while the SMMU is off.

use core::time::Duration;

use lock_api::Mutex;

use super::command_queue::CommandQueue;
use super::control::Control;
use super::event_queue::{self, EventCounts, LOG2_EVENTS};
use super::global_error::GlobalErrors;
use super::identifiers::Identifiers;
use super::interrupts::Interrupts;
use super::modes::Modes;
use super::page_requests::{self, LOG2_PAGE_REQUESTS};
use super::phase::Lifecycle;
use super::record_queue::RecordQueue;
use super::stream_table::StreamTable;
use super::{BootPolicy, DeviceError, Features, Smmu, Takeover};
use crate::arch::command::Command;
use crate::arch::registers::{CR0, CR0ACK, CR1, CR2, GBPA, STRTAB_BASE, STRTAB_BASE_CFG};
use crate::platform::Platform;

/// Stops the SMMU with all traffic aborted, and checks that it is of use. What is not is left in that state too.
pub(super) fn quiesce<P: Platform>(control: &Control<P>, features: &Features) -> Result<(), DeviceError> {
    let was_enabled = control.read(CR0ACK).is_set(CR0::SMMUEN);
    abort_while_disabled(control)?;
    if was_enabled {
        // What firmware translates would pass from here on, if GBPA did not hold.
        control.wait(GBPA, GBPA::ABORT::SET.value, GBPA::ABORT::SET.value)?;
    }
    switch_off(control)?;
    features.check()
}

/// Switches translation, queues and interrupts off, with every transaction aborted from before to after. An SMMU that
/// would let everything pass while it is off stays on.
pub(super) fn stop<P: Platform>(control: &Control<P>) -> Result<(), DeviceError> {
    abort(control)?;
    switch_off(control)
}

/// Sees to it that every transaction aborts once translation is off.
pub(super) fn abort<P: Platform>(control: &Control<P>) -> Result<(), DeviceError> {
    abort_while_disabled(control)?;
    control.wait(GBPA, GBPA::ABORT::SET.value, GBPA::ABORT::SET.value)
}

/// Switches translation, queues and interrupts off.
pub(super) fn switch_off<P: Platform>(control: &Control<P>) -> Result<(), DeviceError> {
    control.enables.write(control, 0)?;
    control.interrupts.write(control, 0)
}

/// [`stop`] for an SMMU that was told to before: waits for nothing. A stop that gave up at GBPA has left CR0 alone, and what
/// CR0ACK says counts only once CR0 was written.
pub(super) fn stop_at_once<P: Platform>(control: &Control<P>) -> Result<(), DeviceError> {
    let abort = GBPA::ABORT::SET.value;
    control.check(GBPA, abort | GBPA::UPDATE::SET.value, abort, Duration::ZERO)?;
    control.enables.clear_at_once(control)
}

/// Sets GBPA.ABORT by its update protocol (IHI 0070, 6.3.15).
fn abort_while_disabled<P: Platform>(control: &Control<P>) -> Result<(), DeviceError> {
    let update = GBPA::UPDATE::SET.value;
    control.update_gbpa(|value| value | GBPA::ABORT::SET.value | update)?;
    control.wait(GBPA, update, 0)
}

/// Whether GBPA took the abort: parts older than the architecture's GBPA (early emulators) ignore it.
pub(super) fn aborts_while_disabled<P: Platform>(control: &Control<P>) -> bool {
    control.read(GBPA).is_set(GBPA::ABORT)
}

impl<P: Platform> Smmu<P> {
    /// Takes an SMMU over and brings it up. `firmware_coherent` is the firmware table's word on whether the SMMU's own
    /// accesses snoop the CPU's caches (`dma-coherent`).
    ///
    /// # Errors
    ///
    /// [`DeviceError::PoweredOff`], [`DeviceError::CannotAdopt`], and [`DeviceError::Unsupported`] for what is no SMMUv3:
    /// nothing was written. After any other the SMMU is off with all traffic aborted, or did not do as it was told; but one that
    /// was to be adopted goes on as it was if that failed before the first register was written, for lack of memory or because
    /// a stream is beyond its table.
    pub fn bring_up(
        platform: &'static P,
        registers: P::Registers,
        firmware_coherent: bool,
        policy: BootPolicy<'_>,
    ) -> Result<Self, DeviceError> {
        let control = Control::new(platform, registers);
        let features = Features::read(&control, firmware_coherent)?;
        let was_enabled = control.read(CR0ACK).is_set(CR0::SMMUEN);
        if let (true, BootPolicy::Adopt(streams)) = (was_enabled, policy) {
            return Self::adopt(platform, control, features, streams);
        }
        quiesce(&control, &features)?;
        let (modes, streams) = (Modes::new(&features), StreamTable::new(platform, &features)?);
        let takeover = if was_enabled { Takeover::Stopped } else { Takeover::Off };
        // From here on dropping `smmu`, on success or failure, switches the hardware off before its memory goes.
        let smmu = Self::assemble(control, features, modes, streams, (Lifecycle::new(), takeover))?;
        if let BootPolicy::Bypass(streams) = policy {
            smmu.bypass(streams)?;
        }
        smmu.start()?;
        Ok(smmu)
    }

    /// Allocates all that an SMMU needs, and writes no register.
    pub(super) fn assemble(
        control: Control<P>,
        features: Features,
        modes: Modes,
        streams: StreamTable<P>,
        (lifecycle, takeover): (Lifecycle, Takeover),
    ) -> Result<Self, DeviceError> {
        let (platform, coherent) = (control.platform(), modes.queues_coherent);
        let log2_events = LOG2_EVENTS.min(features.log2_events_max());
        let log2_page_requests = LOG2_PAGE_REQUESTS.min(features.log2_page_requests_max());
        let page_requests = || RecordQueue::new(platform, &page_requests::REGISTERS, log2_page_requests, coherent);
        Ok(Self {
            commands: CommandQueue::new(platform, &features, coherent)?,
            events: RecordQueue::new(platform, &event_queue::REGISTERS, log2_events, coherent)?,
            event_counts: EventCounts::default(),
            page_requests: features.page_requests().then(page_requests).transpose()?,
            errors: GlobalErrors::new(),
            interrupts: Mutex::new(Interrupts::default()),
            streams,
            asids: Identifiers::new(platform, "ASID", features.asid_bits())?,
            vmids: Identifiers::new(platform, "VMID", features.vmid_bits())?,
            control,
            features,
            modes,
            takeover,
            lifecycle,
        })
    }

    /// Programs a quiesced SMMU and switches it on. Every stream that has no entry aborts before, during and after.
    pub(super) fn start(&self) -> Result<(), DeviceError> {
        self.errors.restart(&self.control);
        self.control.write(CR1, self.modes.cr1);
        self.control.write(CR2, self.modes.cr2);
        let (base, config) = self.streams.registers();
        self.control.write64(STRTAB_BASE, base);
        self.control.write(STRTAB_BASE_CFG, config);
        self.control.platform().write_barrier();
        self.start_queues()?;
        self.control.enables.set(&self.control, CR0::SMMUEN::SET.value)
    }

    /// Switches the queues on, the command queue first: nothing of what the SMMU has cached is in use afterwards.
    pub(super) fn start_queues(&self) -> Result<(), DeviceError> {
        self.commands.program(&self.control)?;
        self.control.enables.set(&self.control, CR0::CMDQEN::SET.value | self.modes.atschk)?;
        self.commands.open();
        self.forget_everything()?;
        self.events.start(&self.control)?;
        self.page_requests.as_ref().map_or(Ok(()), |queue| queue.restart(&self.control))
    }

    /// Makes the SMMU forget all configuration and all translations.
    pub(super) fn forget_everything(&self) -> Result<(), DeviceError> {
        // Configuration goes first: an old STE could refill the TLB.
        self.run([Command::CfgiAll])?;
        self.run(self.features.hyp().then_some(Command::TlbiEl2All).into_iter().chain([Command::TlbiNsnhAll]))
    }
}

//! A device that sits behind IOMMUs, as the core knows it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::fault_counts::FaultCounts;
use super::fault_handler::{FaultHandler, HandlerSlot};
use super::fwspec::{Fwspec, Phandle};
use crate::addr::StreamId;

/// Whether a device may cache translations (PCIe ATS).
///
/// A device that does is trusted with all of memory: the SMMU takes its word for what an address was translated to
/// (IHI 0070, 3.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtsPolicy {
    /// No: its translation requests are refused, and so is what it says it has translated.
    #[default]
    Never,
    /// Yes, where the SMMU supports it. For devices that have the ATS capability, sit behind a root complex that has it
    /// too (`ats-supported`), and are built into the machine.
    WhereSupported,
}

/// A device: its name, where it sits, whether it is attached, and how often it has strayed.
pub struct Device {
    name: String,
    fwspec: Fwspec,
    attached: AtomicBool,
    may_use_ats: AtomicBool,
    quarantined: AtomicBool,
    faults: FaultCounts,
    handler: Box<dyn HandlerSlot>,
}

impl Device {
    pub(super) fn new(name: String, fwspec: Fwspec, handler: Box<dyn HandlerSlot>) -> Self {
        let [attached, may_use_ats, quarantined] = [const { AtomicBool::new(false) }; 3];
        Self { name, fwspec, attached, may_use_ats, quarantined, faults: FaultCounts::new(), handler }
    }

    /// The name that the bus code gave it, for people: an address and a driver, say.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The IOMMUs and StreamIDs of the device.
    #[must_use]
    pub fn fwspec(&self) -> &Fwspec {
        &self.fwspec
    }

    /// Whether the device's DMA is translated at the moment. All of it aborts otherwise.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// Says whether the device may use ATS from its next attachment on.
    pub fn set_ats_policy(&self, policy: AtsPolicy) {
        self.may_use_ats.store(policy == AtsPolicy::WhereSupported, Ordering::Relaxed);
    }

    /// Whether the device may use ATS.
    #[must_use]
    pub fn ats_policy(&self) -> AtsPolicy {
        if self.may_use_ats.load(Ordering::Relaxed) { AtsPolicy::WhereSupported } else { AtsPolicy::Never }
    }

    /// Whether the device did not give up translations that it had cached when it was told to. Its DMA aborts, and it is not
    /// attached again before [`end_quarantine`](Self::end_quarantine).
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.quarantined.load(Ordering::Acquire)
    }

    /// Lets the device be attached again: it has been reset.
    pub fn end_quarantine(&self) {
        self.quarantined.store(false, Ordering::Release);
    }

    /// A stream of the device has been made to abort, because the device did not obey.
    pub(super) fn quarantine(&self, iommu: Phandle, stream: StreamId) {
        self.quarantined.store(true, Ordering::Release);
        if let Some(handler) = self.fault_handler() {
            handler.quarantined(self, iommu, stream);
        }
    }

    /// How many events the device has caused since it was added.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.total()
    }

    /// How many of which.
    #[must_use]
    pub fn fault_counts(&self) -> &FaultCounts {
        &self.faults
    }

    /// Has `handler` called for every event that the device causes from here on; `None` for nobody. Returns who was called
    /// up to now, and may be being called still on another CPU: whichever of the two is done last drops it.
    pub fn on_fault(&self, handler: Option<Arc<dyn FaultHandler>>) -> Option<Arc<dyn FaultHandler>> {
        self.handler.replace(handler)
    }

    /// Who is called for the device's events.
    pub(super) fn fault_handler(&self) -> Option<Arc<dyn FaultHandler>> {
        self.handler.get()
    }

    /// Claims the device for an attachment. Returns whether it was free.
    pub(super) fn claim(&self) -> bool {
        !self.attached.swap(true, Ordering::AcqRel)
    }

    /// The reverse of [`claim`](Self::claim).
    pub(super) fn release(&self) {
        self.attached.store(false, Ordering::Release);
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Device");
        debug.field("name", &self.name).field("fwspec", &self.fwspec).field("attached", &self.attached);
        debug.field("quarantined", &self.quarantined);
        debug.finish_non_exhaustive()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

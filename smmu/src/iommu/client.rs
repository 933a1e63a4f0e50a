//! A device that sits behind IOMMUs, as the core knows it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::fault_counts::FaultCounts;
use super::fault_handler::{FaultHandler, HandlerSlot};
use super::fwspec::Fwspec;

/// A device: its name, where it sits, whether it is attached, and how often it has strayed.
pub struct Device {
    name: String,
    fwspec: Fwspec,
    attached: AtomicBool,
    faults: FaultCounts,
    handler: Box<dyn HandlerSlot>,
}

impl Device {
    pub(super) fn new(name: String, fwspec: Fwspec, handler: Box<dyn HandlerSlot>) -> Self {
        Self { name, fwspec, attached: AtomicBool::new(false), faults: FaultCounts::new(), handler }
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
        debug.finish_non_exhaustive()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

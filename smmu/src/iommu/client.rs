//! A device that sits behind IOMMUs, as the core knows it.

use alloc::string::String;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::fwspec::Fwspec;

/// A device: its name, where it sits, whether it is attached, and how often it has strayed.
#[derive(Debug)]
pub struct Device {
    name: String,
    fwspec: Fwspec,
    attached: AtomicBool,
    faults: AtomicU64,
}

impl Device {
    pub(super) fn new(name: String, fwspec: Fwspec) -> Self {
        Self { name, fwspec, attached: AtomicBool::new(false), faults: AtomicU64::new(0) }
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
        self.faults.load(Ordering::Relaxed)
    }

    /// Claims the device for an attachment. Returns whether it was free.
    pub(super) fn claim(&self) -> bool {
        !self.attached.swap(true, Ordering::AcqRel)
    }

    /// The reverse of [`claim`](Self::claim).
    pub(super) fn release(&self) {
        self.attached.store(false, Ordering::Release);
    }

    /// Counts an event and returns how many there are now.
    pub(super) fn count_fault(&self) -> u64 {
        self.faults.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

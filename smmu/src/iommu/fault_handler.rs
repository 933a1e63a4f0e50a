//! Whom a device's faults concern, apart from whoever reads the log.

use alloc::sync::Arc;

use lock_api::{Mutex, RawMutex};

use super::fwspec::Phandle;
use super::{Device, FaultReport};
use crate::addr::StreamId;

/// What the owner of a device has to say to its faults. See [`Device::on_fault`](super::Device::on_fault).
///
/// Closures are handlers, too.
pub trait FaultHandler: Send + Sync {
    /// The device has caused an event; called for each, whether its report is due or not, and before
    /// [`Iommus::attribute`](super::Iommus::attribute) returns.
    ///
    /// It runs where the SMMU's events are drained, which usually is an interrupt handler, with no lock of this crate held:
    /// it may ask anything of the device and its domain. It must not wait for the SMMU, nor for anybody who does.
    fn fault(&self, report: &FaultReport);

    /// The device did not answer an ATC invalidation; by now the stream aborts. Runs in whatever call sent that: an unmap or
    /// a detach.
    fn quarantined(&self, device: &Device, iommu: Phandle, stream: StreamId) {
        let _ = (device, iommu, stream);
    }
}

impl<F: Fn(&FaultReport) + Send + Sync> FaultHandler for F {
    fn fault(&self, report: &FaultReport) {
        self(report);
    }
}

/// Where a device keeps its handler: a lock of whatever platform it is on.
pub(super) trait HandlerSlot: Send + Sync {
    fn get(&self) -> Option<Arc<dyn FaultHandler>>;

    fn replace(&self, handler: Option<Arc<dyn FaultHandler>>) -> Option<Arc<dyn FaultHandler>>;
}

impl<L: RawMutex + Send + Sync> HandlerSlot for Mutex<L, Option<Arc<dyn FaultHandler>>> {
    fn get(&self) -> Option<Arc<dyn FaultHandler>> {
        self.lock().clone()
    }

    fn replace(&self, handler: Option<Arc<dyn FaultHandler>>) -> Option<Arc<dyn FaultHandler>> {
        core::mem::replace(&mut *self.lock(), handler)
    }
}

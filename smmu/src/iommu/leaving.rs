//! How devices and instances part: a device that is unplugged, an instance that is taken away.
//!
//! Whoever parts them has the device in hand, as for its probe, until no instance knows of it: nobody probes it meanwhile.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use super::attachment::claim;
use super::fwspec::Phandle;
use super::group::{Group, PATIENCE};
use super::probe::{Instances, release};
use super::registry::{Instance, Probe, Record, Registry};
use super::{Device, IommuError, Iommus};
use crate::platform::Platform;

/// A device that its instances know, and whoever returns it has in hand.
struct Leaving<P: Platform> {
    device: Arc<Device>,
    group: Arc<Group<P>>,
    instances: Instances<P>,
}

/// What is left to do before an instance is gone.
enum Next<P: Platform> {
    /// A device is to be detached.
    Detach(Leaving<P>),
    /// Another CPU has a device in hand.
    Wait(Arc<Device>),
    /// Nothing; it is gone. To be dropped by whoever does not hold the registry.
    Gone(Option<Instance<P>>),
}

impl<P: Platform> Iommus<P> {
    /// Makes a device unknown: it was unplugged. It may be added again as a new one.
    ///
    /// # Errors
    ///
    /// [`IommuError::AlreadyAttached`] if a driver is still bound to it, [`IommuError::Busy`] if another CPU brings it
    /// together with its IOMMUs, and [`IommuError::UnknownDevice`]; nothing has changed then.
    pub fn remove_device(&self, device: &Arc<Device>) -> Result<(), IommuError> {
        // So that nobody attaches it any more.
        if !device.claim() {
            return Err(IommuError::AlreadyAttached { device: device.name().into() });
        }
        let taken = self.registry.lock().take(device);
        if let Ok(Some(leaving)) = &taken {
            release(device, &leaving.instances);
        }
        let removed = taken.map(|_| self.registry.lock().remove(device));
        device.release();
        removed.map(drop)
    }

    /// Takes an instance away. The devices behind it abort from here on, in all of their IOMMUs, and wait for it to come
    /// back; they are returned in the order in which they were added, for their drivers to be unbound. When this returns,
    /// the core has let go of the instance, but for the domains that were live in it.
    ///
    /// # Errors
    ///
    /// [`IommuError::NotRegistered`]. [`IommuError::Busy`] if another CPU does not let go of a device or of its group, which
    /// may be attached still; all others are not. Errors of drivers are not returned: an instance that does not let go of a
    /// stream is closed by its driver.
    pub fn unregister(&self, iommu: Phandle) -> Result<Vec<Arc<Device>>, IommuError> {
        self.registry.lock().begin_leaving(iommu)?;
        let start = self.platform.now();
        let (mut devices, mut result) = (Vec::new(), Ok(()));
        loop {
            let now = self.platform.now();
            let next = self.registry.lock().next_or_gone(iommu);
            match next {
                Next::Detach(leaving) => {
                    result = result.and(self.part(&leaving));
                    devices.push(leaving.device);
                }
                Next::Wait(device) if now.saturating_sub(start) >= PATIENCE => {
                    drop(self.registry.lock().end_leaving(iommu));
                    return Err(IommuError::Busy { device: device.name().into() });
                }
                Next::Wait(_) => self.platform.relax(),
                Next::Gone(was) => {
                    drop(was);
                    return result.map(|()| devices);
                }
            }
        }
    }

    /// Detaches a device, and has its instances forget it.
    fn part(&self, leaving: &Leaving<P>) -> Result<(), IommuError> {
        let Leaving { device, group, instances } = leaving;
        let claimed = claim(group, device);
        let parted = claimed.map(|mut state| {
            state.detach(device);
            drop(state);
            release(device, instances);
        });
        self.registry.lock().settle(device, Probe::Waiting);
        parted
    }
}

impl<P: Platform> Registry<P> {
    /// Takes a device in hand that nobody else has.
    fn take(&mut self, device: &Arc<Device>) -> Result<Option<Leaving<P>>, IommuError> {
        let instances = self.present_instances();
        let record = self.record(device)?;
        match mem::replace(&mut record.state, Probe::Probing) {
            Probe::Waiting => Ok(None),
            Probe::Probing => Err(IommuError::Busy { device: device.name().into() }),
            Probe::Done(group) => Ok(Some(Leaving { device: Arc::clone(device), group, instances })),
        }
    }

    /// From here on nobody may use the instance any more.
    fn begin_leaving(&mut self, iommu: Phandle) -> Result<(), IommuError> {
        match self.instances.get_mut(&iommu) {
            Some(state @ Instance::Ready(_)) => {
                let Instance::Ready(instance) = mem::replace(state, Instance::Gone) else { return Ok(()) };
                *state = Instance::Leaving(instance);
                Ok(())
            }
            _ => Err(IommuError::NotRegistered { iommu }),
        }
    }

    /// The next device that is behind a leaving instance; or the instance is gone, if there is none.
    fn next_or_gone(&mut self, iommu: Phandle) -> Next<P> {
        let is_behind = |record: &&Record<P>| record.device.fwspec().iommus().any(|named| named == iommu);
        let behind = self.devices.values().filter(is_behind);
        let bound = behind.filter(|record| !matches!(record.state, Probe::Waiting));
        // Those that nobody else has come first.
        let next = bound.min_by_key(|record| matches!(record.state, Probe::Probing));
        let Some(device) = next.map(|record| Arc::clone(&record.device)) else {
            return Next::Gone(self.end_leaving(iommu));
        };
        match self.take(&device) {
            Ok(Some(leaving)) => Next::Detach(leaving),
            _ => Next::Wait(device),
        }
    }

    fn end_leaving(&mut self, iommu: Phandle) -> Option<Instance<P>> {
        self.instances.insert(iommu, Instance::Gone)
    }
}

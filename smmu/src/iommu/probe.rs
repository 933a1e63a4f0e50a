//! How devices and instances come together, whichever is there first.
//!
//! A device is made known to all of its IOMMUs at once, by the one call that finds them all usable: the registration of the
//! last of them, or the addition of the device.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::device::DeviceId;
use super::fwspec::Phandle;
use super::group::{Group, Port};
use super::registry::{Context, Instance, Probe, Record, Registry, Resolved};
use super::{Device, Iommu, IommuError, Iommus, Missing};
use crate::platform::Platform;

/// What came of an instance's registration.
#[derive(Debug, Default)]
pub struct Registration {
    /// The devices that waited for this instance alone, in the order in which they were added. They can be bound now.
    pub probed: Vec<Arc<Device>>,
    /// Those that could not be made known to all of their IOMMUs, and why. They stay blocked.
    pub refused: Vec<(Arc<Device>, IommuError)>,
}

/// A device that no driver can be bound to, and why.
#[derive(Debug)]
pub struct Unready {
    /// The device.
    pub device: Arc<Device>,
    /// What it waits for, or what failed.
    pub reason: Result<Vec<Missing>, IommuError>,
}

impl<P: Platform> Iommus<P> {
    /// Adds an instance under the phandle that firmware refers to it by, and probes the devices that waited for it, in the
    /// order in which they were added. For all others it is there when this returns, not earlier: devices that are bound
    /// meanwhile are deferred.
    ///
    /// # Errors
    ///
    /// [`IommuError::AlreadyRegistered`].
    pub fn register<I: Iommu<P>>(&self, iommu: Phandle, instance: Arc<I>) -> Result<Registration, IommuError> {
        self.registry.lock().enter(iommu, Instance::Registering(instance))?;
        let mut registration = Registration::default();
        while let Some(device) = self.next_or_ready(iommu, &registration.refused) {
            match self.probe_claimed(&device, Context::Walk(iommu)) {
                Ok(()) => registration.probed.push(device),
                // Another of its instances was taken away. It waits for that one, or is tried again if it is back.
                Err(IommuError::Busy { .. }) => {}
                Err(error) => registration.refused.push((device, error)),
            }
        }
        Ok(registration)
    }

    /// Says that an instance will not come: it could not be brought up. Devices behind it are not waited for any more.
    ///
    /// # Errors
    ///
    /// [`IommuError::AlreadyRegistered`] if it is there.
    pub fn fail(&self, iommu: Phandle, reason: String) -> Result<(), IommuError> {
        self.registry.lock().enter(iommu, Instance::Failed(reason)).map(drop)
    }

    /// Says that all instances that firmware describes have been registered or have failed: what is missing by now will stay
    /// missing, for all that is known. Devices whose [policy](super::WithoutIommu) allows it may go without from here on.
    ///
    /// Returns the devices that cannot be bound, with the reason.
    pub fn finish_boot(&self) -> Vec<Unready> {
        let devices: Vec<_> = {
            let mut registry = self.registry.lock();
            registry.has_booted = true;
            registry.devices.values().map(|record| Arc::clone(&record.device)).collect()
        };
        devices.into_iter().filter_map(|device| self.unready(device)).collect()
    }

    /// Why a device cannot be bound, if it cannot. One that its IOMMUs refused is offered to them once more.
    fn unready(&self, device: Arc<Device>) -> Option<Unready> {
        let probed = self.probe_if_possible(&device, Context::Bind);
        let resolved = probed.and_then(|()| self.registry.lock().resolve(&device, Context::Bind));
        let reason = match resolved {
            // Bound, or bindable; or removed meanwhile.
            Ok(Ok(_)) | Err(IommuError::UnknownDevice { .. }) => return None,
            Ok(Err(missing)) => Ok(missing),
            Err(error) => Err(error),
        };
        Some(Unready { device, reason })
    }

    /// The next device that waits for the instance alone, claimed; or the instance is ready, if there is none. Nothing can
    /// come between the two.
    fn next_or_ready(&self, iommu: Phandle, refused: &[(Arc<Device>, IommuError)]) -> Option<Arc<Device>> {
        let mut registry = self.registry.lock();
        let next = registry.first_waiting(iommu, refused);
        match next.and_then(|id| registry.devices.get_mut(&id)) {
            Some(record) => {
                record.state = Probe::Probing;
                Some(Arc::clone(&record.device))
            }
            None => {
                registry.publish(iommu);
                None
            }
        }
    }

    /// Probes a device if it waits and all of its IOMMUs can be used.
    pub(super) fn probe_if_possible(&self, device: &Arc<Device>, context: Context) -> Result<(), IommuError> {
        {
            let mut registry = self.registry.lock();
            if device.fwspec().is_empty() || registry.resolve(device, context)?.is_err() {
                return Ok(());
            }
            let record = registry.record(device)?;
            match record.state {
                Probe::Waiting => record.state = Probe::Probing,
                Probe::Probing | Probe::Done(_) => return Ok(()),
            }
        }
        self.probe_claimed(device, context)
    }

    /// Makes a device known to all of its IOMMUs and to a group, or to none.
    fn probe_claimed(&self, device: &Arc<Device>, context: Context) -> Result<(), IommuError> {
        let resolved = self.registry.lock().resolve(device, context);
        let probed = resolved.and_then(|resolved| match resolved {
            Ok(ports) => probe_all(device, ports),
            // Taken away between the claim and here.
            Err(_) => Err(IommuError::Busy { device: device.name().into() }),
        });
        let ports = match probed {
            Ok(ports) => ports,
            Err(error) => {
                self.registry.lock().settle(device, Probe::Waiting);
                return Err(error);
            }
        };
        let joined = self.registry.lock().join(self.platform, device, context, &ports);
        joined.inspect_err(|_| {
            release_ports(&ports);
            // Not before: whoever probes it next must not be released by this.
            self.registry.lock().settle(device, Probe::Waiting);
        })
    }
}

/// The instances that there are, ready or not.
pub(super) type Instances<P> = Vec<(Phandle, Arc<dyn Iommu<P>>)>;

/// Has every instance look at its streams, or undoes what was done.
fn probe_all<P: Platform>(device: &Device, mut ports: Vec<Port<P>>) -> Result<Vec<Port<P>>, IommuError> {
    let probe = |port: &Port<P>| {
        let iommu = port.stream.iommu;
        device.fwspec().check_stream_ids(iommu, port.instance.stream_id_bits().into())?;
        port.instance.probe(port.stream.id).map_err(|error| IommuError::Device { iommu, error })
    };
    for index in 0..ports.len() {
        let Some(Err(error)) = ports.get(index).map(probe) else { continue };
        ports.truncate(index);
        release_ports(&ports);
        return Err(error);
    }
    Ok(ports)
}

fn release_ports<P: Platform>(ports: &[Port<P>]) {
    ports.iter().rev().for_each(|port| port.instance.release(port.stream.id));
}

/// The reverse of probing.
pub(super) fn release<P: Platform>(device: &Device, instances: &Instances<P>) {
    for entry in device.fwspec().entries().iter().rev() {
        if let Some((_, instance)) = instances.iter().find(|(iommu, _)| *iommu == entry.iommu) {
            instance.release(entry.stream_id);
        }
    }
}

impl<P: Platform> Registry<P> {
    /// Gives an instance its first state, unless it is there already. Returns what it had before, to be dropped by whoever
    /// does not hold the registry.
    fn enter(&mut self, iommu: Phandle, instance: Instance<P>) -> Result<Option<Instance<P>>, IommuError> {
        match self.instances.get(&iommu) {
            Some(Instance::Registering(_) | Instance::Ready(_) | Instance::Leaving(_)) => {
                Err(IommuError::AlreadyRegistered { iommu })
            }
            Some(Instance::Failed(_) | Instance::Gone) | None => Ok(self.instances.insert(iommu, instance)),
        }
    }

    pub(super) fn present_instances(&self) -> Instances<P> {
        let present = |(iommu, instance): (&Phandle, &Instance<P>)| match instance {
            Instance::Registering(instance) | Instance::Ready(instance) | Instance::Leaving(instance) => {
                Some((*iommu, Arc::clone(instance)))
            }
            Instance::Failed(_) | Instance::Gone => None,
        };
        self.instances.iter().filter_map(present).collect()
    }

    fn first_waiting(&self, iommu: Phandle, refused: &[(Arc<Device>, IommuError)]) -> Option<DeviceId> {
        let is_next = |device: &Arc<Device>| {
            device.fwspec().iommus().any(|named| named == iommu)
                && !refused.iter().any(|(known, _)| Arc::ptr_eq(known, device))
                && matches!(self.resolve(device, Context::Walk(iommu)), Ok(Ok(_)))
        };
        let waiting = self.devices.iter().filter(|(_, record)| matches!(record.state, Probe::Waiting));
        waiting.filter(|(_, record)| is_next(&record.device)).map(|(id, _)| *id).next()
    }

    fn publish(&mut self, iommu: Phandle) {
        if let Some(instance) = self.instances.get_mut(&iommu)
            && let Instance::Registering(new) = instance
        {
            *instance = Instance::Ready(Arc::clone(new));
        }
    }

    pub(super) fn settle(&mut self, device: &Device, state: Probe<P>) {
        if let Ok(record) = self.record(device) {
            record.state = state;
        }
    }

    /// Puts a device that its instances know into its group, and so ends its probe; or changes nothing.
    fn join(
        &mut self,
        platform: &'static P,
        device: &Arc<Device>,
        context: Context,
        ports: &[Port<P>],
    ) -> Result<(), IommuError> {
        self.check_unchanged(device, context, ports)?;
        let group = self.group_of(device)?.unwrap_or_else(|| Group::new(platform));
        self.settle(device, Probe::Done(group));
        Ok(())
    }

    /// Refuses if any of the instances is not the one it was.
    fn check_unchanged(&self, device: &Arc<Device>, context: Context, ports: &[Port<P>]) -> Result<(), IommuError> {
        let same = |now: Resolved<P>| {
            now.is_ok_and(|now| {
                now.len() == ports.len()
                    && now.iter().zip(ports).all(|(now, then)| Arc::ptr_eq(&now.instance, &then.instance))
            })
        };
        if same(self.resolve(device, context)?) {
            Ok(())
        } else {
            Err(IommuError::Busy { device: device.name().into() })
        }
    }

    /// The group that a device belongs to by its StreamIDs and its place on the bus, if there is one yet. Devices that wait
    /// for their IOMMUs link others all the same: they can use the StreamIDs that they have.
    fn group_of(&self, device: &Arc<Device>) -> Result<Option<Arc<Group<P>>>, IommuError> {
        let mut found: Option<(&Arc<Device>, &Arc<Group<P>>)> = None;
        for other in self.linked(device) {
            let Probe::Done(group) = &other.state else { continue };
            match found {
                Some((first, known)) if !Arc::ptr_eq(known, group) => {
                    let others = [first.name().into(), other.device.name().into()];
                    return Err(IommuError::GroupsDiffer { device: device.name().into(), others });
                }
                _ => found = Some((&other.device, group)),
            }
        }
        Ok(found.map(|(_, group)| Arc::clone(group)))
    }

    /// All devices that cannot be isolated from one, or from one that cannot be isolated from it, and so on.
    fn linked(&self, device: &Device) -> impl Iterator<Item = &Record<P>> {
        let mut linked = BTreeSet::from([device.id()]);
        let mut unseen = Vec::from([device.id()]);
        while let Some(record) = unseen.pop().and_then(|id| self.devices.get(&id)) {
            let streams = record.device.fwspec().entries().iter();
            let owners = streams.filter_map(|entry| self.streams.get(&(entry.iommu, entry.stream_id)));
            let sharing = owners.flat_map(|owners| owners.devices.iter()).map(|other| other.id());
            unseen.extend(sharing.chain(record.inseparable.iter().copied()).filter(|&id| linked.insert(id)));
        }
        linked.into_iter().filter_map(|id| self.devices.get(&id))
    }
}

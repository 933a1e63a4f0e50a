//! How devices and instances come together, whichever is there first.
//!
//! A device is made known to all of its IOMMUs at once, by the one call that finds them all usable: the registration of the
//! last of them, or the addition of the device.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::device::DeviceId;
use super::fwspec::Phandle;
use super::group::{Group, Port};
use super::registry::{Context, Instance, Probe, Registry, Resolved};
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
    /// What it waits for, or what failed. Nothing, if binding it may succeed.
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
        {
            let mut registry = self.registry.lock();
            if let Some(Instance::Registering(_) | Instance::Ready(_)) = registry.instances.get(&iommu) {
                return Err(IommuError::AlreadyRegistered { iommu });
            }
            registry.instances.insert(iommu, Instance::Registering(instance));
        }
        let mut registration = Registration::default();
        while let Some(device) = self.next_or_ready(iommu, &registration.refused) {
            match self.probe_claimed(&device, Context::Walk(iommu)) {
                Ok(()) => registration.probed.push(device),
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
        let mut registry = self.registry.lock();
        if let Some(Instance::Registering(_) | Instance::Ready(_)) = registry.instances.get(&iommu) {
            return Err(IommuError::AlreadyRegistered { iommu });
        }
        registry.instances.insert(iommu, Instance::Failed(reason));
        Ok(())
    }

    /// Takes an instance away. The devices behind it abort from here on, in all of their IOMMUs, and wait for it to come
    /// back; they are returned, for their drivers to be unbound.
    ///
    /// # Errors
    ///
    /// [`IommuError::NotRegistered`]; [`IommuError::Busy`] if another CPU does not let go of a device's group. Errors of
    /// drivers are not returned: an instance that does not let go of a stream is closed by its driver.
    pub fn unregister(&self, iommu: Phandle) -> Result<Vec<Arc<Device>>, IommuError> {
        let (instances, devices) = {
            let mut registry = self.registry.lock();
            if !matches!(registry.instances.get(&iommu), Some(Instance::Ready(_))) {
                return Err(IommuError::NotRegistered { iommu });
            }
            let instances = registry.present_instances();
            registry.instances.insert(iommu, Instance::Gone);
            (instances, registry.orphan(iommu))
        };
        for (device, group) in &devices {
            let mut state = group.claim().ok_or_else(|| IommuError::Busy { device: device.name().into() })?;
            let _ = state.evict(|stream| device.fwspec().contains(stream.iommu, stream.id));
            drop(state);
            release(device, &instances);
        }
        Ok(devices.into_iter().map(|(device, _)| device).collect())
    }

    /// Says that all instances that firmware describes have been registered or have failed: what is missing by now will stay
    /// missing, for all that is known. Devices whose [policy](super::WithoutIommu) allows it may go without from here on.
    ///
    /// Returns the devices that cannot be bound, with the reason.
    pub fn finish_boot(&self) -> Vec<Unready> {
        let mut registry = self.registry.lock();
        registry.has_booted = true;
        let unready = |device: &Arc<Device>| {
            let reason = match registry.resolve(device, Context::Bind) {
                Ok(Ok(_)) => return None,
                Ok(Err(missing)) => Ok(missing),
                Err(error) => Err(error),
            };
            Some(Unready { device: Arc::clone(device), reason })
        };
        registry.devices.values().filter_map(|record| unready(&record.device)).collect()
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
        joined.inspect_err(|_| release_ports(&ports))
    }

    /// The reverse of probing.
    pub(super) fn release(&self, device: &Device) {
        let instances = self.registry.lock().present_instances();
        release(device, &instances);
    }
}

type Instances<P> = Vec<(Phandle, Arc<dyn Iommu<P>>)>;

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

fn release<P: Platform>(device: &Device, instances: &Instances<P>) {
    for entry in device.fwspec().entries().iter().rev() {
        if let Some((_, instance)) = instances.iter().find(|(iommu, _)| *iommu == entry.iommu) {
            instance.release(entry.stream_id);
        }
    }
}

impl<P: Platform> Registry<P> {
    fn present_instances(&self) -> Instances<P> {
        let present = |(iommu, instance): (&Phandle, &Instance<P>)| match instance {
            Instance::Registering(instance) | Instance::Ready(instance) => Some((*iommu, Arc::clone(instance))),
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

    fn settle(&mut self, device: &Device, state: Probe<P>) {
        if let Ok(record) = self.record(device) {
            record.state = state;
        }
    }

    /// Makes the devices behind an instance wait again. Returns them with the groups that they were in.
    fn orphan(&mut self, iommu: Phandle) -> Vec<(Arc<Device>, Arc<Group<P>>)> {
        let mut orphans = Vec::new();
        for record in self.devices.values_mut() {
            if record.device.fwspec().iommus().any(|named| named == iommu)
                && let Probe::Done(group) = &record.state
            {
                orphans.push((Arc::clone(&record.device), Arc::clone(group)));
                record.state = Probe::Waiting;
            }
        }
        orphans
    }

    /// Puts a device that its instances know into its group, and so ends its probe.
    fn join(
        &mut self,
        platform: &'static P,
        device: &Arc<Device>,
        context: Context,
        ports: &[Port<P>],
    ) -> Result<(), IommuError> {
        let found = self.check_unchanged(device, context, ports).and_then(|()| self.group_of(device));
        let state = match &found {
            Ok(group) => Probe::Done(group.clone().unwrap_or_else(|| Group::new(platform))),
            Err(_) => Probe::Waiting,
        };
        self.settle(device, state);
        found.map(|_| ())
    }

    /// Refuses if any of the instances is not the one it was.
    pub(super) fn check_unchanged(
        &self,
        device: &Arc<Device>,
        context: Context,
        ports: &[Port<P>],
    ) -> Result<(), IommuError> {
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

    /// The group that a device belongs to by its StreamIDs and its place on the bus, if there is one yet.
    fn group_of(&self, device: &Arc<Device>) -> Result<Option<Arc<Group<P>>>, IommuError> {
        let by_stream = device.fwspec().entries().iter();
        let by_stream = by_stream.filter_map(|entry| self.streams.get(&(entry.iommu, entry.stream_id)));
        let by_stream = by_stream.flat_map(|owners| owners.devices.iter()).map(|other| other.id());
        let by_bus = self.devices.get(&device.id()).into_iter().flat_map(|record| record.inseparable.iter().copied());
        let mut found: Option<(&Arc<Device>, &Arc<Group<P>>)> = None;
        for other in by_stream.chain(by_bus).filter_map(|id| self.devices.get(&id)) {
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
}

//! Groups that belong to one owner as a whole: a hypervisor that gives them to a virtual machine, for instance.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::attachment::{claim, map_direct};
use super::group::{Group, Owner, Port, check_accepted};
use super::registry::Probe;
use super::{Device, Domain, IommuError, Iommus, Stream};
use crate::platform::Platform;

/// A group of devices without drivers, and what they reach. All of them abort again when it is dropped.
pub struct GroupOwnership<P: Platform> {
    group: Arc<Group<P>>,
    devices: Vec<Arc<Device>>,
    domain: Domain<P>,
    streams: Vec<Arc<Stream>>,
}

impl<P: Platform> Iommus<P> {
    /// Takes a device's group, which is to say the device and all that cannot be isolated from it, and has them go through
    /// one domain, all or none.
    ///
    /// # Errors
    ///
    /// [`IommuError::AlreadyAttached`] if a driver is bound to one of them; [`IommuError::Busy`] if an IOMMU of one is
    /// missing; [`IommuError::ForeignDomain`] and [`IommuError::Incompatible`] if one cannot use the domain.
    pub fn own_group(&self, device: &Arc<Device>, domain: Domain<P>) -> Result<GroupOwnership<P>, IommuError> {
        let (group, _) = self.locate(device)?.map_err(|_| IommuError::Busy { device: device.name().into() })?;
        let mut ownership = GroupOwnership { group, devices: Vec::new(), domain: Domain::Blocked, streams: Vec::new() };
        // From here on, dropping it undoes what was done.
        let mut ports = Vec::new();
        for member in self.members(&ownership.group) {
            if !member.claim() {
                return Err(IommuError::AlreadyAttached { device: member.name().into() });
            }
            ownership.devices.push(Arc::clone(&member));
            let (_, more) = self.locate(&member)?.map_err(|_| IommuError::Busy { device: member.name().into() })?;
            ports.extend(more);
        }
        ownership.attach(device, domain, ports)?;
        Ok(ownership)
    }

    /// The devices of a group that their IOMMUs know.
    fn members(&self, group: &Arc<Group<P>>) -> Vec<Arc<Device>> {
        let registry = self.registry.lock();
        let members = registry.devices.values().filter(|record| match &record.state {
            Probe::Done(of) => Arc::ptr_eq(of, group),
            Probe::Waiting | Probe::Probing => false,
        });
        members.map(|record| Arc::clone(&record.device)).collect()
    }
}

impl<P: Platform> GroupOwnership<P> {
    fn attach(&mut self, device: &Device, domain: Domain<P>, ports: Vec<Port<P>>) -> Result<(), IommuError> {
        check_accepted(ports.iter().map(|port| (port.stream.iommu, &port.instance)), &domain)?;
        let mut state = claim(&self.group, device)?;
        if !state.is_idle() {
            return Err(IommuError::GroupOwned { device: device.name().into() });
        }
        self.devices.iter().try_for_each(|member| map_direct(member, &domain))?;
        state.owner = Owner::One;
        state.domain = domain.clone();
        self.streams = state.attach(ports)?;
        self.domain = domain;
        Ok(())
    }

    /// The devices.
    #[must_use]
    pub fn devices(&self) -> &[Arc<Device>] {
        &self.devices
    }

    /// What they go through.
    #[must_use]
    pub fn domain(&self) -> &Domain<P> {
        &self.domain
    }

    /// Moves all of them to another domain without a gap.
    ///
    /// # Errors
    ///
    /// [`IommuError`]; they keep what they had. [`IommuError::Device`] if a driver failed: then each has what it had, or
    /// aborts.
    pub fn replace(&mut self, domain: Domain<P>) -> Result<(), IommuError> {
        let Some(first) = self.devices.first() else { return Ok(()) };
        let mut state = claim(&self.group, first)?;
        self.devices.iter().try_for_each(|member| map_direct(member, &domain))?;
        state.replace(domain.clone())?;
        drop(state);
        self.domain = domain;
        Ok(())
    }
}

impl<P: Platform> Drop for GroupOwnership<P> {
    fn drop(&mut self) {
        if !self.streams.is_empty() {
            match self.group.claim() {
                // A driver that fails has closed its instance.
                Some(mut state) => _ = state.detach(&self.streams),
                // The devices go on in their domain, which therefore stays, as does the claim on them.
                None => {
                    core::mem::forget(self.domain.clone());
                    return;
                }
            }
        }
        self.devices.iter().for_each(|device| device.release());
    }
}

impl<P: Platform> fmt::Debug for GroupOwnership<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("GroupOwnership");
        debug.field("devices", &self.devices).field("domain", &self.domain).finish_non_exhaustive()
    }
}

//! Groups that belong to one owner as a whole: a hypervisor that gives them to a virtual machine, for instance.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem;

use super::attachment::claim;
use super::group::{Group, Owner, Port, check_accepted};
use super::registry::Probe;
use super::reserved::DirectMappings;
use super::{Device, Domain, IommuError, Iommus};
use crate::platform::Platform;

/// A group of devices without drivers, and what they reach. All of them abort again when it is dropped.
pub struct GroupOwnership<P: Platform> {
    group: Arc<Group<P>>,
    members: Members,
    domain: Domain<P>,
}

/// Devices that are claimed for as long as this lives.
struct Members(Vec<Arc<Device>>);

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
        let mut members = Members(Vec::new());
        let mut located = Vec::new();
        for member in self.members(&group) {
            if !member.claim() {
                return Err(IommuError::AlreadyAttached { device: member.name().into() });
            }
            members.0.push(Arc::clone(&member));
            let (_, ports) = self.locate(&member)?.map_err(|_| IommuError::Busy { device: member.name().into() })?;
            located.push((member, ports));
        }
        self.attach_all(&group, device, &domain, located)?;
        Ok(GroupOwnership { group, members, domain })
    }

    fn attach_all(
        &self,
        group: &Arc<Group<P>>,
        device: &Device,
        domain: &Domain<P>,
        located: Vec<(Arc<Device>, Vec<Port<P>>)>,
    ) -> Result<(), IommuError> {
        let mut state = claim(group, device)?;
        if !state.is_idle() {
            return Err(IommuError::GroupOwned { device: device.name().into() });
        }
        let mut direct = DirectMappings::new(domain);
        for (member, ports) in &located {
            self.check_current(member, group, ports)?;
            check_accepted(ports.iter().map(|port| (port.stream.iommu, &port.instance)), domain)?;
        }
        located.iter().try_for_each(|(member, _)| direct.add(member))?;
        state.owner = Owner::One;
        state.domain = domain.clone();
        let mut attached: Vec<Arc<Device>> = Vec::new();
        for (member, ports) in located {
            if let Err(error) = state.attach(&member, ports) {
                attached.iter().rev().for_each(|member| state.detach(member));
                return Err(error);
            }
            attached.push(member);
        }
        direct.keep();
        Ok(())
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
    /// The devices.
    #[must_use]
    pub fn devices(&self) -> &[Arc<Device>] {
        &self.members.0
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
    /// [`IommuError`]; they keep what they had. [`IommuError::Detached`] if one of their IOMMUs was taken away since.
    /// [`IommuError::Device`] if a driver failed: then each has what it had, or aborts.
    pub fn replace(&mut self, domain: Domain<P>) -> Result<(), IommuError> {
        let Some(first) = self.devices().first() else { return Ok(()) };
        let mut state = claim(&self.group, first)?;
        if let Some(detached) = self.devices().iter().find(|member| !state.has(member)) {
            return Err(IommuError::Detached { device: detached.name().into() });
        }
        state.check_accepted(&domain)?;
        let mut direct = DirectMappings::new(&domain);
        self.devices().iter().try_for_each(|member| direct.add(member))?;
        state.replace(domain.clone())?;
        direct.keep();
        drop(state);
        self.domain = domain;
        Ok(())
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.0.iter().for_each(|device| device.release());
    }
}

impl<P: Platform> Drop for GroupOwnership<P> {
    fn drop(&mut self) {
        match self.group.claim() {
            Some(mut state) => self.devices().iter().rev().for_each(|device| state.detach(device)),
            // The devices go on in their domain, which therefore stays, as does the claim on them.
            None => {
                mem::forget(self.domain.clone());
                mem::forget(Members(mem::take(&mut self.members.0)));
            }
        }
    }
}

impl<P: Platform> fmt::Debug for GroupOwnership<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("GroupOwnership");
        debug.field("devices", &self.devices()).field("domain", &self.domain).finish_non_exhaustive()
    }
}

//! A device attached to its group's domain, in all of its IOMMUs or in none.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use core::mem;

use super::fwspec::Phandle;
use super::group::{Claim, Group, Owner, Port, check_accepted};
use super::registry::{Context, Probe};
use super::reserved::DirectMappings;
use super::{
    AttachmentDump, Device, Domain, DomainConfig, DomainPolicy, Iommu, IommuError, Iommus, Missing, MissingReason,
    PagingDomain, Stream, WithoutIommu,
};
use crate::addr::Iova;
use crate::platform::Platform;

/// What became of a device that was to be configured.
pub enum Configuration<P: Platform> {
    /// Its DMA goes through its group's domain.
    Configured(Attachment<P>),
    /// Some of its IOMMUs are not ready yet. Nothing was done; try again when they are.
    Deferred(Vec<Missing>),
    /// Firmware says that no IOMMU sees the device, or it may go [without](WithoutIommu) one that never came: nothing can stop
    /// or translate its DMA.
    NoIommu,
}

/// A device whose DMA goes through a domain for as long as this lives. Dropping it makes all of the device's streams
/// abort again.
pub struct Attachment<P: Platform> {
    device: Arc<Device>,
    group: Arc<Group<P>>,
    domain: Domain<P>,
    /// The streams that are attached, in the order in which they were, and where.
    streams: Vec<(Arc<Stream>, Arc<dyn Iommu<P>>)>,
}

/// The group of a device and its ports, or what it waits for.
type Located<P> = Result<(Arc<Group<P>>, Vec<Port<P>>), Vec<Missing>>;

impl<P: Platform> Iommus<P> {
    /// Attaches a device to its group's domain, in all of its IOMMUs or in none; the first of a group decides by its
    /// [policy](DomainPolicy) which domain that is. What is [reserved](Device::reserved) for it is mapped before.
    ///
    /// # Errors
    ///
    /// Any [`IommuError`]; whatever was begun has been undone and the device is blocked.
    pub fn configure(&self, device: &Arc<Device>) -> Result<Configuration<P>, IommuError> {
        if device.fwspec().is_empty() {
            return Ok(Configuration::NoIommu);
        }
        if !device.claim() {
            return Err(IommuError::AlreadyAttached { device: device.name().into() });
        }
        let result = self.configure_claimed(device);
        if !matches!(result, Ok(Configuration::Configured(_))) {
            device.release();
        }
        result
    }

    fn configure_claimed(&self, device: &Arc<Device>) -> Result<Configuration<P>, IommuError> {
        match self.probe_if_possible(device, Context::Bind) {
            // An instance was taken away meanwhile: look again what is missing.
            Ok(()) | Err(IommuError::Busy { .. }) => {}
            Err(error) => return Err(error),
        }
        let (group, ports) = match self.locate(device)? {
            Ok(located) => located,
            Err(_) if self.may_go_without(device) => return Ok(Configuration::NoIommu),
            Err(missing) => return Ok(Configuration::Deferred(missing)),
        };
        if device.is_quarantined() {
            return Err(IommuError::Quarantined { device: device.name().into() });
        }
        let instances: Vec<_> = ports.iter().map(|port| Arc::clone(&port.instance)).collect();
        let mut state = claim(&group, device)?;
        if state.owner != Owner::Drivers {
            return Err(IommuError::GroupOwned { device: device.name().into() });
        }
        self.check_current(device, &group, &ports)?;
        choose_domain(&mut state, device, &ports)?;
        let domain = state.domain.clone();
        let mut direct = DirectMappings::new(&domain);
        direct.add(device)?;
        let streams = state.attach(device, ports)?;
        direct.keep();
        drop(state);
        let streams = streams.into_iter().zip(instances).collect();
        Ok(Configuration::Configured(Attachment { device: Arc::clone(device), group, domain, streams }))
    }

    /// The group of a device and its ports, or what it waits for.
    pub(super) fn locate(&self, device: &Arc<Device>) -> Result<Located<P>, IommuError> {
        let mut registry = self.registry.lock();
        let ports = match registry.resolve(device, Context::Bind)? {
            Ok(ports) => ports,
            Err(missing) => return Ok(Err(missing)),
        };
        match &registry.record(device)?.state {
            Probe::Done(group) => Ok(Ok((Arc::clone(group), ports))),
            Probe::Waiting | Probe::Probing => Err(IommuError::Busy { device: device.name().into() }),
        }
    }

    /// Whether what is missing of a device's IOMMUs never came, and it may do without.
    fn may_go_without(&self, device: &Arc<Device>) -> bool {
        let registry = self.registry.lock();
        let has_never_come = |missing: &Missing| missing.reason == MissingReason::Absent;
        device.without_iommu() == WithoutIommu::Allow
            && registry.has_booted
            && matches!(registry.resolve(device, Context::Bind), Ok(Err(missing)) if missing.iter().all(has_never_come))
    }

    /// Refuses if a device is in another group by now, or any of its instances is not what it was when it was looked up.
    ///
    /// Asked while the group is claimed, because whoever takes an instance away says so first and then waits for the claim
    /// to detach what is attached: what is attached under the claim is either refused here or detached there.
    pub(super) fn check_current(
        &self,
        device: &Arc<Device>,
        group: &Arc<Group<P>>,
        ports: &[Port<P>],
    ) -> Result<(), IommuError> {
        let is_same = |(of, now): (Arc<Group<P>>, Vec<Port<P>>)| {
            Arc::ptr_eq(&of, group)
                && now.len() == ports.len()
                && now.iter().zip(ports).all(|(now, then)| Arc::ptr_eq(&now.instance, &then.instance))
        };
        let is_current = self.locate(device)?.is_ok_and(is_same);
        if is_current { Ok(()) } else { Err(IommuError::Busy { device: device.name().into() }) }
    }

    /// Makes an address space without mappings, by the driver of the first of a device's IOMMUs.
    ///
    /// # Errors
    ///
    /// [`IommuError::Device`] if it could not; [`IommuError::Busy`] if an IOMMU of the device is not there.
    pub fn allocate_domain(
        &self,
        device: &Arc<Device>,
        config: &DomainConfig,
    ) -> Result<Arc<dyn PagingDomain<P>>, IommuError> {
        let located = self.locate(device)?.ok();
        let port = located.as_ref().and_then(|(_, ports)| ports.first());
        allocate(port.ok_or_else(|| IommuError::Busy { device: device.name().into() })?, config)
    }
}

/// Claims a group on behalf of a device.
pub(super) fn claim<'a, P: Platform>(group: &'a Group<P>, device: &Device) -> Result<Claim<'a, P>, IommuError> {
    group.claim().ok_or_else(|| IommuError::Busy { device: device.name().into() })
}

/// Gives an idle group the domain that its first device's policy asks for, if the device may go through it.
fn choose_domain<P: Platform>(state: &mut Claim<'_, P>, device: &Device, ports: &[Port<P>]) -> Result<(), IommuError> {
    if state.is_idle() {
        state.domain = match (device.domain_policy(), ports.first()) {
            (DomainPolicy::Translated, Some(port)) => Domain::Paging(allocate(port, &DomainConfig::default())?),
            (DomainPolicy::Identity, _) => Domain::Identity,
            (DomainPolicy::Blocked, _) | (_, None) => Domain::Blocked,
        };
    }
    match (device.domain_policy(), &state.domain) {
        (DomainPolicy::Blocked, _) | (_, Domain::Blocked) => {
            Err(IommuError::BlockedByPolicy { device: device.name().into() })
        }
        (DomainPolicy::Translated, Domain::Identity) => {
            Err(IommuError::GroupUntranslated { device: device.name().into() })
        }
        _ => check_accepted(ports.iter().map(|port| (port.stream.iommu, &port.instance)), &state.domain),
    }
}

fn allocate<P: Platform>(port: &Port<P>, config: &DomainConfig) -> Result<Arc<dyn PagingDomain<P>>, IommuError> {
    let allocated = Arc::clone(&port.instance).allocate_domain(config);
    allocated.map_err(|error| IommuError::Device { iommu: port.stream.iommu, error })
}

impl<P: Platform> Attachment<P> {
    /// The device.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Whether the device may use ATS on all of its streams: it may be switched on in the device's ATS capability from here
    /// on, and is switched off there before this is dropped (IHI 0070, 3.9.2).
    #[must_use]
    pub fn uses_ats(&self) -> bool {
        !self.streams.is_empty() && self.streams.iter().all(|(stream, _)| stream.uses_ats)
    }

    /// The domain that its DMA goes through.
    #[must_use]
    pub fn domain(&self) -> &Domain<P> {
        &self.domain
    }

    /// The address space that its DMA goes through, if it is translated.
    #[must_use]
    pub fn paging(&self) -> Option<&Arc<dyn PagingDomain<P>>> {
        self.domain.paging()
    }

    /// Moves the device to another domain without a gap: its DMA meets the old one or the new one. The new one has what is
    /// [reserved](Device::reserved) for the device mapped by then.
    ///
    /// # Errors
    ///
    /// [`IommuError::Detached`] if one of the device's IOMMUs was taken away since it was attached;
    /// [`IommuError::GroupOwned`] if other devices of the group are attached; [`IommuError::ForeignDomain`] and
    /// [`IommuError::Incompatible`] if one of the device's IOMMUs cannot use the domain. The device keeps what it had.
    /// [`IommuError::Device`] if a driver failed: then it has what it had, or aborts.
    pub fn replace(&mut self, domain: Domain<P>) -> Result<(), IommuError> {
        let mut state = claim(&self.group, &self.device)?;
        if !state.has(&self.device) {
            return Err(IommuError::Detached { device: self.device.name().into() });
        }
        if !state.has_only(&self.device) {
            return Err(IommuError::GroupOwned { device: self.device.name().into() });
        }
        state.check_accepted(&domain)?;
        let mut direct = DirectMappings::new(&domain);
        direct.add(&self.device)?;
        state.replace(domain.clone())?;
        direct.keep();
        drop(state);
        self.domain = domain;
        Ok(())
    }

    /// What all users of the group's domain share, whatever that is to them: the addresses in it that are not taken, for
    /// instance. `make` makes it for the first of them. Gone with the domain; `None` if another CPU has the group and does
    /// not give it back.
    pub fn shared<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        Some(self.group.claim()?.shared(make))
    }

    /// What the device's IOMMUs have of it and how `iova` is translated, for people. Changes nothing, waits for nothing and
    /// for nobody: it may be printed at any time.
    #[must_use]
    pub fn dump(&self, iova: Iova) -> AttachmentDump<'_, P> {
        AttachmentDump { attachment: self, iova }
    }

    /// The streams that are attached, and where.
    pub(super) fn streams(&self) -> impl Iterator<Item = (Phandle, &Stream, &dyn Iommu<P>)> {
        self.streams.iter().map(|(stream, instance)| (stream.iommu, &**stream, &**instance))
    }
}

impl<P: Platform> Drop for Attachment<P> {
    fn drop(&mut self) {
        match self.group.claim() {
            Some(mut state) => state.detach(&self.device),
            // The device goes on in its domain, which therefore stays, as does the claim on the device.
            None => {
                mem::forget(self.domain.clone());
                return;
            }
        }
        self.device.release();
    }
}

impl<P: Platform> fmt::Debug for Configuration<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured(attachment) => f.debug_tuple("Configured").field(attachment).finish(),
            Self::Deferred(missing) => f.debug_tuple("Deferred").field(missing).finish(),
            Self::NoIommu => f.write_str("NoIommu"),
        }
    }
}

impl<P: Platform> fmt::Debug for Attachment<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("device", &self.device).finish_non_exhaustive()
    }
}

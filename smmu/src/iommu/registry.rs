//! The registry: SMMU instances by phandle, devices by StreamID, and how the two come together.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use lock_api::Mutex;

use super::attachment::{Attachment, Port};
use super::domain::PagingDomain;
use super::fault::{FaultReport, Throttle};
use super::fault_counts::FaultCounts;
use super::fwspec::{Fwspec, Phandle};
use super::{AtsPolicy, Device, IommuError};
use crate::addr::StreamId;
use crate::arch::event::Event;
use crate::device::Smmu;
use crate::platform::Platform;

/// What became of a device that was to be configured.
#[derive(Debug)]
pub enum Configuration<P: Platform> {
    /// Its DMA goes through a domain of its own.
    Configured(Attachment<P>),
    /// Some of its IOMMUs are not registered yet. Nothing was done; try again when they are.
    Deferred(Vec<Phandle>),
    /// Firmware says that no IOMMU sees the device: nothing can stop or translate its DMA.
    NoIommu,
}

/// All SMMUs and all devices of a system.
pub struct Iommus<P: Platform> {
    platform: &'static P,
    registry: Mutex<P::Lock, Registry<P>>,
    /// Events of streams that no device has.
    strangers: FaultCounts,
}

struct Registry<P: Platform> {
    instances: BTreeMap<Phandle, Arc<Smmu<P>>>,
    devices: BTreeMap<(Phandle, StreamId), Owner>,
    /// For events of streams that no device has.
    strangers: Throttle,
}

/// Whose a stream is.
struct Owner {
    device: Arc<Device>,
    throttle: Throttle,
}

impl<P: Platform> Iommus<P> {
    /// An empty registry.
    #[must_use]
    pub const fn new(platform: &'static P) -> Self {
        let registry = Registry { instances: BTreeMap::new(), devices: BTreeMap::new(), strangers: Throttle::new() };
        Self { platform, registry: Mutex::new(registry), strangers: FaultCounts::new() }
    }

    /// Adds an SMMU under the phandle that firmware refers to it by.
    ///
    /// # Errors
    ///
    /// [`IommuError::AlreadyRegistered`].
    pub fn register(&self, iommu: Phandle, smmu: Arc<Smmu<P>>) -> Result<(), IommuError> {
        let mut registry = self.registry.lock();
        if registry.instances.contains_key(&iommu) {
            return Err(IommuError::AlreadyRegistered { iommu });
        }
        registry.instances.insert(iommu, smmu);
        Ok(())
    }

    /// Makes a device known, so that its faults carry its name. It stays blocked until it is configured.
    ///
    /// # Errors
    ///
    /// [`IommuError::StreamShared`] if another device has one of its StreamIDs; nothing was added then.
    pub fn add_device(&self, name: String, fwspec: Fwspec) -> Result<Arc<Device>, IommuError> {
        let mut registry = self.registry.lock();
        for entry in fwspec.entries() {
            if let Some(owner) = registry.devices.get(&(entry.iommu, entry.stream_id)) {
                let owner = owner.device.name().into();
                return Err(IommuError::StreamShared { stream: entry.stream_id, owner, device: name });
            }
        }
        let handler = Box::new(Mutex::<P::Lock, _>::new(None));
        let device = Arc::new(Device::new(name, fwspec, handler));
        for entry in device.fwspec().entries() {
            let owner = Owner { device: Arc::clone(&device), throttle: Throttle::new() };
            registry.devices.insert((entry.iommu, entry.stream_id), owner);
        }
        Ok(device)
    }

    /// Gives a device a domain of its own and attaches it to that, in all of its IOMMUs or in none.
    ///
    /// # Errors
    ///
    /// Any [`IommuError`]; whatever was begun has been undone and the device is blocked.
    pub fn configure(&self, device: &Arc<Device>) -> Result<Configuration<P>, IommuError> {
        let ports = match self.ports(device) {
            Ok(ports) => ports,
            Err(missing) => return Ok(Configuration::Deferred(missing)),
        };
        let Some(first) = ports.first() else { return Ok(Configuration::NoIommu) };
        let domain = Arc::new(PagingDomain::new(self.platform, first.smmu.features())?);
        for port in &ports {
            let features = port.smmu.features();
            device.fwspec().check_stream_ids(port.iommu, features.stream_id_bits().into())?;
            if let Some(lacks) = domain.lacks(features) {
                return Err(IommuError::Incompatible { iommu: port.iommu, lacks });
            }
        }
        if device.is_quarantined() {
            return Err(IommuError::Quarantined { device: device.name().into() });
        }
        if !device.claim() {
            return Err(IommuError::AlreadyAttached { device: device.name().into() });
        }
        Attachment::new(Arc::clone(device), domain, ports).map(Configuration::Configured)
    }

    /// Every stream of a device with its instance, or the instances that are missing.
    fn ports(&self, device: &Device) -> Result<Vec<Port<P>>, Vec<Phandle>> {
        let fwspec = device.fwspec();
        let registry = self.registry.lock();
        let missing: Vec<_> = fwspec.iommus().filter(|iommu| !registry.instances.contains_key(iommu)).collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        let port = |entry: &super::fwspec::FwspecEntry| {
            let smmu = Arc::clone(registry.instances.get(&entry.iommu)?);
            let uses_ats = device.ats_policy() == AtsPolicy::WhereSupported && smmu.features().ats();
            Some(Port { iommu: entry.iommu, smmu, stream: entry.stream_id, uses_ats })
        };
        Ok(fwspec.entries().iter().filter_map(port).collect())
    }

    /// How many events came from streams that no device has, and which.
    #[must_use]
    pub fn strangers(&self) -> &FaultCounts {
        &self.strangers
    }

    /// Attributes an event of an instance to the device behind it, counts it there, and tells the device's
    /// [handler](Device::on_fault).
    pub fn attribute(&self, iommu: Phandle, event: Event) -> FaultReport {
        let (device, is_due) = self.owner(iommu, &event);
        let counts = device.as_ref().map_or(&self.strangers, |device| device.fault_counts());
        let report = FaultReport { iommu, count: counts.count(&event), device, event, is_due };
        if let Some(handler) = report.device.as_ref().and_then(|device| device.fault_handler()) {
            handler.fault(&report);
        }
        report
    }

    /// Whose an event is, and whether its report is due.
    fn owner(&self, iommu: Phandle, event: &Event) -> (Option<Arc<Device>>, bool) {
        let now = self.platform.now();
        let mut registry = self.registry.lock();
        match registry.devices.get_mut(&(iommu, event.source.stream)) {
            Some(owner) => (Some(Arc::clone(&owner.device)), owner.throttle.admit(event, now)),
            None => (None, registry.strangers.admit(event, now)),
        }
    }
}

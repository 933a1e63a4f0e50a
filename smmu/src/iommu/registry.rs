//! The registry: which instances and which devices there are, and what state each is in.
//!
//! Its lock is held for look-ups and changes of state only: never while a driver is called, nor together with any other
//! lock of the core.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use lock_api::Mutex;

use super::device::DeviceId;
use super::fault::{FaultReport, Throttle};
use super::fault_counts::FaultCounts;
use super::fwspec::Phandle;
use super::group::{Group, Port};
use super::{AtsPolicy, Device, DeviceDescription, Iommu, IommuError, Stream};
use crate::addr::StreamId;
use crate::arch::event::Event;
use crate::platform::Platform;

/// All IOMMUs and all devices of a system.
pub struct Iommus<P: Platform> {
    pub(super) platform: &'static P,
    pub(super) registry: Mutex<P::Lock, Registry<P>>,
    /// Events of streams that no device has.
    strangers: FaultCounts,
}

pub(super) struct Registry<P: Platform> {
    pub(super) instances: BTreeMap<Phandle, Instance<P>>,
    /// In the order in which they were added.
    pub(super) devices: BTreeMap<DeviceId, Record<P>>,
    pub(super) streams: BTreeMap<(Phandle, StreamId), Owners>,
    next_id: DeviceId,
    /// Whether all instances that firmware describes have had their chance.
    pub(super) has_booted: bool,
    /// For events of streams that no device has.
    strangers: Throttle,
}

/// Where an instance is between not being there and being gone. One that nobody has heard of has no entry.
pub(super) enum Instance<P: Platform> {
    /// The devices that waited for it are being probed. Nobody else may use it yet.
    Registering(Arc<dyn Iommu<P>>),
    /// Anybody may use it.
    Ready(Arc<dyn Iommu<P>>),
    /// The devices behind it are being detached. Nobody may begin to use it.
    Leaving(Arc<dyn Iommu<P>>),
    /// It will not come.
    Failed(String),
    /// It was there, and may come back.
    Gone,
}

/// A device and how far it has come.
pub(super) struct Record<P: Platform> {
    pub(super) device: Arc<Device>,
    pub(super) state: Probe<P>,
    /// Devices that the bus cannot isolate from it, whatever their StreamIDs.
    pub(super) inseparable: Vec<DeviceId>,
}

/// How far a device has come.
pub(super) enum Probe<P: Platform> {
    /// Some of its IOMMUs are missing, or one refused it. There is nothing of it but its description.
    Waiting,
    /// Some CPU has it in hand: to have its IOMMUs know of it, or forget it.
    Probing,
    /// All of its IOMMUs know of it.
    Done(Arc<Group<P>>),
}

/// Whose a stream is.
pub(super) struct Owners {
    /// One, unless devices share the StreamID.
    pub(super) devices: Arc<[Arc<Device>]>,
    throttle: Throttle,
}

/// On whose behalf devices and instances are brought together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// The registration of this instance, which is not ready for anybody else yet.
    Walk(Phandle),
    /// A device that was added, or is to be bound.
    Bind,
}

/// An IOMMU that a device has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The instance.
    pub iommu: Phandle,
    /// Why it cannot be used yet.
    pub reason: MissingReason,
}

/// Why an IOMMU cannot be used yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingReason {
    /// Nobody has registered it.
    Absent,
    /// It is being registered at this moment.
    Registering,
    /// It was registered, and taken away again.
    Gone,
}

/// A device's streams and instances, or what it waits for.
pub(super) type Resolved<P> = Result<Vec<Port<P>>, Vec<Missing>>;

impl<P: Platform> Iommus<P> {
    /// An empty registry.
    #[must_use]
    pub const fn new(platform: &'static P) -> Self {
        let registry = Registry {
            instances: BTreeMap::new(),
            devices: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_id: DeviceId::FIRST,
            has_booted: false,
            strangers: Throttle::new(),
        };
        Self { platform, registry: Mutex::new(registry), strangers: FaultCounts::new() }
    }

    /// Makes a device known, so that its faults carry its name, and if all of its IOMMUs are there, known to them. It stays
    /// blocked until it is configured.
    ///
    /// Devices with a StreamID in common, and those that the bus cannot isolate from one another, form a group and share a
    /// domain. An IOMMU that refuses the device is heard of when it is configured.
    ///
    /// # Errors
    ///
    /// [`IommuError::UnknownDevice`] if it is inseparable from a device that is not there; nothing was added then.
    pub fn add_device(&self, description: DeviceDescription) -> Result<Arc<Device>, IommuError> {
        let device = self.registry.lock().add(description)?;
        // What comes of it is the business of whoever configures the device.
        let _ = self.probe_if_possible(&device, Context::Bind);
        Ok(device)
    }

    /// How many events came from streams that no device has, and which.
    #[must_use]
    pub fn strangers(&self) -> &FaultCounts {
        &self.strangers
    }

    /// Attributes an event of an instance to the device behind it, counts it there, and tells the device's
    /// [handler](Device::on_fault); those of all of them, if devices share the StreamID.
    pub fn attribute(&self, iommu: Phandle, event: Event) -> FaultReport {
        let (devices, is_due) = self.owners(iommu, &event);
        let first = devices.as_ref().and_then(|devices| devices.first());
        let count = first.map_or(&self.strangers, |device| device.fault_counts()).count(&event);
        let report = FaultReport { iommu, count, devices, event, is_due };
        for (position, device) in report.suspects().iter().enumerate() {
            if position != 0 {
                device.fault_counts().count(&report.event);
            }
            if let Some(handler) = device.fault_handler() {
                handler.fault(&report);
            }
        }
        report
    }

    /// Whose an event is, and whether its report is due.
    fn owners(&self, iommu: Phandle, event: &Event) -> (Option<Arc<[Arc<Device>]>>, bool) {
        let now = self.platform.now();
        let mut registry = self.registry.lock();
        match registry.streams.get_mut(&(iommu, event.source.stream)) {
            Some(owners) => (Some(Arc::clone(&owners.devices)), owners.throttle.admit(event, now)),
            None => (None, registry.strangers.admit(event, now)),
        }
    }
}

impl<P: Platform> Registry<P> {
    fn add(&mut self, description: DeviceDescription) -> Result<Arc<Device>, IommuError> {
        let inseparable: Vec<_> = description.inseparable_from.iter().map(|other| other.id()).collect();
        let stranger = description.inseparable_from.iter().find(|other| !self.devices.contains_key(&other.id()));
        if let Some(stranger) = stranger {
            return Err(IommuError::UnknownDevice { device: stranger.name().into() });
        }
        let id = self.next_id;
        self.next_id = id.next();
        let handler = Box::new(Mutex::<P::Lock, _>::new(None));
        let device = Arc::new(Device::new(id, description, handler));
        for entry in device.fwspec().entries() {
            let new = || Owners { devices: Arc::new([]), throttle: Throttle::new() };
            let owners = self.streams.entry((entry.iommu, entry.stream_id)).or_insert_with(new);
            owners.devices = owners.devices.iter().chain([&device]).map(Arc::clone).collect();
        }
        for other in &inseparable {
            if let Some(other) = self.devices.get_mut(other) {
                other.inseparable.push(id);
            }
        }
        self.devices.insert(id, Record { device: Arc::clone(&device), state: Probe::Waiting, inseparable });
        Ok(device)
    }

    /// Forgets a device. Returns what there was of it, to be dropped by whoever does not hold the registry.
    pub(super) fn remove(&mut self, device: &Arc<Device>) -> Option<Record<P>> {
        let record = self.devices.remove(&device.id());
        for entry in device.fwspec().entries() {
            let key = (entry.iommu, entry.stream_id);
            let Some(owners) = self.streams.get_mut(&key) else { continue };
            owners.devices =
                owners.devices.iter().filter(|other| !Arc::ptr_eq(other, device)).map(Arc::clone).collect();
            if owners.devices.is_empty() {
                self.streams.remove(&key);
            }
        }
        for other in self.devices.values_mut() {
            other.inseparable.retain(|&id| id != device.id());
        }
        record
    }

    /// The record of a device.
    pub(super) fn record(&mut self, device: &Device) -> Result<&mut Record<P>, IommuError> {
        let unknown = || IommuError::UnknownDevice { device: device.name().into() };
        self.devices.get_mut(&device.id()).ok_or_else(unknown)
    }

    /// Every stream of a device with its instance, or the instances that are missing.
    ///
    /// # Errors
    ///
    /// [`IommuError::InstanceFailed`].
    pub(super) fn resolve(&self, device: &Arc<Device>, context: Context) -> Result<Resolved<P>, IommuError> {
        let mut missing = Vec::new();
        for iommu in device.fwspec().iommus() {
            if let Err(reason) = self.usable(iommu, context)? {
                missing.push(Missing { iommu, reason });
            }
        }
        if !missing.is_empty() {
            return Ok(Err(missing));
        }
        let mut ports = Vec::with_capacity(device.fwspec().entries().len());
        for entry in device.fwspec().entries() {
            if let Ok(instance) = self.usable(entry.iommu, context)? {
                let is_alone = |owners: &Owners| owners.devices.len() <= 1;
                let uses_ats = device.ats_policy() == AtsPolicy::WhereSupported
                    && instance.supports_ats()
                    && self.streams.get(&(entry.iommu, entry.stream_id)).is_none_or(is_alone);
                let stream = Stream { iommu: entry.iommu, id: entry.stream_id, device: Arc::clone(device), uses_ats };
                ports.push(Port { stream, instance: Arc::clone(instance) });
            }
        }
        Ok(Ok(ports))
    }

    /// The instance, if `context` may use it.
    fn usable(
        &self,
        iommu: Phandle,
        context: Context,
    ) -> Result<Result<&Arc<dyn Iommu<P>>, MissingReason>, IommuError> {
        match self.instances.get(&iommu) {
            Some(Instance::Ready(instance)) => Ok(Ok(instance)),
            Some(Instance::Registering(instance)) if context == Context::Walk(iommu) => Ok(Ok(instance)),
            Some(Instance::Registering(_)) => Ok(Err(MissingReason::Registering)),
            Some(Instance::Failed(reason)) => Err(IommuError::InstanceFailed { iommu, reason: reason.clone() }),
            Some(Instance::Leaving(_) | Instance::Gone) => Ok(Err(MissingReason::Gone)),
            None => Ok(Err(MissingReason::Absent)),
        }
    }
}

/// The phandle and why: `0x8004 (not registered yet)`.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            MissingReason::Absent => "not registered yet",
            MissingReason::Registering => "being registered",
            MissingReason::Gone => "gone",
        };
        write!(f, "{} ({reason})", self.iommu)
    }
}

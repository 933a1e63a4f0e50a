//! A device that sits behind IOMMUs, as the core knows it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::fault_counts::FaultCounts;
use super::fault_handler::{FaultHandler, HandlerSlot};
use super::fwspec::{Fwspec, Phandle};
use super::{DomainPolicy, ReservedRegion};
use crate::addr::StreamId;

/// Whether a device may cache translations (PCIe ATS).
///
/// A device that does is trusted with all of memory: the SMMU takes its word for what an address was translated to
/// (IHI 0070, 3.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtsPolicy {
    /// No: its translation requests are refused, and so is what it says it has translated.
    #[default]
    Never,
    /// Yes, where the SMMU supports it. For devices that have the ATS capability, sit behind a root complex that has it
    /// too (`ats-supported`), and are built into the machine.
    WhereSupported,
}

/// What becomes of a device one of whose IOMMUs is not there when all are that firmware describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutIommu {
    /// It stays blocked, as far as that is in anybody's hands.
    #[default]
    Refuse,
    /// It may go without: nothing will stop or translate its DMA, which must be known to work untranslated.
    Allow,
}

/// What bus code and firmware know about a device.
///
/// ```
/// use smmu::addr::StreamId;
/// use smmu::iommu::DeviceDescription;
/// use smmu::iommu::fwspec::{Fwspec, Phandle};
///
/// let mut fwspec = Fwspec::new();
/// fwspec.push(Phandle::new(0x8004), StreamId::new(0x10));
/// let disk = DeviceDescription::new("00:02.0 virtio-blk", fwspec);
/// ```
#[derive(Clone, Debug)]
pub struct DeviceDescription {
    /// For people: an address and a driver, say.
    pub name: String,
    /// The IOMMUs that the device sits behind, and its StreamIDs there: those of its aliases, too, if it is behind a
    /// conventional PCI bridge.
    pub fwspec: Fwspec,
    /// Devices that were added before and that the bus cannot isolate this one from, whatever their StreamIDs: the other
    /// functions of a device without access control services, for instance.
    pub inseparable_from: Vec<Arc<Device>>,
    /// What of its address space has a meaning already.
    pub reserved: Vec<ReservedRegion>,
    /// Which domain it gets.
    pub domain: DomainPolicy,
    /// What becomes of it if an IOMMU is missing.
    pub without_iommu: WithoutIommu,
}

impl DeviceDescription {
    /// A device that stands alone, gets an address space of its own, and is blocked without its IOMMUs.
    #[must_use]
    pub fn new(name: impl Into<String>, fwspec: Fwspec) -> Self {
        Self {
            name: name.into(),
            fwspec,
            inseparable_from: Vec::new(),
            reserved: Vec::new(),
            domain: DomainPolicy::default(),
            without_iommu: WithoutIommu::default(),
        }
    }
}

/// The number of a device: the order in which devices were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeviceId(u64);

impl DeviceId {
    pub(super) const FIRST: Self = Self(0);

    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// A device: its name, where it sits, whether it is attached, and how often it has strayed.
pub struct Device {
    id: DeviceId,
    name: String,
    fwspec: Fwspec,
    reserved: Vec<ReservedRegion>,
    domain_policy: DomainPolicy,
    without_iommu: WithoutIommu,
    attached: AtomicBool,
    may_use_ats: AtomicBool,
    quarantined: AtomicBool,
    faults: FaultCounts,
    handler: Box<dyn HandlerSlot>,
}

impl Device {
    pub(super) fn new(id: DeviceId, description: DeviceDescription, handler: Box<dyn HandlerSlot>) -> Self {
        let DeviceDescription { name, fwspec, inseparable_from: _, reserved, domain, without_iommu } = description;
        let [attached, may_use_ats, quarantined] = [const { AtomicBool::new(false) }; 3];
        let faults = FaultCounts::new();
        Self {
            id,
            name,
            fwspec,
            reserved,
            domain_policy: domain,
            without_iommu,
            attached,
            may_use_ats,
            quarantined,
            faults,
            handler,
        }
    }

    pub(super) fn id(&self) -> DeviceId {
        self.id
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

    /// What of its address space has a meaning already, and is not handed out.
    #[must_use]
    pub fn reserved(&self) -> &[ReservedRegion] {
        &self.reserved
    }

    /// Which domain it gets.
    #[must_use]
    pub fn domain_policy(&self) -> DomainPolicy {
        self.domain_policy
    }

    /// What becomes of it if an IOMMU is missing.
    #[must_use]
    pub fn without_iommu(&self) -> WithoutIommu {
        self.without_iommu
    }

    /// Whether a driver or an owner of its group has the device at the moment. All of its DMA aborts otherwise.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// Says whether the device may use ATS from its next attachment on.
    pub fn set_ats_policy(&self, policy: AtsPolicy) {
        self.may_use_ats.store(policy == AtsPolicy::WhereSupported, Ordering::Relaxed);
    }

    /// Whether the device may use ATS.
    #[must_use]
    pub fn ats_policy(&self) -> AtsPolicy {
        if self.may_use_ats.load(Ordering::Relaxed) { AtsPolicy::WhereSupported } else { AtsPolicy::Never }
    }

    /// Whether the device did not give up translations that it had cached when it was told to. Its DMA aborts, and it is not
    /// attached again before [`end_quarantine`](Self::end_quarantine).
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.quarantined.load(Ordering::Acquire)
    }

    /// Lets the device be attached again: it has been reset.
    pub fn end_quarantine(&self) {
        self.quarantined.store(false, Ordering::Release);
    }

    /// A stream of the device has been made to abort, because the device did not obey.
    pub(super) fn quarantine(&self, iommu: Phandle, stream: StreamId) {
        self.quarantined.store(true, Ordering::Release);
        if let Some(handler) = self.fault_handler() {
            handler.quarantined(self, iommu, stream);
        }
    }

    /// How many events the device has caused since it was added.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.total()
    }

    /// How many of which.
    #[must_use]
    pub fn fault_counts(&self) -> &FaultCounts {
        &self.faults
    }

    /// Has `handler` called for every event that the device causes from here on; `None` for nobody. Returns who was called
    /// up to now, and may be being called still on another CPU: whichever of the two is done last drops it.
    pub fn on_fault(&self, handler: Option<Arc<dyn FaultHandler>>) -> Option<Arc<dyn FaultHandler>> {
        self.handler.replace(handler)
    }

    /// Who is called for the device's events.
    pub(super) fn fault_handler(&self) -> Option<Arc<dyn FaultHandler>> {
        self.handler.get()
    }

    /// Claims the device for an attachment. Returns whether it was free.
    pub(super) fn claim(&self) -> bool {
        !self.attached.swap(true, Ordering::AcqRel)
    }

    /// The reverse of [`claim`](Self::claim).
    pub(super) fn release(&self) {
        self.attached.store(false, Ordering::Release);
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Device");
        debug.field("name", &self.name).field("fwspec", &self.fwspec).field("attached", &self.attached);
        debug.field("quarantined", &self.quarantined);
        debug.finish_non_exhaustive()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

//! PCI functions and their IOMMUs: fwspecs by `iommu-map`, and DMA from the moment of binding to its end.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use smmu::dma::Dma;
use smmu::firmware::{DeviceTree, FirmwareError, RequesterId};
use smmu::iommu::fwspec::Fwspec;
use smmu::iommu::{BindError, Binding, BusDevice, Device, DeviceDescription};

use super::{IOMMUS, counts};
use crate::drivers::DriverKind;
use crate::pci::{BusMaster, PciBus, PciFunction};
use crate::platform::{Kernel, PLATFORM};

/// Makes the functions behind a host bridge known to the IOMMU core, each under its address and driver, with all Requester
/// IDs that its requests may bear, and together with those that nothing keeps it from. `parts` are the Requester IDs of
/// functions that are no devices of their own, but parts of one that is described elsewhere.
///
/// Returns for each function of the bus, in its order, the device, or why there is none. Without a usable `iommu-map`
/// no function gets one.
pub fn add_devices(tree: &DeviceTree<'_>, bus: &PciBus, parts: &[u16]) -> Vec<Result<Arc<Device>, String>> {
    let read = || Ok((tree.iommu_map(&bus.node_path)?, tree.unusable_addresses(&bus.node_path)?));
    let (map, reserved) = match read().map_err(|error: FirmwareError| error.to_string()) {
        Ok(read) => read,
        Err(error) => return bus.functions.iter().map(|_| Err(error.clone())).collect(),
    };
    for warning in map.iter().flat_map(|map| map.warnings()) {
        log::warn!("{warning}");
    }
    let mut devices: Vec<Result<Arc<Device>, String>> = Vec::new();
    for function in &bus.functions {
        if parts.contains(&function.requester_id()) {
            devices.push(Err("part of another device".into()));
            continue;
        }
        let requesters = function.requester_ids().map(RequesterId::new);
        let fwspec = map.as_ref().map_or(Fwspec::new(), |map| map.fwspec(requesters));
        let earlier = bus.functions.iter().zip(&devices).filter(|(other, _)| function.is_inseparable_from(other));
        let inseparable_from = earlier.filter_map(|(_, device)| device.clone().ok()).collect();
        let reserved = reserved.clone();
        let description =
            DeviceDescription { inseparable_from, reserved, ..DeviceDescription::new(name(function), fwspec) };
        devices.push(IOMMUS.add_device(description).map_err(|error| error.to_string()));
    }
    devices
}

/// A function's name for people: address and driver, or identification where no driver is known.
fn name(function: &PciFunction) -> String {
    match DriverKind::of(function) {
        Some(driver) => format!("{} {driver}", function.address),
        None => format!("{} [{:04x}:{:04x}]", function.address, function.info.vendor_id, function.info.device_id),
    }
}

/// The limit of addresses that a device may put on the bus, where nothing limits it.
pub const NO_LIMIT: u64 = u64::MAX;

impl BusDevice for BusMaster {
    fn set_bus_master(&mut self, on: bool) {
        self.set(on);
    }
}

/// A device that may do DMA within its domain. Dropping it turns bus mastering off first.
#[derive(Debug)]
pub struct Bound(Binding<Kernel, BusMaster, Dma<Kernel>>);

impl Bound {
    /// Configures DMA for a device that puts addresses below `limit` on the bus, and then turns its bus mastering on.
    ///
    /// # Errors
    ///
    /// [`BindError`], with the reason in words if there is no DMA API for the device's domain; nothing has changed then.
    pub fn new(bus: BusMaster, device: &Arc<Device>, limit: u64) -> Result<Self, BindError<String>> {
        let dma = |_: &mut BusMaster, attachment: &Arc<_>| {
            Dma::new(&PLATFORM, Arc::clone(attachment), limit).map_err(|error| error.to_string())
        };
        IOMMUS.bind(device, bus, dma).map(Self)
    }

    /// Its DMA.
    #[must_use]
    pub fn dma(&self) -> &Dma<Kernel> {
        self.0.driver()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        counts::add_domain(&**self.dma().domain());
    }
}

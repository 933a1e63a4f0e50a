//! PCI functions and their IOMMUs: fwspecs by `iommu-map`, and DMA from the moment of binding to its end.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use smmu::dma::{Dma, DmaError};
use smmu::firmware::{DeviceTree, FirmwareError, RequesterId};
use smmu::iommu::fwspec::Fwspec;
use smmu::iommu::{BindError, Binding, BusDevice, Device, DeviceDescription};

use super::{IOMMUS, counts};
use crate::drivers::DriverKind;
use crate::pci::{PciBus, PciFunction};
use crate::platform::{Kernel, PLATFORM};

/// Makes the functions behind a host bridge known to the IOMMU core, each under its address and driver. Bridges are not:
/// they do no DMA of their own.
///
/// Returns for each function of the bus, in its order, the device, or why there is none. Without a usable `iommu-map`
/// no function gets one.
pub fn add_devices(tree: &DeviceTree<'_>, bus: &PciBus) -> Vec<Result<Arc<Device>, String>> {
    let read = || Ok((tree.iommu_map(&bus.node_path)?, tree.unusable_addresses(&bus.node_path)?));
    let (map, reserved) = match read().map_err(|error: FirmwareError| error.to_string()) {
        Ok(read) => read,
        Err(error) => return bus.functions.iter().map(|_| Err(error.clone())).collect(),
    };
    for warning in map.iter().flat_map(|map| map.warnings()) {
        log::warn!("{warning}");
    }
    let add = |function: &PciFunction| {
        let requester = RequesterId::new(function.requester_id());
        let fwspec = map.as_ref().map_or(Fwspec::new(), |map| map.fwspec([requester]));
        let reserved = reserved.clone();
        let description = DeviceDescription { reserved, ..DeviceDescription::new(name(function), fwspec) };
        IOMMUS.add_device(description).map_err(|error| error.to_string())
    };
    bus.functions.iter().map(add).collect()
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

impl BusDevice for &mut PciFunction {
    fn set_bus_master(&mut self, on: bool) {
        PciFunction::set_bus_master(self, on);
    }
}

/// A function that may do DMA within its domain. Dropping it turns bus mastering off first.
#[derive(Debug)]
pub struct Bound<'a>(Binding<Kernel, &'a mut PciFunction, Dma<Kernel>>);

impl<'a> Bound<'a> {
    /// Configures DMA for a device that puts addresses below `limit` on the bus, and then turns bus mastering on.
    ///
    /// # Errors
    ///
    /// [`BindError`]; nothing has changed then.
    pub fn new(function: &'a mut PciFunction, device: &Arc<Device>, limit: u64) -> Result<Self, BindError<DmaError>> {
        let dma = |_: &mut &'a mut PciFunction, attachment: &Arc<_>| Dma::new(&PLATFORM, Arc::clone(attachment), limit);
        IOMMUS.bind(device, function, dma).map(Self)
    }

    /// The function.
    #[must_use]
    pub fn function(&mut self) -> &mut PciFunction {
        self.0.parts_mut().1
    }

    /// Its DMA.
    #[must_use]
    pub fn dma(&self) -> &Dma<Kernel> {
        self.0.driver()
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        counts::add_domain(&**self.dma().domain());
    }
}

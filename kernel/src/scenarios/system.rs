//! The machine as scenarios see it: its SMMUs up, its PCI devices found, each known to the IOMMU core and still blocked.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use smmu::addr::StreamId;
use smmu::firmware;
use smmu::iommu::{BindError, Device, Unready};

use super::Context;
use crate::drivers::DriverKind;
use crate::iommu::{Bound, Described, IOMMUS, Instance, add_devices, describe_all};
use crate::pci::{self, PciFunction};
use crate::{devicetree, println, record};

/// The machine.
pub(super) struct System {
    /// The SMMUs that came up.
    pub(super) smmus: Vec<Instance>,
    /// The functions that a driver is there for.
    pub(super) endpoints: Vec<Endpoint>,
}

/// A PCI function with a driver.
pub(super) struct Endpoint {
    pub(super) driver: DriverKind,
    pub(super) function: PciFunction,
    /// The function as the IOMMU core knows it, or why it does not.
    pub(super) device: Result<Arc<Device>, String>,
}

impl System {
    /// Finds everything, SMMUs first, and prints what there is as it goes.
    ///
    /// Trouble with one SMMU or device is printed and leaves the others alone. Without any SMMU that works there is no
    /// DMA, which is an error.
    pub(super) fn discover(context: &Context) -> Result<Self, String> {
        let tree = open_tree(context)?;
        let described = describe_all(&tree);
        let why = match described.is_empty() {
            true => "no SMMU: the device tree has no enabled node compatible with arm,smmu-v3",
            false => "no SMMU that works",
        };
        let mut system = Self { smmus: Vec::new(), endpoints: Vec::new() };
        for smmu in described {
            system.bring_up(smmu, context);
        }
        system.endpoints = endpoints(context, &tree, &[])?;
        list(&system.endpoints);
        if system.smmus.is_empty() {
            return Err(format!("{why}; no device is given DMA, bus mastering stays off"));
        }
        finish_boot();
        Ok(system)
    }

    /// Finds the devices alone, and prints nothing: none of them can do DMA before an SMMU has been
    /// [brought up](Self::bring_up). The functions that `parts` names by Requester ID are no devices, but parts of one.
    pub(super) fn without_smmus(context: &Context, parts: &[u16]) -> Result<Self, String> {
        Ok(Self { smmus: Vec::new(), endpoints: endpoints(context, &open_tree(context)?, parts)? })
    }

    /// Brings an SMMU up and registers it, and prints what came of that.
    pub(super) fn bring_up(&mut self, smmu: Described, context: &Context) {
        match smmu.bring_up(context.inherited_devices()) {
            Ok(instance) => {
                describe(&instance);
                self.smmus.push(instance);
            }
            Err(error) => println!("SMMU left out: {error}"),
        }
    }

    /// The first endpoint with this driver.
    pub(super) fn endpoint(&mut self, driver: DriverKind) -> Result<&mut Endpoint, String> {
        let found = self.endpoints.iter_mut().find(|endpoint| endpoint.driver == driver);
        found.ok_or_else(|| format!("no {driver} on this machine"))
    }

    /// Takes the first endpoint with this driver out of the list.
    pub(super) fn take_endpoint(&mut self, driver: DriverKind) -> Result<Endpoint, String> {
        let found = self.endpoints.iter().position(|endpoint| endpoint.driver == driver);
        found.map(|index| self.endpoints.remove(index)).ok_or_else(|| format!("no {driver} on this machine"))
    }
}

impl Endpoint {
    /// The StreamID of the device's DMA: the first one, where it has several.
    pub(super) fn stream(&self) -> Result<StreamId, String> {
        let device = self.device()?;
        let entry = device.fwspec().entries().first();
        entry.map(|entry| entry.stream_id).ok_or_else(|| format!("{device} is behind no SMMU"))
    }

    /// Configures DMA for the device, which puts addresses below `limit` on the bus, and then turns bus mastering on.
    pub(super) fn bind(&self, limit: u64) -> Result<Bound, BindError<String>> {
        let device = self.device().map_err(BindError::Probe)?;
        Bound::new(self.function.bus_master(), &device, limit)
    }

    /// The device as the IOMMU core knows it.
    pub(super) fn device(&self) -> Result<Arc<Device>, String> {
        self.device.clone()
    }
}

/// The device tree as its firmware bindings are read.
pub(super) fn open_tree(context: &Context) -> Result<firmware::DeviceTree<'static>, String> {
    firmware::DeviceTree::new(devicetree::bytes(&context.tree)).map_err(|error| error.to_string())
}

/// Says that no more SMMUs will come, and prints the devices that stay blocked. Returns how many they are.
pub(super) fn finish_boot() -> usize {
    let unready = IOMMUS.finish_boot();
    for Unready { device, reason } in &unready {
        match reason {
            Ok(missing) => {
                let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
                println!("{device} stays blocked: it waits for IOMMU {}", missing.join(", "));
            }
            Err(error) => println!("{device} stays blocked: {error}"),
        }
        record!("unready", "device" => device.name(), "waits" => reason.is_ok());
    }
    unready.len()
}

/// Prints an SMMU, what it can do, and what became of the devices that waited for it.
fn describe(instance: &Instance) {
    let Instance { node, phandle, smmu, bring_up, registration } = instance;
    println!("\nSMMUv3 {} at {}, phandle {phandle}", node.path, node.base);
    for line in smmu.features().to_string().lines() {
        println!("  {line}");
    }
    let statistics = smmu.statistics();
    let going_on: Vec<String> = smmu.boot_streams().map(|stream| stream.to_string()).collect();
    let streams = match going_on[..] {
        [] => "every stream aborts".to_string(),
        _ => format!("{}; DMA of stream {} goes on, all others abort", smmu.takeover(), going_on.join(", ")),
    };
    println!("  up: {streams}; {} KiB of queues and tables", statistics.dma_bytes.div_ceil(1024));
    if !smmu.aborts_while_disabled() {
        log::warn!("{}: GBPA.ABORT does not hold: if the SMMU were switched off, DMA would pass", node.path);
    }
    record!(
        "smmu",
        "path" => node.path.as_str(),
        "phandle" => phandle.get(),
        "dma_bytes" => statistics.dma_bytes,
        "bring_up_nanoseconds" => bring_up.as_nanos() as u64
    );
    let probed: Vec<_> = registration.probed.iter().map(|device| device.name()).collect();
    if !probed.is_empty() {
        println!("  registered; devices that waited for it: {}", probed.join(", "));
    }
    for (device, error) in &registration.refused {
        println!("  {device} stays blocked: {error}");
    }
}

/// Every function with a driver behind every host bridge.
fn endpoints(context: &Context, tree: &firmware::DeviceTree<'_>, parts: &[u16]) -> Result<Vec<Endpoint>, String> {
    let mut endpoints = Vec::new();
    for bus in pci::enumerate(&context.tree, &context.working()).map_err(|error| error.to_string())? {
        let bus = match bus {
            Ok(bus) => bus,
            Err(error) => {
                println!("host bridge left out: {error}");
                continue;
            }
        };
        for problem in &bus.problems {
            log::warn!("{problem}");
        }
        let devices = add_devices(tree, &bus, parts);
        for (function, device) in bus.functions.into_iter().zip(devices) {
            if let Some(driver) = DriverKind::of(&function) {
                endpoints.push(Endpoint { driver, function, device });
            }
        }
    }
    Ok(endpoints)
}

/// Prints the devices with the streams they have.
pub(super) fn list(endpoints: &[Endpoint]) {
    println!("\n  device   driver         behind");
    for Endpoint { driver, function, device } in endpoints {
        match device {
            Ok(device) => println!("  {}  {driver:<13}  {}", function.address, device.fwspec()),
            Err(error) => println!("  {}  {driver:<13}  blocked: {error}", function.address),
        }
    }
}

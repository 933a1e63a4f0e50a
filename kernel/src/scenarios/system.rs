//! The machine as scenarios see it: its SMMUs up, its PCI devices found, each known to the IOMMU core and still blocked.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use smmu::addr::StreamId;
use smmu::firmware;
use smmu::iommu::Device;

use super::Context;
use crate::drivers::DriverKind;
use crate::iommu::{Instance, add_devices, bring_up_all};
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
        let tree = firmware::DeviceTree::new(devicetree::bytes(&context.tree)).map_err(|error| error.to_string())?;
        let (smmus, broken): (Vec<_>, Vec<_>) =
            bring_up_all(&tree, context.inherited_devices()).into_iter().partition(Result::is_ok);
        let smmus: Vec<Instance> = smmus.into_iter().filter_map(Result::ok).collect();
        for error in broken.iter().filter_map(|result| result.as_ref().err()) {
            println!("SMMU left out: {error}");
        }
        smmus.iter().for_each(describe);
        let endpoints = endpoints(context, &tree)?;
        list(&endpoints);
        let why = match (smmus.is_empty(), broken.is_empty()) {
            (false, _) => return Ok(Self { smmus, endpoints }),
            (true, true) => "no SMMU: the device tree has no enabled node compatible with arm,smmu-v3",
            (true, false) => "no SMMU that works",
        };
        Err(format!("{why}; no device is given DMA, bus mastering stays off"))
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

    /// The device as the IOMMU core knows it.
    pub(super) fn device(&self) -> Result<Arc<Device>, String> {
        self.device.clone()
    }
}

/// Prints an SMMU and what it can do.
fn describe(instance: &Instance) {
    let Instance { node, phandle, smmu, bring_up } = instance;
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
}

/// Every function with a driver behind every host bridge.
fn endpoints(context: &Context, tree: &firmware::DeviceTree<'_>) -> Result<Vec<Endpoint>, String> {
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
        let devices = add_devices(tree, &bus);
        for (function, device) in bus.functions.into_iter().zip(devices) {
            if let Some(driver) = DriverKind::of(&function) {
                endpoints.push(Endpoint { driver, function, device });
            }
        }
    }
    Ok(endpoints)
}

/// Prints the devices with the streams they have.
fn list(endpoints: &[Endpoint]) {
    println!("\n  device   driver         behind");
    for Endpoint { driver, function, device } in endpoints {
        match device {
            Ok(device) => println!("  {}  {driver:<13}  {}", function.address, device.fwspec()),
            Err(error) => println!("  {}  {driver:<13}  blocked: {error}", function.address),
        }
    }
}

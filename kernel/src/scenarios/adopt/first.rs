//! The first run: a device is set to work, and left to the next run.

use alloc::string::{String, ToString};
use alloc::vec;

use smmu::device::Handover;
use smmu::dma::PAGE_BYTES;
use smmu::platform::Platform;

use super::super::Context;
use super::super::probe::Probe;
use super::super::system::System;
use super::{Hcca, attack};
use crate::drivers::DriverKind;
use crate::drivers::iommu_testdev::{IommuTestdev, Outcome};
use crate::drivers::ohci::Ohci;
use crate::inheritance::{self, Inheritance, InheritedDevice};
use crate::platform::PLATFORM;
use crate::{memory, println, record};

/// Addresses that the controller can put on the bus.
const OHCI_LIMIT: u64 = 1 << 32;

pub(super) fn show(context: &Context) -> Result<(), String> {
    let mut system = System::discover(context)?;
    println!("\n== The first run sets a USB controller to work");
    let mut ohci = system.take_endpoint(DriverKind::Ohci)?;
    let (device, stream) = (ohci.device()?, ohci.stream()?);
    let mut controller = Ohci::new(&mut ohci.function).map_err(|error| error.to_string())?;
    let bound = ohci.bind(OHCI_LIMIT).map_err(|error| error.to_string())?;
    let page = bound.dma().allocate_coherent(PAGE_BYTES).map_err(|error| error.to_string())?;
    let hcca = Hcca(page.words());
    hcca.prepare();
    controller.start(page.iova()).map_err(|error| error.to_string())?;
    hcca.wait_for_frames(3)?;
    println!("  {device} counts frames in memory: {}", hcca.frame());

    let target = PLATFORM.physical(page.pointer()).ok_or("the controller's page is not in memory")?;
    let mut rogue = system.take_endpoint(DriverKind::IommuTestdev)?;
    let mut rogue = IommuTestdev::new(&mut rogue.function).map_err(|error| error.to_string())?;
    attack(&mut rogue, target, "first run")?;
    // Another is attached, and will not be among those whose DMA goes on.
    let mut other = system.take_endpoint(DriverKind::IommuTestdev)?;
    let mut other = Probe::new(&mut other)?;
    other.expect(Outcome::Written, "by a device that is attached")?;

    let instance = system.smmus.first().ok_or("no SMMU")?;
    let orderly = context.arguments.get("handover") != Some("none");
    if orderly {
        instance.smmu.shutdown(Handover::Running).map_err(|error| error.to_string())?;
    }
    let iommu = instance.phandle;
    let kept = InheritedDevice { requester_id: ohci.function.requester_id(), iommu, stream };
    let reserved = memory::dma::retire();
    let reserved_bytes: u64 = reserved.iter().map(|range| range.end - range.start).sum();
    println!("\n== The kernel starts over; {} KiB of memory stay as they are", reserved_bytes >> 10);
    record!("first-run", "frame" => hcca.frame(), "reserved_bytes" => reserved_bytes, "orderly" => orderly);
    let left = Inheritance { reserved, devices: vec![kept], note: target.get() };
    match inheritance::bequeath(&context.tree, &left) {
        Err(error) => Err(error.to_string()),
        Ok(never) => match never {},
    }
}

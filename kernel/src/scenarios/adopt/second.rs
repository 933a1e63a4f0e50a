//! The second run: the SMMU is adopted with one stream, whose DMA has not stopped.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use smmu::addr::{PhysAddr, StreamId};
use smmu::device::{Smmu, Takeover};
use smmu::dma::PAGE_BYTES;
use smmu::iommu::Device;
use smmu::platform::Platform;

use super::super::Context;
use super::super::disk::Disk;
use super::super::system::System;
use super::{Hcca, attack};
use crate::drivers::DriverKind;
use crate::drivers::iommu_testdev::IommuTestdev;
use crate::drivers::ohci::Ohci;
use crate::inheritance::Inheritance;
use crate::platform::{Kernel, PLATFORM};
use crate::timer::wait_for;
use crate::{iommu, pci, println, record};

/// How long a device's failure, or its report, may take.
const LIMIT: Duration = Duration::from_secs(2);

pub(super) fn show(context: &Context, inheritance: &Inheritance) -> Result<(), String> {
    println!("\n== The second run finds DMA going on");
    let target = PhysAddr::new(inheritance.note);
    let page = PLATFORM.foreign(target, PAGE_BYTES).ok_or("the controller's page was not left to this run")?;
    // SAFETY: it is memory that the first run allocated, as words, for good; the controller writes to it in 32 bits at a time.
    let hcca = Hcca(unsafe { core::slice::from_raw_parts(page.cast().as_ptr(), PAGE_BYTES / 8) });
    let first_frame = hcca.frame();
    hcca.wait_for_frames(3)?;
    attack(&mut early_rogue(context)?, target, "second run, before the SMMU is adopted")?;

    let mut system = System::discover(context)?;
    let smmu = system.smmus.first().map(|instance| Arc::clone(&instance.smmu)).ok_or("no SMMU")?;
    let kept: Vec<StreamId> = inheritance.devices.iter().map(|device| device.stream).collect();
    if smmu.takeover() != Takeover::Adopted || !smmu.boot_streams().eq(kept.iter().copied()) {
        return Err(format!("the SMMU was not adopted: {}", smmu.takeover()));
    }
    let mut ohci = system.take_endpoint(DriverKind::Ohci)?;
    let device = ohci.device()?;
    let controller = Ohci::new(&mut ohci.function).map_err(|error| error.to_string())?;
    hcca.wait_for_frames(3)?;
    for when in ["second run", "second run, although it was attached in the first"] {
        let mut endpoint = system.take_endpoint(DriverKind::IommuTestdev)?;
        let stopped = endpoint.device()?;
        let mut testdev = IommuTestdev::new(&mut endpoint.function).map_err(|error| error.to_string())?;
        attack(&mut testdev, target, when)?;
        reported(&stopped)?;
    }
    Disk::new(system.endpoint(DriverKind::VirtioBlock)?)?.read_whole(context, |_| Ok(()))?;
    hcca.wait_for_frames(3)?;
    let (last_frame, differing, failed) = (hcca.frame(), hcca.differing(), controller.has_failed());
    println!("  {device} has counted from frame {first_frame} to {last_frame}, {differing} words beside it changed");
    record!(
        "second-run",
        "first_frame" => first_frame,
        "last_frame" => last_frame,
        "failed" => failed,
        "words_changed" => differing,
        "faults" => device.faults(),
    );
    if failed || differing != 0 || device.faults() != 0 {
        return Err(format!("{device} was stopped, or something strayed"));
    }
    end(&smmu, &kept, &device, &controller)
}

/// The device that nobody has attached yet, while the SMMU is as the first run left it.
fn early_rogue(context: &Context) -> Result<IommuTestdev, String> {
    let buses = pci::enumerate(&context.tree, &context.working()).map_err(|error| error.to_string())?;
    let mut functions = buses.into_iter().flatten().flat_map(|bus| bus.functions);
    let function = functions.find(|function| DriverKind::of(function) == Some(DriverKind::IommuTestdev));
    IommuTestdev::new(&mut function.ok_or("no iommu-testdev on this machine")?).map_err(|error| error.to_string())
}

/// The streams that went on are this run's to end.
fn end(smmu: &Smmu<Kernel>, streams: &[StreamId], device: &Device, controller: &Ohci) -> Result<(), String> {
    println!("\n== The second run ends it");
    streams.iter().try_for_each(|stream| smmu.detach(*stream)).map_err(|error| error.to_string())?;
    if !wait_for(LIMIT, || controller.has_failed()) {
        return Err(format!("{device} goes on, although it was detached"));
    }
    reported(device)?;
    record!("ended", "failed" => true, "faults" => device.faults());
    Ok(())
}

/// Waits until the SMMU has named `device`.
fn reported(device: &Device) -> Result<(), String> {
    let named = || {
        iommu::poll();
        device.faults() != 0
    };
    if wait_for(LIMIT, named) { Ok(()) } else { Err(format!("{device} was stopped, and nobody said so")) }
}

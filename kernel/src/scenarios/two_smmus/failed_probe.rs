//! A driver whose probe fails after its device has done DMA: nothing is left of the attempt, and the next one starts clean.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

use smmu::addr::Iova;
use smmu::dma::{Dma, PAGE_BYTES};
use smmu::iommu::{Attachment, BindError};
use smmu::platform::Platform;

use super::super::system::{Endpoint, System};
use super::super::watch::{Page, caught};
use crate::drivers::iommu_testdev::{IommuTestdev, Outcome};
use crate::iommu::{IOMMUS, NO_LIMIT};
use crate::pci::BusMaster;
use crate::platform::{Kernel, PLATFORM};
use crate::{memory, println, record};

/// What the device must not reach.
static TARGET: Page = Page::new();
const UNTOUCHED: u64 = u64::from_le_bytes(*b"untouchd");

/// `endpoint` is an `iommu-testdev`, which minds no Bus Master Enable: nothing but the SMMU stops it.
pub(super) fn show(mut endpoint: Endpoint, system: &System) -> Result<(), String> {
    let device = endpoint.device()?;
    let bus = endpoint.function.bus_master();
    let mut testdev = IommuTestdev::new(&mut endpoint.function).map_err(|error| error.to_string())?;
    let before_bytes = devices_bytes(system);

    let mut written = None;
    let failed = IOMMUS.bind(&device, bus.clone(), |bus: &mut BusMaster, attachment| -> Result<(), String> {
        println!("{device}: configured, bus mastering {}", on_or_off(bus));
        written = Some(write(&mut testdev, attachment)?);
        Err("the device's firmware is missing".into())
    });
    let Some(iova) = written else {
        println!("{device} cannot be bound at all: {}", failed.err().map_or_else(String::new, |it| it.to_string()));
        return Ok(());
    };
    match failed {
        Err(error @ BindError::Probe(_)) => println!("{device}: {error}"),
        _ => return Err(format!("{device}: a probe that failed did not count")),
    }
    println!("  bus mastering {}, attached: {}", on_or_off(&bus), device.is_attached());
    let leaked_bytes = devices_bytes(system).saturating_sub(before_bytes);
    record!("failed-probe", "bus_master" => bus.is_any_enabled(), "attached" => device.is_attached(), "leaked_bytes" => leaked_bytes);

    println!("{device} writes to where its page was:");
    TARGET.fill(UNTOUCHED);
    let before = device.faults();
    let outcome = testdev.write_through(iova, PAGE_BYTES as u32, TARGET.physical()?);
    caught(&device, before)?;
    println!("  {outcome}");
    if outcome != Outcome::Stopped || TARGET.differing_from(UNTOUCHED) != 0 {
        return Err(format!("{device} still reaches memory"));
    }

    let bound = IOMMUS.bind(&device, bus, |_, attachment| write(&mut testdev, attachment));
    bound.map_err(|error| error.to_string())?;
    println!("{device}: bound again, and works");
    record!("bound-again", "device" => device.name());
    Ok(())
}

/// DMA memory in use, in bytes, less that of the SMMUs' own queues and tables, which grow and stay.
fn devices_bytes(system: &System) -> usize {
    let smmus: usize = system.smmus.iter().map(|instance| instance.smmu.statistics().dma_bytes).sum();
    memory::dma::usage().used_bytes.saturating_sub(smmus)
}

/// Has the device write a page that is its own. Returns where it was.
fn write(testdev: &mut IommuTestdev, attachment: &Arc<Attachment<Kernel>>) -> Result<Iova, String> {
    let dma = Dma::new(&PLATFORM, Arc::clone(attachment), NO_LIMIT).map_err(|error| error.to_string())?;
    let page = dma.allocate_coherent(PAGE_BYTES).map_err(|error| error.to_string())?;
    let physical = PLATFORM.physical(page.pointer()).ok_or("the page is not in memory")?;
    let outcome = testdev.write_through(page.iova(), PAGE_BYTES as u32, physical);
    println!("{}: a page of its own: {outcome}", dma.device());
    if outcome == Outcome::Written { Ok(page.iova()) } else { Err("its write did not arrive".into()) }
}

fn on_or_off(bus: &BusMaster) -> &'static str {
    if bus.is_any_enabled() { "on" } else { "off" }
}

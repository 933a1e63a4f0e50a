//! Devices that reach for what is not theirs.

use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::Ordering;

use smmu::addr::Iova;
use smmu::dma::PAGE_BYTES;
use smmu::iommu::Device;

use super::super::engine::{Engine, TRANSFER_BYTES};
use super::super::system::Endpoint;
use super::super::watch::{Page, caught};
use crate::drivers::iommu_testdev::{IommuTestdev, Outcome};
use crate::{println, record};

static TARGET: Page = Page::new();
static SECRET: Page = Page::new();
/// What [`TARGET`] holds before and after.
const UNTOUCHED: u64 = u64::from_le_bytes(*b"untouchd");
/// What [`SECRET`] holds.
const PASSWORD: u64 = u64::from_le_bytes(*b"pa55word");

/// An attached `edu` is told to overwrite a page of the kernel's, then to read a secret.
pub(super) fn edu(engine: &mut Engine) -> Result<(), String> {
    TARGET.fill(UNTOUCHED);
    SECRET.fill(PASSWORD);
    let device = engine.device.clone();

    let target = TARGET.physical()?;
    println!("{device} is told to write over the kernel's page at {target}:");
    let before = device.faults();
    // It believes in physical addresses, as devices without an SMMU do.
    let address = Iova::new(target.get());
    engine.edu.copy_to_memory(address, 0, TRANSFER_BYTES).map_err(|error| error.to_string())?;
    caught(&device, before)?;
    untouched(&device)?;

    let secret = SECRET.physical()?;
    println!("{device} is told to read the secret at {secret}:");
    let before = device.faults();
    let address = Iova::new(secret.get());
    engine.edu.copy_from_memory(address, 0, TRANSFER_BYTES).map_err(|error| error.to_string())?;
    caught(&device, before)?;
    engine.bring_out()?;
    let leaked = engine.target.words().iter().filter(|word| word.load(Ordering::Relaxed) == PASSWORD).count();
    if leaked != 0 {
        return Err(format!("{device} got {leaked} words of the secret"));
    }
    println!("  stopped; no word of the secret is in the device");
    record!("rogue", "device" => device.name(), "stopped" => true, "attempt" => "read", "faults" => device.faults());
    Ok(())
}

/// An `iommu-testdev` that nothing ever attached is told to overwrite the page. It does not even ask for bus mastering.
pub(super) fn testdev(endpoint: &mut Endpoint) -> Result<(), String> {
    TARGET.fill(UNTOUCHED);
    let device = endpoint.device()?;
    let mut testdev = IommuTestdev::new(&mut endpoint.function).map_err(|error| error.to_string())?;
    let target = TARGET.physical()?;
    println!("{device}, never attached, is told to write over the kernel's page at {target}:");
    let before = device.faults();
    let outcome = testdev.write_through(Iova::new(target.get()), PAGE_BYTES as u32, target);
    caught(&device, before)?;
    if outcome != Outcome::Stopped {
        return Err(format!("{device} says of its write: {outcome}"));
    }
    untouched(&device)
}

fn untouched(device: &Device) -> Result<(), String> {
    let differing = TARGET.differing_from(UNTOUCHED);
    if differing != 0 {
        return Err(format!("{device} changed {differing} words of the kernel's page"));
    }
    println!("  stopped; the page is as it was, byte for byte");
    record!("rogue", "device" => device.name(), "stopped" => true, "attempt" => "write", "faults" => device.faults());
    Ok(())
}

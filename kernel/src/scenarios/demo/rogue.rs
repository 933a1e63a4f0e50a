//! Devices that reach for what is not theirs.

use alloc::format;
use alloc::string::{String, ToString};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use smmu::addr::{Iova, PhysAddr};
use smmu::dma::PAGE_BYTES;
use smmu::iommu::Device;
use smmu::platform::Platform;

use super::super::system::Endpoint;
use super::engine::{Engine, TRANSFER_BYTES};
use crate::drivers::iommu_testdev::{IommuTestdev, Outcome};
use crate::iommu;
use crate::platform::PLATFORM;
use crate::timer::wait_for;
use crate::{println, record};

/// How long the report of a stopped transfer may take. It is there before the transfer ends, as a rule.
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// A page of the kernel's own data that no device was given.
#[repr(C, align(4096))]
struct Page([AtomicU64; PAGE_BYTES / 8]);

static TARGET: Page = Page::new();
static SECRET: Page = Page::new();

impl Page {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; PAGE_BYTES / 8])
    }

    /// Fills the page, every word with `word`.
    fn fill(&self, word: u64) {
        self.0.iter().for_each(|slot| slot.store(word, Ordering::Relaxed));
    }

    /// How many words are not `word`.
    fn differing_from(&self, word: u64) -> usize {
        self.0.iter().filter(|slot| slot.load(Ordering::Relaxed) != word).count()
    }

    fn physical(&self) -> Result<PhysAddr, String> {
        PLATFORM.physical(NonNull::from(self).cast()).ok_or_else(|| "the kernel's data is not in memory".to_string())
    }
}

/// What [`TARGET`] holds before and after.
const UNTOUCHED: u64 = u64::from_le_bytes(*b"untouchd");
/// What [`SECRET`] holds.
const PASSWORD: u64 = u64::from_le_bytes(*b"pa55word");

/// An attached `edu` is told to overwrite a page of the kernel's, then to read a secret.
pub(super) fn edu(engine: &mut Engine<'_>) -> Result<(), String> {
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

/// Waits until the SMMU has named the device, in its interrupt or, where it has none, when it is asked.
fn caught(device: &Device, faults_before: u64) -> Result<(), String> {
    let named = || {
        iommu::poll();
        device.faults() > faults_before
    };
    if wait_for(REPORT_LIMIT, named) {
        return Ok(());
    }
    Err(format!("{device}: nothing was reported within {REPORT_LIMIT:?}"))
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

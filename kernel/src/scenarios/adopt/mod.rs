//! The kernel starts over while a device's DMA is going on: by its own entry point, with the SMMU live, which the second run
//! adopts. The DMA goes on throughout; nobody else's does.
//!
//! What lives here: the choice between the two runs, and what both look at. What does not: how one run tells the other
//! ([`crate::inheritance`]).

mod first;
mod second;

use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use smmu::addr::{Iova, PhysAddr};
use smmu::dma::PAGE_BYTES;

use super::Context;
use crate::drivers::iommu_testdev::{IommuTestdev, Outcome};
use crate::drivers::ohci::{FRAME_NUMBER_OFFSET, HCCA_BYTES};
use crate::power::ExitCode;
use crate::println;
use crate::timer::wait_for;

/// How long the controller may take for a few of its frames, a millisecond each.
const FRAMES_LIMIT: Duration = Duration::from_secs(5);
/// What is in the page with the controller's memory where the controller has no business.
const UNTOUCHED: u64 = u64::from_le_bytes(*b"untouchd");

pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(match &context.inheritance {
        None => first::show(context),
        Some(inheritance) => second::show(context, inheritance),
    })
}

/// The page that the USB controller reads and writes the start of.
struct Hcca<'a>(&'a [AtomicU64]);

impl Hcca<'_> {
    /// Fills what is not the controller's.
    fn prepare(&self) {
        self.0.iter().skip(HCCA_BYTES / 8).for_each(|word| word.store(UNTOUCHED, Ordering::Relaxed));
    }

    /// How many words that are not the controller's have changed.
    fn differing(&self) -> usize {
        let beyond = self.0.iter().take(PAGE_BYTES / 8).skip(HCCA_BYTES / 8);
        beyond.filter(|word| word.load(Ordering::Relaxed) != UNTOUCHED).count()
    }

    /// The number that the controller wrote last.
    fn frame(&self) -> u16 {
        self.0.get(FRAME_NUMBER_OFFSET / 8).map_or(0, |word| u64::from_le(word.load(Ordering::Relaxed)) as u16)
    }

    /// Waits until the controller has written `count` more numbers.
    fn wait_for_frames(&self, count: u16) -> Result<(), String> {
        let start = self.frame();
        if wait_for(FRAMES_LIMIT, || self.frame().wrapping_sub(start) >= count) {
            return Ok(());
        }
        let written = self.frame().wrapping_sub(start);
        Err(format!("the USB controller wrote {written} of {count} frame numbers within {FRAMES_LIMIT:?}"))
    }
}

/// Has a device that nobody ever attached write over the controller's page. Nothing must come of it.
fn attack(testdev: &mut IommuTestdev, target: PhysAddr, when: &str) -> Result<(), String> {
    let outcome = testdev.write_through(Iova::new(target.get()), PAGE_BYTES as u32, target);
    println!("  a write by a device that is not attached, {when}: {outcome}");
    if outcome == Outcome::Stopped {
        Ok(())
    } else {
        Err(format!("a write by a device that is not attached: {outcome}"))
    }
}

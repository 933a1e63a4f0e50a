//! Watching what devices do: pages to look at, and reports of what was stopped.

use alloc::format;
use alloc::string::{String, ToString};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use smmu::addr::PhysAddr;
use smmu::dma::PAGE_BYTES;
use smmu::iommu::Device;
use smmu::platform::Platform;

use crate::iommu;
use crate::platform::PLATFORM;
use crate::timer::wait_for;

/// How long the report of a stopped transfer may take. It is there before the transfer ends, as a rule.
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// A page of the kernel's own data.
#[repr(C, align(4096))]
pub(super) struct Page([AtomicU64; PAGE_BYTES / 8]);

impl Page {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; PAGE_BYTES / 8])
    }

    /// Its words.
    pub(super) fn words(&self) -> &[AtomicU64] {
        &self.0
    }

    /// Its memory, for a device to be lent.
    pub(super) fn memory(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(NonNull::from(self).cast(), PAGE_BYTES)
    }

    /// Fills the page, every word with `word`.
    pub(super) fn fill(&self, word: u64) {
        self.0.iter().for_each(|slot| slot.store(word, Ordering::Relaxed));
    }

    /// How many words are not `word`.
    pub(super) fn differing_from(&self, word: u64) -> usize {
        self.0.iter().filter(|slot| slot.load(Ordering::Relaxed) != word).count()
    }

    pub(super) fn physical(&self) -> Result<PhysAddr, String> {
        PLATFORM.physical(NonNull::from(self).cast()).ok_or_else(|| "the kernel's data is not in memory".to_string())
    }
}

/// Waits until the SMMU has named the device, in its interrupt or, where it has none, when it is asked.
pub(super) fn caught(device: &Device, faults_before: u64) -> Result<(), String> {
    let named = || {
        iommu::poll();
        device.faults() > faults_before
    };
    if wait_for(REPORT_LIMIT, named) {
        return Ok(());
    }
    Err(format!("{device}: nothing was reported within {REPORT_LIMIT:?}"))
}

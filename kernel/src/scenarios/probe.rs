//! An `iommu-testdev` with a page that it may write, and what becomes of its writes.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use smmu::addr::Iova;
use smmu::dma::{CoherentBuffer, PAGE_BYTES};
use smmu::iommu::Device;
use smmu::platform::Platform;

use super::system::Endpoint;
use crate::drivers::iommu_testdev::{IommuTestdev, Outcome, PATTERN};
use crate::iommu::{Bound, NO_LIMIT};
use crate::platform::{Kernel, PLATFORM};
use crate::println;

/// The device, attached, and its page.
pub(super) struct Probe {
    pub(super) device: Arc<Device>,
    testdev: IommuTestdev,
    page: CoherentBuffer<Kernel>,
    /// Last: bus mastering goes off after everything else.
    _bound: Bound,
}

impl Probe {
    pub(super) fn new(endpoint: &mut Endpoint) -> Result<Self, String> {
        let device = endpoint.device()?;
        let testdev = IommuTestdev::new(&mut endpoint.function).map_err(|error| error.to_string())?;
        let bound = endpoint.bind(NO_LIMIT).map_err(|error| error.to_string())?;
        let page = bound.dma().allocate_coherent(PAGE_BYTES).map_err(|error| error.to_string())?;
        Ok(Self { device, testdev, page, _bound: bound })
    }

    /// Where the device sees its page.
    pub(super) fn iova(&self) -> Iova {
        self.page.iova()
    }

    /// Has the device fill its page, which should come to `outcome`.
    pub(super) fn expect(&mut self, outcome: Outcome, when: &str) -> Result<(), String> {
        self.page.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let found = self.write(self.page.iova())?;
        let pattern = u64::from(PATTERN) << 32 | u64::from(PATTERN);
        let written = self.page.words().iter().filter(|word| word.load(Ordering::Relaxed) == pattern).count();
        let expected = if outcome == Outcome::Written { self.page.words().len() } else { 0 };
        println!("  {when}: {found}, {written} words arrived");
        if found == outcome && written == expected {
            return Ok(());
        }
        Err(format!("a write {when} was to be {outcome}"))
    }

    /// Has the device write a page at `iova`, which should lead to its page.
    pub(super) fn write(&mut self, iova: Iova) -> Result<Outcome, String> {
        let physical = PLATFORM.physical(self.page.pointer()).ok_or("the page is not in memory")?;
        Ok(self.testdev.write_through(iova, PAGE_BYTES as u32, physical))
    }
}

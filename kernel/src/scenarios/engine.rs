//! An `edu` with DMA, and what it does while it keeps to its buffers.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use smmu::dma::{CoherentBuffer, Dma, PAGE_BYTES};
use smmu::iommu::{BindError, Device};

use super::system::Endpoint;
use crate::drivers::edu::Edu;
use crate::iommu::{Bound, NO_LIMIT};
use crate::platform::Kernel;
use crate::{println, record};

/// How much is copied at a time: half of a page, so that the other half shows what was not to be touched.
pub(super) const TRANSFER_BYTES: usize = PAGE_BYTES / 2;

/// An `edu`, attached, and two buffers that are all it may reach.
pub(super) struct Engine {
    pub(super) device: Arc<Device>,
    pub(super) edu: Edu,
    pub(super) source: CoherentBuffer<Kernel>,
    pub(super) target: CoherentBuffer<Kernel>,
    /// Last: bus mastering goes off after everything else.
    bound: Bound,
}

impl Engine {
    /// Binds the device. If it has to be deferred it can be tried again.
    pub(super) fn new(endpoint: &mut Endpoint) -> Result<Self, BindError<String>> {
        let bound = endpoint.bind(NO_LIMIT)?;
        let mut start = || -> Result<_, String> {
            let edu = Edu::new(&mut endpoint.function).map_err(|error| error.to_string())?;
            let buffer = || bound.dma().allocate_coherent(PAGE_BYTES).map_err(|error| error.to_string());
            Ok((edu, buffer()?, buffer()?))
        };
        let (edu, source, target) = start().map_err(BindError::Probe)?;
        Ok(Self { device: Arc::clone(bound.dma().device()), edu, source, target, bound })
    }

    /// Its DMA.
    pub(super) fn dma(&self) -> &Dma<Kernel> {
        self.bound.dma()
    }

    /// Has a page copied from one buffer into the device and from there into the other.
    pub(super) fn copy(&mut self) -> Result<(), String> {
        for (index, word) in (0u64..).zip(self.source.words()) {
            word.store(index.wrapping_mul(0x9e37_79b9_7f4a_7c15), Ordering::Relaxed);
        }
        self.edu.copy_from_memory(self.source.iova(), 0, TRANSFER_BYTES).map_err(|error| error.to_string())?;
        self.bring_out()?;
        let copied = self.source.words().iter().take(TRANSFER_BYTES / 8).map(|word| word.load(Ordering::Relaxed));
        let expected = copied.chain(core::iter::repeat(0));
        let found = self.target.words().iter().map(|word| word.load(Ordering::Relaxed));
        let differing = found.zip(expected).filter(|(found, expected)| found != expected).count();
        if differing != 0 {
            return Err(format!("{}: {differing} words differ after the copy", self.device));
        }
        println!("{}: {TRANSFER_BYTES} bytes there and back, equal to the byte", self.device);
        record!("edu", "bytes" => TRANSFER_BYTES, "equal" => true);
        Ok(())
    }

    /// Has the device's buffer copied into `target`.
    pub(super) fn bring_out(&mut self) -> Result<(), String> {
        self.edu.copy_to_memory(self.target.iova(), 0, TRANSFER_BYTES).map_err(|error| error.to_string())
    }
}

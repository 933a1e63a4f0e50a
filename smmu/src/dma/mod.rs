//! The DMA API: what device drivers call to let their device reach memory, and no more than that.
//!
//! What lives here: a device's I/O virtual addresses, coherent buffers, mappings of a driver's own buffers, bounce
//! buffers. What does not: which device may do DMA at all ([`crate::iommu`]), page tables ([`crate::pgtable`]).

mod coherent;
mod error;
mod iova;
#[allow(unsafe_code, reason = "a driver's buffer is a raw pointer while the device owns it")]
mod streaming;
#[cfg(test)]
#[allow(unsafe_code, reason = "tests lend buffers and look at them as raw memory")]
mod tests;

use alloc::sync::Arc;
use core::fmt;

pub use coherent::CoherentBuffer;
pub use error::DmaError;
pub use iova::IovaRange;
pub use streaming::Mapping;

use crate::addr::PhysAddr;
use crate::iommu::{Attachment, Device, PagingDomain};
use crate::pgtable::{Access, MemoryType};
use crate::platform::Platform;
use iova::IovaAllocator;

/// Size of the smallest page there is, 4 KiB. What can be given to a device is whole pages of its domain's
/// [granule](PagingDomain::granule), which may be larger.
pub const PAGE_BYTES: usize = 4096;

/// Which way data goes, and so what the device may do with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads memory.
    ToDevice,
    /// The device writes memory.
    FromDevice,
    /// Both.
    Bidirectional,
}

impl Direction {
    /// What the device's mapping permits.
    fn access(self) -> Access {
        match self {
            Self::ToDevice => Access::Read,
            Self::FromDevice => Access::Write,
            Self::Bidirectional => Access::ReadWrite,
        }
    }

    fn device_reads(self) -> bool {
        self != Self::FromDevice
    }

    fn device_writes(self) -> bool {
        self != Self::ToDevice
    }
}

/// The DMA of one attached device. Clones share it; the device is detached when the last clone and the last buffer are
/// gone.
pub struct Dma<P: Platform> {
    space: Arc<Space<P>>,
}

/// What a device's buffers share.
struct Space<P: Platform> {
    platform: &'static P,
    /// The attachment's.
    domain: Arc<dyn PagingDomain<P>>,
    /// What is free in the domain, for all devices of the group.
    addresses: Arc<IovaAllocator<P>>,
    /// What the device can put on the bus is below.
    limit: u64,
    attachment: Arc<Attachment<P>>,
}

impl<P: Platform> Dma<P> {
    /// The DMA API of an attached device that can put addresses below `limit` on the bus: 2^28 for a device with 28
    /// address lines. The domain's own limit holds as well. What is [reserved](Device::reserved) for the device is not handed
    /// out.
    ///
    /// # Errors
    ///
    /// [`DmaError::NotTranslated`] if the device's domain is not an address space; [`DmaError::Busy`] if another CPU does not
    /// let go of its group.
    pub fn new(platform: &'static P, attachment: impl Into<Arc<Attachment<P>>>, limit: u64) -> Result<Self, DmaError> {
        let attachment = attachment.into();
        let domain = Arc::clone(attachment.paging().ok_or(DmaError::NotTranslated)?);
        let domain_limit = 1u64.checked_shl(domain.input_bits().into()).unwrap_or(u64::MAX);
        let addresses =
            attachment.shared(|| IovaAllocator::new(domain.granule(), domain_limit)).ok_or(DmaError::Busy)?;
        attachment.device().reserved().iter().for_each(|region| addresses.withhold(region.start, region.size_bytes));
        Ok(Self { space: Arc::new(Space { platform, domain, addresses, limit, attachment }) })
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        self.space.attachment.device()
    }

    /// The domain that the device's addresses are in.
    #[must_use]
    pub fn domain(&self) -> &Arc<dyn PagingDomain<P>> {
        &self.space.domain
    }
}

impl<P: Platform> Space<P> {
    /// Size of a page of the domain.
    #[allow(clippy::cast_possible_truncation, reason = "64 KiB at most")]
    fn page_bytes(&self) -> usize {
        self.domain.granule().bytes() as usize
    }

    /// Maps physical runs (start and size in bytes), `pages` in all, one after the other at addresses of their own.
    fn map(
        &self,
        pages: usize,
        access: Access,
        runs: impl IntoIterator<Item = Result<(PhysAddr, u64), DmaError>>,
    ) -> Result<IovaRange, DmaError> {
        let range = self.addresses.allocate(pages, self.limit)?;
        let mut mapped_bytes: u64 = 0;
        let mut result = Ok(());
        for run in runs {
            result = run.and_then(|(physical, size_bytes)| {
                let iova = range.start().checked_add(mapped_bytes).ok_or(DmaError::OutOfAddresses { pages })?;
                self.domain.map(iova, physical, size_bytes, access, MemoryType::WriteBack).map_err(DmaError::Map)?;
                mapped_bytes = mapped_bytes.saturating_add(size_bytes);
                Ok(())
            });
            if result.is_err() {
                break;
            }
        }
        match result {
            Ok(()) => Ok(range),
            Err(error) => {
                self.unmap(range, mapped_bytes)?;
                Err(error)
            }
        }
    }

    /// Unmaps the first `mapped_bytes` of a range and gives its addresses back. After an error they stay taken.
    fn unmap(&self, range: IovaRange, mapped_bytes: u64) -> Result<(), DmaError> {
        if mapped_bytes != 0 {
            self.domain.unmap(range.start(), mapped_bytes).map_err(DmaError::Unmap)?;
        }
        self.addresses.free(range);
        Ok(())
    }
}

impl<P: Platform> Clone for Dma<P> {
    fn clone(&self) -> Self {
        Self { space: Arc::clone(&self.space) }
    }
}

impl<P: Platform> fmt::Debug for Dma<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dma").field("attachment", &self.space.attachment).finish()
    }
}

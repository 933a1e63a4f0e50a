//! Coherent buffers: memory that a device and its driver use at the same time, rings for instance.

use alloc::sync::Arc;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use super::iova::IovaRange;
use super::{Dma, DmaError, Space};
use crate::addr::Iova;
use crate::memory::DmaMemory;
use crate::pgtable::Access;
use crate::platform::Platform;

/// Whole pages that one device reads and writes. They are zero at first, shared with nothing else, and out of the device's
/// reach before they are freed.
pub struct CoherentBuffer<P: Platform> {
    space: Arc<Space<P>>,
    range: IovaRange,
    memory: DmaMemory<P>,
}

impl<P: Platform> Dma<P> {
    /// Allocates and maps `size_bytes` bytes, rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// [`DmaError`] if it is nothing, or memory or addresses are lacking.
    pub fn allocate_coherent(&self, size_bytes: usize) -> Result<CoherentBuffer<P>, DmaError> {
        let page_bytes = self.space.page_bytes();
        let pages = size_bytes.div_ceil(page_bytes);
        if pages == 0 {
            return Err(DmaError::Empty);
        }
        let memory = DmaMemory::allocate(self.space.platform, pages.saturating_mul(page_bytes), page_bytes)?;
        let run = (memory.physical(), memory.size_bytes() as u64);
        let range = self.space.map(pages, Access::ReadWrite, [Ok(run)])?;
        Ok(CoherentBuffer { space: Arc::clone(&self.space), range, memory })
    }
}

impl<P: Platform> CoherentBuffer<P> {
    /// Where the device finds it.
    #[must_use]
    pub fn iova(&self) -> Iova {
        self.range.start()
    }

    /// The buffer as 64-bit words. The device may change them at any time.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        self.memory.words()
    }

    /// Where the CPU finds it, for drivers that work with pointers. Valid for as long as the buffer lives.
    #[must_use]
    pub fn pointer(&self) -> NonNull<u8> {
        NonNull::from(self.memory.words()).cast()
    }

    /// Size in bytes, a multiple of the page size.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.memory.size_bytes()
    }
}

impl<P: Platform> Drop for CoherentBuffer<P> {
    fn drop(&mut self) {
        if self.space.unmap(self.range, self.range.size_bytes()).is_err() {
            self.memory.keep();
        }
    }
}

impl<P: Platform> fmt::Debug for CoherentBuffer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoherentBuffer").field("iova", &self.iova()).field("memory", &self.memory).finish()
    }
}

//! DMA for virtio drivers, over the DMA API of the `smmu` crate.

use alloc::collections::BTreeMap;
use core::ptr::NonNull;

use smmu::addr::Iova;
use smmu::dma::{CoherentBuffer, Direction, Dma, DmaError, Mapping, PAGE_BYTES};
use smmu::iommu::UnmapError;

use crate::drivers::dma::{BufferDirection, CoherentPages, DeviceDma};
use crate::platform::Kernel;
use crate::power::{self, ExitCode};
use crate::sync::IrqMutex;

/// The memory that one virtio device reaches. `virtio-drivers` remembers addresses only; the values behind them, whose end
/// takes the memory away from the device, are kept here.
pub struct SmmuDma {
    dma: Dma<Kernel>,
    buffers: IrqMutex<BTreeMap<Iova, CoherentBuffer<Kernel>>>,
    mappings: IrqMutex<BTreeMap<Iova, Mapping<Kernel>>>,
}

impl SmmuDma {
    /// Over the DMA of an attached device.
    #[must_use]
    pub const fn new(dma: Dma<Kernel>) -> Self {
        Self { dma, buffers: IrqMutex::new(BTreeMap::new()), mappings: IrqMutex::new(BTreeMap::new()) }
    }
}

// SAFETY: coherent buffers are zeroed pages of their own; dropping a buffer or mapping makes it unreachable before it
// returns.
unsafe impl DeviceDma for SmmuDma {
    fn allocate_coherent(&self, pages: usize) -> Option<CoherentPages> {
        let buffer = self.dma.allocate_coherent(pages.checked_mul(PAGE_BYTES)?);
        let buffer = buffer.inspect_err(|error| log::error!("{}: {error}", self.dma.device())).ok()?;
        let allocated = CoherentPages { iova: buffer.iova(), pointer: buffer.pointer(), pages };
        self.buffers.lock().insert(allocated.iova, buffer);
        Some(allocated)
    }

    unsafe fn free_coherent(&self, pages: CoherentPages) {
        let buffer = self.buffers.lock().remove(&pages.iova);
        // Dropped without the lock: it waits for the SMMU.
        drop(buffer);
    }

    unsafe fn map(&self, buffer: NonNull<[u8]>, direction: BufferDirection) -> Option<Iova> {
        let direction = match direction {
            BufferDirection::DriverToDevice => Direction::ToDevice,
            BufferDirection::DeviceToDriver => Direction::FromDevice,
            BufferDirection::Both => Direction::Bidirectional,
        };
        // SAFETY: the caller leaves the buffer alone until `unmap`, which drops the mapping.
        let mapping = unsafe { self.dma.map(buffer, direction) };
        let mapping = mapping.inspect_err(|error| log::error!("{}: {error}", self.dma.device())).ok()?;
        let iova = mapping.iova();
        self.mappings.lock().insert(iova, mapping);
        Some(iova)
    }

    unsafe fn unmap(&self, iova: Iova, _: NonNull<[u8]>, _: BufferDirection) {
        let mapping = self.mappings.lock().remove(&iova);
        if let Some(Err(error)) = mapping.map(Mapping::unmap) {
            log::error!("{}: {error}", self.dma.device());
            if matches!(error, DmaError::Unmap(UnmapError::Stuck(_))) {
                // The buffer goes back to a driver, which will use it, while the device may still write to it.
                power::exit(ExitCode::Failure);
            }
        }
    }
}

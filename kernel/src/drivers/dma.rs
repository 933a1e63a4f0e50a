//! What a driver needs to make memory reachable for its device.

use core::ptr::NonNull;

use smmu::addr::Iova;
pub use virtio_drivers::BufferDirection;

/// Whole pages that CPU and device share for as long as the driver likes: rings, descriptor tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoherentPages {
    /// Where the device sees them. Not 0, which stands for no memory in virtio.
    pub iova: Iova,
    /// Where the CPU sees them.
    pub pointer: NonNull<u8>,
    /// How many there are, of 4 KiB each.
    pub pages: usize,
}

/// The memory that one device can reach, and the way to change it.
///
/// # Safety
///
/// An implementation must return from [`allocate_coherent`](Self::allocate_coherent) zeroed, page-aligned memory that
/// nobody else uses until it is freed; and must, before [`unmap`](Self::unmap) and
/// [`free_coherent`](Self::free_coherent) return, have made sure that the device can no longer reach that memory.
pub unsafe trait DeviceDma: Send + Sync {
    /// Allocates zeroed pages of 4 KiB and maps them for reading and writing; `None` if that cannot be.
    fn allocate_coherent(&self, pages: usize) -> Option<CoherentPages>;

    /// Unmaps and frees pages.
    ///
    /// # Safety
    ///
    /// They came from [`allocate_coherent`](Self::allocate_coherent), are freed once, and the CPU uses them no more.
    unsafe fn free_coherent(&self, pages: CoherentPages);

    /// Maps a buffer for one transfer in `direction` and returns where the device sees it; `None` if that cannot be.
    ///
    /// What shares a page with other data is bounced, so that the device sees the buffer and nothing beside it.
    ///
    /// # Safety
    ///
    /// `buffer` is valid, not empty, and not used by the CPU until [`unmap`](Self::unmap).
    unsafe fn map(&self, buffer: NonNull<[u8]>, direction: BufferDirection) -> Option<Iova>;

    /// Ends a transfer: unmaps the buffer, and copies back what was bounced.
    ///
    /// # Safety
    ///
    /// `iova` came from [`map`](Self::map) with the same `buffer` and `direction`, and is unmapped once.
    unsafe fn unmap(&self, iova: Iova, buffer: NonNull<[u8]>, direction: BufferDirection);
}

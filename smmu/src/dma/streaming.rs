//! Streaming mappings: a driver's own buffer, lent to the device for one transfer.
//!
//! A device gets whole pages. A buffer that does not fill its pages shares them with something that the device has no
//! business with, so it is bounced: the device works on a copy. What the buffer held before reaches the
//! copy only if the device is to read it; bytes that the device was to write and did not are zero afterwards.

use alloc::sync::Arc;
use core::fmt;
use core::ptr::NonNull;

use super::iova::IovaRange;
use super::{Direction, Dma, DmaError, PAGE_BYTES, Space};
use crate::addr::{Iova, PhysAddr};
use crate::memory::DmaMemory;
use crate::platform::Platform;

/// A buffer in the device's hands. Dropping it takes the buffer back: unmapped, invalidated, synced, and, if it was
/// bounced, copied. [`unmap`](Self::unmap) does the same and says whether it went well.
pub struct Mapping<P: Platform> {
    space: Arc<Space<P>>,
    range: IovaRange,
    buffer: NonNull<[u8]>,
    direction: Direction,
    /// The copy that the device works on, if it is not the buffer itself.
    bounce: Option<DmaMemory<P>>,
    taken_back: bool,
}

// SAFETY: the buffer is the mapping's alone until it is dropped, on whatever thread.
unsafe impl<P: Platform> Send for Mapping<P> {}

impl<P: Platform> Dma<P> {
    /// Lends `buffer` to the device.
    ///
    /// # Errors
    ///
    /// [`DmaError`]; the device does not reach the buffer then.
    ///
    /// # Safety
    ///
    /// `buffer` is valid for reads and writes, and nobody touches it, until the mapping is dropped. The mapping is
    /// dropped, not forgotten, before the buffer's memory is used for anything else.
    pub unsafe fn map(&self, buffer: NonNull<[u8]>, direction: Direction) -> Result<Mapping<P>, DmaError> {
        let space = &self.space;
        let page_bytes = space.page_bytes();
        let pages = buffer.len().div_ceil(page_bytes);
        if pages == 0 {
            return Err(DmaError::Empty);
        }
        let (range, bounce) = if fills_its_pages(space.platform, buffer, page_bytes) {
            (space.map(pages, direction.access(), Runs::new(space.platform, buffer))?, None)
        } else {
            let copy = DmaMemory::allocate(space.platform, pages.saturating_mul(page_bytes), page_bytes)?;
            if direction.device_reads() {
                // SAFETY: the caller vouches for `buffer`; `copy` is at least as long and nobody else's.
                unsafe { copy_bytes(buffer.cast(), pointer(&copy), buffer.len()) }
            }
            let run = (copy.physical(), copy.size_bytes() as u64);
            (space.map(pages, direction.access(), [Ok(run)])?, Some(copy))
        };
        Ok(Mapping { space: Arc::clone(space), range, buffer, direction, bounce, taken_back: false })
    }
}

impl<P: Platform> Mapping<P> {
    /// Where the device finds the first byte of the buffer.
    #[must_use]
    pub fn iova(&self) -> Iova {
        self.range.start()
    }

    /// Whether the device works on a copy.
    #[must_use]
    pub fn is_bounced(&self) -> bool {
        self.bounce.is_some()
    }

    /// Takes the buffer back, as dropping does, and says whether that went well.
    ///
    /// # Errors
    ///
    /// [`DmaError::Unmap`] if an SMMU did not confirm. With [`UnmapError::Invalidation`](crate::iommu::UnmapError) it was
    /// closed and the device is out, but what it wrote may not have arrived. With `UnmapError::Stuck` the device may go on
    /// writing to a buffer that was not bounced: never use its memory again.
    pub fn unmap(mut self) -> Result<(), DmaError> {
        self.take_back()
    }

    fn take_back(&mut self) -> Result<(), DmaError> {
        self.taken_back = true;
        let unmapped = self.space.unmap(self.range, self.range.size_bytes());
        let Some(copy) = &self.bounce else { return unmapped };
        if unmapped.is_err() {
            copy.keep();
        } else if self.direction.device_writes() {
            // SAFETY: the buffer is still ours by the promise made to `map`; the copy is as long, and out of the device's
            // reach.
            unsafe { copy_bytes(pointer(copy), self.buffer.cast(), self.buffer.len()) }
        }
        unmapped
    }
}

impl<P: Platform> Drop for Mapping<P> {
    fn drop(&mut self) {
        if !self.taken_back {
            // A driver that wants to survive an SMMU that does not answer calls `unmap` and looks at its error.
            let _ = self.take_back();
        }
    }
}

impl<P: Platform> fmt::Debug for Mapping<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Mapping");
        debug.field("iova", &self.iova()).field("direction", &self.direction).field("bounced", &self.is_bounced());
        debug.finish_non_exhaustive()
    }
}

/// Whether a buffer shares none of its pages, of this size, with anything else; in physical memory neither, where the CPUs' pages
/// may be smaller and lie apart. What is not in memory at all is for [`Runs`] to say.
fn fills_its_pages<P: Platform>(platform: &'static P, buffer: NonNull<[u8]>, page_bytes: usize) -> bool {
    let is_whole = |bytes: usize| bytes.is_multiple_of(page_bytes);
    let is_aligned = |bytes: u64| bytes & (page_bytes as u64 - 1) == 0;
    is_whole(buffer.cast::<u8>().addr().get())
        && is_whole(buffer.len())
        && (page_bytes == PAGE_BYTES
            || Runs::new(platform, buffer)
                .flatten()
                .all(|(physical, size_bytes)| is_aligned(physical.get()) && is_aligned(size_bytes)))
}

/// The physically contiguous runs that a buffer of whole pages of the smallest size lies in.
struct Runs<P: Platform> {
    platform: &'static P,
    next: NonNull<u8>,
    remaining_bytes: usize,
}

impl<P: Platform> Runs<P> {
    fn new(platform: &'static P, buffer: NonNull<[u8]>) -> Self {
        Self { platform, next: buffer.cast(), remaining_bytes: buffer.len() & !(PAGE_BYTES - 1) }
    }

    /// Where the page at `next` is, and how many bytes of whole pages lie there side by side.
    fn piece(&self) -> Result<(PhysAddr, usize), DmaError> {
        let pointer = self.next.addr().get();
        let piece = self.platform.physical_run(self.next, self.remaining_bytes);
        let (physical, bytes) = piece.ok_or(DmaError::NotMemory { pointer })?;
        Ok((physical, (bytes & !(PAGE_BYTES - 1)).clamp(PAGE_BYTES, self.remaining_bytes)))
    }

    fn advance(&mut self, bytes: usize) {
        self.next = self.next.map_addr(|address| address.saturating_add(bytes));
        self.remaining_bytes = self.remaining_bytes.saturating_sub(bytes);
    }
}

impl<P: Platform> Iterator for Runs<P> {
    type Item = Result<(PhysAddr, u64), DmaError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining_bytes == 0 {
            return None;
        }
        let (start, mut bytes) = match self.piece() {
            Ok(piece) => piece,
            Err(error) => return Some(Err(error)),
        };
        let mut size_bytes: u64 = 0;
        loop {
            size_bytes = size_bytes.saturating_add(bytes as u64);
            self.advance(bytes);
            if self.remaining_bytes == 0 {
                return Some(Ok((start, size_bytes)));
            }
            match self.piece() {
                Ok((next, more)) if start.checked_add(size_bytes) == Some(next) => {
                    bytes = more;
                }
                _ => return Some(Ok((start, size_bytes))),
            }
        }
    }
}

/// Where the CPU finds DMA memory.
fn pointer<P: Platform>(memory: &DmaMemory<P>) -> NonNull<u8> {
    NonNull::from(memory.words()).cast()
}

/// Copies `length` bytes.
///
/// # Safety
///
/// `from` is valid for reads and `to` for writes of `length` bytes; they do not overlap, and nobody else touches them.
unsafe fn copy_bytes(from: NonNull<u8>, to: NonNull<u8>, length: usize) {
    // SAFETY: the caller's promise.
    unsafe { from.copy_to_nonoverlapping(to, length) }
}

//! Memory for devices: pages, by size and alignment.
//!
//! The allocator's books are on the kernel heap, none of them in the pages themselves, so that a device that goes on writing to
//! a page after its time spoils data at most.

use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::NonNull;

use buddy_system_allocator::FrameAllocator;
use smmu::addr::PhysAddr;
use smmu::platform::{DmaBlock, OutOfDmaMemory};

use super::PAGE_BYTES;
use crate::sync::IrqMutex;

struct Pages {
    /// All there are, free or not.
    all: Vec<Range<usize>>,
    /// Frame numbers are physical addresses in pages.
    frames: FrameAllocator,
    /// Free frames that are handed out before any other: most of what is wanted is one page.
    single: Vec<usize>,
    total: usize,
    used: usize,
}

/// Most frames in [`Pages::single`].
const SINGLE_MAX: usize = 64;

impl Pages {
    fn allocate(&mut self, count: usize) -> Option<usize> {
        if count == 1
            && let Some(frame) = self.single.pop()
        {
            return Some(frame);
        }
        self.frames.alloc(count).or_else(|| {
            self.merge();
            self.frames.alloc(count)
        })
    }

    fn free(&mut self, frame: usize, count: usize) {
        if count == 1 && self.single.len() < SINGLE_MAX {
            self.single.push(frame);
        } else {
            self.frames.dealloc(frame, count);
        }
    }

    /// Lets single frames become parts of larger blocks.
    fn merge(&mut self) {
        self.single.drain(..).for_each(|frame| self.frames.dealloc(frame, 1));
    }
}

static PAGES: IrqMutex<Option<Pages>> = IrqMutex::new(None);

/// How much DMA memory there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// In all, in bytes.
    pub total_bytes: usize,
    /// Allocated, in bytes, roundings included.
    pub used_bytes: usize,
}

/// Takes over the `free` memory (whole pages).
pub(super) fn init(free: &[Range<u64>]) {
    let mut pages = Pages { all: Vec::new(), frames: FrameAllocator::new(), single: Vec::new(), total: 0, used: 0 };
    for range in free {
        let frames = (range.start / PAGE_BYTES) as usize..(range.end / PAGE_BYTES) as usize;
        pages.total += frames.len();
        pages.all.push(frames.clone());
        pages.frames.insert(frames);
    }
    *PAGES.lock() = Some(pages);
}

/// Allocates zeroed memory, physically contiguous and aligned to `alignment_bytes` (a power of two).
///
/// Blocks are powers of two of whole pages; the size is rounded up to one.
///
/// # Errors
///
/// [`OutOfDmaMemory`] if there is none, or the size is 0 or the alignment not a power of two.
pub fn allocate(size_bytes: usize, alignment_bytes: usize) -> Result<DmaBlock, OutOfDmaMemory> {
    let out = OutOfDmaMemory { size_bytes, alignment_bytes };
    let count = block_pages(size_bytes, alignment_bytes).ok_or(out)?;
    let frame = {
        let mut pages = PAGES.lock();
        let pages = pages.as_mut().ok_or(out)?;
        let frame = pages.allocate(count).ok_or(out)?;
        pages.used += count;
        frame
    };
    let address = frame * PAGE_BYTES as usize;
    let pointer = NonNull::new(address as *mut u8).ok_or(out)?;
    // SAFETY: the pages are mapped memory that nobody else uses.
    unsafe { pointer.write_bytes(0, size_bytes) };
    Ok(DmaBlock { pointer, physical: PhysAddr::new(address as u64), size_bytes, alignment_bytes })
}

/// Takes a block back.
///
/// # Safety
///
/// `block` came from [`allocate`], is freed once, and neither a device nor software reaches it any more.
pub unsafe fn free(block: DmaBlock) {
    let frame = (block.physical.get() / PAGE_BYTES) as usize;
    if let (Some(count), Some(pages)) = (block_pages(block.size_bytes, block.alignment_bytes), PAGES.lock().as_mut()) {
        pages.free(frame, count);
        pages.used -= count;
    }
}

/// Gives nothing out any more, and says which memory is in use, as physical addresses in bytes.
pub fn retire() -> Vec<Range<u64>> {
    let Some(mut pages) = PAGES.lock().take() else { return Vec::new() };
    pages.merge();
    let mut free: Vec<Range<usize>> = Vec::new();
    for order in (0..usize::BITS).rev() {
        // More than the allocator's largest block is never to be had.
        while let Some(frame) = 1_usize.checked_shl(order).and_then(|count| pages.frames.alloc(count)) {
            free.push(frame..frame + (1 << order));
        }
    }
    free.sort_unstable_by_key(|range| range.start);
    let mut used = Vec::new();
    for range in pages.all {
        let mut start = range.start;
        for hole in free.iter().filter(|hole| range.contains(&hole.start)).chain([&(range.end..range.end)]) {
            if start < hole.start {
                used.push(start as u64 * PAGE_BYTES..hole.start as u64 * PAGE_BYTES);
            }
            start = hole.end;
        }
    }
    used
}

/// How much there is and how much of it is in use.
#[must_use]
pub fn usage() -> Usage {
    let bytes = |pages| pages * PAGE_BYTES as usize;
    let pages = PAGES.lock();
    let (total, used) = pages.as_ref().map_or((0, 0), |pages| (pages.total, pages.used));
    Usage { total_bytes: bytes(total), used_bytes: bytes(used) }
}

/// How many pages a block takes: a power of two, by which it is aligned as well.
fn block_pages(size_bytes: usize, alignment_bytes: usize) -> Option<usize> {
    if size_bytes == 0 || !alignment_bytes.is_power_of_two() {
        return None;
    }
    size_bytes.max(alignment_bytes).div_ceil(PAGE_BYTES as usize).checked_next_power_of_two()
}

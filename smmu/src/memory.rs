//! DMA memory as atomic words: one of the crate's two unsafe files (the other is [`crate::mmio`]).
//!
//! Everything the SMMU reads or writes in memory (queues, stream tables, context descriptors, page tables) is an
//! array of 64-bit little-endian words. Seen as [`AtomicU64`]s they can be shared with hardware without a
//! data race, and the rest of the crate stays safe code. A relaxed load or store of one is a plain `ldr` or `str`.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::addr::PhysAddr;
use crate::platform::{DmaBlock, OutOfDmaMemory, Platform};

/// A zeroed, physically contiguous block of words, freed on drop.
///
/// Dropping one that hardware can still reach would be a hole: its owner makes it unreachable first, or keeps it for
/// good ([`DmaMemory::keep`]).
pub struct DmaMemory<P: Platform> {
    platform: &'static P,
    block: DmaBlock,
    kept: AtomicBool,
}

// SAFETY: the block is owned, and reached only through atomics.
unsafe impl<P: Platform> Send for DmaMemory<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for DmaMemory<P> {}

impl<P: Platform> DmaMemory<P> {
    /// Allocates `size_bytes` (rounded up to whole words, at least one), aligned to `alignment_bytes` (a power of
    /// two, at least 8).
    ///
    /// # Errors
    ///
    /// [`OutOfDmaMemory`] if the platform has none left.
    pub fn allocate(platform: &'static P, size_bytes: usize, alignment_bytes: usize) -> Result<Self, OutOfDmaMemory> {
        let out = OutOfDmaMemory { size_bytes, alignment_bytes };
        let size_bytes = size_bytes.max(8).checked_next_multiple_of(8).ok_or(out)?;
        let block = platform.allocate(size_bytes, alignment_bytes.max(8))?;
        Ok(Self { platform, block, kept: AtomicBool::new(false) })
    }

    /// Memory that somebody else allocated and left to this crate, which never gives it back; `None` where the platform
    /// gives no access. What is in it is not to be trusted.
    pub(crate) fn foreign(platform: &'static P, physical: PhysAddr, size_bytes: usize) -> Option<Self> {
        let pointer = platform.foreign(physical, size_bytes)?;
        if size_bytes == 0 || !size_bytes.is_multiple_of(8) || !pointer.cast::<AtomicU64>().is_aligned() {
            return None;
        }
        let block = DmaBlock { pointer, physical, size_bytes, alignment_bytes: 8 };
        Some(Self { platform, block, kept: AtomicBool::new(true) })
    }

    /// Where the SMMU finds the block.
    #[must_use]
    pub fn physical(&self) -> PhysAddr {
        self.block.physical
    }

    /// Size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.block.size_bytes
    }

    /// The block's words. Values are little-endian in memory; use [`u64::to_le`] and [`u64::from_le`].
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the platform promises valid, exclusive memory of this size and alignment until it is freed, or for good.
        unsafe { core::slice::from_raw_parts(self.block.pointer.cast().as_ptr(), self.block.size_bytes / 8) }
    }

    /// Cleans (writes back) `count` words from `first` on, clipped to the block, for an SMMU that does not snoop.
    pub fn clean(&self, first: usize, count: usize) {
        if let Some(words) = self.words().get(first..).map(|rest| rest.get(..count).unwrap_or(rest)) {
            self.platform.clean_cache(NonNull::from(words).cast(), size_of_val(words));
        }
    }

    /// Discards cached copies of `count` words from `first` on, clipped to the block, before reading what an SMMU that
    /// does not snoop wrote there.
    pub fn invalidate(&self, first: usize, count: usize) {
        if let Some(words) = self.words().get(first..).map(|rest| rest.get(..count).unwrap_or(rest)) {
            self.platform.invalidate_cache(NonNull::from(words).cast(), size_of_val(words));
        }
    }

    /// Never gives the block back: for memory that hardware may still reach after an error.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl<P: Platform> Drop for DmaMemory<P> {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            // SAFETY: the block came from `allocate` and is freed once; its owner made it unreachable for hardware.
            unsafe { self.platform.free(self.block) }
        }
    }
}

/// Blocks of one size that are found again through the physical addresses in hardware's own descriptors, so that tables
/// of tables need no list beside them.
///
/// Whoever uses it holds the invariant that makes it sound: an address passed to [`words`](Self::words) or
/// [`unlink`](Self::unlink) came from [`link`](Self::link) of the same value and has not been unlinked. Descriptors that
/// only this crate writes are a safe place to keep it; memory that hardware or a guest writes is not.
#[derive(Debug)]
pub(crate) struct LinkedMemory<P: Platform> {
    platform: &'static P,
    /// Size and alignment of every block.
    block_bytes: usize,
}

impl<P: Platform> LinkedMemory<P> {
    pub(crate) const fn new(platform: &'static P, block_bytes: usize) -> Self {
        Self { platform, block_bytes }
    }

    /// Allocates a zeroed block; drop it or [`link`](Self::link) it.
    pub(crate) fn allocate(&self) -> Result<DmaMemory<P>, OutOfDmaMemory> {
        DmaMemory::allocate(self.platform, self.block_bytes, self.block_bytes)
    }

    /// Hands a block of [`allocate`](Self::allocate) over to the descriptor that will hold its address.
    pub(crate) fn link(&self, block: DmaMemory<P>) -> PhysAddr {
        block.keep();
        block.physical()
    }

    /// The words of a linked block.
    pub(crate) fn words(&self, physical: PhysAddr) -> &[AtomicU64] {
        // SAFETY: by the type's invariant this is a block from `allocate`.
        let start = unsafe { self.platform.pointer(physical) }.cast();
        // SAFETY: as above; it is valid until it is unlinked and freed.
        unsafe { core::slice::from_raw_parts(start.as_ptr(), self.block_bytes / 8) }
    }

    /// The same memory, if every block has `N` words: with a length that is known when the code is compiled, an index into
    /// a block can be seen to lie inside it.
    pub(crate) fn arrays<const N: usize>(&self) -> Option<LinkedArrays<P, N>> {
        (self.block_bytes == N * size_of::<u64>()).then_some(LinkedArrays { platform: self.platform })
    }

    /// Takes a block back that nothing reaches any more; dropping it frees it.
    pub(crate) fn unlink(&self, physical: PhysAddr) -> DmaMemory<P> {
        let block = DmaBlock {
            // SAFETY: by the type's invariant this is a block from `allocate`.
            pointer: unsafe { self.platform.pointer(physical) },
            physical,
            size_bytes: self.block_bytes,
            alignment_bytes: self.block_bytes,
        };
        DmaMemory { platform: self.platform, block, kept: AtomicBool::new(false) }
    }
}

/// [`LinkedMemory`] whose blocks have `N` words.
#[derive(Debug)]
pub(crate) struct LinkedArrays<P: Platform, const N: usize> {
    platform: &'static P,
}

impl<P: Platform, const N: usize> LinkedArrays<P, N> {
    /// The words of a linked block.
    #[inline]
    pub(crate) fn words(&self, physical: PhysAddr) -> &[AtomicU64; N] {
        // SAFETY: as for `LinkedMemory::words`.
        let start = unsafe { self.platform.pointer(physical) }.cast();
        // SAFETY: likewise; `LinkedMemory::arrays` has compared the length.
        unsafe { start.as_ref() }
    }
}

impl<P: Platform> fmt::Debug for DmaMemory<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaMemory").field("block", &self.block).finish()
    }
}

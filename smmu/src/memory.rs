//! DMA memory as atomic words: one of the crate's two unsafe files (the other is [`crate::mmio`]).
//!
//! Everything the SMMU reads or writes in memory (queues, stream tables, context descriptors, page tables) is an
//! array of 64-bit little-endian words. Seen as [`AtomicU64`]s they can be shared with hardware without a
//! data race, and the rest of the crate stays safe code. A relaxed load or store of one is a plain `ldr` or `str`.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use crate::addr::PhysAddr;
use crate::platform::{DmaBlock, OutOfDmaMemory, Platform};

/// A zeroed, physically contiguous block of words, freed on drop.
///
/// Dropping one that hardware can still reach would be a hole: its owner makes it unreachable first, or keeps it for
/// good ([`DmaMemory::leak`]).
pub struct DmaMemory<P: Platform> {
    platform: &'static P,
    block: DmaBlock,
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
        Ok(Self { platform, block })
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
        // SAFETY: the platform promises valid, zeroed, exclusive memory of this size and alignment until it is freed.
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

    /// Gives the block up for good: for memory that hardware may still reach after an error.
    pub fn leak(self) {
        core::mem::forget(self);
    }
}

impl<P: Platform> Drop for DmaMemory<P> {
    fn drop(&mut self) {
        // SAFETY: the block came from `allocate` and is freed once; its owner made it unreachable for hardware.
        unsafe { self.platform.free(self.block) }
    }
}

impl<P: Platform> fmt::Debug for DmaMemory<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaMemory").field("block", &self.block).finish()
    }
}

//! Context descriptors: what a stage-1 stream table entry points at (IHI 0070, 5.4).

use core::sync::atomic::Ordering;

use crate::addr::PhysAddr;
use crate::arch::context_descriptor::ContextDescriptor;
use crate::memory::DmaMemory;
use crate::platform::{OutOfDmaMemory, Platform};

/// A table of one context descriptor, for streams without substreams. It is written before anything points at it and
/// never changed; whoever owns it detaches every stream that uses it before dropping it.
#[derive(Debug)]
pub struct ContextTable<P: Platform> {
    memory: DmaMemory<P>,
}

impl<P: Platform> ContextTable<P> {
    /// Writes `descriptor` into memory of its own. `coherent` says whether the SMMU snoops the CPU's caches.
    ///
    /// # Errors
    ///
    /// [`OutOfDmaMemory`] if the platform has none left.
    pub fn new(platform: &'static P, descriptor: &ContextDescriptor, coherent: bool) -> Result<Self, OutOfDmaMemory> {
        let memory = DmaMemory::allocate(platform, ContextDescriptor::BYTES, ContextDescriptor::BYTES)?;
        for (word, value) in memory.words().iter().zip(descriptor.words()) {
            word.store(value.to_le(), Ordering::Relaxed);
        }
        if !coherent {
            memory.clean(0, memory.words().len());
        }
        Ok(Self { memory })
    }

    /// Where the SMMU finds the table.
    #[must_use]
    pub fn physical(&self) -> PhysAddr {
        self.memory.physical()
    }

    /// Never gives the memory back: for a table that the SMMU may still read.
    pub fn keep(&self) {
        self.memory.keep();
    }
}

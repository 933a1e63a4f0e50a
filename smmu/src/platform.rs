//! What the integrator provides: [`Platform`], the whole contract between this crate and a kernel.
//!
//! What lives here: the trait and the plain data it passes. What does not: the safe wrappers over it
//! ([`crate::memory`] for DMA memory, [`crate::mmio`] for registers).

use core::fmt;
use core::ptr::NonNull;
use core::time::Duration;

use crate::addr::PhysAddr;

/// Access to the registers of one SMMU. Offsets are in bytes from the start of register page 0.
///
/// The kernel uses [`crate::mmio::Mmio`]; on the host, tests put a model or a socket behind the same trait.
/// All registers are little-endian; values here are in the CPU's order. An offset outside the block reads as
/// all ones and writes nothing.
pub trait Registers: Send + Sync {
    /// Reads the 32-bit register at `offset`.
    fn read32(&self, offset: usize) -> u32;
    /// Writes the 32-bit register at `offset`.
    fn write32(&self, offset: usize, value: u32);
    /// Reads the 64-bit register at `offset`.
    fn read64(&self, offset: usize) -> u64;
    /// Writes the 64-bit register at `offset`.
    fn write64(&self, offset: usize, value: u64);
}

/// A block of DMA memory handed out by [`Platform::allocate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaBlock {
    /// Where the CPU sees it.
    pub pointer: NonNull<u8>,
    /// Where the SMMU and devices see it.
    pub physical: PhysAddr,
    /// Size in bytes, as requested.
    pub size_bytes: usize,
    /// Alignment in bytes, as requested; a power of two.
    pub alignment_bytes: usize,
}

/// No DMA memory of the wanted size and alignment is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfDmaMemory {
    /// The size that was asked for, in bytes.
    pub size_bytes: usize,
    /// The alignment that was asked for, in bytes.
    pub alignment_bytes: usize,
}

impl fmt::Display for OutOfDmaMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of DMA memory: {} bytes aligned to {} were wanted", self.size_bytes, self.alignment_bytes)
    }
}

impl core::error::Error for OutOfDmaMemory {}

/// What the crate needs from the system around it: DMA memory, address conversion, barriers and cache
/// maintenance, a clock.
///
/// # Safety
///
/// The crate hands the physical addresses it gets here to hardware. An implementation must
///
/// * return from [`allocate`](Self::allocate) only memory that is valid for reads and writes through
///   `pointer`, zeroed, aligned and sized as asked, used by nobody else until it is freed, and found by the
///   SMMU at `physical`, contiguously;
/// * make [`pointer`](Self::pointer) the inverse of that mapping for all memory that `allocate` gave out;
/// * return from [`foreign`](Self::foreign) only memory that is valid for reads and writes, for good, and that nobody but
///   the crate and the SMMU writes from then on;
/// * make the barriers order accesses as their documentation says.
pub unsafe trait Platform: Sync + 'static {
    /// How registers are reached.
    type Registers: Registers;
    /// The lock for data that the SMMU's interrupt handlers share: it masks interrupts where there are any.
    type Lock: lock_api::RawMutex + Send + Sync;

    /// Allocates zeroed memory for hardware to read and write.
    ///
    /// `size_bytes` is not zero; `alignment_bytes` is a power of two, which also holds for the physical address.
    ///
    /// # Errors
    ///
    /// [`OutOfDmaMemory`] when there is none; the crate undoes what it had begun and passes the error on.
    fn allocate(&self, size_bytes: usize, alignment_bytes: usize) -> Result<DmaBlock, OutOfDmaMemory>;

    /// Takes back a block.
    ///
    /// # Safety
    ///
    /// `block` came from [`allocate`](Self::allocate), has not been freed, and neither hardware nor software
    /// reaches it any more.
    unsafe fn free(&self, block: DmaBlock);

    /// Where the CPU sees memory that [`allocate`](Self::allocate) returned, or any byte inside it.
    ///
    /// # Safety
    ///
    /// `physical` is in such memory, which has not been freed.
    unsafe fn pointer(&self, physical: PhysAddr) -> NonNull<u8>;

    /// Where the CPU sees `size_bytes` bytes at `physical`, which a former owner of an SMMU left in memory for it: stream
    /// tables and context descriptors, to be adopted ([`BootPolicy::Adopt`](crate::device::BootPolicy::Adopt)). `None` if
    /// not all of it is ordinary memory that was kept free for that; the address comes from registers and tables that
    /// nobody vouches for. `None` throughout, unless said otherwise: then nothing can be adopted.
    fn foreign(&self, physical: PhysAddr, size_bytes: usize) -> Option<NonNull<u8>> {
        let _ = (physical, size_bytes);
        None
    }

    /// Where hardware sees the byte at `pointer`, or `None` if that is not ordinary memory. For buffers that a driver
    /// hands to a device: any memory of the kernel, not only what [`allocate`](Self::allocate) returned.
    fn physical(&self, pointer: NonNull<u8>) -> Option<PhysAddr>;

    /// Where hardware sees the byte at `pointer`, and how many bytes from there on, `size_bytes` at most, it sees side by side, as
    /// they are for the CPU. Those up to the end of the smallest page, of 4 KiB, unless said otherwise: whoever knows more makes
    /// large buffers cheaper to map.
    fn physical_run(&self, pointer: NonNull<u8>, size_bytes: usize) -> Option<(PhysAddr, usize)> {
        const PAGE_BYTES: usize = 4096;
        let in_page = pointer.addr().get() & (PAGE_BYTES - 1);
        Some((self.physical(pointer)?, size_bytes.min(PAGE_BYTES.saturating_sub(in_page))))
    }

    /// Size of the CPUs' virtual addresses in bits: I/O virtual addresses get no wider. 48 unless said otherwise
    /// (ID_AA64MMFR2_EL1.VARange).
    fn virtual_address_bits(&self) -> u8 {
        48
    }

    /// How many bits the largest StreamID has that firmware names ([`StreamId::bits`](crate::addr::StreamId::bits)): an
    /// SMMU's stream table covers no more, and it does not grow. An SMMU that has wider ones (IDR1.SIDSIZE) aborts what is
    /// not covered, by STRTAB_BASE_CFG.LOG2SIZE (IHI 0070, 3.3); attaching such a stream is refused by name.
    ///
    /// From 21 bits on the table takes 8 bytes for every 1024 StreamIDs that it covers, used or not, in one piece: 128 KiB
    /// for the 24 bits that it is unless said otherwise, 32 MiB for 32.
    fn stream_id_bits(&self) -> u8 {
        24
    }

    /// Makes every earlier store to DMA memory observable by the SMMU before any later register write
    /// (`dsb ishst` for memory, `dsb st` if registers are mapped as Device memory).
    fn write_barrier(&self);

    /// Orders earlier register reads and loads from DMA memory before any later load and any later register write
    /// (`dmb oshld` or stronger).
    fn read_barrier(&self);

    /// Writes back the CPU's cached copies of a range, so that an SMMU that does not snoop sees it.
    /// Called only for SMMUs whose walks are not coherent.
    fn clean_cache(&self, start: NonNull<u8>, size_bytes: usize);

    /// Discards the CPU's cached copies of a range, so that the CPU sees what a non-snooping SMMU wrote.
    /// Called only for SMMUs whose accesses are not coherent.
    fn invalidate_cache(&self, start: NonNull<u8>, size_bytes: usize);

    /// Time since an arbitrary start; never goes back. Bounds every wait for hardware.
    fn now(&self) -> Duration;

    /// Called in every turn of a polling loop: a CPU hint, or in tests a place to let hardware make progress.
    fn relax(&self);

    /// Called instead of [`relax`](Self::relax) where the SMMU is to send the event that ends a CPU's WFE (IDR0.SEV), on
    /// whichever CPU the caller runs.
    ///
    /// It must return within microseconds even if no event comes: the caller looks whether it has waited long enough in
    /// between. A WFE does that with the timer's event stream enabled (CNTKCTL_EL1.EVNTEN) or with WFET; without them leave
    /// it as it is.
    fn wait_for_event(&self) {
        self.relax();
    }
}

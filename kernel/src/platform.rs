//! What the kernel provides to the `smmu` crate: all of its `Platform`.

use core::ptr::NonNull;
use core::time::Duration;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{ID_AA64MMFR2_EL1, Readable};
use smmu::addr::PhysAddr;
use smmu::mmio::Mmio;
use smmu::platform::{DmaBlock, OutOfDmaMemory, Platform};

use crate::memory::dma;
use crate::sync::IrqLock;
use crate::timer;

/// The kernel as a platform. Memory is mapped at its physical address.
#[derive(Debug)]
pub struct Kernel;

/// The one there is.
pub static PLATFORM: Kernel = Kernel;

// SAFETY: `dma::allocate` returns zeroed pages that nobody else has; memory is identity-mapped, what is inherited too, and
// nobody allocates that; the barriers are those that
// the Arm architecture prescribes for observers in the outer shareable domain.
unsafe impl Platform for Kernel {
    type Registers = Mmio;
    type Lock = IrqLock;

    fn allocate(&self, size_bytes: usize, alignment_bytes: usize) -> Result<DmaBlock, OutOfDmaMemory> {
        dma::allocate(size_bytes, alignment_bytes)
    }

    unsafe fn free(&self, block: DmaBlock) {
        // SAFETY: the caller's promise.
        unsafe { dma::free(block) }
    }

    unsafe fn pointer(&self, physical: PhysAddr) -> NonNull<u8> {
        // SAFETY: it is in memory by the caller's promise, and there is none at 0.
        unsafe { NonNull::new_unchecked(physical.get() as *mut u8) }
    }

    fn foreign(&self, physical: PhysAddr, size_bytes: usize) -> Option<NonNull<u8>> {
        NonNull::new(physical.get() as *mut u8).filter(|_| crate::memory::is_inherited(physical, size_bytes))
    }

    fn physical(&self, pointer: NonNull<u8>) -> Option<PhysAddr> {
        let physical = PhysAddr::new(pointer.addr().get() as u64);
        crate::memory::is_memory(physical).then_some(physical)
    }

    fn physical_run(&self, pointer: NonNull<u8>, size_bytes: usize) -> Option<(PhysAddr, usize)> {
        let physical = PhysAddr::new(pointer.addr().get() as u64);
        let bytes = crate::memory::memory_bytes_from(physical);
        (bytes != 0).then(|| (physical, size_bytes.min(bytes as usize)))
    }

    fn virtual_address_bits(&self) -> u8 {
        if ID_AA64MMFR2_EL1.read(ID_AA64MMFR2_EL1::VARange) == 0 { 48 } else { 52 }
    }

    fn write_barrier(&self) {
        barrier::dsb(barrier::OSHST);
    }

    fn read_barrier(&self) {
        barrier::dmb(barrier::OSHLD);
    }

    fn clean_cache(&self, start: NonNull<u8>, size_bytes: usize) {
        for line in lines(start, size_bytes) {
            // SAFETY: cleaning by address changes no data.
            unsafe { core::arch::asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags)) }
        }
        barrier::dsb(barrier::SY);
    }

    fn invalidate_cache(&self, start: NonNull<u8>, size_bytes: usize) {
        for line in lines(start, size_bytes) {
            // SAFETY: clean and invalidate, so that nothing beside the range in the same line is lost.
            unsafe { core::arch::asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) }
        }
        barrier::dsb(barrier::SY);
    }

    fn now(&self) -> Duration {
        timer::now()
    }

    fn relax(&self) {
        core::hint::spin_loop();
    }
}

/// The cache lines that a range touches, by address.
fn lines(start: NonNull<u8>, size_bytes: usize) -> impl Iterator<Item = usize> {
    let ctr_el0: usize;
    // SAFETY: reads a register that says how large cache lines are.
    unsafe { core::arch::asm!("mrs {}, ctr_el0", out(reg) ctr_el0, options(nomem, nostack, preserves_flags)) }
    // DminLine, bits 19:16: log2 of the smallest line in words of 4 bytes (Arm ARM, CTR_EL0).
    let line_bytes = 4usize << (ctr_el0 >> 16 & 0xf);
    let first = start.addr().get() & !(line_bytes - 1);
    (first..start.addr().get().saturating_add(size_bytes)).step_by(line_bytes)
}

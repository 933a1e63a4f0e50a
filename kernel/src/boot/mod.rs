//! From the loader to [`crate::main`]: entry code and the MMU.
//!
//! What lives here: the image header and entry code (`entry.s`), the early identity map, turning the MMU on, and the way
//! back to the entry point. What does not: the final page tables (`memory/paging.rs`).

mod early_map;

use core::arch::global_asm;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    ID_AA64MMFR0_EL1, MAIR_EL1, ReadWriteable, Readable, SCTLR_EL1, TCR_EL1, TTBR0_EL1, Writeable,
};

use crate::memory::layout;

global_asm!(include_str!("entry.s"), boot = sym boot);

/// The first Rust code. MMU and caches are off, so until they are on: no atomics, no locks, no output.
///
/// `device_tree` is what the loader passed in x0; `moved_bytes` how far the image lies from where it was linked.
extern "C" fn boot(device_tree: usize, moved_bytes: usize) -> ! {
    let image = layout::image();
    let root = early_map::build(image.start..image.end, device_tree);
    enable_mmu(root);
    keep_data();
    layout::set_moved_bytes(moved_bytes);
    crate::main(device_tree)
}

/// Copies the variables that are not zero, as long as none has changed.
fn keep_data() {
    let (data, copy) = (layout::data(), layout::data_copy());
    // SAFETY: the linker script sets aside as much for the copy as there is of the data, and nobody else has either yet.
    unsafe { core::ptr::copy_nonoverlapping(data.start as *const u64, copy.start as *mut u64, data.len() / 8) }
}

/// Starts the kernel again, as a loader would. Interrupts are masked: nothing else of this run happens any more.
pub(crate) fn again(device_tree: usize) -> ! {
    unsafe extern "C" {
        fn again(device_tree: usize) -> !;
    }
    // SAFETY: it does not return, so that nobody finds variables, stack and heap changed.
    unsafe { again(device_tree) }
}

/// Turns on MMU and caches with the table at `root` (48-bit addresses, 4 KiB granule).
fn enable_mmu(root: usize) {
    // Attribute 0 is for registers, attribute 1 for memory (see `memory::paging`).
    MAIR_EL1.write(
        MAIR_EL1::Attr0_Device::nonGathering_nonReordering_EarlyWriteAck
            + MAIR_EL1::Attr1_Normal_Outer::WriteBack_NonTransient_ReadWriteAlloc
            + MAIR_EL1::Attr1_Normal_Inner::WriteBack_NonTransient_ReadWriteAlloc,
    );
    // Without 52-bit addresses, more than 48 bits (encoding 5) cannot be used.
    let physical_address_size = ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange).min(5);
    TCR_EL1.write(
        TCR_EL1::T0SZ.val(16)
            + TCR_EL1::TG0::KiB_4
            + TCR_EL1::SH0::Inner
            + TCR_EL1::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::EPD1::DisableTTBR1Walks
            + TCR_EL1::IPS.val(physical_address_size),
    );
    TTBR0_EL1.set(root as u64);
    invalidate_tlb();
    SCTLR_EL1.modify(SCTLR_EL1::M::Enable + SCTLR_EL1::C::Cacheable + SCTLR_EL1::I::Cacheable);
    barrier::isb(barrier::SY);
}

/// Forgets whatever translations and instructions the loader left in this CPU's caches.
fn invalidate_tlb() {
    // SAFETY: only discards cached copies of what is in memory.
    unsafe {
        core::arch::asm!("dsb sy", "tlbi vmalle1", "ic iallu", "dsb sy", "isb", options(nostack, preserves_flags))
    }
}

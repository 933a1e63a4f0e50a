//! Where the parts of the kernel image are, as `linker.ld` lays them out.
//!
//! All addresses are bytes; the kernel is identity-mapped, so they are virtual and physical at once.

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Declares functions that return the range between two symbols of the linker script.
macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident: $start:ident .. $end:ident;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name() -> Range<usize> {
            unsafe extern "C" {
                static $start: u8;
                static $end: u8;
            }
            (&raw const $start).addr()..(&raw const $end).addr()
        }
    )*};
}

sections! {
    /// The whole image in memory, stacks and heap included.
    image: image_start..image_end;
    /// Code.
    text: image_start..text_end;
    /// Constants and relocated pointers, read-only once the final page tables are on.
    rodata: text_end..rodata_end;
    /// Variables that do not start as zero.
    data: data_start..data_end;
    /// Their values when the kernel was started.
    data_copy: data_copy_start..data_copy_end;
    /// The page that one run of the kernel leaves to the next.
    inheritance: inheritance_start..inheritance_end;
    /// The page below the main stack, never mapped.
    main_guard: main_guard..main_stack_bottom;
    /// The stack that the kernel runs on (SP_EL0).
    main_stack: main_stack_bottom..main_stack_top;
    /// The page below the exception stack, never mapped.
    exception_guard: exception_guard..exception_stack_bottom;
    /// The stack of interrupt and exception handlers (SP_EL1).
    exception_stack: exception_stack_bottom..exception_stack_top;
    /// The page below the emergency stack, never mapped.
    emergency_guard: emergency_guard..emergency_stack_bottom;
    /// The stack on which an exception inside an exception handler is reported.
    emergency_stack: emergency_stack_bottom..emergency_stack_top;
    /// The kernel heap.
    heap: heap_start..heap_end;
}

static MOVED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Notes how far the loader moved the image from where it was linked (wrapping, in bytes).
pub(crate) fn set_moved_bytes(bytes: usize) {
    MOVED_BYTES.store(bytes, Ordering::Relaxed);
}

/// The address that the ELF file's symbols give to what runs at `address`.
#[must_use]
pub fn link_address(address: usize) -> usize {
    address.wrapping_sub(MOVED_BYTES.load(Ordering::Relaxed))
}

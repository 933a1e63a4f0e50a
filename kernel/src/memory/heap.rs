//! The kernel heap: `alloc`'s memory.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};

use linked_list_allocator::Heap;

use super::layout;
use crate::sync::IrqMutex;

struct KernelHeap(IrqMutex<Heap>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(IrqMutex::new(Heap::empty()));

// SAFETY: the heap hands out disjoint, aligned blocks, and the lock serialises it.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller passes what `alloc` returned, with the same layout.
            unsafe { self.0.lock().deallocate(pointer, layout) }
        }
    }
}

/// Makes the heap usable. Called once, before anything allocates.
pub(crate) fn init() {
    let range = layout::heap();
    // SAFETY: the linker script sets this part of the image aside for the heap, and this is the only use of it.
    unsafe { HEAP.0.lock().init(range.start as *mut u8, range.len()) }
}

/// Bytes in use, and bytes in all.
#[must_use]
pub fn usage() -> (usize, usize) {
    let heap = HEAP.0.lock();
    (heap.used(), heap.size())
}

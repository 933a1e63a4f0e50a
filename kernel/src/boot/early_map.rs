//! The identity map that lasts until the device tree has been read: the image and the tree, in blocks of 2 MiB.
//!
//! It is built by position-independent code with the MMU off, which a page-table library with its atomics is not made for.

use core::cell::UnsafeCell;
use core::ops::Range;

/// What one entry of a level-2 table maps, in bytes; also the most that the boot protocol allows a device tree to be.
const BLOCK_BYTES: usize = 1 << 21;

/// The image and the device tree may lie in different parts of the address space; each takes one table for each of levels 1
/// and 2, and one more of each where it crosses their end.
const TABLES: usize = 9;

/// A table descriptor (Arm ARM D8.3.1).
const TABLE: usize = 0b11;
/// A block descriptor: valid, AttrIndx 1 (Normal memory), inner shareable, accessed; readable, writable and executable at
/// EL1. Not global: the final tables, under another ASID, may then map the same memory in other sizes without a conflict.
const NORMAL_BLOCK: usize = 0b01 | 1 << 2 | 3 << 8 | 1 << 10 | 1 << 11;
/// The address in a table descriptor.
const ADDRESS: usize = 0x0000_ffff_ffff_f000;

#[repr(C, align(4096))]
struct Table([usize; 512]);

struct Pool(UnsafeCell<[Table; TABLES]>);

// SAFETY: used once, by the boot CPU, before anything else runs.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new([const { Table([0; 512]) }; TABLES]));

/// Maps the `image` and up to 2 MiB of device tree from `device_tree` on; returns the address of the root table.
pub(super) fn build(image: Range<usize>, device_tree: usize) -> usize {
    // SAFETY: `boot` calls this once, and nobody else uses the pool.
    let tables = unsafe { &mut *POOL.0.get() };
    let mut used = 1;
    for address in (image.start & !(BLOCK_BYTES - 1)..image.end).step_by(BLOCK_BYTES) {
        map_block(tables, &mut used, address);
    }
    let tree_block = device_tree & !(BLOCK_BYTES - 1);
    map_block(tables, &mut used, tree_block);
    map_block(tables, &mut used, tree_block.wrapping_add(BLOCK_BYTES));
    tables.as_ptr() as usize
}

/// Maps one block. Does nothing in want of a table: what stays unmapped faults, and the fault is reported.
fn map_block(tables: &mut [Table; TABLES], used: &mut usize, address: usize) {
    let base = tables.as_ptr() as usize;
    let mut table = 0;
    for shift in [39, 30] {
        let Some(entry) = tables.get_mut(table).and_then(|table| table.0.get_mut((address >> shift) & 511)) else {
            return;
        };
        if *entry == 0 {
            *entry = (base + *used * size_of::<Table>()) | TABLE;
            *used += 1;
        }
        table = ((*entry & ADDRESS) - base) / size_of::<Table>();
    }
    if let Some(entry) = tables.get_mut(table).and_then(|table| table.0.get_mut((address >> 21) & 511)) {
        *entry = address | NORMAL_BLOCK;
    }
}

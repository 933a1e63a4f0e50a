//! The CPU's page tables: an identity map of the image, of memory, and of the registers that drivers ask for.

use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::fmt;
use core::num::NonZero;
use core::ops::Range;
use core::ptr::NonNull;

use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, Readable};
use aarch64_paging::descriptor::{El1Attributes, PhysicalAddress};
use aarch64_paging::paging::{Constraints, El1And0, MemoryRegion, PageTable, Translation, VaRange};
use aarch64_paging::{MapError, Mapping};
use smmu::addr::PhysAddr;

use super::layout;
use crate::sync::IrqMutex;

/// Attributes 0 and 1 of MAIR_EL1 are Device-nGnRE and Normal write-back, as the boot code sets them.
const DEVICE: El1Attributes = El1Attributes::VALID
    .union(El1Attributes::ACCESSED)
    .union(El1Attributes::ATTRIBUTE_INDEX_0)
    .union(El1Attributes::OUTER_SHAREABLE)
    .union(El1Attributes::PXN)
    .union(El1Attributes::UXN);
const TEXT: El1Attributes = El1Attributes::VALID
    .union(El1Attributes::ACCESSED)
    .union(El1Attributes::ATTRIBUTE_INDEX_1)
    .union(El1Attributes::INNER_SHAREABLE)
    .union(El1Attributes::READ_ONLY)
    .union(El1Attributes::UXN);
const READ_ONLY_DATA: El1Attributes = TEXT.union(El1Attributes::PXN);
const DATA: El1Attributes = READ_ONLY_DATA.difference(El1Attributes::READ_ONLY);
const UNMAPPED: El1Attributes = El1Attributes::empty();

/// Another ASID than the early map's 0, so that entries of the two never meet in the TLB.
const ASID: usize = 1;
/// Four levels: 48-bit addresses with the 4 KiB granule.
const ROOT_LEVEL: usize = 0;
/// The most new tables that one range takes: one at level 1, and at levels 2 and 3 one for either end.
const TABLES_PER_RANGE: usize = 5;
const POOL_TABLES: usize = 96;

/// Why registers cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapMmioError {
    /// The range is empty, wraps, or goes beyond the CPU's physical addresses.
    Address {
        /// Where it starts.
        start: PhysAddr,
        /// Its size in bytes.
        size_bytes: usize,
    },
    /// Part of the range is memory, which must not be mapped as registers at the same time.
    IsMemory {
        /// Where the memory starts.
        at: PhysAddr,
    },
    /// The kernel's page-table pages are used up.
    OutOfTables,
}

impl fmt::Display for MapMmioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { start, size_bytes } => {
                write!(f, "registers at {start}, {size_bytes:#x} bytes: not a range of this CPU's physical addresses")
            }
            Self::IsMemory { at } => write!(f, "registers at {at}: that is memory"),
            Self::OutOfTables => {
                write!(f, "all {POOL_TABLES} page-table pages are used (POOL_TABLES in memory/paging.rs)")
            }
        }
    }
}

impl core::error::Error for MapMmioError {}

/// Page-table pages, set aside so that mapping never depends on an allocator.
struct Pool(UnsafeCell<[PageTable<El1Attributes>; POOL_TABLES]>);

// SAFETY: reached only through `PoolTranslation`, of which there is one, behind a lock.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new([const { PageTable::EMPTY }; POOL_TABLES]));

/// Hands out the pool's pages in order. None comes back: the kernel maps and never unmaps.
struct PoolTranslation {
    used: usize,
}

impl PoolTranslation {
    fn free(&self) -> usize {
        POOL_TABLES.saturating_sub(self.used)
    }

    /// The pool's first page.
    fn first(&self) -> NonNull<PageTable<El1Attributes>> {
        NonNull::from_ref(&POOL.0).cast()
    }
}

impl Translation<El1Attributes> for PoolTranslation {
    fn allocate_table(&mut self) -> (NonNull<PageTable<El1Attributes>>, PhysicalAddress) {
        assert!(self.free() > 0, "map_range checks that there are enough page-table pages");
        // SAFETY: `used` is below the pool's length, as just checked.
        let table = unsafe { self.first().add(self.used) };
        self.used += 1;
        (table, PhysicalAddress(table.addr().get()))
    }

    unsafe fn deallocate_table(&mut self, _: NonNull<PageTable<El1Attributes>>) {}

    fn physical_to_virtual(&self, physical: PhysicalAddress) -> NonNull<PageTable<El1Attributes>> {
        self.first().with_addr(NonZero::new(physical.0).unwrap_or(self.first().addr()))
    }
}

/// The final page tables.
struct KernelMap(Mapping<PoolTranslation, El1And0>);

static KERNEL_MAP: IrqMutex<Option<KernelMap>> = IrqMutex::new(None);

impl KernelMap {
    fn map(&mut self, range: Range<usize>, attributes: El1Attributes) -> Result<(), MapMmioError> {
        if self.0.translation().free() < TABLES_PER_RANGE {
            return Err(MapMmioError::OutOfTables);
        }
        let region = MemoryRegion::new(range.start, range.end);
        // Ranges are mapped over each other while this is built; a contiguous hint would not survive that.
        let result =
            self.0.map_range(&region, PhysicalAddress(range.start), attributes, Constraints::NO_CONTIGUOUS_HINT);
        result.map_err(|_: MapError| address_error(&range))
    }

    /// The parts of `range` that are not mapped yet, or an error if any is mapped as memory.
    fn unmapped(&self, range: &Range<usize>) -> Result<Vec<Range<usize>>, MapMmioError> {
        let mut unmapped = Vec::new();
        let mut memory = None;
        let region = MemoryRegion::new(range.start, range.end);
        let walked = self.0.walk_range(&region, &mut |part, descriptor, _| {
            if !descriptor.is_valid() {
                unmapped.push(part.start().0..part.end().0);
            } else if descriptor.flags().contains(El1Attributes::ATTRIBUTE_INDEX_1) {
                memory = memory.or(Some(part.start().0));
            }
            Ok(())
        });
        walked.map_err(|_: MapError| address_error(range))?;
        match memory {
            Some(at) => Err(MapMmioError::IsMemory { at: PhysAddr::new(at as u64) }),
            None => Ok(unmapped),
        }
    }
}

fn address_error(range: &Range<usize>) -> MapMmioError {
    let start = PhysAddr::new(range.start as u64);
    MapMmioError::Address { start, size_bytes: range.end.wrapping_sub(range.start) }
}

/// Builds the final page tables for the image and the memory in `ram` (whole pages), and turns them on.
pub(super) fn init(ram: &[Range<u64>]) -> Result<(), MapMmioError> {
    let mapping =
        Mapping::with_asid_and_va_range(PoolTranslation { used: 0 }, ASID, ROOT_LEVEL, El1And0, VaRange::Lower);
    let mut map = KernelMap(mapping);
    for range in ram {
        map.map(range.start as usize..range.end as usize, DATA)?;
    }
    map.map(layout::image(), DATA)?;
    map.map(layout::text(), TEXT)?;
    map.map(layout::rodata(), READ_ONLY_DATA)?;
    for guard in [layout::main_guard(), layout::exception_guard(), layout::emergency_guard()] {
        map.map(guard, UNMAPPED)?;
    }
    let mut kernel_map = KERNEL_MAP.lock();
    // SAFETY: everything in use is in the image or the device tree, both of which it maps; it lives as long as the kernel.
    unsafe { kernel_map.insert(map).0.activate() };
    Ok(())
}

/// Maps the registers at `start` as Device-nGnRE and returns where the CPU sees them: at the same address.
///
/// What is mapped so already stays as it is; nothing is ever unmapped.
///
/// # Errors
///
/// [`MapMmioError`]; parts of the range may have been mapped nevertheless.
pub fn map_mmio(start: PhysAddr, size_bytes: usize) -> Result<NonNull<u8>, MapMmioError> {
    let bad = MapMmioError::Address { start, size_bytes };
    let first = start.get() as usize;
    let end = first.checked_add(size_bytes).ok_or(bad)?;
    let pointer = NonNull::new(first as *mut u8).ok_or(bad)?;
    if size_bytes == 0 || end > 1 << physical_address_bits() {
        return Err(bad);
    }
    let mut kernel_map = KERNEL_MAP.lock();
    let map = kernel_map.as_mut().ok_or(MapMmioError::OutOfTables)?;
    for part in map.unmapped(&(first..end))? {
        map.map(part, DEVICE)?;
    }
    Ok(pointer)
}

/// How many bits of physical address the CPU and the page tables have (Arm ARM, ID_AA64MMFR0_EL1.PARange).
fn physical_address_bits() -> u32 {
    match ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange) {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    }
}

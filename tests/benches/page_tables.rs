//! Map, unmap and lookup on the host, beside the `aarch64-paging` crate: the same shape, 48 bits of input addresses with a
//! granule of 4 KiB, and the same ranges. `cargo bench -p tests`.
//!
//! Its nanoseconds are the host's. What counts on the target is counted there: the scenario `bench-page-tables`.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use aarch64_paging::descriptor::{Descriptor, El1Attributes, PhysicalAddress};
use aarch64_paging::idmap::IdTranslation;
use aarch64_paging::paging::{Constraints, El1And0, MemoryRegion, RootTable, VaRange};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use smmu::addr::{Iova, PhysAddr};
use smmu::arch::attributes::Granule;
use smmu::pgtable::{Access, MemoryType, PageTable, Stage, TableConfig};
use smmu::platform::{DmaBlock, OutOfDmaMemory, Platform, Registers};

const PAGE: u64 = 4 << 10;
const BLOCK: u64 = 2 << 20;

/// What is mapped: name, where, to where, how much. Pages lead where no block would do, and a block is where no pages were.
const RANGES: [(&str, u64, u64, u64); 4] = [
    ("4 KiB", 0x40_0000_0000, 0x8000_1000, PAGE),
    ("16 x 4 KiB", 0x40_0000_0000, 0x8000_1000, 16 * PAGE),
    ("512 x 4 KiB", 0x40_0000_0000, 0x8000_1000, 512 * PAGE),
    ("2 MiB", 0x41_0000_0000, 0x8000_0000, BLOCK),
];

/// The host's heap.
struct Heap;

static HEAP: Heap = Heap;

/// No SMMU is there.
struct NoRegisters;

impl Registers for NoRegisters {
    fn read32(&self, _: usize) -> u32 {
        u32::MAX
    }

    fn write32(&self, _: usize, _: u32) {}

    fn read64(&self, _: usize) -> u64 {
        u64::MAX
    }

    fn write64(&self, _: usize, _: u64) {}
}

// SAFETY: memory is the heap's, zeroed, and its physical address the pointer's.
unsafe impl Platform for Heap {
    type Registers = NoRegisters;
    type Lock = spin::Mutex<()>;

    fn allocate(&self, size_bytes: usize, alignment_bytes: usize) -> Result<DmaBlock, OutOfDmaMemory> {
        let out = OutOfDmaMemory { size_bytes, alignment_bytes };
        let layout = Layout::from_size_align(size_bytes, alignment_bytes).map_err(|_| out)?;
        // SAFETY: the size is not zero.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(out)?;
        let physical = PhysAddr::new(pointer.expose_provenance().get() as u64);
        Ok(DmaBlock { pointer, physical, size_bytes, alignment_bytes })
    }

    unsafe fn free(&self, block: DmaBlock) {
        let layout = Layout::from_size_align(block.size_bytes, block.alignment_bytes).expect("it was one");
        // SAFETY: allocated with this layout, by the caller's promise.
        unsafe { dealloc(block.pointer.as_ptr(), layout) }
    }

    unsafe fn pointer(&self, physical: PhysAddr) -> NonNull<u8> {
        // SAFETY: an address in a block is not 0.
        unsafe { NonNull::new_unchecked(std::ptr::with_exposed_provenance_mut(physical.get() as usize)) }
    }

    fn physical(&self, _: NonNull<u8>) -> Option<PhysAddr> {
        None
    }

    fn write_barrier(&self) {
        fence(Ordering::Release);
    }

    fn read_barrier(&self) {
        fence(Ordering::Acquire);
    }

    fn clean_cache(&self, _: NonNull<u8>, _: usize) {}

    fn invalidate_cache(&self, _: NonNull<u8>, _: usize) {}

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn relax(&self) {}
}

/// A page table to be measured.
trait Table {
    fn map(&mut self, iova: u64, physical: u64, bytes: u64);
    fn unmap(&mut self, iova: u64, bytes: u64);
    fn lookup(&self, iova: u64) -> Option<u64>;
}

impl Table for PageTable<Heap> {
    #[inline]
    fn map(&mut self, iova: u64, physical: u64, bytes: u64) {
        let (iova, physical) = (Iova::new(iova), PhysAddr::new(physical));
        Self::map(self, iova, physical, bytes, Access::ReadWrite, MemoryType::WriteBack).expect("vacant");
    }

    #[inline]
    fn unmap(&mut self, iova: u64, bytes: u64) {
        let unmapped = Self::unmap(self, Iova::new(iova), bytes).expect("mapped");
        self.free(unmapped);
    }

    #[inline]
    fn lookup(&self, iova: u64) -> Option<u64> {
        Some(self.walk(Iova::new(iova))?.physical.get())
    }
}

type Other = RootTable<El1And0, IdTranslation<El1Attributes>>;

fn region(iova: u64, bytes: u64) -> MemoryRegion {
    MemoryRegion::new(iova as usize, (iova + bytes) as usize)
}

impl Table for Other {
    #[inline]
    fn map(&mut self, iova: u64, physical: u64, bytes: u64) {
        let attributes = El1Attributes::VALID | El1Attributes::ACCESSED | El1Attributes::ATTRIBUTE_INDEX_1;
        let physical = PhysicalAddress(physical as usize);
        self.map_range(&region(iova, bytes), physical, attributes, Constraints::empty()).expect("vacant");
    }

    #[inline]
    fn unmap(&mut self, iova: u64, bytes: u64) {
        let nowhere = PhysicalAddress(0);
        self.map_range(&region(iova, bytes), nowhere, El1Attributes::empty(), Constraints::empty()).expect("mapped");
    }

    #[inline]
    fn lookup(&self, iova: u64) -> Option<u64> {
        let mut found = None;
        self.walk_range(&region(iova, PAGE), &mut |_: &MemoryRegion, descriptor: &Descriptor<_>, _: usize| {
            found = descriptor.is_valid().then(|| descriptor.output_address().0 as u64);
            Ok(())
        })
        .ok()?;
        found
    }
}

fn measure(criterion: &mut Criterion, crate_name: &str, mut table: impl Table) {
    for (name, iova, physical, bytes) in RANGES {
        let at = || black_box(iova);
        criterion.benchmark_group("map and unmap").bench_function(BenchmarkId::new(crate_name, name), |bencher| {
            bencher.iter(|| {
                table.map(at(), physical, bytes);
                table.unmap(at(), bytes);
            });
        });
        table.map(iova, physical, bytes);
        criterion.benchmark_group("lookup").bench_function(BenchmarkId::new(crate_name, name), |bencher| {
            bencher.iter(|| table.lookup(at()).expect("mapped"));
        });
        table.unmap(iova, bytes);
    }
}

fn page_tables(criterion: &mut Criterion) {
    let config = TableConfig::new(Stage::Stage1, Granule::K4, 48, 48);
    measure(criterion, "smmu", PageTable::new(&HEAP, &config).expect("memory"));
    measure(criterion, "aarch64-paging", Other::with_va_range(IdTranslation::new(), 0, El1And0, VaRange::Lower));
}

criterion_group!(benches, page_tables);
criterion_main!(benches);

//! Domains whose pages are larger than the CPUs' smallest: what is mapped, and what is bounced.

use core::ptr::NonNull;

use super::*;
use crate::arch::attributes::Granule;
use crate::device::tests::IDR5;
use crate::dma::Direction;
use crate::platform::{DmaBlock, Platform};

/// IDR5 with 44 bits, and without the smaller granules.
const LARGE: [(u32, Granule); 2] = [(0x64, Granule::K16), (0x44, Granule::K64)];

fn attached_with(idr5: u32) -> (&'static TestPlatform, Dma<TestPlatform>) {
    let (platform, _, dma) = attached_to(u64::MAX, |fake| fake.set(IDR5, idr5));
    (platform, dma)
}

fn part(block: &DmaBlock, start: usize, length: usize) -> NonNull<[u8]> {
    assert!(start + length <= block.size_bytes);
    // SAFETY: within the block.
    NonNull::slice_from_raw_parts(unsafe { block.pointer.add(start) }, length)
}

#[test]
fn an_smmu_without_4_kib_maps_the_pages_that_it_has() {
    for (idr5, granule) in LARGE {
        let (platform, dma) = attached_with(idr5);
        assert_eq!(dma.domain().granule(), granule);
        let page = granule.bytes();
        let buffers = [1, page as usize, page as usize + 1].map(|bytes| dma.allocate_coherent(bytes).unwrap());
        assert_eq!(buffers.each_ref().map(|buffer| buffer.size_bytes() as u64), [page, page, 2 * page]);
        assert_eq!(buffers.each_ref().map(|buffer| buffer.iova().get()), [page, 2 * page, 3 * page]);
        buffers[2].words()[(page / 8) as usize].store(42, core::sync::atomic::Ordering::Relaxed);
        assert_eq!(platform.snooped_word(physical(&dma, buffers[2].iova(), page).unwrap()), 42);
        assert_eq!(physical(&dma, buffers[2].iova(), 2 * page), None);
    }
}

#[test]
fn r31_what_does_not_fill_pages_of_the_granule_is_bounced() {
    for (idr5, granule) in LARGE {
        let (platform, dma) = attached_with(idr5);
        let page = granule.bytes() as usize;
        let block = platform.allocate(3 * page, page).unwrap();
        // SAFETY: the block outlives the mappings, and is left alone meanwhile.
        let map = |buffer| unsafe { dma.map(buffer, Direction::ToDevice) }.unwrap();
        for (start, length, bounced) in
            [(0, page, false), (page, 2 * page, false), (0, 4096, true), (4096, page, true), (0, page + 4096, true)]
        {
            let mapping = map(part(&block, start, length));
            assert_eq!(mapping.is_bounced(), bounced, "{granule} {start:#x} {length:#x}");
            let at = physical(&dma, mapping.iova(), 0).unwrap();
            let own = block.physical.checked_add(start as u64).unwrap();
            assert_eq!(at == own, !bounced);
            let end = length.div_ceil(page) * page;
            assert!(physical(&dma, mapping.iova(), end as u64 - 8).is_some());
            assert_eq!(physical(&dma, mapping.iova(), end as u64), None);
        }
        // Side by side for the CPUs, whose pages are smaller, but not in memory.
        let last = block.physical.checked_add(page as u64 + 0x20_0000);
        platform.scatter(part(&block, page - 4096, 4096).cast(), last);
        assert!(map(part(&block, 0, page)).is_bounced());
        assert!(!map(part(&block, page, page)).is_bounced());
    }
}

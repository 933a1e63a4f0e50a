//! A driver's own buffers: in place where they fill their pages, bounced where they do not.

use alloc::vec::Vec;
use core::ptr::NonNull;

use super::*;
use crate::device::tests::{CMD_TLBI_NH_VA, opcodes};
use crate::dma::{Direction, Mapping};
use crate::pgtable::Access;
use crate::platform::{DmaBlock, Platform};
use crate::testing::Step;

const PAGE: u64 = 4096;

/// A driver's pages.
fn driver_pages(platform: &TestPlatform, pages: usize) -> DmaBlock {
    platform.allocate(pages * 4096, 4096).unwrap()
}

/// Part of a driver's memory as a buffer.
fn part(block: &DmaBlock, start: usize, length: usize) -> NonNull<[u8]> {
    assert!(start + length <= block.size_bytes);
    // SAFETY: within the block.
    NonNull::slice_from_raw_parts(unsafe { block.pointer.add(start) }, length)
}

fn try_map(
    dma: &Dma<TestPlatform>,
    buffer: NonNull<[u8]>,
    direction: Direction,
) -> Result<Mapping<TestPlatform>, DmaError> {
    // SAFETY: the tests' blocks live longer than mappings, and are left alone meanwhile.
    unsafe { dma.map(buffer, direction) }
}

fn map(dma: &Dma<TestPlatform>, buffer: NonNull<[u8]>, direction: Direction) -> Mapping<TestPlatform> {
    try_map(dma, buffer, direction).unwrap()
}

fn fill(block: &DmaBlock, byte: u8) {
    // SAFETY: the whole block.
    unsafe { block.pointer.write_bytes(byte, block.size_bytes) }
}

fn bytes(block: &DmaBlock) -> Vec<u8> {
    // SAFETY: the whole block, initialised since it was allocated zeroed.
    unsafe { core::slice::from_raw_parts(block.pointer.as_ptr(), block.size_bytes) }.to_vec()
}

/// The page as the device reads it at the start of a mapping, byte by byte.
fn seen(platform: &TestPlatform, dma: &Dma<TestPlatform>, mapping: &Mapping<TestPlatform>) -> Vec<u8> {
    let word = |offset| platform.snooped_word(physical(dma, mapping.iova(), offset).expect("mapped"));
    (0..512).flat_map(|index| word(index * 8).to_le_bytes()).collect()
}

/// The device fills the first page of a mapping.
fn overwrite(platform: &TestPlatform, dma: &Dma<TestPlatform>, mapping: &Mapping<TestPlatform>, byte: u8) {
    for index in 0..512 {
        let address = physical(dma, mapping.iova(), index * 8).expect("mapped");
        platform.write_word(address, u64::from_le_bytes([byte; 8]), true);
    }
}

#[test]
fn whole_pages_are_mapped_in_place_with_no_more_access_than_needed() {
    let (platform, _, dma) = attached();
    let block = driver_pages(platform, 4);
    for (direction, access) in [
        (Direction::ToDevice, Access::Read),
        // Stage 1 has no write-only pages.
        (Direction::FromDevice, Access::ReadWrite),
        (Direction::Bidirectional, Access::ReadWrite),
    ] {
        let mapping = map(&dma, part(&block, 4096, 8192), direction);
        assert!(!mapping.is_bounced());
        assert_eq!(dma.domain().lookup(mapping.iova()).unwrap().access(), Some(access));
        let at = |page| physical(&dma, mapping.iova(), page * PAGE);
        assert_eq!(
            [at(0), at(1), at(2)],
            [block.physical.checked_add(PAGE), block.physical.checked_add(2 * PAGE), None]
        );
        let iova = mapping.iova();
        platform.journal();
        mapping.unmap().unwrap();
        assert_eq!(opcodes(&platform.journal()), [CMD_TLBI_NH_VA, CMD_SYNC]);
        assert_eq!(dma.domain().lookup(iova), None);
    }
}

#[test]
fn what_shares_a_page_is_bounced_and_its_neighbours_stay_hidden() {
    let (platform, _, dma) = attached();
    let block = driver_pages(platform, 2);
    // Inside a page, from a page's start, to a page's end, across two.
    for (start, length) in [(100, 50), (0, 4095), (4000, 96), (4000, 200), (1, 4096)] {
        fill(&block, 0x5e);
        let mapping = map(&dma, part(&block, start, length), Direction::ToDevice);
        assert!(mapping.is_bounced());
        let page = seen(platform, &dma, &mapping);
        let shown = length.min(4096);
        assert!(page[..shown].iter().all(|byte| *byte == 0x5e) && page[shown..].iter().all(|byte| *byte == 0));
        let mapped = (0..4).filter(|page| physical(&dma, mapping.iova(), page * PAGE).is_some()).count();
        assert_eq!(mapped, length.div_ceil(4096));
        let first = physical(&dma, mapping.iova(), 0).unwrap();
        assert!(first.checked_sub(block.physical).is_none_or(|offset| offset >= 8192), "not the buffer's own pages");
    }
}

#[test]
fn bytes_are_copied_the_way_that_data_goes() {
    for (direction, shown, kept) in
        [(Direction::ToDevice, 0x11, 0x11), (Direction::FromDevice, 0, 0x22), (Direction::Bidirectional, 0x11, 0x22)]
    {
        let (platform, _, dma) = attached();
        let block = driver_pages(platform, 1);
        fill(&block, 0x11);
        let mapping = map(&dma, part(&block, 100, 50), direction);
        assert!(seen(platform, &dma, &mapping)[..50].iter().all(|byte| *byte == shown), "{direction:?}");
        overwrite(platform, &dma, &mapping, 0x22);
        assert_eq!(bytes(&block)[100], 0x11, "not before it is taken back");
        drop(mapping);
        let after = bytes(&block);
        assert!(after[100..150].iter().all(|byte| *byte == kept), "{direction:?}");
        assert!(after[..100].iter().chain(&after[150..]).all(|byte| *byte == 0x11), "neighbours are untouched");
    }
}

#[test]
fn r31_a_bounce_page_is_out_of_reach_before_it_is_copied_and_freed() {
    let (platform, fake, dma) = attached();
    let block = driver_pages(platform, 1);
    let mapping = map(&dma, part(&block, 0, 8), Direction::FromDevice);
    let copy = physical(&dma, mapping.iova(), 0).unwrap();
    // The device writes for as long as its translation is not forgotten.
    fake.on_command(move |[word, _]| {
        if word & 0xff == CMD_TLBI_NH_VA {
            platform.write_word(copy, 0x77, true);
        }
        Outcome::Done
    });
    platform.journal();
    drop(mapping);
    assert_eq!(bytes(&block)[..8], 0x77u64.to_le_bytes(), "its last write has arrived");
    assert_eq!(platform.journal().last(), Some(&Step::Free(copy)));
}

#[test]
fn scattered_pages_become_one_range_in_as_few_runs_as_can_be() {
    let (platform, _, dma) = attached();
    let block = driver_pages(platform, 5);
    // Two pages side by side, two elsewhere side by side, one before all others.
    let places = [0x10_0000, 0x10_1000, 0x20_0000, 0x20_1000, 0x8000].map(PhysAddr::new);
    for (page, place) in places.into_iter().enumerate() {
        platform.scatter(part(&block, page * 4096, 4096).cast(), Some(place));
    }
    let mapping = map(&dma, part(&block, 0, 5 * 4096), Direction::ToDevice);
    assert_eq!([0, 1, 2, 3, 4].map(|page| physical(&dma, mapping.iova(), page * PAGE)), places.map(Some));
    assert_eq!(dma.domain().counts(), (3, 0), "three runs");
    drop(mapping);
    assert_eq!(dma.domain().counts(), (3, 1), "unmapped in one go");
}

#[test]
fn a_page_that_is_no_memory_undoes_the_mapping() {
    let (platform, _, dma) = attached();
    let block = driver_pages(platform, 3);
    let hole = part(&block, 8192, 4096).cast();
    platform.scatter(hole, None);
    let refused = try_map(&dma, part(&block, 0, 3 * 4096), Direction::ToDevice).unwrap_err();
    assert_eq!(refused, DmaError::NotMemory { pointer: hole.addr().get() });
    assert_eq!([1, 2, 3].map(|page| dma.domain().lookup(Iova::new(page * PAGE))), [None; 3]);
    assert_eq!(map(&dma, part(&block, 0, 4096), Direction::ToDevice).iova(), Iova::new(PAGE), "no address is lost");
}

#[test]
fn a_lack_of_memory_anywhere_leaves_nothing_mapped() {
    // Bounced, in place, and in place across two tables of pages.
    // What is as long as a block is aligned to one.
    for (length, in_all, first_page) in [(100, 4, 1), (4096, 3, 1), (600 * 4096, 4, 512)] {
        for count in 0.. {
            let (platform, _, dma) = attached();
            let block = driver_pages(platform, 600);
            // Runs of one page each.
            for page in 0..600 {
                let place = PhysAddr::new(0x4000_0000 - page as u64 * 8192);
                platform.scatter(part(&block, page * 4096, 4096).cast(), Some(place));
            }
            let blocks = platform.blocks();
            platform.allow_allocations(count);
            let result = try_map(&dma, part(&block, 0, length), Direction::Bidirectional);
            if result.is_ok() {
                assert_eq!(count, in_all, "{length}");
                break;
            }
            assert_eq!((1..1112).find_map(|page| dma.domain().lookup(Iova::new(page * PAGE))), None);
            // Tables may stay for reuse.
            assert!(platform.blocks() <= blocks + 3);
            platform.allow_allocations(usize::MAX);
            assert_eq!(map(&dma, part(&block, 0, length), Direction::ToDevice).iova(), Iova::new(first_page * PAGE));
        }
    }
}

#[test]
fn an_empty_buffer_is_refused() {
    let (platform, _, dma) = attached();
    let block = driver_pages(platform, 1);
    assert_eq!(try_map(&dma, part(&block, 0, 0), Direction::ToDevice).unwrap_err(), DmaError::Empty);
}

#[test]
fn r38_a_bounce_page_that_the_smmu_does_not_forget_is_kept() {
    for dropped in [true, false] {
        let (platform, fake, dma) = attached();
        let block = driver_pages(platform, 1);
        let mapping = map(&dma, part(&block, 0, 100), Direction::FromDevice);
        let (iova, copy) = (mapping.iova(), physical(&dma, mapping.iova(), 0).unwrap());
        overwrite(platform, &dma, &mapping, 0x22);
        refuse_invalidations(&fake);
        platform.journal();
        if dropped {
            drop(mapping);
        } else {
            assert!(matches!(mapping.unmap(), Err(DmaError::Unmap(_))));
        }
        assert!(!platform.journal().contains(&Step::Free(copy)));
        assert_eq!((fake.get(CR0ACK), bytes(&block)[0]), (0, 0), "closed, and nothing copied");
        let mapping = map(&dma, part(&block, 0, 100), Direction::ToDevice);
        assert_ne!(mapping.iova(), iova, "its addresses stay taken");
    }
}

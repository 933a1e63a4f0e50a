//! I/O virtual addresses.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::arch::attributes::Granule;
use crate::dma::iova::{IovaAllocator, IovaRange};
use crate::iommu::{ReservedKind, ReservedRegion};
use crate::testing::tries;

fn allocator(limit: u64) -> IovaAllocator<TestPlatform> {
    IovaAllocator::new(Granule::K4, limit)
}

/// The numbers of the pages of a range.
fn pages(range: IovaRange) -> impl Iterator<Item = u64> {
    let first = range.start().get() / 4096;
    first..first + range.size_bytes() / 4096
}

#[test]
fn page_zero_is_nobodys_and_the_limit_is_kept() {
    for (limit, usable) in [(0, 0), (0x1000, 0), (0x1fff, 0), (0x2000, 1), (0x10_0fff, 255), (1 << 48, (1 << 36) - 1)] {
        let addresses = allocator(limit);
        assert!(addresses.allocate(usable + 1, u64::MAX).is_err(), "{limit:#x}");
        assert_eq!(addresses.allocate(0, u64::MAX), Err(DmaError::Empty));
        if usable != 0 {
            let range = addresses.allocate(usable, u64::MAX).unwrap();
            assert_eq!(range.start(), Iova::new(0x1000));
            assert!(range.start().get() + range.size_bytes() <= limit);
        }
        assert_eq!(addresses.allocate(1, u64::MAX), Err(DmaError::OutOfAddresses { pages: 1 }));
    }
}

#[test]
fn the_domains_own_limit_holds_as_well() {
    let (_, _, dma) = attached_below(u64::MAX);
    assert_eq!(dma.domain().input_bits(), 48);
    let whole = (1 << 36) - 1;
    assert_eq!(dma.space.addresses.allocate(whole + 1, u64::MAX), Err(DmaError::OutOfAddresses { pages: whole + 1 }));
    dma.space.addresses.allocate(whole, u64::MAX).unwrap();
}

#[test]
fn what_is_withheld_while_somebody_has_it_is_not_handed_out_again() {
    let addresses = allocator(0x8000);
    let [before, held, after] = [1, 3, 1].map(|pages| addresses.allocate(pages, u64::MAX).unwrap());
    // The middle one of the three, to the byte.
    addresses.withhold(Iova::new(0x3fff), 1);
    [before, held, after].into_iter().for_each(|range| addresses.free(range));
    let rest: Vec<u64> = core::iter::from_fn(|| addresses.allocate(1, u64::MAX).ok()).flat_map(pages).collect();
    assert_eq!(rest, [1, 2, 4, 5, 6, 7]);
}

#[test]
fn r39_what_is_reserved_for_any_device_of_the_group_is_not_handed_out() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    let iommus = Iommus::new(platform);
    let phandle = Phandle::new(1);
    iommus.register(phandle, Arc::new(bring_up(platform, &fake).unwrap())).unwrap();
    let mut fwspec = Fwspec::new();
    fwspec.push(phandle, StreamId::new(0x11));
    let reserved = |page: u64, kind| ReservedRegion { start: Iova::new(page * 4096), size_bytes: 4096, kind };
    let dma = |reserved| {
        let description = DeviceDescription { reserved, ..DeviceDescription::new("device", fwspec.clone()) };
        let device = iommus.add_device(description).unwrap();
        let Ok(Configuration::Configured(attachment)) = iommus.configure(&device) else { panic!("not configured") };
        Dma::new(platform, attachment, 0x9000).unwrap()
    };
    let first = dma(vec![reserved(1, ReservedKind::Direct), reserved(3, ReservedKind::Hole)]);
    let page = |dma: &Dma<TestPlatform>| dma.allocate_coherent(4096).map(|buffer| (buffer.iova().get() / 4096, buffer));
    let (at, buffer) = page(&first).unwrap();
    assert_eq!(at, 2);
    let second = dma(vec![reserved(2, ReservedKind::Hole), reserved(6, ReservedKind::Direct)]);
    drop(buffer);
    let pages: Vec<_> = core::iter::from_fn(|| page(&second).ok()).collect();
    assert_eq!(pages.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [4, 5, 7, 8]);
    assert_eq!(physical(&second, Iova::new(0x1000), 8), Some(PhysAddr::new(0x1008)));
    assert_eq!(physical(&first, Iova::new(0x6000), 8), Some(PhysAddr::new(0x6008)));
    assert_eq!(physical(&first, Iova::new(0x3000), 0), None);
}

#[test]
fn what_may_be_a_block_is_aligned_to_one_if_there_is_room() {
    let addresses = allocator(0x60_0000);
    let block = 512;
    let starts =
        [1, block, 1, block, block].map(|pages| addresses.allocate(pages, u64::MAX).map(|range| range.start().get()));
    let out = Err(DmaError::OutOfAddresses { pages: block });
    assert_eq!(starts, [Ok(0x1000), Ok(0x20_0000), Ok(0x2000), Ok(0x40_0000), out]);
    // With half a block at each end there is none that is aligned.
    let addresses = allocator(0x30_0000);
    addresses.withhold(Iova::new(0x1000), 0xf_f000);
    assert_eq!(addresses.allocate(block, u64::MAX).map(|range| range.start().get()), Ok(0x10_0000));
}

proptest! {
    #![proptest_config(tries(256))]

    #[test]
    fn no_page_is_given_twice_and_all_come_back(
        steps in prop::collection::vec((any::<bool>(), 1usize..9, any::<prop::sample::Index>()), 1..200),
    ) {
        const USABLE: usize = 63;
        let addresses = allocator((USABLE as u64 + 1) * 4096);
        let mut held: Vec<IovaRange> = Vec::new();
        let mut taken = BTreeSet::new();
        for (gives_back, wanted, which) in steps {
            if gives_back && !held.is_empty() {
                let range = held.swap_remove(which.index(held.len()));
                pages(range).for_each(|page| assert!(taken.remove(&page)));
                addresses.free(range);
                continue;
            }
            match addresses.allocate(wanted, u64::MAX) {
                Ok(range) => {
                    prop_assert_eq!(range.size_bytes(), wanted as u64 * 4096);
                    for page in pages(range) {
                        prop_assert!((1..=USABLE as u64).contains(&page) && taken.insert(page), "page {}", page);
                    }
                    held.push(range);
                }
                Err(_) => {
                    let free = |first: &u64| (*first..first + wanted as u64).all(|page| !taken.contains(&page));
                    let last = (USABLE + 1).saturating_sub(wanted) as u64;
                    prop_assert!(!(1..=last).any(|first| free(&first)), "there was room");
                }
            }
        }
        held.into_iter().for_each(|range| addresses.free(range));
        prop_assert!(addresses.allocate(USABLE, u64::MAX).is_ok(), "one run again");
    }
}

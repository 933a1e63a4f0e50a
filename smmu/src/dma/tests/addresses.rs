//! I/O virtual addresses.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::arch::attributes::Granule;
use crate::dma::iova::{IovaAllocator, IovaRange};
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

//! Address ranges as operands of invalidations: few commands for many pages.

use core::fmt;

use super::attributes::Granule;
use super::command::{TlbiAddress, TlbiRange};
use crate::addr::Iova;

/// What changed in a translation table, and so what the TLB has to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Pages and blocks only. Their level, if all have the same (3 for pages), lets the SMMU search less.
    Leaves {
        /// The level, 1 to 3.
        level: Option<u8>,
    },
    /// Tables too: one was freed, or replaced by a block.
    TablesAndLeaves,
}

impl Stale {
    /// What covers both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::Leaves { level: one }, Self::Leaves { level: another }) => {
                Self::Leaves { level: one.filter(|_| one == another) }
            }
            _ => Self::TablesAndLeaves,
        }
    }
}

/// Splits a range of addresses into as few range invalidations as possible (IHI 0070, 4.4.1.1; needs IDR3.RIL).
///
/// One command covers up to `32 * 2^31` pages, so that there is hardly ever more than one. A command counts pages in a
/// five-bit number times a power of two; a range that does not fit is rounded up, by less than a sixteenth of its size.
/// Dropping a few neighbours from the TLB costs less than another command.
#[derive(Clone, Debug)]
pub struct TlbiRanges {
    next: u64,
    remaining_pages: u64,
    granule: Granule,
    leaf: bool,
    ttl: u8,
}

/// Most pages that one command covers: NUM = 31, SCALE = 31.
const MAX_PAGES: u64 = 32 << 31;

impl TlbiRanges {
    /// The commands for `size_bytes` bytes from `start` on, widened to whole pages and clipped to the 64-bit space.
    #[must_use]
    #[inline]
    pub fn new(start: Iova, size_bytes: u64, granule: Granule, stale: Stale) -> Self {
        let first = start.align_down(granule.bytes()).get();
        let page = granule.log2_bytes();
        let remaining_pages = match size_bytes.checked_sub(1) {
            None => 0,
            Some(rest) => (start.get().saturating_add(rest) >> page) - (first >> page) + 1,
        };
        let (leaf, ttl) = match stale {
            Stale::TablesAndLeaves => (false, 0),
            Stale::Leaves { level } => (true, level.map_or(0, |level| usable_ttl(first, granule, level))),
        };
        Self { next: first, remaining_pages, granule, leaf, ttl }
    }

    /// How many commands are still to come.
    #[must_use]
    #[inline]
    pub fn commands(&self) -> u64 {
        self.remaining_pages.div_ceil(MAX_PAGES)
    }
}

/// The level hint that the SMMU accepts for leaves of `level` at `start`, or 0 for none: a misaligned address would
/// make the command unpredictable.
#[inline]
fn usable_ttl(start: u64, granule: Granule, level: u8) -> u8 {
    let bits_per_level = granule.log2_bytes() - 3;
    // A level-1 block of 16 KiB granules exists only with IDR5.DS.
    let lowest = if granule == Granule::K16 { 2 } else { 1 };
    if !(lowest..=3).contains(&level) {
        return 0;
    }
    let leaf_log2_bytes = granule.log2_bytes() + u32::from(3 - level) * bits_per_level;
    if start & ((1 << leaf_log2_bytes) - 1) == 0 { level } else { 0 }
}

impl Iterator for TlbiRanges {
    type Item = TlbiAddress;

    #[inline]
    fn next(&mut self) -> Option<TlbiAddress> {
        let pages = self.remaining_pages.min(MAX_PAGES);
        let last = pages.checked_sub(1)?;
        // The fewest low bits to drop so that the number of the last page fits in NUM.
        let scale = (u64::BITS - last.leading_zeros()).saturating_sub(5);
        let range = TlbiRange { granule: self.granule, num: (last >> scale) as u8, scale: scale as u8, ttl: self.ttl };
        // One page without a level hint would be NUM = SCALE = TTL = 0, which is illegal.
        let range = (range.num != 0 || range.scale != 0 || range.ttl != 0).then_some(range);
        let address = Iova::new(self.next);
        self.remaining_pages -= pages;
        self.next = self.next.saturating_add(pages << self.granule.log2_bytes());
        Some(TlbiAddress { address, leaf: self.leaf, range })
    }
}

/// The addresses of a CMD_ATC_INV: a power of two of 4 KiB pages, aligned to its size (IHI 0070, 4.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtcSpan {
    address: Iova,
    log2_pages: u8,
}

impl AtcSpan {
    /// The whole address space.
    pub const ALL: Self = Self { address: Iova::new(0), log2_pages: 52 };

    /// The smallest span around `size_bytes` bytes from `start` on, clipped to the 64-bit space. It can be much larger
    /// than the range: two pages on either side of the middle of the address space need all of it.
    #[must_use]
    pub fn around(start: Iova, size_bytes: u64) -> Self {
        let first = start.get() >> 12;
        let last = start.get().saturating_add(size_bytes.saturating_sub(1)) >> 12;
        let log2_pages = u64::BITS - (first ^ last).leading_zeros();
        Self { address: Iova::new((first >> log2_pages) << log2_pages << 12), log2_pages: log2_pages as u8 }
    }

    /// Where the span starts.
    #[must_use]
    pub const fn address(self) -> Iova {
        self.address
    }

    /// log2 of the number of 4 KiB pages, 0 to 52.
    #[must_use]
    pub const fn log2_pages(self) -> u8 {
        self.log2_pages
    }
}

impl fmt::Display for AtcSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {}, 2^{} pages of 4 KiB", self.address, self.log2_pages)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::addr::{Asid, Vmid};
    use crate::arch::command::Command;
    use crate::testing::tries;

    const PAGES: Stale = Stale::Leaves { level: Some(3) };

    fn ranges(start: u64, size_bytes: u64, granule: Granule, stale: Stale) -> Vec<TlbiAddress> {
        TlbiRanges::new(Iova::new(start), size_bytes, granule, stale).collect()
    }

    /// The only command of a range, as (address, NUM, SCALE, TTL).
    #[track_caller]
    fn one(start: u64, size_bytes: u64, granule: Granule, stale: Stale) -> (u64, Option<(u8, u8, u8)>) {
        let [only] = ranges(start, size_bytes, granule, stale).try_into().expect("one command");
        (only.address.get(), only.range.map(|range| (range.num, range.scale, range.ttl)))
    }

    #[test]
    fn literal_ranges() {
        let k4 = |size_bytes, stale| one(0x4000_0000, size_bytes, Granule::K4, stale).1;
        assert_eq!(k4(0x1000, PAGES), Some((0, 0, 3)));
        assert_eq!(k4(0x2_0000, PAGES), Some((31, 0, 3)));
        assert_eq!(k4(0x2_1000, PAGES), Some((16, 1, 3)), "33 pages become 34");
        assert_eq!(k4(0x20_0000, PAGES), Some((31, 4, 3)));
        assert_eq!(k4(0x20_0000, Stale::Leaves { level: Some(2) }), Some((31, 4, 2)));
        assert_eq!(k4(0x4000_0000, Stale::Leaves { level: Some(1) }), Some((31, 13, 1)));
        assert_eq!(k4(0x3000, Stale::TablesAndLeaves), Some((2, 0, 0)));
        assert_eq!(k4(0x3000, Stale::Leaves { level: None }), Some((2, 0, 0)));
        assert_eq!(one(0, 1 << 52, Granule::K64, PAGES).1, Some((31, 31, 3)));
    }

    #[test]
    fn r30_one_page_without_a_level_is_no_range() {
        assert_eq!(one(0x5000, 0x1000, Granule::K4, Stale::TablesAndLeaves), (0x5000, None));
        assert_eq!(one(0x4000, 1, Granule::K16, Stale::Leaves { level: None }), (0x4000, None));
    }

    #[test]
    fn only_leaves_are_dropped_unless_tables_went() {
        let leaf = |stale| ranges(0, 0x1000, Granule::K4, stale).iter().all(|command| command.leaf);
        assert!(leaf(PAGES) && leaf(Stale::Leaves { level: None }) && !leaf(Stale::TablesAndLeaves));
    }

    #[test]
    fn parts_of_pages_count_whole() {
        assert_eq!(one(0x1fff, 2, Granule::K4, PAGES), (0x1000, Some((1, 0, 3))));
        assert_eq!(one(0x1_ffff, 2, Granule::K64, PAGES), (0x1_0000, Some((1, 0, 3))));
        assert_eq!(ranges(0x1000, 0, Granule::K4, PAGES), []);
    }

    #[test]
    fn level_hints_need_alignment() {
        let block = |start, granule, level| {
            one(start, 0x4000_0000, granule, Stale::Leaves { level: Some(level) }).1.map(|(_, _, ttl)| ttl)
        };
        assert_eq!(block(0x20_0000, Granule::K4, 2), Some(2));
        assert_eq!(block(0x10_0000, Granule::K4, 2), Some(0));
        assert_eq!(block(0x4000_0000, Granule::K4, 1), Some(1));
        assert_eq!(block(0x2000_0000, Granule::K4, 1), Some(0));
        assert_eq!(block(0x200_0000, Granule::K16, 2), Some(2));
        assert_eq!(block(0x100_0000, Granule::K16, 2), Some(0));
        assert_eq!(block(0, Granule::K16, 1), Some(0), "no such block");
        assert_eq!(block(0x2000_0000, Granule::K64, 2), Some(2));
        assert_eq!(block(0x1000_0000, Granule::K64, 2), Some(0));
        assert_eq!(block(1 << 42, Granule::K64, 1), Some(1));
        assert_eq!([block(0, Granule::K4, 0), block(0, Granule::K4, 4)], [Some(0); 2]);
    }

    #[test]
    fn all_of_64_bits_needs_few_commands() {
        assert_eq!(ranges(0, u64::MAX, Granule::K4, PAGES).len(), 1 << 16);
        for (size_bytes, commands) in [(0, 0), (1, 1), (1 << 48, 1), ((1 << 48) + 1, 2), (u64::MAX, 1 << 16)] {
            assert_eq!(TlbiRanges::new(Iova::new(0), size_bytes, Granule::K4, PAGES).commands(), commands);
        }
        assert_eq!(ranges(0, 1 << 48, Granule::K4, PAGES).len(), 1);
    }

    #[test]
    fn literal_atc_spans() {
        let span = |start, size_bytes| {
            let span = AtcSpan::around(Iova::new(start), size_bytes);
            (span.address().get(), span.log2_pages())
        };
        assert_eq!(span(0x7000, 0x1000), (0x7000, 0));
        assert_eq!(span(0x7fff, 1), (0x7000, 0));
        assert_eq!(span(0x6000, 0x2000), (0x6000, 1));
        assert_eq!(span(0x7000, 0x2000), (0, 4));
        assert_eq!(span(0x7000, 0), (0x7000, 0));
        assert_eq!(span(1 << 63, u64::MAX), (1 << 63, 51));
        assert_eq!(span(0, u64::MAX), (0, 52));
        assert_eq!((AtcSpan::ALL.address().get(), AtcSpan::ALL.log2_pages()), (0, 52));
    }

    fn granules() -> impl Strategy<Value = Granule> {
        prop_oneof![Just(Granule::K4), Just(Granule::K16), Just(Granule::K64)]
    }

    fn stales() -> impl Strategy<Value = Stale> {
        prop_oneof![
            Just(Stale::TablesAndLeaves),
            proptest::option::of(any::<u8>()).prop_map(|level| Stale::Leaves { level }),
            (1..=3_u8).prop_map(|level| Stale::Leaves { level: Some(level) }),
        ]
    }

    /// What a TLBI by address drops, read from its words as IHI 0070, 4.4.1 and 4.4.1.1, has them: from where, how many
    /// granules, and which level of leaves (0 for any). Or why that is illegal or unpredictable.
    fn read([first, second]: [u64; 2], granule: Granule) -> Result<(u64, u128, u8), &'static str> {
        let bits = |word: u64, high: u32, low: u32| word >> low & ((1 << (high - low + 1)) - 1);
        let (num, scale, ttl) = (bits(first, 16, 12), bits(first, 24, 20), bits(second, 9, 8));
        let address = bits(second, 63, 12) << 12;
        if bits(first, 11, 8) != 0 || bits(first, 19, 17) != 0 || bits(first, 31, 25) != 0 || bits(second, 7, 1) != 0 {
            return Err("a reserved bit");
        }
        let (tg, low_bits) = match (bits(second, 11, 10), ttl) {
            (0, _) if (num, scale, ttl) == (0, 0, 0) => return Ok((address, 1, 0)),
            (0, _) => return Err("a range or level without a granule"),
            (_, 0) if (num, scale) == (0, 0) => return Err("CERROR_ILL: NUM, SCALE and TTL are all 0"),
            (1, 1) => (Granule::K4, 0x3fff_f000),
            (1, 2) => (Granule::K4, 0x1f_f000),
            (1, _) => (Granule::K4, 0),
            (2, 1) => return Err("TTL 1 with 16 KiB granules"),
            (2, 2) => (Granule::K16, 0x1ff_f000),
            (2, _) => (Granule::K16, 0x3000),
            (_, 1) => (Granule::K64, 0x3ff_ffff_f000),
            (_, 2) => (Granule::K64, 0x1fff_f000),
            (_, _) => (Granule::K64, 0xf000),
        };
        if tg != granule {
            return Err("another granule");
        }
        if address & low_bits != 0 {
            return Err("a misaligned address");
        }
        Ok((address, u128::from(num + 1) << scale, ttl as u8))
    }

    /// Checks the commands for a range, with an ASID and VMID of all ones beside it. Returns how many there are.
    fn check(start: u64, size_bytes: u64, granule: Granule, stale: Stale) -> Result<u64, TestCaseError> {
        let page = u128::from(granule.bytes());
        let end = (u128::from(start) + u128::from(size_bytes)).min(1 << 64);
        let mut covered = u128::from(start) / page * page;
        let mut commands = 0;
        for scope in TlbiRanges::new(Iova::new(start), size_bytes, granule, stale) {
            let words = Command::TlbiNhVa { vmid: Vmid::new(0xffff), asid: Asid::new(0xffff), scope }.encode();
            prop_assert_eq!(words[0] >> 32, 0xffff_ffff, "the address stays out of the identifiers");
            let (address, pages, level) = read(words, granule).map_err(TestCaseError::fail)?;
            prop_assert_eq!(words[1] & 1 == 1, stale != Stale::TablesAndLeaves, "leaf");
            prop_assert!(level == 0 || stale == Stale::Leaves { level: Some(level) }, "entries of other levels stay");
            prop_assert_eq!(u128::from(address), covered, "no gap, nothing twice");
            prop_assert!(covered < end, "no command for nothing");
            covered += pages * page;
            commands += 1;
        }
        if size_bytes != 0 {
            prop_assert!(covered >= end);
            prop_assert!(covered - end <= u128::from(size_bytes) / 16 + 2 * page, "little more");
        }
        Ok(commands)
    }

    #[test]
    fn r30_every_small_range_is_one_legal_command() {
        for granule in [Granule::K4, Granule::K16, Granule::K64] {
            for level in [None, Some(1), Some(2), Some(3)] {
                for pages in 1..=2100 {
                    for start in [0, granule.bytes() * 3, 1 << 42, (1 << 48) - granule.bytes()] {
                        let stale = Stale::Leaves { level };
                        assert_eq!(check(start, pages * granule.bytes(), granule, stale).unwrap(), 1);
                        let tables = check(start, pages * granule.bytes(), granule, Stale::TablesAndLeaves);
                        assert_eq!(tables.unwrap(), 1);
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(tries(256))]

        #[test]
        fn r29_r30_ranges_cover_all_and_little_more(
            start: u64,
            alignment in 0..64_u32,
            size_bytes: u64,
            shrink in 8..64_u32,
            granule in granules(),
            stale in stales(),
        ) {
            let size_bytes = size_bytes >> shrink;
            let commands = check(start >> alignment << alignment, size_bytes, granule, stale)?;
            prop_assert!(commands <= size_bytes.div_ceil(1 << 48) + 1);
            prop_assert_eq!(commands == 0, size_bytes == 0);
        }

        #[test]
        fn atc_spans_are_the_smallest_around_a_range(start: u64, size_bytes in 1..=u64::MAX, shrink in 0..64_u32) {
            let size_bytes = (size_bytes >> shrink).max(1);
            let last = start.saturating_add(size_bytes - 1);
            let span = AtcSpan::around(Iova::new(start), size_bytes);
            let bytes = 1_u128 << (12 + span.log2_pages());
            let first = u128::from(span.address().get());
            prop_assert_eq!(first % bytes, 0);
            prop_assert!(first <= u128::from(start) && u128::from(last) < first + bytes);
            let half = bytes / 2;
            prop_assert!(span.log2_pages() == 0 || u128::from(start) / half != u128::from(last) / half);
        }
    }
}

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
}

/// The level hint that the SMMU accepts for leaves of `level` at `start`, or 0 for none: a misaligned address would
/// make the command unpredictable.
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

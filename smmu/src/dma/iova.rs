//! I/O virtual addresses: which runs of pages a device's address space has left.

use alloc::collections::{BTreeMap, BTreeSet};

use lock_api::Mutex;

use super::DmaError;
use crate::addr::Iova;
use crate::arch::attributes::Granule;
use crate::platform::Platform;

/// A run of I/O virtual pages that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IovaRange {
    start: u64,
    size_bytes: u64,
}

impl IovaRange {
    /// The first address.
    #[must_use]
    pub const fn start(self) -> Iova {
        Iova::new(self.start)
    }

    /// Length in bytes.
    #[must_use]
    pub const fn size_bytes(self) -> u64 {
        self.size_bytes
    }
}

/// The free pages of one address space. The lowest run that fits is used; what may be mapped in blocks is aligned to one, as long
/// as there is room for that.
#[derive(Debug)]
pub(super) struct IovaAllocator<P: Platform> {
    granule: Granule,
    runs: Mutex<P::Lock, Runs>,
}

/// Runs of pages, by address: multiples of a page, all of them.
#[derive(Debug)]
struct Runs {
    /// First address of each free run, by the address behind it. They do not touch. Taking the first pages of a run and giving
    /// them back changes nothing but a first address: neither needs memory.
    free: BTreeMap<u64, u64>,
    /// First address, and the one behind the last, of what is never handed out.
    withheld: BTreeSet<(u64, u64)>,
}

impl<P: Platform> IovaAllocator<P> {
    /// All pages below `limit` (an address), but for page zero: a device that was given no address yet starts there.
    pub(super) fn new(granule: Granule, limit: u64) -> Self {
        let start = granule.bytes();
        let end = limit & !(start - 1);
        let free = (end > start).then_some((end, start));
        let runs = Runs { free: free.into_iter().collect(), withheld: BTreeSet::new() };
        Self { granule, runs: Mutex::new(runs) }
    }

    /// Takes a run of pages below `limit` (an address).
    pub(super) fn allocate(&self, pages: usize, limit: u64) -> Result<IovaRange, DmaError> {
        if pages == 0 {
            return Err(DmaError::Empty);
        }
        let out = DmaError::OutOfAddresses { pages };
        let page_bytes = self.granule.bytes();
        let size_bytes = (pages as u64).checked_mul(page_bytes).ok_or(out)?;
        let block_bytes = page_bytes << (self.granule.log2_bytes() - 3);
        let mut runs = self.runs.lock();
        let aligned = if size_bytes < block_bytes { None } else { runs.take(size_bytes, block_bytes, limit) };
        let start = aligned.or_else(|| runs.take(size_bytes, page_bytes, limit)).ok_or(out)?;
        Ok(IovaRange { start, size_bytes })
    }

    /// Takes all pages that a range touches out of what is handed out, for good. What somebody holds of them already stays
    /// theirs, and is not handed out again afterwards.
    pub(super) fn withhold(&self, start: Iova, size_bytes: u64) {
        let in_page = self.granule.bytes() - 1;
        let first = start.get() & !in_page;
        let end = start.get().saturating_add(size_bytes).saturating_add(in_page) & !in_page;
        let mut runs = self.runs.lock();
        runs.withheld.insert((first, end));
        runs.take_out(first, end);
    }

    /// Gives a run back. Nothing is mapped there any more.
    pub(super) fn free(&self, range: IovaRange) {
        self.runs.lock().give_back(range.start, range.start.saturating_add(range.size_bytes));
    }
}

impl Runs {
    /// Takes the lowest addresses that are free, aligned, and below `limit`.
    fn take(&mut self, size_bytes: u64, alignment_bytes: u64, limit: u64) -> Option<u64> {
        let fits = |(&end, &first): (&u64, &u64)| {
            let start = first.checked_add(alignment_bytes - 1)? & !(alignment_bytes - 1);
            let rest = start.checked_add(size_bytes).filter(|&rest| rest <= end.min(limit))?;
            Some((first, start, rest, end))
        };
        let (first, start, rest, end) = self.free.iter().find_map(fits)?;
        if rest == end {
            self.free.remove(&end);
        } else if let Some(first) = self.free.get_mut(&end) {
            *first = rest;
        }
        if first < start {
            self.free.insert(start, first);
        }
        Some(start)
    }

    /// Joins a run with the free ones beside it.
    fn give_back(&mut self, start: u64, end: u64) {
        let first = self.free.remove(&start).unwrap_or(start);
        match self.free.range_mut(end.saturating_add(1)..).next() {
            Some((_, after)) if *after == end => *after = first,
            _ => _ = self.free.insert(end, first),
        }
        while let Some(&(first, end)) = self.withheld.iter().find(|&&(first, end)| self.is_free_within(first, end)) {
            self.take_out(first, end);
        }
    }

    /// Whether any address from `first` to before `end` is free.
    fn is_free_within(&self, first: u64, end: u64) -> bool {
        self.free.range(first.saturating_add(1)..).next().is_some_and(|(_, &start)| start < end)
    }

    /// Makes the addresses from `first` to before `end` not free.
    fn take_out(&mut self, first: u64, end: u64) {
        while let Some((&run_end, &run)) = self.free.range(first.saturating_add(1)..).next()
            && run < end
        {
            self.free.remove(&run_end);
            if run_end > end {
                self.free.insert(run_end, end);
            }
            if run < first {
                self.free.insert(first, run);
            }
        }
    }
}

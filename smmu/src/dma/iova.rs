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

/// The free pages of one address space. The lowest run that fits is used.
#[derive(Debug)]
pub(super) struct IovaAllocator<P: Platform> {
    /// Size of a page: the domain's granule.
    page_bytes: u64,
    runs: Mutex<P::Lock, Runs>,
}

/// Runs of pages, by address: multiples of a page, all of them.
#[derive(Debug)]
struct Runs {
    /// Length in bytes of each free run, by its first address. They do not touch.
    free: BTreeMap<u64, u64>,
    /// First address, and the one behind the last, of what is never handed out.
    withheld: BTreeSet<(u64, u64)>,
}

impl<P: Platform> IovaAllocator<P> {
    /// All pages below `limit` (an address), but for page zero: a device that was given no address yet starts there.
    pub(super) fn new(granule: Granule, limit: u64) -> Self {
        let page_bytes = granule.bytes();
        let end = limit & !(page_bytes - 1);
        let free = end.checked_sub(page_bytes).filter(|&bytes| bytes != 0).map(|bytes| (page_bytes, bytes));
        let runs = Runs { free: free.into_iter().collect(), withheld: BTreeSet::new() };
        Self { page_bytes, runs: Mutex::new(runs) }
    }

    /// Takes a run of pages below `limit` (an address).
    pub(super) fn allocate(&self, pages: usize, limit: u64) -> Result<IovaRange, DmaError> {
        if pages == 0 {
            return Err(DmaError::Empty);
        }
        let wanted = (pages as u64).checked_mul(self.page_bytes).ok_or(DmaError::OutOfAddresses { pages })?;
        let mut runs = self.runs.lock();
        let free = &mut runs.free;
        let run = free.iter().find(|&(_, &length)| length >= wanted).map(|(&first, &length)| (first, length));
        let fits = |&(first, _): &(u64, u64)| first.saturating_add(wanted) <= limit;
        let (start, length) = run.filter(fits).ok_or(DmaError::OutOfAddresses { pages })?;
        free.remove(&start);
        if length > wanted {
            free.insert(start.saturating_add(wanted), length.saturating_sub(wanted));
        }
        Ok(IovaRange { start, size_bytes: wanted })
    }

    /// Takes all pages that a range touches out of what is handed out, for good. What somebody holds of them already stays
    /// theirs, and is not handed out again afterwards.
    pub(super) fn withhold(&self, start: Iova, size_bytes: u64) {
        let in_page = self.page_bytes - 1;
        let first = start.get() & !in_page;
        let end = start.get().saturating_add(size_bytes).saturating_add(in_page) & !in_page;
        let mut runs = self.runs.lock();
        runs.withheld.insert((first, end));
        take_out(&mut runs.free, first, end);
    }

    /// Gives a run back, joined with the free ones beside it. Nothing is mapped there any more.
    pub(super) fn free(&self, range: IovaRange) {
        let mut runs = self.runs.lock();
        let Runs { free, withheld } = &mut *runs;
        let IovaRange { mut start, mut size_bytes } = range;
        if let Some(after) = free.remove(&start.saturating_add(size_bytes)) {
            size_bytes = size_bytes.saturating_add(after);
        }
        let before = free.range(..start).next_back().map(|(&first, &length)| (first, length));
        if let Some((first, length)) = before.filter(|&(first, length)| first.saturating_add(length) == start) {
            start = first;
            size_bytes = size_bytes.saturating_add(length);
        }
        free.insert(start, size_bytes);
        withheld.iter().for_each(|&(first, end)| take_out(free, first, end));
    }
}

/// Makes the addresses from `first` to before `end` not free.
fn take_out(free: &mut BTreeMap<u64, u64>, first: u64, end: u64) {
    while let Some((run, length)) = free.range(..end).next_back().map(|(&run, &length)| (run, length))
        && run.saturating_add(length) > first
    {
        free.remove(&run);
        let run_end = run.saturating_add(length);
        if run_end > end {
            free.insert(end, run_end.saturating_sub(end));
        }
        if run < first {
            free.insert(run, first.saturating_sub(run));
            break;
        }
    }
}

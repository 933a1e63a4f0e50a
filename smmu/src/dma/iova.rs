//! I/O virtual addresses: which runs of pages a device's address space has left.

use alloc::collections::BTreeMap;

use lock_api::Mutex;

use super::{DmaError, PAGE_BYTES};
use crate::addr::Iova;
use crate::platform::Platform;

/// A run of I/O virtual pages that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IovaRange {
    first_page: u64,
    pages: u64,
}

impl IovaRange {
    /// The first address.
    #[must_use]
    pub const fn start(self) -> Iova {
        Iova::new(self.first_page.saturating_mul(PAGE_BYTES as u64))
    }

    /// Length in bytes.
    #[must_use]
    pub const fn size_bytes(self) -> u64 {
        self.pages.saturating_mul(PAGE_BYTES as u64)
    }
}

/// The free pages of one address space, as runs that do not touch. The lowest run that fits is used.
#[derive(Debug)]
pub(super) struct IovaAllocator<P: Platform> {
    /// Length in pages of each free run, by its first page.
    free: Mutex<P::Lock, BTreeMap<u64, u64>>,
}

impl<P: Platform> IovaAllocator<P> {
    /// All pages below `limit` (an address), but for page zero: a device that was given no address yet starts there.
    pub(super) fn new(limit: u64) -> Self {
        let pages = limit / PAGE_BYTES as u64;
        let free = pages.checked_sub(1).filter(|&pages| pages != 0).map(|pages| (1, pages));
        Self { free: Mutex::new(free.into_iter().collect()) }
    }

    /// Takes a run of pages below `limit` (an address).
    pub(super) fn allocate(&self, pages: usize, limit: u64) -> Result<IovaRange, DmaError> {
        if pages == 0 {
            return Err(DmaError::Empty);
        }
        let wanted = pages as u64;
        let mut free = self.free.lock();
        let run = free.iter().find(|&(_, &length)| length >= wanted).map(|(&first, &length)| (first, length));
        let fits = |&(first, _): &(u64, u64)| first.saturating_add(wanted) <= limit / PAGE_BYTES as u64;
        let (first_page, length) = run.filter(fits).ok_or(DmaError::OutOfAddresses { pages })?;
        free.remove(&first_page);
        if length > wanted {
            free.insert(first_page.saturating_add(wanted), length.saturating_sub(wanted));
        }
        Ok(IovaRange { first_page, pages: wanted })
    }

    /// Takes all pages that a range touches out of what is handed out, for good. Those that somebody holds already stay
    /// theirs, and come back with them.
    pub(super) fn withhold(&self, start: Iova, size_bytes: u64) {
        let first = start.get() / PAGE_BYTES as u64;
        let end = start.get().saturating_add(size_bytes).div_ceil(PAGE_BYTES as u64);
        let mut free = self.free.lock();
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

    /// Gives a run back, joined with the free ones beside it. Nothing is mapped there any more.
    pub(super) fn free(&self, range: IovaRange) {
        let mut free = self.free.lock();
        let IovaRange { mut first_page, mut pages } = range;
        if let Some(after) = free.remove(&first_page.saturating_add(pages)) {
            pages = pages.saturating_add(after);
        }
        let before = free.range(..first_page).next_back().map(|(&first, &length)| (first, length));
        if let Some((first, length)) = before.filter(|&(first, length)| first.saturating_add(length) == first_page) {
            first_page = first;
            pages = pages.saturating_add(length);
        }
        free.insert(first_page, pages);
    }
}

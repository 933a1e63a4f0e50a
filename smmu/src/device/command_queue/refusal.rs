//! Which commands the SMMU refused, for those who sent them.
//!
//! What lives here: a short memory over atomics alone; whoever sent a command looks without a lock. What does not: the
//! repair of the queue. The atomics are those of the module above, so that tests can put others in their place.

use core::ops::Range;

use super::atomic::{AtomicU64, Ordering};

/// Refusals that are remembered.
const REMEMBERED: usize = 32;
/// A record of none: no queue runs up to its position.
const NOTHING: u64 = u64::MAX;

/// The latest refusals of one command queue.
#[derive(Debug)]
pub(super) struct Refusals {
    count: AtomicU64,
    /// In a ring by their number: the command's position, and CMDQ_CONS.ERR in the low byte.
    latest: [AtomicU64; REMEMBERED],
}

/// What became of some commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// None of them was refused.
    Accepted,
    /// One of them was refused with this CMDQ_CONS.ERR.
    Refused(u8),
    /// There have been too many refusals to tell.
    Unknown,
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self { count: AtomicU64::new(0), latest: core::array::from_fn(|_| AtomicU64::new(NOTHING)) }
    }

    /// How many commands have been refused.
    #[inline]
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Remembers that the command at `position` was refused. By one CPU at a time, and before the SMMU goes on: whoever then
    /// finds its commands consumed also finds that one was refused. A command that is refused once more counts once.
    pub(super) fn record(&self, position: u64, code: u8) {
        let number = self.count.load(Ordering::Relaxed);
        let place = |number: u64| self.latest.get(number as usize % REMEMBERED);
        let latest = place(number.wrapping_sub(1)).map_or(NOTHING, |record| record.load(Ordering::Relaxed));
        if latest >> 8 == position {
            return;
        }
        if let Some(record) = place(number) {
            record.store(position << 8 | u64::from(code), Ordering::Release);
        }
        self.count.store(number.wrapping_add(1), Ordering::Release);
    }

    /// What became of the commands in `range`, which have been consumed since `count` was `before`.
    #[inline]
    pub(super) fn verdict(&self, range: &Range<u64>, before: u64) -> Verdict {
        if self.count.load(Ordering::Acquire) == before { Verdict::Accepted } else { self.search(range, before) }
    }

    #[cold]
    fn search(&self, range: &Range<u64>, before: u64) -> Verdict {
        let mut records = self.latest.iter().map(|record| record.load(Ordering::Acquire));
        if let Some(record) = records.find(|record| range.contains(&(record >> 8))) {
            return Verdict::Refused(record as u8);
        }
        // Looked at last, because records may have been overwritten meanwhile. The next one's place is written to before it
        // counts, so one record less is sure.
        let since = self.count.load(Ordering::Acquire).wrapping_sub(before);
        if since >= REMEMBERED as u64 { Verdict::Unknown } else { Verdict::Accepted }
    }
}

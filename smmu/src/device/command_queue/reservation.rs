//! Which slots are whose: space is reserved with one compare-exchange, filled by whoever reserved it, and published in order.
//!
//! What lives here: the concurrent core of the queue, over atomics alone. What does not: slots, registers, waiting. The
//! atomics are those of the module above, so that tests can put others in their place.
//!
//! A position counts commands from the first one on and never wraps; its low bits are the slot. At any time
//! `consumed <= published <= reserved <= consumed + entries`:
//!
//! * from `published` to `reserved` slots belong to whoever reserved them,
//! * from `consumed` to `published` they belong to the SMMU,
//! * the others are free.
//!
//! CMDQ_PROD must never go back, so one CPU at a time writes it: whoever holds [`BUSY`]. Nobody waits to get it. What was
//! filled out of turn is marked, and published by whoever fills what is missing; and its owner, who waits for it anyway,
//! looks now and then whether there is something to publish. So nothing is forgotten, whatever the CPUs' paces.

use core::ops::Range;

use super::atomic::{AtomicU64, Ordering};

/// Most slots, as log2.
pub(super) const LOG2_ENTRIES_MAX: u8 = 8;
/// Slots in a word of [`Reservations::filled`].
const WORD_SLOTS: u64 = u64::BITS as u64;
/// In [`Reservations::published`]: somebody is writing CMDQ_PROD.
const BUSY: u64 = 1;
/// In [`Reservations::reserved`]: nothing can be reserved.
const SHUT: u64 = 1 << 63;

/// The positions of one command queue.
#[derive(Debug)]
pub(super) struct Reservations {
    entries: u64,
    /// The position, and [`SHUT`].
    reserved: AtomicU64,
    /// Twice the position, and [`BUSY`]. Runs ahead of CMDQ_PROD, so that it never lags behind CMDQ_CONS.
    published: AtomicU64,
    /// What somebody has found consumed. Lags behind the truth, by at most one lap.
    consumed: AtomicU64,
    /// How many positions nobody waits for any more.
    retired: AtomicU64,
    /// A bit for each slot that is filled and waits for somebody to publish it.
    filled: [AtomicU64; 1 << LOG2_ENTRIES_MAX >> WORD_SLOTS.ilog2()],
}

impl Reservations {
    /// A queue of `2^log2_entries` slots, at most [`LOG2_ENTRIES_MAX`].
    pub(super) fn new(log2_entries: u8) -> Self {
        Self {
            entries: 1 << log2_entries.min(LOG2_ENTRIES_MAX),
            reserved: AtomicU64::new(0),
            published: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            retired: AtomicU64::new(0),
            filled: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The number of slots.
    #[inline]
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Reserves `count` positions, if so many slots are free.
    #[inline]
    pub(super) fn reserve(&self, count: u64) -> Option<Range<u64>> {
        let mut start = self.reserved.load(Ordering::Relaxed);
        loop {
            let end = start.wrapping_add(count);
            // The SMMU is done with what lies before `consumed`: whoever stored it has seen that. If the queue is shut the
            // difference is out of all proportion; as it is, now and then, if others have overtaken an old `start`.
            if end.wrapping_sub(self.consumed.load(Ordering::Acquire)) > self.entries {
                return None;
            }
            match self.reserved.compare_exchange_weak(start, end, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(start..end),
                // Somebody else was faster, so the queue as a whole got on.
                Err(now) => start = now,
            }
        }
    }

    /// How many slots are free at the moment.
    pub(super) fn free(&self) -> u64 {
        self.entries.saturating_sub(self.reserved().saturating_sub(self.consumed()))
    }

    /// How many positions have been reserved.
    fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed) & !SHUT
    }

    /// Lets nobody reserve anything.
    pub(super) fn shut(&self) {
        self.reserved.fetch_or(SHUT, Ordering::Relaxed);
    }

    /// Lets everybody reserve again. Whoever does finds what [`restart`](Self::restart) has stored.
    pub(super) fn reopen(&self) {
        self.reserved.fetch_and(!SHUT, Ordering::Release);
    }

    /// Whether [`shut`](Self::shut) is in force.
    pub(super) fn is_shut(&self) -> bool {
        self.reserved.load(Ordering::Relaxed) & SHUT != 0
    }

    /// Tells that whoever reserved `range` does not wait for it any more, and why does not matter.
    #[inline]
    pub(super) fn retire(&self, range: &Range<u64>) {
        self.retired.fetch_add(range.end.wrapping_sub(range.start), Ordering::Release);
    }

    /// Whether nobody waits for anything that was reserved.
    pub(super) fn is_idle(&self) -> bool {
        self.retired.load(Ordering::Acquire) == self.reserved()
    }

    /// Starts over with a queue that is empty, and returns the position at which. The queue is shut, and idle; the SMMU does
    /// not look at it.
    pub(super) fn restart(&self) -> u64 {
        let position = self.reserved();
        self.filled.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.consumed.store(position, Ordering::Relaxed);
        self.published.store(position << 1, Ordering::Release);
        position
    }

    /// Hands over slots that their owner has filled. `publish` makes CMDQ_PROD a position; it is not called if that is
    /// somebody else's turn.
    #[inline]
    pub(super) fn hand_over(&self, range: &Range<u64>, publish: impl FnOnce(u64)) {
        let (before, after) = (range.start << 1, range.end << 1 | BUSY);
        if self.published.compare_exchange(before, after, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            // As a rule nobody has come behind.
            let is_last = self.reserved.load(Ordering::Relaxed) == range.end;
            self.finish(if is_last { range.end } else { self.take_filled(range.end) }, publish);
        } else {
            self.mark(range);
            self.help(publish);
        }
    }

    /// Publishes what has been filled out of turn and whose turn it is now. Does nothing if there is none, or somebody else
    /// is at it.
    pub(super) fn help(&self, publish: impl FnOnce(u64)) {
        let now = self.published.load(Ordering::Relaxed);
        let (start, busy) = (now >> 1, now | BUSY);
        // Whoever only looks does not get into the way of those who publish.
        if now == busy || !self.is_filled(start) {
            return;
        }
        if self.published.compare_exchange(now, busy, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            // Only now is the mark to be trusted: it may have been one of the lap before.
            let end = self.take_filled(start);
            self.finish(end, |end| {
                if end != start {
                    publish(end)
                }
            });
        }
    }

    /// Publishes up to `end`, and lets go of [`BUSY`]: with everything before it, so that the next CPU's CMDQ_PROD comes
    /// after this one's.
    #[inline]
    fn finish(&self, end: u64, publish: impl FnOnce(u64)) {
        publish(end);
        self.published.store(end << 1, Ordering::Release);
    }

    /// How many positions are the SMMU's, or will be in a moment.
    #[inline]
    pub(super) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed) >> 1
    }

    /// How many positions the SMMU is known to have consumed.
    #[inline]
    pub(super) fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Acquire)
    }

    /// Tells that the SMMU has consumed what lies before `position`.
    #[inline]
    pub(super) fn consumed_to(&self, position: u64) {
        self.consumed.fetch_max(position, Ordering::Release);
    }

    /// Notes that `range` is filled, together with all that was stored before.
    fn mark(&self, range: &Range<u64>) {
        let mut position = range.start;
        while position < range.end {
            let (word, bit, slots) = self.in_word(position);
            let count = slots.min(range.end.wrapping_sub(position));
            if let Some(word) = word {
                word.fetch_or(ones(count) << bit, Ordering::Release);
            }
            position = position.saturating_add(count);
        }
    }

    /// Whether the slot of `position` is marked as filled.
    #[inline]
    fn is_filled(&self, position: u64) -> bool {
        let (word, bit, _) = self.in_word(position);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> bit & 1 != 0)
    }

    /// How far slots are marked as filled from `start` on. Their marks go, and `published` follows: they are about to be the
    /// SMMU's. Called by the holder of [`BUSY`].
    fn take_filled(&self, start: u64) -> u64 {
        let mut end = start;
        loop {
            let (word, bit, slots) = self.in_word(end);
            let filled = word.map_or(0, |word| word.load(Ordering::Acquire)) >> bit;
            let count = u64::from(filled.trailing_ones()).min(slots);
            if let Some(word) = word.filter(|_| count != 0) {
                word.fetch_and(!(ones(count) << bit), Ordering::Relaxed);
            }
            end = end.saturating_add(count);
            // At most one lap: what lies beyond is not reserved before this has been published.
            if count < slots || end.saturating_sub(start) >= self.entries {
                self.published.store(end << 1 | BUSY, Ordering::Relaxed);
                return end;
            }
        }
    }

    /// The word of [`Self::filled`] with the bit for `position`, which bit, and how many slots follow in that word.
    #[inline]
    fn in_word(&self, position: u64) -> (Option<&AtomicU64>, u64, u64) {
        let slot = position & self.entries.wrapping_sub(1);
        let bit = slot % WORD_SLOTS;
        (self.filled.get((slot / WORD_SLOTS) as usize), bit, (WORD_SLOTS - bit).min(self.entries.saturating_sub(slot)))
    }
}

/// A mask of `count` bits, 1 to 64.
fn ones(count: u64) -> u64 {
    u64::MAX >> WORD_SLOTS.saturating_sub(count).min(WORD_SLOTS - 1)
}

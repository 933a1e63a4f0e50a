//! Index arithmetic of the circular queues (IHI 0070, 3.5.1), free of state.
//!
//! A queue of 2^S entries has indices of S bits, and a wrap bit above them that tells a full queue from an empty
//! one. Bits above the wrap bit (error codes, overflow flags) are never part of an index.

/// The shape of a queue: how many entries, and how register values turn into positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// The bits of an index and the wrap bit.
    wrapped_mask: u32,
}

impl Ring {
    /// The most that IDR1 can announce: 2^19 entries.
    const MAX_LOG2_ENTRIES: u8 = 19;

    /// A ring of `2^log2_entries` entries, capped at the architecture's 2^19.
    pub(super) const fn new(log2_entries: u8) -> Self {
        let capped = if log2_entries > Self::MAX_LOG2_ENTRIES { Self::MAX_LOG2_ENTRIES } else { log2_entries };
        Self { wrapped_mask: (2 << capped) - 1 }
    }

    pub(super) const fn log2_entries(self) -> u8 {
        self.entries().ilog2() as u8
    }

    /// Number of entries.
    pub(super) const fn entries(self) -> u32 {
        (self.wrapped_mask >> 1) + 1
    }

    /// The index with its wrap bit, out of a PROD or CONS register value or a running count.
    #[inline]
    pub(super) const fn wrapped(self, value: u32) -> u32 {
        value & self.wrapped_mask
    }

    /// The slot that a PROD or CONS value or a running count points at.
    #[inline]
    pub(super) const fn slot(self, value: u32) -> usize {
        (value & self.wrapped_mask >> 1) as usize
    }

    /// The value after `value`, wrap bit included.
    pub(super) const fn next(self, value: u32) -> u32 {
        self.wrapped(value.wrapping_add(1))
    }

    /// How many entries lie between `consumer` and `producer`, or `None` if the two cannot belong to one queue:
    /// more entries than there are slots.
    pub(super) const fn used(self, producer: u32, consumer: u32) -> Option<u32> {
        let used = self.wrapped(producer.wrapping_sub(consumer));
        if used > self.entries() { None } else { Some(used) }
    }

    /// The count that a register value stands for: the first one from `known` on whose low bits equal it.
    ///
    /// Counts run on for ever, so that a waiter can compare positions of different laps. A reader that was held up for
    /// two laps gets too small a count, never one too large.
    #[inline]
    pub(super) const fn extend(self, known: u64, value: u32) -> u64 {
        #[allow(clippy::cast_possible_truncation, reason = "only the low bits of the count matter")]
        let ahead = self.wrapped(value.wrapping_sub(known as u32));
        known.wrapping_add(ahead as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;
    use crate::testing::tries;
    use proptest::prelude::*;

    #[test]
    fn r04_a_full_queue_does_not_look_empty() {
        let ring = Ring::new(3);
        assert_eq!(ring.used(0, 0), Some(0));
        assert_eq!(ring.used(8, 0), Some(8));
        assert_eq!(ring.used(0, 8), Some(8));
        assert_eq!(ring.slot(8), ring.slot(0));
    }

    #[test]
    fn r01_a_slot_never_includes_the_wrap_bit() {
        let ring = Ring::new(4);
        assert_eq!(ring.slot(0x1f), 0xf);
        assert_eq!(ring.next(0x1f), 0);
        assert_eq!(ring.next(0xf), 0x10);
    }

    #[test]
    fn r12_error_and_overflow_bits_are_not_part_of_the_index() {
        let ring = Ring::new(4);
        assert_eq!(ring.wrapped(0x7f00_0003), 3);
        assert_eq!(ring.wrapped(0x8000_0013), 0x13);
    }

    #[test]
    fn a_ring_of_one_entry_is_legal() {
        let ring = Ring::new(0);
        assert_eq!(ring.used(1, 0), Some(1));
        assert_eq!(ring.next(ring.next(0)), 0);
        assert_eq!(ring.slot(1), 0);
    }

    #[test]
    fn impossible_distance_is_told() {
        assert_eq!(Ring::new(3).used(9, 0), None);
    }

    proptest! {
        #![proptest_config(tries(256))]

        #[test]
        fn extend_finds_the_true_count(log2 in 0u8..=19, known in 0u64..1 << 40, ahead in 0u64..1 << 19) {
            let ring = Ring::new(log2);
            let truth = known + ahead % u64::from(ring.entries() * 2);
            prop_assert_eq!(ring.extend(known, ring.wrapped(truth as u32)), truth);
        }
    }
}

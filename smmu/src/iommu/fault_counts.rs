//! How often somebody has faulted, and how.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::event::{Event, EventKind};

/// The architecture's event numbers are below (IHI 0070, 7.3).
const NUMBERS: u8 = 0x26;

/// Counts of events, by their kind. They go on whatever is said or kept quiet about the events.
#[derive(Debug)]
pub struct FaultCounts {
    total: AtomicU64,
    by_number: [AtomicU64; NUMBERS as usize],
}

impl FaultCounts {
    pub(super) const fn new() -> Self {
        Self { total: AtomicU64::new(0), by_number: [const { AtomicU64::new(0) }; NUMBERS as usize] }
    }

    /// How many events there have been.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// How many events of a number there have been, with their name. Numbers that the architecture has not defined are
    /// counted in [`total`](Self::total) alone.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let count = |(number, count): (u8, &AtomicU64)| {
            let count = count.load(Ordering::Relaxed);
            EventKind::name_of(number).filter(|_| count != 0).map(|name| (name, count))
        };
        (0..NUMBERS).zip(&self.by_number).filter_map(count)
    }

    /// Counts an event and returns how many there are now.
    pub(super) fn count(&self, event: &Event) -> u64 {
        if let Some(count) = self.by_number.get(usize::from(event.kind.number())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.total.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}

/// One line: how many of which.
impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read once, so that the parts make up the whole.
        let total = self.total();
        let mut named = 0u64;
        write!(f, "{total} faults")?;
        for (name, count) in self.by_name() {
            let separator = if named == 0 { ": " } else { ", " };
            write!(f, "{separator}{count} {name}")?;
            named = named.saturating_add(count);
        }
        match total.saturating_sub(named) {
            0 => Ok(()),
            others => write!(f, "{}{others} of unknown kinds", if named == 0 { ": " } else { ", " }),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn every_event_counts_as_what_it_is() {
        let counts = FaultCounts::new();
        assert_eq!(counts.to_string(), "0 faults");
        for number in [0x10, 0x04, 0x10, 0xe5, 0x26, 0x25] {
            counts.count(&Event::decode([number, 0, 0, 0]));
        }
        assert_eq!(counts.total(), 6);
        let by_name: Vec<_> = counts.by_name().collect();
        assert_eq!(by_name, [("C_BAD_STE", 1), ("F_TRANSLATION", 2), ("F_VMS_FETCH", 1)]);
        assert_eq!(counts.to_string(), "6 faults: 1 C_BAD_STE, 2 F_TRANSLATION, 1 F_VMS_FETCH, 2 of unknown kinds");
    }
}

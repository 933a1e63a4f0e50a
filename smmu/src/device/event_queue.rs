//! Events: what the SMMU says about transactions that it did not let through (IHI 0070, 3.5.4 and 7.2).

use core::sync::atomic::{AtomicU64, Ordering};

use super::Smmu;
use super::record_queue::{QueueRegisters, RecordQueue};
use crate::arch::event::Event;
use crate::arch::registers::{CR0, EVENTQ_BASE, EVENTQ_CONS, EVENTQ_PROD};
use crate::platform::Platform;

/// Events that the queue holds: 2^10 of 32 bytes. A device that misses its mapping raises one per bus beat.
pub(super) const LOG2_EVENTS: u8 = 10;

/// The event queue of one SMMU.
pub(super) type EventQueue<P> = RecordQueue<P, 4>;

/// Events go on after an overflow as soon as there is space.
pub(super) static REGISTERS: QueueRegisters = QueueRegisters {
    base: EVENTQ_BASE,
    producer: EVENTQ_PROD,
    consumer: EVENTQ_CONS,
    enable: CR0::EVENTQEN::SET.value,
    blocked_by_overflow: false,
};

/// What one look at the event queue brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventDrain {
    /// Events handed to the handler.
    pub events: u32,
    /// Whether the SMMU had dropped events because the queue was full. Acknowledged.
    pub overflowed: bool,
    /// Whether EVENTQ_PROD made no sense. The queue was emptied.
    pub inconsistent: bool,
}

/// What all looks at the event queue brought.
#[derive(Debug, Default)]
pub(super) struct EventCounts {
    events: AtomicU64,
    overflows: AtomicU64,
}

impl EventCounts {
    fn add(&self, drain: &EventDrain) {
        self.events.fetch_add(drain.events.into(), Ordering::Relaxed);
        self.overflows.fetch_add(drain.overflowed.into(), Ordering::Relaxed);
    }

    /// Events handed out, and overflows found.
    pub(super) fn get(&self) -> (u64, u64) {
        (self.events.load(Ordering::Relaxed), self.overflows.load(Ordering::Relaxed))
    }
}

impl<P: Platform> Smmu<P> {
    /// Hands the waiting events to `handler`, at most one queue's worth. Call it from the event interrupt, or poll. While
    /// the SMMU is suspended these are the events from before.
    ///
    /// `handler` runs outside any lock of the SMMU, in the caller's context.
    pub fn drain_events(&self, mut handler: impl FnMut(Event)) -> EventDrain {
        if self.lifecycle.is_handed_over() {
            return EventDrain::default();
        }
        let drained = self.events.drain(&self.control, |words| handler(Event::decode(words)));
        let drain =
            EventDrain { events: drained.records, overflowed: drained.overflowed, inconsistent: drained.inconsistent };
        self.event_counts.add(&drain);
        drain
    }
}

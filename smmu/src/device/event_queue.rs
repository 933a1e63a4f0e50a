//! The event queue: records are copied once, checked and decoded; overflow is acknowledged (IHI 0070, 3.5.4 and 7.2).
//!
//! The SMMU writes this memory: what it says is untrusted.

use core::sync::atomic::Ordering;

use lock_api::Mutex;

use super::control::Control;
use super::queue_base;
use super::ring::Ring;
use super::{DeviceError, EventDrain};
use crate::arch::event::Event;
use crate::arch::registers::{EVENTQ_BASE, EVENTQ_CONS, EVENTQ_PROD};
use crate::memory::DmaMemory;
use crate::platform::Platform;

/// Words of one record.
const WORDS: usize = 4;

/// The event queue of one SMMU.
#[derive(Debug)]
pub(super) struct EventQueue<P: Platform> {
    memory: DmaMemory<P>,
    ring: Ring,
    coherent: bool,
    /// EVENTQ_CONS as last written, OVACKFLG included.
    consumer: Mutex<P::Lock, u32>,
}

/// What one look at the queue found.
enum Next {
    Record([u64; WORDS]),
    Empty,
    /// EVENTQ_PROD contradicts EVENTQ_CONS; the queue was taken for empty from there on.
    Inconsistent,
}

impl<P: Platform> EventQueue<P> {
    /// Allocates a queue of `2^log2_entries` records.
    pub(super) fn new(platform: &'static P, log2_entries: u8, coherent: bool) -> Result<Self, DeviceError> {
        let ring = Ring::new(log2_entries);
        let size_bytes = ring.entries() as usize * WORDS * size_of::<u64>();
        let memory = DmaMemory::allocate(platform, size_bytes, size_bytes)?;
        if !coherent {
            // The zeroes must not be evicted from a cache later on, over a record.
            memory.clean(0, memory.words().len());
        }
        Ok(Self { memory, ring, coherent, consumer: Mutex::new(0) })
    }

    /// Tells the SMMU where the queue is. CR0.EVENTQEN is 0.
    pub(super) fn program(&self, control: &Control<P>) {
        control.write64(EVENTQ_BASE, queue_base(self.memory.physical(), self.ring));
        control.write(EVENTQ_PROD, 0);
        control.write(EVENTQ_CONS, 0);
    }

    /// Never gives the queue's memory back: the SMMU may still reach it.
    pub(super) fn keep(&self) {
        self.memory.keep();
    }

    /// Bytes of DMA memory that the queue takes.
    pub(super) fn size_bytes(&self) -> usize {
        self.memory.size_bytes()
    }

    /// Hands the waiting events to `handler`, at most one queue's worth, outside any lock.
    pub(super) fn drain(&self, control: &Control<P>, mut handler: impl FnMut(Event)) -> EventDrain {
        let mut drain = EventDrain::default();
        for _ in 0..self.ring.entries() {
            match self.take(control, &mut drain.overflowed) {
                Next::Record(words) => {
                    drain.events = drain.events.saturating_add(1);
                    handler(Event::decode(words));
                }
                Next::Empty => break,
                Next::Inconsistent => {
                    drain.inconsistent = true;
                    break;
                }
            }
        }
        drain
    }

    /// Takes the oldest record and gives its slot back, acknowledging an overflow on the way.
    fn take(&self, control: &Control<P>, overflowed: &mut bool) -> Next {
        const OVERFLOW: u32 = 1 << 31;
        let mut consumer = self.consumer.lock();
        let producer = control.read(EVENTQ_PROD).get();
        // The record was written before the index that announced it: read it after.
        control.platform().read_barrier();
        let overflow = producer & OVERFLOW;
        *overflowed |= overflow != *consumer & OVERFLOW;
        let (next, index) = match self.ring.used(producer, *consumer) {
            Some(0) => (Next::Empty, self.ring.wrapped(*consumer)),
            Some(_) => (Next::Record(self.read(*consumer)), self.ring.next(*consumer)),
            None => (Next::Inconsistent, self.ring.wrapped(producer)),
        };
        let value = index | overflow;
        if value != *consumer {
            *consumer = value;
            // The copy is complete before the slot is the SMMU's again.
            control.platform().read_barrier();
            control.write(EVENTQ_CONS, value);
        }
        next
    }

    /// Copies the record in the slot of `consumer`, once.
    fn read(&self, consumer: u32) -> [u64; WORDS] {
        let first = self.ring.slot(consumer) * WORDS;
        if !self.coherent {
            self.memory.invalidate(first, WORDS);
        }
        let mut record = [0; WORDS];
        for (value, word) in record.iter_mut().zip(self.memory.words().iter().skip(first)) {
            *value = u64::from_le(word.load(Ordering::Relaxed));
        }
        record
    }
}

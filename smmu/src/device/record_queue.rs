//! A queue that the SMMU fills and software empties: events and page requests (IHI 0070, 3.5.4 and 3.5.5).
//!
//! The SMMU writes this memory: what it says is untrusted. A record is copied once, then its slot is given back.

use core::sync::atomic::Ordering;

use lock_api::Mutex;

use super::DeviceError;
use super::control::Control;
use super::queue_base;
use super::ring::Ring;
use crate::arch::registers::{OUTPUT_QUEUE_BASE, OUTPUT_QUEUE_CONS, OUTPUT_QUEUE_PROD, Register32, Register64};
use crate::memory::DmaMemory;
use crate::platform::Platform;

/// PROD's OVFLG and CONS's OVACKFLG: an overflow is there while they differ.
const OVERFLOW: u32 = 1 << 31;

/// What tells one queue of records from another.
#[derive(Debug)]
pub(super) struct QueueRegisters {
    pub(super) base: Register64<OUTPUT_QUEUE_BASE::Register>,
    pub(super) producer: Register32<OUTPUT_QUEUE_PROD::Register>,
    pub(super) consumer: Register32<OUTPUT_QUEUE_CONS::Register>,
    /// Its field of CR0.
    pub(super) enable: u32,
    /// Whether nothing is recorded any more until an overflow is acknowledged. Then that happens when all that came
    /// before has been taken, so that what was lost lies between two records and not among them.
    pub(super) blocked_by_overflow: bool,
}

/// A queue of records of `WORDS` words.
#[derive(Debug)]
pub(super) struct RecordQueue<P: Platform, const WORDS: usize> {
    registers: &'static QueueRegisters,
    memory: DmaMemory<P>,
    ring: Ring,
    coherent: bool,
    consumer: Mutex<P::Lock, Consumer>,
}

/// What those who take records share under the lock.
#[derive(Debug)]
struct Consumer {
    /// CONS as last written, OVACKFLG included.
    value: u32,
    /// PROD while the queue is switched off, when its registers mean nothing.
    parked: Option<u32>,
    /// Whether it is to be on while the SMMU runs.
    wanted: bool,
}

/// What one look at a queue brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drained {
    pub(super) records: u32,
    pub(super) overflowed: bool,
    pub(super) inconsistent: bool,
}

/// What one look at the oldest slot found.
enum Next<const WORDS: usize> {
    Record([u64; WORDS]),
    Empty,
    /// PROD contradicts CONS; the queue was taken for empty from there on.
    Inconsistent,
}

impl<P: Platform, const WORDS: usize> RecordQueue<P, WORDS> {
    /// Allocates a queue of `2^log2_entries` records.
    pub(super) fn new(
        platform: &'static P,
        registers: &'static QueueRegisters,
        log2_entries: u8,
        coherent: bool,
    ) -> Result<Self, DeviceError> {
        let ring = Ring::new(log2_entries);
        let size_bytes = ring.entries() as usize * WORDS * size_of::<u64>();
        // The hardware takes the base's low bits for zero: align it to the queue's size, at least 32 bytes.
        let memory = DmaMemory::allocate(platform, size_bytes, size_bytes.max(32))?;
        if !coherent {
            // The zeroes must not be evicted from a cache later on, over a record.
            memory.clean(0, memory.words().len());
        }
        let consumer = Mutex::new(Consumer { value: 0, parked: Some(0), wanted: false });
        Ok(Self { registers, memory, ring, coherent, consumer })
    }

    /// Switches the queue on, with the records that were in it when it was parked. Does nothing if it is on. If it fails the
    /// queue stays parked.
    pub(super) fn start(&self, control: &Control<P>) -> Result<(), DeviceError> {
        let mut consumer = self.consumer.lock();
        consumer.wanted = true;
        let Some(producer) = consumer.parked.take() else { return Ok(()) };
        control.write64(self.registers.base, queue_base(self.memory.physical(), self.ring));
        control.write(self.registers.producer, producer);
        control.write(self.registers.consumer, consumer.value);
        drop(consumer);
        control.enables.set(control, self.registers.enable).inspect_err(|_| {
            // The first error is the one to know.
            let _ = control.enables.clear(control, self.registers.enable);
            self.park(control);
        })
    }

    /// Switches the queue on if it was on before.
    pub(super) fn restart(&self, control: &Control<P>) -> Result<(), DeviceError> {
        let wanted = self.consumer.lock().wanted;
        if wanted { self.start(control) } else { Ok(()) }
    }

    /// Keeps what is in the queue, which the SMMU has switched off and whose registers may lose their contents.
    pub(super) fn park(&self, control: &Control<P>) {
        let mut consumer = self.consumer.lock();
        if consumer.parked.is_none() {
            let producer = control.read(self.registers.producer).get();
            control.platform().read_barrier();
            // A producer that makes no sense leaves nothing worth keeping.
            let sensible = self.ring.used(producer, consumer.value).map_or(consumer.value, |_| producer);
            consumer.parked = Some(self.ring.wrapped(sensible) | sensible & OVERFLOW);
        }
    }

    /// Empties the queue and has the SMMU begin anew: what an aborted write left there cannot be told from records.
    pub(super) fn rebuild(&self, control: &Control<P>) -> Result<(), DeviceError> {
        control.enables.clear(control, self.registers.enable)?;
        let mut consumer = self.consumer.lock();
        (consumer.value, consumer.parked) = (0, Some(0));
        drop(consumer);
        self.restart(control)
    }

    /// Whether every slot holds a record.
    pub(super) fn is_full(&self, control: &Control<P>) -> bool {
        let consumer = self.consumer.lock();
        let producer = consumer.parked.unwrap_or_else(|| control.read(self.registers.producer).get());
        self.ring.used(producer, consumer.value) == Some(self.ring.entries())
    }

    /// Never gives the queue's memory back: the SMMU may still reach it.
    pub(super) fn keep(&self) {
        self.memory.keep();
    }

    /// Bytes of DMA memory that the queue takes.
    pub(super) fn size_bytes(&self) -> usize {
        self.memory.size_bytes()
    }

    /// Hands the waiting records to `handler`, at most one queue's worth, outside any lock.
    pub(super) fn drain(&self, control: &Control<P>, mut handler: impl FnMut([u64; WORDS])) -> Drained {
        let mut drained = Drained::default();
        for _ in 0..self.ring.entries() {
            match self.take(control, &mut drained.overflowed) {
                Next::Record(words) => {
                    drained.records = drained.records.saturating_add(1);
                    handler(words);
                }
                Next::Empty => break,
                Next::Inconsistent => {
                    drained.inconsistent = true;
                    break;
                }
            }
        }
        drained
    }

    /// Takes the oldest record and gives its slot back, acknowledging an overflow on the way.
    fn take(&self, control: &Control<P>, overflowed: &mut bool) -> Next<WORDS> {
        let mut consumer = self.consumer.lock();
        let before = consumer.value;
        let producer = consumer.parked.unwrap_or_else(|| control.read(self.registers.producer).get());
        // The record was written before the index that announced it: read it after.
        control.platform().read_barrier();
        let overflow = producer & OVERFLOW;
        *overflowed |= overflow != before & OVERFLOW;
        let (next, index) = match self.ring.used(producer, before) {
            Some(0) => (Next::Empty, self.ring.wrapped(before)),
            Some(_) => (Next::Record(self.read(before)), self.ring.next(before)),
            None => (Next::Inconsistent, self.ring.wrapped(producer)),
        };
        let waits = self.registers.blocked_by_overflow && index != self.ring.wrapped(producer);
        let value = index | if waits { before & OVERFLOW } else { overflow };
        if value != before {
            consumer.value = value;
            // The copy is complete before the slot is the SMMU's again.
            control.platform().read_barrier();
            if consumer.parked.is_none() {
                control.write(self.registers.consumer, value);
            }
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

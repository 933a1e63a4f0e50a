//! The event queue, global errors, interrupts (IHI 0070, 3.5.4, 3.18, 7.2 to 7.5).

use super::Machine;
use super::bits::{bit, bits, mask};
use super::dma::Transaction;
use super::laws::Law;
use super::log::{Entry, Interrupt};
use super::memory::BusError;
use super::registers::{enable, offset};
use super::ring::Ring;

/// Event numbers (IHI 0070, 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "these are the architecture's events, under the architecture's names")]
pub enum EventKind {
    Uut = 0x01,
    BadStreamid = 0x02,
    SteFetch = 0x03,
    BadSte = 0x04,
    BadAtsTreq = 0x05,
    StreamDisabled = 0x06,
    TranslForbidden = 0x07,
    BadSubstreamid = 0x08,
    CdFetch = 0x09,
    BadCd = 0x0a,
    WalkEabt = 0x0b,
    Translation = 0x10,
    AddrSize = 0x11,
    Access = 0x12,
    Permission = 0x13,
}

/// What the address of a stage 2 fault belongs to (IHI 0070, 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Cd = 0,
    Tt = 1,
    In = 2,
}

/// Why a transaction is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: EventKind,
    pub(super) stage2: bool,
    pub(super) class: Class,
    pub(super) ipa: u64,
    pub(super) fetch_address: u64,
    /// For CLASS TT: whether hardware was reading.
    pub(super) walk_reads: bool,
    /// Of an atomic access: it lacks the right to read, and SMMUv3.1 says so.
    pub(super) lacks_read: bool,
    /// For people.
    pub(super) why: &'static str,
}

impl Fault {
    pub(super) const fn new(kind: EventKind) -> Self {
        let (stage2, class) = (false, Class::In);
        Self { kind, stage2, class, ipa: 0, fetch_address: 0, walk_reads: true, lacks_read: false, why: "" }
    }

    /// Whether STE and CD decide what becomes of it: F_TRANSLATION to F_PERMISSION.
    pub(super) fn is_translation_fault(&self) -> bool {
        self.kind as u8 >= EventKind::Translation as u8
    }
}

/// An event record: four words as they are in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record(pub [u64; 4]);

impl Record {
    /// The event number.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.0[0] as u8
    }

    /// The StreamID.
    #[must_use]
    pub fn stream(&self) -> u32 {
        (self.0[0] >> 32) as u32
    }

    /// The input address, for the events that have one.
    #[must_use]
    pub fn input(&self) -> u64 {
        self.0[2]
    }

    /// Whether the transaction waits for CMD_RESUME, and under which tag.
    #[must_use]
    pub fn stall(&self) -> Option<u16> {
        bit(self.0[1], 31).then_some(self.0[1] as u16)
    }

    /// Lays a fault out (IHI 0070, 7.3), with `junk` in bits that software must not look at.
    pub(super) fn new(fault: &Fault, transaction: &Transaction, stall: Option<u16>, junk: [u64; 4]) -> Self {
        let kind = fault.kind as u64;
        let mut words = [kind | u64::from(transaction.stream) << 32, 0, 0, 0];
        if fault.kind != EventKind::StreamDisabled {
            let substream = u64::from(transaction.substream.unwrap_or(0));
            let ssv = u64::from(transaction.substream.is_some() && fault.kind != EventKind::BadSubstreamid);
            words[0] |= ssv << 11 | substream << 12;
        }
        let access = u64::from(transaction.privileged) << 33
            | u64::from(transaction.instruction) << 34
            | u64::from(!transaction.writes || fault.lacks_read) << 35;
        let stage = u64::from(fault.stage2) << 39 | (fault.class as u64) << 40;
        // The bits that mean something.
        let mut meaning = [mask(63, 32) | mask(31, 11) | 0xff, 0, 0, 0];
        match fault.kind {
            EventKind::SteFetch | EventKind::CdFetch => {
                words[3] = fault.fetch_address & mask(55, 3);
                meaning[3] = mask(55, 3);
            }
            EventKind::TranslForbidden => {
                words[1] = u64::from(!transaction.writes) << 35;
                words[2] = transaction.address;
                (meaning[1], meaning[2]) = (1 << 35, !0);
            }
            EventKind::BadAtsTreq => {
                words[1] = u64::from(transaction.privileged) << 28 | u64::from(transaction.writes) << 30 | 1 << 31;
                words[2] = transaction.address & !0xfff;
                (meaning[1], meaning[2]) = (mask(31, 28), !0xfff);
            }
            EventKind::WalkEabt => {
                words[1] = access | stage;
                words[2] = transaction.address;
                words[3] = fault.fetch_address & mask(55, 3);
                (meaning[1], meaning[2], meaning[3]) = (mask(41, 39) | mask(35, 33), !0, mask(55, 3));
            }
            _ if fault.is_translation_fault() => {
                words[1] = access | stage | u64::from(fault.walk_reads && fault.class == Class::Tt) << 44;
                words[1] |= stall.map_or(0, |tag| 1 << 31 | u64::from(tag));
                words[2] = transaction.address;
                words[3] = if fault.stage2 { fault.ipa & mask(55, 12) } else { 0 };
                (meaning[1], meaning[2]) = (mask(44, 39) | mask(35, 33) | mask(31, 0), !0);
                meaning[3] = if fault.stage2 { mask(55, 12) } else { 0 };
            }
            _ => {}
        }
        Self(std::array::from_fn(|index| words[index] | junk[index] & !meaning[index]))
    }
}

/// The errors of GERROR, by bit (IHI 0070, 6.3.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "these are the architecture's errors, under the architecture's names")]
pub enum GlobalError {
    Cmdq = 0,
    EventqAbt = 2,
    PriqAbt = 3,
    MsiCmdq = 4,
    MsiEventq = 5,
    MsiPriq = 6,
    MsiGerror = 7,
    Sfm = 8,
}

impl GlobalError {
    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl Machine {
    /// Raises a global error, unless it is active already (IHI 0070, 7.5).
    pub(super) fn raise(&mut self, error: GlobalError) {
        if self.registers.active_errors() & error.bit() == 0 {
            self.registers.set(offset::GERROR, self.registers.get(offset::GERROR) ^ error.bit());
            if error != GlobalError::MsiGerror {
                self.interrupt(Interrupt::Gerror);
            }
        }
    }

    /// Raises an interrupt if it is enabled: wired, and as a message if there is an address for it.
    pub(super) fn interrupt(&mut self, source: Interrupt) {
        let (enable, config, failure) = match source {
            Interrupt::Gerror => (enable::GERROR_IRQEN, offset::GERROR_IRQ_CFG0, GlobalError::MsiGerror),
            Interrupt::Eventq => (enable::EVENTQ_IRQEN, offset::EVENTQ_IRQ_CFG0, GlobalError::MsiEventq),
            Interrupt::Priq => (enable::PRIQ_IRQEN, offset::PRIQ_IRQ_CFG0, GlobalError::MsiPriq),
            Interrupt::CmdSync => return,
        };
        if self.registers.get(offset::IRQ_CTRLACK) & enable == 0 {
            return;
        }
        let address = self.registers.get64(config) & mask(51, 2);
        if self.config.msi && address != 0 && self.send_message(address, self.registers.get(config + 8)).is_err() {
            self.raise(failure);
        }
        self.log.push(Entry::Interrupt(source));
    }

    /// Writes 32 bits to memory.
    pub(super) fn send_message(&mut self, address: u64, data: u32) -> Result<(), BusError> {
        let shift = (address & 4) * 8;
        let view = self.queue_view();
        self.write_memory(address & !7, u64::from(data) << shift, 0xffff_ffff << shift, view)
    }

    fn event_ring(&self) -> Ring {
        Ring::of_base(self.registers.get64(offset::EVENTQ_BASE), self.config.eventqs)
    }

    /// Records an event. A stall's record waits for space, others are dropped without (IHI 0070, 3.5.4 and 7.4).
    pub(super) fn record(&mut self, record: Record) {
        let ring = self.event_ring();
        let (producer, consumer) = (self.registers.get(offset::EVENTQ_PROD), self.registers.get(offset::EVENTQ_CONS));
        let used = ring.distance(producer, consumer);
        let broken = self.registers.active_errors() & GlobalError::EventqAbt.bit() != 0;
        if !self.registers.enabled(enable::EVENTQEN) || broken {
            return self.log.push(Entry::EventDropped(record));
        }
        if used >= ring.entries() || self.faults.event_queue_full {
            if record.stall().is_some() {
                return self.waiting_events.push(record);
            }
            // Toggled unless an overflow is there that software has not acknowledged.
            if !bit((producer ^ consumer).into(), 31) {
                self.registers.set(offset::EVENTQ_PROD, producer ^ 1 << 31);
            }
            return self.log.push(Entry::EventDropped(record));
        }
        let base = ring.base(self.registers.get64(offset::EVENTQ_BASE), 32);
        let slot = base + u64::from(ring.slot(producer)) * 32;
        let view = self.queue_view();
        let written =
            (0..4).try_for_each(|word| self.write_memory(slot + word * 8, record.0[word as usize], u64::MAX, view));
        if written.is_err() {
            self.log.push(Entry::EventDropped(record));
            return self.raise(GlobalError::EventqAbt);
        }
        let next = ring.wrapped(producer.wrapping_add(1)) | producer & 1 << 31;
        self.registers.set(offset::EVENTQ_PROD, next);
        self.log.push(Entry::Event(record));
        if used == 0 {
            self.interrupt(Interrupt::Eventq);
        }
    }

    /// A write of EVENTQ_CONS or PRIQ_CONS: forward, no further than PROD; OVACKFLG follows OVFLG (IHI 0070, 3.5).
    pub(super) fn write_consumer(&mut self, register: usize, value: u32) {
        let is_events = register == offset::EVENTQ_CONS;
        let (producer_register, enabled, base, limit) = if is_events {
            (offset::EVENTQ_PROD, enable::EVENTQEN, offset::EVENTQ_BASE, self.config.eventqs)
        } else {
            (offset::PRIQ_PROD, enable::PRIQEN, offset::PRIQ_BASE, self.config.priqs)
        };
        let (old, producer) = (self.registers.get(register), self.registers.get(producer_register));
        self.registers.set(register, value);
        if !self.registers.enabled(enabled) {
            return;
        }
        let ring = Ring::of_base(self.registers.get64(base), limit);
        let index = bits(value.into(), 19, 0) as u32;
        let (before, after) = (ring.distance(producer, old), ring.distance(producer, value));
        let acknowledges = [old, producer].iter().any(|known| known >> 31 == value >> 31);
        if ring.wrapped(index) != index || after > before || !acknowledges {
            let details = format!("CONS at {register:#x} went from {old:#x} to {value:#x} with PROD {producer:#x}");
            self.violation(Law::QueueIndex, details);
        }
        if after != before {
            self.check_consuming(register);
        }
        if is_events {
            for record in std::mem::take(&mut self.waiting_events) {
                self.record(record);
            }
        }
    }
}

//! The way of a transaction: StreamID, SubstreamID, stages, memory (IHI 0070, 3.3, 3.12 and 7.3.22).

use super::super::Machine;
use super::super::bits::bit;
use super::super::events::{Class, EventKind, Fault, Record};
use super::super::log::Entry;
use super::super::memory::BusError;
use super::super::registers::{enable, offset};
use super::super::structures::{Ste, StreamConfig};
use super::super::walk::{Intent, Leaf, MemoryType, Permissions};

/// How many transactions speculation goes by.
const RECENT: usize = 4;

/// What a device puts on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Transaction {
    pub(in super::super) stream: u32,
    pub(in super::super) substream: Option<u32>,
    pub(in super::super) address: u64,
    pub(in super::super) reads: bool,
    pub(in super::super) writes: bool,
    pub(in super::super) privileged: bool,
    pub(in super::super) instruction: bool,
}

impl Transaction {
    /// Whether it reads and writes in one step.
    fn is_atomic(&self) -> bool {
        self.reads && self.writes
    }

    /// What it brings if it goes nowhere without an error.
    pub(super) fn read_as_zero(&self, data: &mut [u8]) {
        if self.reads {
            data.fill(0);
        }
    }
}

/// What becomes of a transaction that faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Policy {
    pub(in super::super) record: bool,
    pub(in super::super) abort: bool,
    pub(in super::super) stall: bool,
}

impl Policy {
    /// For everything that STE and CD have no say in.
    const ABORT: Self = Self { record: true, abort: true, stall: false };
    /// As a stream whose STE says so.
    const SILENT: Self = Self { record: false, abort: true, stall: false };

    fn of_stage2(ste: &Ste) -> Self {
        Self { record: ste.s2r(), abort: true, stall: ste.s2s() }
    }
}

/// How a transaction passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Passage {
    /// To this physical address.
    To(u64),
    /// Nowhere, without an error: reads give zero, writes are ignored.
    ReadsAsZero,
    Aborted,
    /// It waits under this tag.
    Stalled(u16),
}

/// A fault and what to do about it.
pub(in super::super) type Failure = (Fault, Policy);

impl Machine {
    /// Takes a transaction through the SMMU, and records what has to be recorded.
    pub(in super::super) fn pass(&mut self, transaction: &Transaction) -> Passage {
        if self.is_stopped() {
            return Passage::Aborted;
        }
        if !self.registers.enabled(enable::SMMUEN) {
            // GBPA.ABORT, or bypass within the output size, without an event (IHI 0070, 6.3.15).
            let aborts = bit(self.registers.get(offset::GBPA).into(), 20);
            let too_large = transaction.address >> self.config.oas_bits() != 0;
            return if aborts || too_large { Passage::Aborted } else { Passage::To(transaction.address) };
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(*transaction);
        let mut seen = *transaction;
        match self.translate(&mut seen) {
            Ok(leaf) => Passage::To(leaf.translate(seen.address)),
            Err(failure) => self.fail(&seen, failure),
        }
    }

    /// Translates once more what was translated lately, as hardware may at any time, and keeps what comes out.
    pub(in super::super) fn speculate(&mut self) {
        if self.caches.is_greedy() && self.registers.enabled(enable::SMMUEN) {
            for mut transaction in self.recent.clone() {
                // Speculation reads; what faults is forgotten.
                (transaction.reads, transaction.writes) = (true, false);
                let _ = self.translate(&mut transaction);
            }
        }
    }

    /// Records a fault and says what becomes of its transaction.
    fn fail(&mut self, transaction: &Transaction, (fault, policy): Failure) -> Passage {
        if let Some(tag) = policy.stall.then(|| self.stall_tag(transaction.stream)).flatten() {
            let record = Record::new(&fault, transaction, Some(tag), self.junk());
            self.record(record);
            return Passage::Stalled(tag);
        }
        let recorded = policy.record && (fault.kind != EventKind::BadStreamid || bit(self.active_cr2.into(), 1));
        if recorded {
            let record = Record::new(&fault, transaction, None, self.junk());
            self.record(record);
        }
        if policy.abort || self.config.term_model { Passage::Aborted } else { Passage::ReadsAsZero }
    }

    /// Deals with a fault that a Translated transaction met at stage 2.
    pub(super) fn fail_stage2(&mut self, ste: &Ste, transaction: &Transaction, fault: Fault) -> Passage {
        self.fail(transaction, of_stream(fault, Policy::of_stage2(ste)))
    }

    /// Translates a transaction with SMMUEN 1. Its attributes are overridden on the way as the STE says.
    pub(in super::super) fn translate(&mut self, transaction: &mut Transaction) -> Result<Leaf, Failure> {
        let plain = |fault: Fault| (fault, Policy::ABORT);
        let stream = transaction.stream;
        let ste = self.legal_ste(stream).map_err(plain)?;
        let config = ste.config();
        if config == StreamConfig::Abort {
            return Err((Fault::new(EventKind::StreamDisabled), Policy::SILENT));
        }
        if self.config.attr_perms_ovr {
            let overridden = ste.override_permissions(transaction.privileged, transaction.instruction);
            (transaction.privileged, transaction.instruction) = overridden;
        }
        transaction.instruction &= !transaction.writes;
        let address = transaction.address;
        let intent = Intent {
            reads: transaction.reads,
            writes: transaction.writes,
            privileged: transaction.privileged,
            instruction: transaction.instruction,
        };
        let bypass = |bits: u32| match address >> bits {
            0 => Ok(passing(address)),
            _ => Err(plain(Fault { why: "input beyond the size", ..Fault::new(EventKind::AddrSize) })),
        };
        let context = self.context_of(&ste, transaction.substream).map_err(plain)?;
        let stage2_policy = Policy::of_stage2(&ste);
        match context {
            Some(index) => {
                let cd = self.legal_cd(stream, &ste, index).map_err(|fault| of_stream(fault, stage2_policy))?;
                let stage1_policy = Policy { record: cd.records(), abort: cd.aborts(), stall: cd.stalls() };
                let result = self.walk_stage1(&ste, &cd, address, &intent);
                result.map_err(|fault| of_stream(fault, if fault.stage2 { stage2_policy } else { stage1_policy }))
            }
            None if config.stage2() => {
                bypass(self.config.ias_bits())?;
                let result = self.walk_stage2(&ste, address, &intent, Class::In);
                result.map_err(|fault| of_stream(fault, stage2_policy))
            }
            None if config == StreamConfig::Bypass => bypass(self.config.oas_bits()),
            None => bypass(self.config.ias_bits()),
        }
    }

    /// Which context of a stream a transaction uses, or none where stage 1 is bypassed (IHI 0070, 3.3.2).
    pub(super) fn context_of(&self, ste: &Ste, substream: Option<u32>) -> Result<Option<u32>, Fault> {
        let log2_contexts = ste.log2_contexts(&self.config);
        let default_is_context = log2_contexts != 0 && ste.s1dss() == 2;
        match substream {
            None if !ste.config().stage1() => Ok(None),
            None if log2_contexts == 0 || default_is_context => Ok(Some(0)),
            None if ste.s1dss() == 1 => Ok(None),
            None => Err(Fault::new(EventKind::StreamDisabled)),
            Some(index) => {
                if !ste.config().stage1() || log2_contexts == 0 || u64::from(index) >> log2_contexts != 0 {
                    return Err(Fault::new(EventKind::BadSubstreamid));
                }
                if index == 0 && default_is_context {
                    return Err(Fault::new(EventKind::StreamDisabled));
                }
                Ok(Some(index))
            }
        }
    }

    /// Reads or writes memory at the end of a passage, within one page. What it read comes back. Whether it worked.
    pub(in super::super) fn access(&mut self, transaction: &Transaction, physical: u64, data: &mut [u8]) -> bool {
        let done = match <&mut [u8; 8]>::try_from(&mut *data) {
            Ok(word) if transaction.is_atomic() => self.add(physical, word).is_ok(),
            _ => self.copy(transaction, physical, data),
        };
        let physical = done.then_some(physical);
        let (stream, address) = (transaction.stream, transaction.address);
        self.log.push(Entry::Transaction { stream, address, physical });
        done
    }

    /// Adds `word` to the one at `physical`, which it brings back.
    fn add(&mut self, physical: u64, word: &mut [u8; 8]) -> Result<(), BusError> {
        let old = self.read_data(physical)?;
        self.write_data(physical, old.wrapping_add(u64::from_le_bytes(*word)), u64::MAX)?;
        *word = old.to_le_bytes();
        Ok(())
    }

    fn copy(&mut self, transaction: &Transaction, physical: u64, data: &mut [u8]) -> bool {
        let mut done = true;
        for (index, byte) in data.iter_mut().enumerate() {
            let address = physical + index as u64;
            let shift = (address & 7) * 8;
            if transaction.writes {
                done &= self.write_data(address & !7, u64::from(*byte) << shift, 0xff << shift).is_ok();
            } else {
                match self.read_data(address & !7) {
                    Ok(word) => *byte = (word >> shift) as u8,
                    Err(_) => done = false,
                }
            }
        }
        done
    }
}

/// A translation that changes nothing.
fn passing(address: u64) -> Leaf {
    Leaf {
        input: address & !0xfff,
        log2_bytes: 12,
        level: 3,
        output: address & !0xfff,
        intermediate: address & !0xfff,
        stage1: Permissions::ALL,
        stage2: Permissions::ALL,
        clean: false,
        access_flag: true,
        not_global: false,
        memory_attributes: 0,
        memory: MemoryType::CACHED,
    }
}

/// STE and CD decide about the translation faults of a stream; all others abort and are recorded.
fn of_stream(fault: Fault, policy: Policy) -> Failure {
    (fault, if fault.is_translation_fault() { policy } else { Policy::ABORT })
}

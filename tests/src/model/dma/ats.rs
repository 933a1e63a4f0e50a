//! ATS: translation requests, the device's own cache, Translated transactions (IHI 0070, 3.9 and 7.3).

use std::ops::RangeInclusive;

use super::super::Machine;
use super::super::bits::bit;
use super::super::events::{EventKind, Fault, Record};
use super::super::registers::enable;
use super::super::structures::{Ste, StreamConfig};
use super::super::walk::Intent;
use super::Transaction;

/// What the SMMU answered to a translation request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtsTranslation {
    /// Where the address leads.
    pub physical: u64,
    /// Whether the device may read there.
    pub read: bool,
    /// Whether the device may write there.
    pub write: bool,
}

/// The request was answered with Unsupported Request or Completer Abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported;

/// A translation in a device's ATC.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct AtcEntry {
    pub(in super::super) stream: u32,
    substream: Option<u32>,
    /// The page in question.
    input: u64,
    pub(in super::super) output: u64,
    write: bool,
}

impl Machine {
    /// Answers a translation request (IHI 0070, 7.3, and 3.9.1).
    pub(super) fn answer_ats(&mut self, transaction: &Transaction) -> Result<AtsTranslation, Unsupported> {
        let unsupported = |machine: &mut Self| {
            let fault = Fault::new(EventKind::BadAtsTreq);
            let record = Record::new(&fault, transaction, None, machine.junk());
            machine.record(record);
            Err(Unsupported)
        };
        if !self.registers.enabled(enable::SMMUEN) || !self.config.ats {
            return unsupported(self);
        }
        // A configuration error is answered with Completer Abort.
        let ste = self.legal_ste(transaction.stream).map_err(|fault| self.note_configuration(&fault, transaction))?;
        match ste.config() {
            StreamConfig::Abort => return Err(Unsupported),
            StreamConfig::Bypass => return unsupported(self),
            _ if ste.eats() == 0 => return unsupported(self),
            _ => {}
        }
        // Whether it may write is asked for; that it cannot is an answer, not a fault.
        let mut reading = Transaction { writes: false, reads: true, ..*transaction };
        let Ok(leaf) = self.translate(&mut reading) else {
            return Ok(AtsTranslation { physical: 0, read: false, write: false });
        };
        let mut writing = Transaction { writes: true, reads: false, ..*transaction };
        let write = transaction.writes && self.translate(&mut writing).is_ok();
        let intent = Intent { reads: true, writes: false, privileged: reading.privileged, instruction: false };
        let page = transaction.address & !0xfff;
        let physical = leaf.translate(page);
        self.atcs.push(AtcEntry {
            stream: transaction.stream,
            substream: transaction.substream,
            input: page,
            output: physical,
            write,
        });
        Ok(AtsTranslation { physical, read: leaf.stage1.permit(&intent), write })
    }

    /// Where a transaction ends up that the device has translated, if it has and the SMMU lets it through.
    pub(super) fn pass_translated(&mut self, transaction: &Transaction) -> Option<u64> {
        let page = transaction.address & !0xfff;
        let mine = |entry: &&AtcEntry| {
            entry.stream == transaction.stream && entry.substream == transaction.substream && entry.input == page
        };
        let entry = self.atcs.iter().rev().find(mine).copied()?;
        if transaction.writes && !entry.write {
            return None;
        }
        let physical = entry.output | (transaction.address & 0xfff);
        self.permits_translated(&Transaction { address: physical, ..*transaction }).then_some(physical)
    }

    /// Whether the SMMU lets a Translated transaction through, whose address is physical.
    pub(super) fn permits_translated(&mut self, transaction: &Transaction) -> bool {
        let stopped = self.faults.service_failure || self.faults.registers_read_ones;
        let forbidden = if stopped || !self.config.ats || !self.registers.enabled(enable::SMMUEN) {
            true
        } else if self.registers.enabled(enable::ATSCHK) {
            match self.legal_ste(transaction.stream) {
                Err(fault) => {
                    self.note_configuration(&fault, transaction);
                    return false;
                }
                // Config 000 aborts without an event.
                Ok(ste) if ste.config() == StreamConfig::Abort => return false,
                Ok(ste) => !permits_ats(&ste),
            }
        } else {
            false
        };
        if forbidden {
            let record = Record::new(&Fault::new(EventKind::TranslForbidden), transaction, None, self.junk());
            self.record(record);
        }
        !forbidden
    }

    /// Records a configuration error that ATS traffic met, if software wants to know (CR2.REC_CFG_ATS).
    fn note_configuration(&mut self, fault: &Fault, transaction: &Transaction) -> Unsupported {
        let wanted = self.config.atsrecerr && bit(self.active_cr2.into(), 3);
        if wanted && (fault.kind != EventKind::BadStreamid || bit(self.active_cr2.into(), 1)) {
            let record = Record::new(fault, transaction, None, self.junk());
            self.record(record);
        }
        Unsupported
    }

    /// Whether a device could get through with what its ATC holds: as the SMMU may have the STE, cached or in memory.
    pub(in super::super) fn believes(&self, stream: u32) -> bool {
        let in_memory = self.peek_ste(stream).map(|(_, ste)| ste);
        let permits =
            |ste: Option<Ste>| ste.is_some_and(|ste| ste.illegal(&self.config).is_none() && permits_ats(&ste));
        self.registers.enabled(enable::SMMUEN)
            && (!self.registers.enabled(enable::ATSCHK) || permits(in_memory) || permits(self.caches.peek_ste(stream)))
    }

    /// CMD_ATC_INV. Without a SubstreamID it names translations that have none, unless it is global.
    pub(in super::super) fn invalidate_endpoint(
        &mut self,
        stream: u32,
        substream: Option<u32>,
        global: bool,
        range: RangeInclusive<u64>,
    ) {
        self.atcs.retain(|entry| {
            let mine = entry.stream == stream && (global || entry.substream == substream);
            !(mine && range.contains(&entry.input))
        });
    }
}

/// Whether an STE lets its device use what it has translated (IHI 0070, 3.9.2 and 5.2).
fn permits_ats(ste: &Ste) -> bool {
    (ste.config().stage1() || ste.config().stage2()) && ste.eats() != 0
}

//! ATS: translation requests, the device's own cache, Translated transactions (IHI 0070, 3.9 and 7.3).

use std::ops::RangeInclusive;

use super::super::Machine;
use super::super::bits::bit;
use super::super::events::{Class, EventKind, Fault, Record};
use super::super::registers::enable;
use super::super::structures::{Ste, StreamConfig};
use super::super::walk::Intent;
use super::Transaction;

/// What the SMMU answered to a translation request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtsTranslation {
    /// Where the address leads: an intermediate address with split-stage ATS (STE.EATS 2).
    pub physical: u64,
    /// Whether the device may read there.
    pub read: bool,
    /// Whether the device may write there.
    pub write: bool,
}

/// Why a translation request got no translation (IHI 0070, 3.9.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtsRefused {
    /// The stream has no ATS.
    UnsupportedRequest,
    /// Its configuration is in error, or a table could not be read.
    CompleterAbort,
}

/// A translation in a device's ATC.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct AtcEntry {
    pub(in super::super) stream: u32,
    substream: Option<u32>,
    /// The page in question.
    input: u64,
    pub(in super::super) output: u64,
    /// With split-stage ATS `output` is translated once more.
    pub(in super::super) intermediate: bool,
    read: bool,
    write: bool,
}

impl Machine {
    /// Answers a translation request (IHI 0070, 7.3, and 3.9.1).
    pub(super) fn answer_ats(&mut self, transaction: &Transaction) -> Result<AtsTranslation, AtsRefused> {
        if self.is_stopped() {
            return Err(AtsRefused::CompleterAbort);
        }
        if !self.registers.enabled(enable::SMMUEN) || !self.config.ats {
            return Err(self.bad_request(transaction));
        }
        let ste = match self.legal_ste(transaction.stream) {
            Ok(ste) => ste,
            Err(fault) => return Err(self.complete_with_abort(&fault, transaction)),
        };
        if ste.config() == StreamConfig::Abort {
            return Err(AtsRefused::UnsupportedRequest);
        }
        if !permits_ats(&ste) {
            return Err(self.bad_request(transaction));
        }
        let page = Transaction { address: transaction.address & !0xfff, ..*transaction };
        let readable = self.translate_for_device(&ste, Transaction { reads: true, writes: false, ..page })?;
        // Whether it may write is told to who asks for it.
        let writable = match transaction.writes {
            true => self.translate_for_device(&ste, Transaction { reads: false, writes: true, ..page })?,
            false => None,
        };
        let (read, write) = (readable.is_some(), writable.is_some());
        let Some(output) = readable.or(writable) else { return Ok(AtsTranslation { physical: 0, read, write }) };
        let (stream, substream, input) = (transaction.stream, transaction.substream, page.address);
        self.atcs.push(AtcEntry { stream, substream, input, output, intermediate: is_split(&ste), read, write });
        Ok(AtsTranslation { physical: output, read, write })
    }

    /// Where a device gets that asks so, if it may: faults of the translation are no errors (IHI 0070, 3.9.1.2). Split-stage
    /// ATS has stage 1 alone.
    fn translate_for_device(&mut self, ste: &Ste, mut asking: Transaction) -> Result<Option<u64>, AtsRefused> {
        let (split, page) = (is_split(ste), asking.address);
        if split && self.context_of(ste, asking.substream) == Ok(None) {
            return Ok(Some(page));
        }
        match self.translate(&mut asking) {
            Ok(leaf) if split => Ok(Some(leaf.intermediate | page & ((1 << leaf.log2_bytes) - 1))),
            Ok(leaf) => Ok(Some(leaf.translate(page))),
            // Stage 1 was through with it.
            Err((fault, _)) if split && fault.stage2 && fault.class == Class::In => Ok(Some(fault.ipa & !0xfff)),
            Err((fault, _)) if fault.is_translation_fault() => Ok(None),
            Err((fault, _)) => Err(self.complete_with_abort(&fault, &asking)),
        }
    }

    fn bad_request(&mut self, transaction: &Transaction) -> AtsRefused {
        let record = Record::new(&Fault::new(EventKind::BadAtsTreq), transaction, None, self.junk());
        self.record(record);
        AtsRefused::UnsupportedRequest
    }

    fn complete_with_abort(&mut self, fault: &Fault, transaction: &Transaction) -> AtsRefused {
        self.note_configuration(fault, transaction);
        AtsRefused::CompleterAbort
    }

    /// Where a transaction ends up that the device has translated, if it has and the SMMU lets it through.
    pub(super) fn pass_through_atc(&mut self, transaction: &Transaction) -> Option<u64> {
        let page = transaction.address & !0xfff;
        let mine = |entry: &&AtcEntry| {
            entry.stream == transaction.stream && entry.substream == transaction.substream && entry.input == page
        };
        let entry = self.atcs.iter().rev().find(mine).copied()?;
        if transaction.writes && !entry.write || transaction.reads && !entry.read {
            return None;
        }
        self.pass_translated(&Transaction { address: entry.output | (transaction.address & 0xfff), ..*transaction })
    }

    /// Where a Translated transaction ends up, if the SMMU lets it through. Its address is physical, or intermediate with
    /// split-stage ATS.
    pub(super) fn pass_translated(&mut self, transaction: &Transaction) -> Option<u64> {
        if self.is_stopped() {
            return None;
        }
        if !self.config.ats || !self.registers.enabled(enable::SMMUEN) {
            return self.forbid(transaction);
        }
        if !self.registers.enabled(enable::ATSCHK) {
            return Some(transaction.address);
        }
        match self.legal_ste(transaction.stream) {
            Err(fault) => {
                self.note_configuration(&fault, transaction);
                None
            }
            // Config 000 aborts without an event.
            Ok(ste) if ste.config() == StreamConfig::Abort => None,
            Ok(ste) if !permits_ats(&ste) => self.forbid(transaction),
            Ok(ste) if is_split(&ste) => self.pass_stage2(&ste, transaction),
            Ok(_) => Some(transaction.address),
        }
    }

    fn forbid(&mut self, transaction: &Transaction) -> Option<u64> {
        let record = Record::new(&Fault::new(EventKind::TranslForbidden), transaction, None, self.junk());
        self.record(record);
        None
    }

    /// The second stage of split-stage ATS, which aborts and records as for any other transaction.
    fn pass_stage2(&mut self, ste: &Ste, transaction: &Transaction) -> Option<u64> {
        let Transaction { address, reads, writes, privileged, .. } = *transaction;
        let intent = Intent { reads, writes, privileged, instruction: false };
        match self.walk_stage2(ste, address, &intent, Class::In) {
            Ok(leaf) => Some(leaf.translate(address)),
            Err(fault) => {
                self.fail_stage2(ste, transaction, fault);
                None
            }
        }
    }

    /// Whether nothing gets through, and nothing is said about it.
    pub(super) fn is_stopped(&self) -> bool {
        self.faults.service_failure || self.faults.registers_read_ones
    }

    /// Records a configuration error that ATS traffic met, if software wants to know (CR2.REC_CFG_ATS).
    fn note_configuration(&mut self, fault: &Fault, transaction: &Transaction) {
        let wanted = self.config.atsrecerr && bit(self.active_cr2.into(), 3);
        if wanted && (fault.kind != EventKind::BadStreamid || bit(self.active_cr2.into(), 1)) {
            let record = Record::new(fault, transaction, None, self.junk());
            self.record(record);
        }
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

/// Whether an STE lets its device use what it has translated: STE.EATS counts where there is a stage (IHI 0070, 5.2).
fn permits_ats(ste: &Ste) -> bool {
    (ste.config().stage1() || ste.config().stage2()) && matches!(ste.eats(), 1 | 2)
}

/// Whether what devices translate goes through stage 2 once more.
fn is_split(ste: &Ste) -> bool {
    ste.eats() == 2
}

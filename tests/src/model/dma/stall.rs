//! Transactions that wait for software's decision (IHI 0070, 3.12.2 and 4.6).

use super::super::Machine;
use super::{Passage, Refused, Transaction};

/// A stalled transaction.
#[derive(Clone, Debug)]
pub(in super::super) struct Stalled {
    /// The tag of its latest record, which CMD_RESUME names.
    tag: u16,
    /// The tag of its first, by which the device knows it.
    first: u16,
    transaction: Transaction,
    data: Vec<u8>,
    /// How it ended, once software has decided.
    outcome: Option<Result<(), Refused>>,
}

impl Machine {
    /// A tag for a new stall of a stream, unless there are too many: then the fault terminates.
    pub(in super::super) fn stall_tag(&mut self, stream: u32) -> Option<u16> {
        let waiting = self.stalls.iter().filter(|stalled| stalled.outcome.is_none()).count();
        if waiting >= self.config.stall_max as usize {
            return None;
        }
        let has = |stalled: &Stalled, tag| stalled.tag == tag || stalled.first == tag;
        let in_use = |tag: &u16| self.stalls.iter().any(|s| s.transaction.stream == stream && has(s, *tag));
        (0..=u16::MAX).find(|tag| !in_use(tag))
    }

    /// Keeps a transaction that got a tag.
    pub(super) fn hold(&mut self, transaction: Transaction, tag: u16, data: &[u8]) {
        self.stalls.push(Stalled { tag, first: tag, transaction, data: data.to_vec(), outcome: None });
    }

    /// CMD_RESUME: retry, abort, or read as zero. An unknown tag is none of its business.
    pub(in super::super) fn resume(&mut self, stream: u32, tag: u16, retry: bool, abort: bool) {
        let waits = |s: &Stalled| s.transaction.stream == stream && s.tag == tag && s.outcome.is_none();
        let Some(index) = self.stalls.iter().position(waits) else { return };
        let mut stalled = self.stalls.remove(index);
        stalled.outcome = match (retry, abort || self.config.term_model) {
            (true, _) => match self.pass(&stalled.transaction) {
                Passage::To(physical) => {
                    let done = self.access(&stalled.transaction, physical, &mut stalled.data);
                    Some(if done { Ok(()) } else { Err(Refused::Aborted) })
                }
                Passage::ReadsAsZero => {
                    stalled.transaction.read_as_zero(&mut stalled.data);
                    Some(Ok(()))
                }
                Passage::Aborted => Some(Err(Refused::Aborted)),
                // It faulted again, with a new record: the device goes on asking under its first tag.
                Passage::Stalled(again) => {
                    stalled.tag = again;
                    None
                }
            },
            (false, true) => Some(Err(Refused::Aborted)),
            (false, false) => {
                stalled.transaction.read_as_zero(&mut stalled.data);
                Some(Ok(()))
            }
        };
        self.stalls.push(stalled);
    }

    /// Ends the stalls of some streams with an abort: CMD_STALL_TERM, or SMMUEN going to 0.
    pub(in super::super) fn terminate_stalls(&mut self, of: impl Fn(u32) -> bool) {
        for stalled in self.stalls.iter_mut().filter(|stalled| of(stalled.transaction.stream)) {
            stalled.outcome.get_or_insert(Err(Refused::Aborted));
        }
    }

    pub(super) fn take_outcome(&mut self, stream: u32, tag: u16) -> Option<Result<Vec<u8>, Refused>> {
        let ended = |s: &Stalled| s.transaction.stream == stream && s.first == tag && s.outcome.is_some();
        let stalled = self.stalls.remove(self.stalls.iter().position(ended)?);
        stalled.outcome.map(|outcome| outcome.map(|()| stalled.data))
    }
}

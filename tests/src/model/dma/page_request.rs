//! Page requests and their answers (IHI 0070, 8).

use super::super::Machine;
use super::super::bits::bit;
use super::super::events::GlobalError;
use super::super::log::{Entry, Interrupt};
use super::super::registers::{enable, offset};
use super::super::ring::Ring;

/// A device's request to make a page present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The address, of which the page counts.
    pub address: u64,
    /// Whether the device wants to read.
    pub read: bool,
    /// Whether the device wants to write.
    pub write: bool,
    /// Whether the device wants to read instructions.
    pub execute: bool,
    /// Whether it is the last of its group.
    pub last: bool,
    /// The page request group, 9 bits.
    pub group: u16,
}

/// An answer to a group of page requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageResponse {
    /// The SubstreamID that the answer names.
    pub substream: Option<u32>,
    /// The group.
    pub group: u16,
    /// 0 failure, 1 invalid request, 2 success, as CMD_PRI_RESP has it.
    pub code: u8,
    /// Whether the SMMU answered by itself.
    pub automatic: bool,
}

/// Who asks for a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requester {
    pub(super) stream: u32,
    pub(super) substream: Option<u32>,
    pub(super) privileged: bool,
}

impl PageRequest {
    /// Whether it only says that no more requests of a SubstreamID are under way, and wants no answer (IHI 0070, 8.1).
    fn is_stop_marker(&self, requester: &Requester) -> bool {
        self.last && !self.read && !self.write && requester.substream.is_some()
    }
}

impl Machine {
    /// Puts a request into the queue, or answers by itself (IHI 0070, 8.1 and 8.2). Whether it reached the queue.
    pub(super) fn page_request(&mut self, requester: &Requester, request: &PageRequest) -> bool {
        let enabled = self.registers.enabled(enable::PRIQEN | enable::SMMUEN);
        let broken = self.registers.active_errors() & GlobalError::PriqAbt.bit() != 0;
        if !enabled || broken {
            self.answer_by_itself(requester, false, request, 0);
            return false;
        }
        let base = self.registers.get64(offset::PRIQ_BASE);
        let ring = Ring::of_base(base, self.config.priqs);
        let (producer, consumer) = (self.registers.get(offset::PRIQ_PROD), self.registers.get(offset::PRIQ_CONS));
        let used = ring.distance(producer, consumer);
        let overflowed = bit((producer ^ consumer).into(), 31);
        if overflowed || used >= ring.entries() || self.faults.page_request_queue_full {
            if !overflowed {
                self.registers.set(offset::PRIQ_PROD, producer ^ 1 << 31);
            }
            let keeps_substream = self.config.pps || self.find_ste(requester.stream).is_ok_and(|ste| ste.ppar());
            self.answer_by_itself(requester, keeps_substream, request, 2);
            return false;
        }
        let words = record(requester, request);
        let slot = ring.base(base, 16) + u64::from(ring.slot(producer)) * 16;
        let view = self.queue_view();
        let written = (0..2u64).try_for_each(|i| self.write_memory(slot + i * 8, words[i as usize], u64::MAX, view));
        if written.is_err() {
            self.raise(GlobalError::PriqAbt);
            return false;
        }
        self.registers.set(offset::PRIQ_PROD, ring.wrapped(producer.wrapping_add(1)) | producer & 1 << 31);
        self.log.push(Entry::PageRequest(words));
        let per_group = bit(self.registers.get(offset::PRIQ_IRQ_CFG2).into(), 31);
        if if per_group { request.last } else { used == 0 } {
            self.interrupt(Interrupt::Priq);
        }
        true
    }

    fn answer_by_itself(&mut self, requester: &Requester, keeps_substream: bool, request: &PageRequest, code: u8) {
        if request.last && !request.is_stop_marker(requester) {
            let substream = requester.substream.filter(|_| keeps_substream);
            let response = PageResponse { substream, group: request.group, code, automatic: true };
            self.responses.push((requester.stream, response));
        }
    }

    /// CMD_PRI_RESP.
    pub(in super::super) fn respond(&mut self, stream: u32, substream: Option<u32>, group: u16, code: u8) {
        self.responses.push((stream, PageResponse { substream, group, code, automatic: false }));
    }

    pub(super) fn take_responses(&mut self, stream: u32) -> Vec<PageResponse> {
        let (mine, others) = std::mem::take(&mut self.responses).into_iter().partition(|(of, _)| *of == stream);
        self.responses = others;
        mine.into_iter().map(|(_, response)| response).collect()
    }
}

/// A record of the PRI queue (IHI 0070, 8.3). Privilege and execution come with a SubstreamID, or not at all.
fn record(requester: &Requester, request: &PageRequest) -> [u64; 2] {
    let Requester { stream, substream, privileged } = *requester;
    let ssv = substream.is_some();
    let flags = u64::from(ssv && privileged) << 58
        | u64::from(ssv && request.execute) << 59
        | u64::from(request.read) << 60
        | u64::from(request.write) << 61
        | u64::from(request.last) << 62
        | u64::from(ssv) << 63;
    let first = u64::from(stream) | u64::from(substream.unwrap_or(0)) << 32 | flags;
    [first, u64::from(request.group) | request.address & !0xfff]
}

//! What devices ask for and wait for: pages (PCIe PRI; IHI 0070, chapter 8), and the end of a stall (3.12.2).

use super::record_queue::{QueueRegisters, RecordQueue};
use super::{DeviceError, Smmu};
use crate::addr::StreamId;
use crate::arch::command::{Command, PriResponse, ResumeAction};
use crate::arch::event::Stag;
use crate::arch::page_request::PageRequest;
use crate::arch::registers::{CR0, PRIQ_BASE, PRIQ_CONS, PRIQ_PROD};
use crate::platform::Platform;

/// Page requests that the queue holds: 2^8 of 16 bytes are one page.
pub(super) const LOG2_PAGE_REQUESTS: u8 = 8;

/// The page request queue of one SMMU.
pub(super) type PageRequestQueue<P> = RecordQueue<P, 2>;

/// After an overflow the SMMU answers all requests itself until that is acknowledged (IHI 0070, 8.1).
pub(super) static REGISTERS: QueueRegisters = QueueRegisters {
    base: PRIQ_BASE,
    producer: PRIQ_PROD,
    consumer: PRIQ_CONS,
    enable: CR0::PRIQEN::SET.value,
    blocked_by_overflow: true,
};

/// What one look at the page request queue brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRequestDrain {
    /// Requests handed to the handler.
    pub requests: u32,
    /// Whether requests were lost because the queue was full. The SMMU has answered their groups, so forget every group
    /// whose last request has not come by the end of this drain. Acknowledged once all that came before was taken.
    pub overflowed: bool,
    /// Whether PRIQ_PROD made no sense. The queue was emptied.
    pub inconsistent: bool,
}

impl<P: Platform> Smmu<P> {
    /// Lets devices ask for pages. Until then the SMMU answers every request by itself, with failure, so that no device
    /// waits for somebody who does not look.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] without IDR0.PRI; [`DeviceError::Suspended`] and the like; [`DeviceError::Timeout`] if
    /// CR0ACK does not follow.
    pub fn enable_page_requests(&self) -> Result<(), DeviceError> {
        let Some(queue) = &self.page_requests else {
            return Err(self.features.lacks("page requests (PRI)"));
        };
        let _held = self.lifecycle.hold_running()?;
        queue.start(&self.control)
    }

    /// Hands the waiting page requests to `handler`, at most one queue's worth. Call it from the page request interrupt, or
    /// poll. Nothing comes before [`enable_page_requests`](Self::enable_page_requests).
    ///
    /// A group (stream, substream, group number) wants one [answer](Self::answer_page_requests) once its last request has
    /// come; a [stop marker](PageRequest::is_stop_marker) wants none. `handler` runs outside any lock of the SMMU.
    pub fn drain_page_requests(&self, mut handler: impl FnMut(PageRequest)) -> PageRequestDrain {
        let Some(queue) = self.page_requests.as_ref().filter(|_| !self.lifecycle.is_handed_over()) else {
            return PageRequestDrain::default();
        };
        let drained = queue.drain(&self.control, |words| handler(PageRequest::decode(words)));
        PageRequestDrain {
            requests: drained.records,
            overflowed: drained.overflowed,
            inconsistent: drained.inconsistent,
        }
    }

    /// Answers the group of page requests that `last` closed: CMD_PRI_RESP.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] without IDR0.PRI, else as any command.
    pub fn answer_page_requests(&self, last: &PageRequest, response: PriResponse) -> Result<(), DeviceError> {
        if self.page_requests.is_none() {
            return Err(self.features.lacks("page requests (PRI)"));
        }
        let PageRequest { stream, substream, group, .. } = *last;
        self.run([Command::PriResp { stream, substream, group, response }])
    }

    /// Decides about one stalled transaction: CMD_RESUME. `stag` is what its event named; a tag that nothing waits under is
    /// ignored by the SMMU.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] where nothing can stall (IDR0.STALL_MODEL is 1), else as any command.
    pub fn resume_stalled(&self, stream: StreamId, stag: Stag, action: ResumeAction) -> Result<(), DeviceError> {
        self.check_stalls()?;
        self.run([Command::Resume { stream, stag, action }])
    }

    /// Aborts all stalled transactions of a stream: CMD_STALL_TERM. For a stream that already aborts what is new, and after
    /// [lost events](super::GlobalErrorReport), when nobody knows the tags any more.
    ///
    /// # Errors
    ///
    /// As [`resume_stalled`](Self::resume_stalled).
    pub fn terminate_stalled(&self, stream: StreamId) -> Result<(), DeviceError> {
        self.check_stalls()?;
        self.run([Command::StallTerm { stream }])
    }

    fn check_stalls(&self) -> Result<(), DeviceError> {
        if self.features.stalls() {
            return Ok(());
        }
        Err(self.features.lacks("stalls (STALL_MODEL other than 1)"))
    }
}

//! A device as a test drives it.

use std::fmt;
use std::sync::Arc;

use smmu::addr::{Iova, StreamId};

use super::super::{Machine, MemoryType, Shared, lock};
use super::{AtsRefused, AtsTranslation, PageRequest, PageResponse, Passage, Requester, Transaction};

/// Transactions are split here.
const PAGE: u64 = 4096;

/// An agent behind an SMMU. The data accesses are unprivileged and without a SubstreamID, unless said otherwise.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
    stream: u32,
    substream: Option<u32>,
    privileged: bool,
}

/// Why a device did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The bus answered with an abort.
    Aborted,
    /// The transaction waits until software has decided.
    Stalled(Stall),
}

/// A transaction that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The stall tag in its first event record. If it is retried and faults again, the next record has another.
    pub tag: u16,
}

impl Device {
    pub(in super::super) fn new(shared: Arc<Shared>, stream: StreamId) -> Self {
        lock(&shared.machine).watch_stream(stream.get());
        Self { shared, stream: stream.get(), substream: None, privileged: false }
    }

    /// The same device, in one of its address spaces.
    #[must_use]
    pub fn substream(&self, substream: u32) -> Self {
        Self { substream: Some(substream), ..self.clone() }
    }

    /// The same device, with privileged transactions.
    #[must_use]
    pub fn privileged(&self) -> Self {
        Self { privileged: true, ..self.clone() }
    }

    fn transaction(&self, address: u64, reads: bool, writes: bool) -> Transaction {
        let Self { stream, substream, privileged, .. } = *self;
        Transaction { stream, substream, address, reads, writes, privileged, instruction: false }
    }

    fn machine(&self) -> std::sync::MutexGuard<'_, Machine> {
        lock(&self.shared.machine)
    }

    /// Takes a transaction through the SMMU page by page.
    fn run(&self, first: Transaction, data: &mut [u8]) -> Result<(), Refused> {
        let (mut address, mut rest) = (first.address, data);
        while !rest.is_empty() {
            let in_page = usize::try_from(PAGE - address % PAGE).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(in_page);
            let transaction = Transaction { address, ..first };
            let mut machine = self.machine();
            match machine.pass(&transaction) {
                Passage::To(physical) => {
                    if !machine.access(&transaction, physical, now) {
                        return Err(Refused::Aborted);
                    }
                }
                Passage::ReadsAsZero => transaction.read_as_zero(now),
                Passage::Aborted => return Err(Refused::Aborted),
                Passage::Stalled(tag) => {
                    machine.hold(transaction, tag, now);
                    return Err(Refused::Stalled(Stall { tag }));
                }
            }
            address = address.wrapping_add(in_page as u64);
            rest = later;
        }
        Ok(())
    }

    /// Reads memory.
    ///
    /// # Errors
    ///
    /// [`Refused`]; what was read before stays in `data`.
    pub fn read(&self, iova: Iova, data: &mut [u8]) -> Result<(), Refused> {
        self.run(self.transaction(iova.get(), true, false), data)
    }

    /// Writes memory.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the pages before the one that was refused are written.
    pub fn write(&self, iova: Iova, data: &[u8]) -> Result<(), Refused> {
        self.run(self.transaction(iova.get(), false, true), &mut data.to_vec())
    }

    /// Reads instructions.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn execute(&self, iova: Iova, data: &mut [u8]) -> Result<(), Refused> {
        let transaction = Transaction { instruction: true, ..self.transaction(iova.get(), true, false) };
        self.run(transaction, data)
    }

    /// Adds to the aligned 64-bit word at `iova` in one step, and returns what it was.
    ///
    /// # Errors
    ///
    /// [`Refused`]. Once a stalled one is through, its [`outcome`](Self::outcome) is what the word was.
    pub fn fetch_add(&self, iova: Iova, addend: u64) -> Result<u64, Refused> {
        let mut data = addend.to_le_bytes();
        self.run(self.transaction(iova.get() & !7, true, true), &mut data)?;
        Ok(u64::from_le_bytes(data))
    }

    /// The type of memory that a read of `iova` meets, if it gets there. For a device that asks for cached memory, where
    /// that counts. Leaves no event behind.
    pub fn memory_type(&self, iova: Iova) -> Option<MemoryType> {
        let mut transaction = self.transaction(iova.get(), true, false);
        self.machine().translate(&mut transaction).ok().map(|leaf| leaf.memory)
    }

    /// How a stalled transaction ended, with what it read; `None` while it waits. A tag is asked about once.
    pub fn outcome(&self, stall: Stall) -> Option<Result<Vec<u8>, Refused>> {
        self.machine().take_outcome(self.stream, stall.tag)
    }

    /// Asks for a translation by ATS and keeps it in the device's ATC.
    ///
    /// # Errors
    ///
    /// [`AtsRefused`] if the SMMU answers so.
    pub fn request_translation(&self, iova: Iova, write: bool) -> Result<AtsTranslation, AtsRefused> {
        self.machine().answer_ats(&self.transaction(iova.get(), true, write))
    }

    /// Reads through the ATC, within a page: a Translated transaction.
    ///
    /// # Errors
    ///
    /// As [`write_translated`](Self::write_translated).
    pub fn read_translated(&self, iova: Iova, data: &mut [u8]) -> Result<(), Refused> {
        self.run_translated(self.transaction(iova.get(), true, false), data, Machine::pass_through_atc)
    }

    /// Writes through the ATC, within a page: a Translated transaction.
    ///
    /// # Errors
    ///
    /// [`Refused::Aborted`] if the ATC has no such translation or the SMMU refuses.
    pub fn write_translated(&self, iova: Iova, data: &[u8]) -> Result<(), Refused> {
        let transaction = self.transaction(iova.get(), false, true);
        self.run_translated(transaction, &mut data.to_vec(), Machine::pass_through_atc)
    }

    /// Reads at an address that the device claims to have got by ATS: a Translated transaction that is made up.
    ///
    /// # Errors
    ///
    /// [`Refused::Aborted`] if the SMMU refuses.
    pub fn forge_translated_read(&self, physical: u64, data: &mut [u8]) -> Result<(), Refused> {
        self.run_translated(self.transaction(physical, true, false), data, Machine::pass_translated)
    }

    /// Writes to an address that the device claims to have got by ATS: a Translated transaction that is made up.
    ///
    /// # Errors
    ///
    /// [`Refused::Aborted`] if the SMMU refuses.
    pub fn forge_translated(&self, physical: u64, data: &[u8]) -> Result<(), Refused> {
        self.run_translated(self.transaction(physical, false, true), &mut data.to_vec(), Machine::pass_translated)
    }

    fn run_translated(
        &self,
        transaction: Transaction,
        data: &mut [u8],
        pass: fn(&mut Machine, &Transaction) -> Option<u64>,
    ) -> Result<(), Refused> {
        let mut machine = self.machine();
        let physical = pass(&mut machine, &transaction).ok_or(Refused::Aborted)?;
        if machine.access(&transaction, physical, data) { Ok(()) } else { Err(Refused::Aborted) }
    }

    /// Sends a page request (PRI). Whether it reached the queue: otherwise the SMMU answers by itself.
    pub fn request_page(&self, request: &PageRequest) -> bool {
        let Self { stream, substream, privileged, .. } = *self;
        self.machine().page_request(&Requester { stream, substream, privileged }, request)
    }

    /// The answers to page requests so far. They are handed out once.
    pub fn page_responses(&self) -> Vec<PageResponse> {
        self.machine().take_responses(self.stream)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("stream", &self.stream).finish_non_exhaustive()
    }
}

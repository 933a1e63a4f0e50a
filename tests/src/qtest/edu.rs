//! QEMU's `edu` device: a DMA engine with a buffer of 4 KiB, which is out of reach but for DMA.
//!
//! It reports no errors: when its DMA is stopped, a transfer ends as if nothing had happened, and what was read is zero.

use std::sync::Arc;
use std::time::Duration;

use smmu::addr::{Iova, StreamId};

use super::QtestError;
use super::connection::{Batch, Connection};

/// Device in the upper half, vendor in the lower.
pub(super) const IDENTIFICATION: u32 = 0x11e8_1234;
/// Size of the device's buffer, in bytes.
pub const BUFFER_BYTES: u16 = 4096;
/// Where the engine sees the buffer.
const BUFFER_ADDRESS: u64 = 0x4_0000;
/// How long a transfer takes, of the machine's time.
const TRANSFER_TIME: Duration = Duration::from_millis(100);

/// Offsets in BAR 0.
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
/// In COMMAND: start; reads as one while the transfer is under way.
const RUN: u64 = 1 << 0;
/// In COMMAND: from the buffer to memory instead of the other way.
const TO_MEMORY: u64 = 1 << 1;

/// One transfer between memory and an engine's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Which way.
    pub direction: Direction,
    /// Where in memory, as the device sees it.
    pub iova: Iova,
    /// Where in the buffer, in bytes.
    pub offset: u16,
    /// How much, in bytes, 1 or more.
    pub length_bytes: u16,
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads memory.
    FromMemory,
    /// The device writes memory.
    ToMemory,
}

/// An `edu`.
#[derive(Clone, Debug)]
pub struct Edu {
    pub(super) connection: Arc<Connection>,
    pub(super) slot: u8,
    /// BAR 0.
    pub(super) registers: u64,
}

impl Edu {
    /// The StreamID that its DMA has: its PCI Requester ID.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        StreamId::new(u32::from(self.slot) << 3)
    }

    /// Makes `transfers`, one after the other. When this returns they are over; whether they were stopped on the way is
    /// not known to the device.
    ///
    /// # Errors
    ///
    /// [`QtestError::OutsideBuffer`] before anything is done; [`QtestError::Unfinished`]; those of the connection.
    pub fn run(&self, transfers: &[Transfer]) -> Result<(), QtestError> {
        let mut batch = Batch::default();
        for transfer in transfers {
            self.add(transfer, &mut batch)?;
        }
        batch.read64(self.registers + COMMAND);
        let command = self.connection.request(&batch)?.pop().unwrap_or_default();
        if command & RUN == 0 { Ok(()) } else { Err(QtestError::Unfinished { slot: self.slot, command }) }
    }

    fn add(&self, transfer: &Transfer, batch: &mut Batch) -> Result<(), QtestError> {
        let &Transfer { direction, iova, offset, length_bytes } = transfer;
        if offset.checked_add(length_bytes).is_none_or(|end| end > BUFFER_BYTES) {
            return Err(QtestError::OutsideBuffer { slot: self.slot, offset, length_bytes });
        }
        let buffer = BUFFER_ADDRESS + u64::from(offset);
        let (source, destination, command) = match direction {
            Direction::FromMemory => (iova.get(), buffer, RUN),
            Direction::ToMemory => (buffer, iova.get(), RUN | TO_MEMORY),
        };
        batch.write64(self.registers + SOURCE, source);
        batch.write64(self.registers + DESTINATION, destination);
        batch.write64(self.registers + COUNT, length_bytes.into());
        batch.write64(self.registers + COMMAND, command);
        batch.advance_clock(TRANSFER_TIME);
        Ok(())
    }
}

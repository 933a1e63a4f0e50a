//! QEMU's `iommu-testdev`: writes a pattern through the SMMU when told to, then looks at physical memory, past the SMMU,
//! for whether it arrived.

use std::sync::Arc;

use smmu::addr::{Iova, PhysAddr, StreamId};

use super::QtestError;
use super::connection::{Batch, Connection};

/// Device in the upper half, vendor in the lower.
pub(super) const IDENTIFICATION: u32 = 0x0005_1b36;
/// What the device writes, over and over, little-endian.
pub const PATTERN: u32 = 0x1234_5678;

/// Offsets in BAR 0. Reading TRIGGER makes the armed transfer.
const TRIGGER: u64 = 0x00;
const IOVA_LOW: u64 = 0x04;
const IOVA_HIGH: u64 = 0x08;
const LENGTH: u64 = 0x0c;
const RESULT: u64 = 0x10;
const DOORBELL: u64 = 0x14;
const ATTRIBUTES: u64 = 0x18;
const READBACK_LOW: u64 = 0x1c;
const READBACK_HIGH: u64 = 0x20;
/// In DOORBELL: arm the transfer.
const ARM: u32 = 1;
/// In ATTRIBUTES: Non-secure address space, and this field is valid.
const NON_SECURE: u32 = 1 << 1 | 1 << 3;

/// How an attempt to write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The pattern was written, and found where it was to be.
    Written,
    /// The write was stopped.
    Stopped,
    /// The write went through, but the memory named could not be read.
    ReadBackFailed,
    /// The write went through, but the memory named holds something else.
    Elsewhere,
}

/// An `iommu-testdev`.
#[derive(Clone, Debug)]
pub struct IommuTestdev {
    pub(super) connection: Arc<Connection>,
    pub(super) slot: u8,
    /// BAR 0.
    pub(super) registers: u64,
}

impl IommuTestdev {
    /// The StreamID that its DMA has: its PCI Requester ID.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        StreamId::new(u32::from(self.slot) << 3)
    }

    /// Makes the device write `length_bytes` of [`PATTERN`] at `iova`, and then compare what physical memory holds at
    /// `readback`, which is where the SMMU should have sent it. When this returns it is over.
    ///
    /// # Errors
    ///
    /// [`QtestError::Refused`] for a length of 0 or one that is too large, and those of the connection.
    pub fn write(&self, iova: Iova, length_bytes: u32, readback: PhysAddr) -> Result<WriteOutcome, QtestError> {
        let halves = |address: u64| (address as u32, (address >> 32) as u32);
        let (iova_low, iova_high) = halves(iova.get());
        let (readback_low, readback_high) = halves(readback.get());
        let mut batch = Batch::default();
        for (offset, value) in [
            (IOVA_LOW, iova_low),
            (IOVA_HIGH, iova_high),
            (LENGTH, length_bytes),
            (READBACK_LOW, readback_low),
            (READBACK_HIGH, readback_high),
            (ATTRIBUTES, NON_SECURE),
            (DOORBELL, ARM),
        ] {
            batch.write32(self.registers + offset, value);
        }
        batch.read32(self.registers + TRIGGER);
        batch.read32(self.registers + RESULT);
        match self.connection.request(&batch)?.pop().unwrap_or_default() as u32 {
            0 => Ok(WriteOutcome::Written),
            0xdead_0002 => Ok(WriteOutcome::Stopped),
            0xdead_0003 => Ok(WriteOutcome::ReadBackFailed),
            0xdead_0004 => Ok(WriteOutcome::Elsewhere),
            result => Err(QtestError::Refused { result }),
        }
    }
}

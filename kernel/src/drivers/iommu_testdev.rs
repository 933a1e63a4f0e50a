//! QEMU's `iommu-testdev`: writes a pattern through the SMMU when told to, then looks at physical memory, past the
//! SMMU, for whether it arrived.
//!
//! It ignores bus mastering: nothing but the SMMU stops it. `pci-testdev` has the same IDs and is none.

use core::fmt;

use aarch64_cpu::asm::barrier;
use safe_mmio::fields::{ReadOnly, ReadPure, ReadPureWrite};
use safe_mmio::{UniqueMmioPointer, field, field_shared};
use smmu::addr::{Iova, PhysAddr};

use crate::pci::{PciError, PciFunction};

/// What the device writes, over and over, little-endian.
pub const PATTERN: u32 = 0x1234_5678;

/// Registers at the start of BAR 0.
#[repr(C)]
struct Registers {
    /// Reading it makes the armed transfer.
    trigger: ReadOnly<u32>,
    iova_low: ReadPureWrite<u32>,
    iova_high: ReadPureWrite<u32>,
    length_bytes: ReadPureWrite<u32>,
    result: ReadPure<u32>,
    doorbell: ReadPureWrite<u32>,
    attributes: ReadPureWrite<u32>,
    readback_low: ReadPureWrite<u32>,
    readback_high: ReadPureWrite<u32>,
}

/// In `doorbell`: arm the transfer.
const ARM: u32 = 1;
/// In `attributes`: the transaction is in the Non-secure address space, and this field is valid.
const NON_SECURE: u32 = 1 << 1 | 1 << 3;

/// How an attempt to write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pattern was written, and found where it was to be.
    Written,
    /// The write was stopped.
    Stopped,
    /// The write went through, but physical memory could not be read.
    ReadBackFailed,
    /// The write went through, but physical memory at the place named holds something else.
    Mismatch,
    /// The device refused: the length is 0 or too large.
    BadLength,
    /// The device refused: it was not armed.
    NotArmed,
    /// The device refused: it cannot issue transactions with these attributes.
    BadAttributes,
    /// A result that the device is not known to give.
    Unknown(u32),
}

impl From<u32> for Outcome {
    fn from(result: u32) -> Self {
        match result {
            0 => Self::Written,
            0xdead_0001 => Self::BadLength,
            0xdead_0002 => Self::Stopped,
            0xdead_0003 => Self::ReadBackFailed,
            0xdead_0004 => Self::Mismatch,
            0xdead_0005 => Self::NotArmed,
            0xdead_0006 => Self::BadAttributes,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written => f.write_str("written"),
            Self::Stopped => f.write_str("stopped"),
            Self::ReadBackFailed => f.write_str("written, but physical memory could not be read back"),
            Self::Mismatch => f.write_str("written, but not to the physical address expected"),
            Self::BadLength => f.write_str("refused: bad length"),
            Self::NotArmed => f.write_str("refused: not armed"),
            Self::BadAttributes => f.write_str("refused: bad attributes"),
            Self::Unknown(result) => write!(f, "unknown result {result:#010x}"),
        }
    }
}

/// An `iommu-testdev`.
pub struct IommuTestdev {
    registers: UniqueMmioPointer<'static, Registers>,
}

impl IommuTestdev {
    /// Takes over the registers of `function`.
    ///
    /// # Errors
    ///
    /// [`PciError`] without BAR 0.
    pub fn new(function: &mut PciFunction) -> Result<Self, PciError> {
        let registers = function.take_bar(0)?.registers()?;
        function.enable_memory();
        Ok(Self { registers })
    }

    /// Makes the device write `length_bytes` of [`PATTERN`] at `iova`, and then compare what physical memory holds at
    /// `readback`, which is where the SMMU should have sent it. When this returns it is over.
    pub fn write_through(&mut self, iova: Iova, length_bytes: u32, readback: PhysAddr) -> Outcome {
        let halves = |address: u64| (address as u32, (address >> 32) as u32);
        let (iova_low, iova_high) = halves(iova.get());
        let (readback_low, readback_high) = halves(readback.get());
        field!(self.registers, iova_low).write(iova_low);
        field!(self.registers, iova_high).write(iova_high);
        field!(self.registers, length_bytes).write(length_bytes);
        field!(self.registers, readback_low).write(readback_low);
        field!(self.registers, readback_high).write(readback_high);
        field!(self.registers, attributes).write(NON_SECURE);
        field!(self.registers, doorbell).write(ARM);
        field!(self.registers, trigger).read();
        // What the device wrote is not to be read from before it did.
        barrier::dmb(barrier::SY);
        field_shared!(self.registers, result).read().into()
    }
}

//! An OHCI USB host controller (OpenHCI 1.0a), of which nothing is used but its habit of reading and writing memory every
//! millisecond, by itself, for as long as it runs: the frame number in its communications area (HCCA).
//!
//! An access that is stopped is an unrecoverable error, after which the controller does nothing any more. So one that still
//! counts has never been stopped.

use core::fmt;
use core::time::Duration;

use safe_mmio::fields::{ReadPure, ReadPureWrite};
use safe_mmio::{UniqueMmioPointer, field, field_shared};
use smmu::addr::Iova;
use virtio_drivers::transport::pci::bus::DeviceFunction;

use crate::pci::{PciError, PciFunction};
use crate::timer::wait_for;

/// Size and alignment of the HCCA in bytes (4.4).
pub const HCCA_BYTES: usize = 256;
/// Where in it the frame number is, 16 bits, in bytes (HccaFrameNumber).
pub const FRAME_NUMBER_OFFSET: usize = 0x80;
/// How long a reset may take: the controller has 10 microseconds.
const RESET_LIMIT: Duration = Duration::from_secs(1);

/// Operational registers at the start of BAR 0 (7).
#[repr(C)]
struct Registers {
    revision: ReadPure<u32>,
    control: ReadPureWrite<u32>,
    command_status: ReadPureWrite<u32>,
    interrupt_status: ReadPureWrite<u32>,
    interrupt_enable: ReadPureWrite<u32>,
    interrupt_disable: ReadPureWrite<u32>,
    hcca: ReadPureWrite<u32>,
    _others: [u32; 8],
    frame_number: ReadPure<u32>,
}

/// In HcRevision: 1.0.
const REVISION: u32 = 0x10;
/// HcControl with HostControllerFunctionalState "operational", and no list processed.
const OPERATIONAL: u32 = 0b10 << 6;
/// In HcCommandStatus: HostControllerReset, 0 once it is done.
const HCR: u32 = 1 << 0;
/// In HcInterruptStatus: UnrecoverableError.
const UE: u32 = 1 << 4;

/// Why a controller cannot be used.
#[derive(Debug)]
pub enum OhciError {
    /// Its registers are out of reach.
    Pci(PciError),
    /// HcRevision is none that is known.
    Revision {
        /// The function.
        function: DeviceFunction,
        /// What it reads.
        found: u32,
    },
    /// It does not get out of reset.
    Stuck {
        /// The function.
        function: DeviceFunction,
    },
    /// The HCCA is not where the controller's 32-bit register can point to.
    Hcca(Iova),
}

impl fmt::Display for OhciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(error) => error.fmt(f),
            Self::Revision { function, found } => {
                write!(f, "ohci {function}: HcRevision reads {found:#x}, expected {REVISION:#x}")
            }
            Self::Stuck { function } => write!(f, "ohci {function}: reset was not done after {RESET_LIMIT:?}"),
            Self::Hcca(iova) => write!(f, "ohci: the HCCA has to be below 4 GiB and aligned, and {iova} is not"),
        }
    }
}

impl core::error::Error for OhciError {}

/// An OHCI controller.
pub struct Ohci {
    function: DeviceFunction,
    registers: UniqueMmioPointer<'static, Registers>,
}

impl Ohci {
    /// Takes over the registers of `function`. The controller goes on with whatever it does.
    ///
    /// # Errors
    ///
    /// [`OhciError::Pci`] without BAR 0, [`OhciError::Revision`] if it is something else.
    pub fn new(function: &mut PciFunction) -> Result<Self, OhciError> {
        let registers = function.take_bar(0).and_then(|bar| bar.registers()).map_err(OhciError::Pci)?;
        function.enable_memory();
        let this = Self { function: function.address, registers };
        match field_shared!(this.registers, revision).read() & 0xff {
            REVISION => Ok(this),
            found => Err(OhciError::Revision { function: this.function, found }),
        }
    }

    /// Resets the controller and has it count frames in the HCCA at `hcca`.
    ///
    /// # Errors
    ///
    /// [`OhciError::Hcca`], [`OhciError::Stuck`].
    pub fn start(&mut self, hcca: Iova) -> Result<(), OhciError> {
        let aligned = hcca.get().is_multiple_of(HCCA_BYTES as u64).then_some(hcca.get());
        let address = aligned.and_then(|hcca| u32::try_from(hcca).ok()).ok_or(OhciError::Hcca(hcca))?;
        field!(self.registers, command_status).write(HCR);
        let status = field_shared!(self.registers, command_status);
        if !wait_for(RESET_LIMIT, || status.read() & HCR == 0) {
            return Err(OhciError::Stuck { function: self.function });
        }
        field!(self.registers, hcca).write(address);
        field!(self.registers, control).write(OPERATIONAL);
        Ok(())
    }

    /// The number of the current frame, as the controller's register has it.
    #[must_use]
    pub fn frame_number(&self) -> u16 {
        field_shared!(self.registers, frame_number).read() as u16
    }

    /// Whether an access of its to memory has been stopped.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        field_shared!(self.registers, interrupt_status).read() & UE != 0
    }
}

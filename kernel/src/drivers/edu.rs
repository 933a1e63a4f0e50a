//! QEMU's `edu` device: a buffer of 4 KiB and a DMA engine that copies between it and memory.
//!
//! The engine takes whatever address it is given and reports no errors: when its DMA is stopped, a transfer ends as if
//! nothing had happened, and a read leaves zeros. That makes it a good rogue. It clears the address bits beyond its
//! `dma_mask`, 28 bits unless told otherwise on QEMU's command line.

use core::fmt;
use core::time::Duration;

use aarch64_cpu::asm::barrier;
use safe_mmio::fields::{ReadPure, ReadPureWrite};
use safe_mmio::{UniqueMmioPointer, field, field_shared};
use smmu::addr::Iova;
use virtio_drivers::transport::pci::bus::DeviceFunction;

use crate::pci::{PciError, PciFunction};
use crate::timer::wait_for;

/// Size of the device's buffer, in bytes. There is one more, which some versions of QEMU (7.2 is one) do not let the
/// engine reach: they end the whole machine instead.
pub const BUFFER_BYTES: usize = 4095;

/// Where the DMA engine sees the buffer.
const BUFFER_ADDRESS: u64 = 0x4_0000;
/// A transfer takes 100 ms of the machine's time.
const TRANSFER_LIMIT: Duration = Duration::from_secs(2);
/// IDENTIFICATION is 0xRRrr00ed, with the revision in its upper half.
const IDENTIFICATION_MASK: u32 = 0xffff;
const IDENTIFICATION_VALUE: u32 = 0x00ed;
/// What is written to LIVENESS, which reads back inverted.
const LIVENESS_PROBE: u32 = 0x5a0f_33cc;

/// Registers at the start of BAR 0.
#[repr(C)]
struct Registers {
    identification: ReadPure<u32>,
    liveness: ReadPureWrite<u32>,
    _others: [u32; 30],
    dma_source: ReadPureWrite<u64>,
    dma_destination: ReadPureWrite<u64>,
    dma_count: ReadPureWrite<u64>,
    dma_command: ReadPureWrite<u64>,
}

/// In DMA_COMMAND: start; reads as one while the transfer is under way.
const COMMAND_RUN: u64 = 1 << 0;
/// In DMA_COMMAND: from the buffer to memory instead of the other way.
const COMMAND_TO_MEMORY: u64 = 1 << 1;

/// Why an `edu` did not do what it was told.
#[derive(Debug)]
pub enum EduError {
    /// Its registers are out of reach.
    Pci(PciError),
    /// A register does not behave as an `edu`'s.
    NotEdu {
        /// The function.
        function: DeviceFunction,
        /// The register's name.
        register: &'static str,
        /// What was expected in it.
        expected: u32,
        /// What was read.
        found: u32,
    },
    /// A transfer does not fit the device's buffer.
    OutsideBuffer {
        /// Where in the buffer it starts, in bytes.
        offset: usize,
        /// How long it is, in bytes.
        length_bytes: usize,
    },
    /// A transfer did not end in time.
    Stuck {
        /// The function.
        function: DeviceFunction,
        /// What DMA_COMMAND reads, whose bit 0 should have become 0.
        command: u64,
        /// How long was waited.
        limit: Duration,
    },
}

impl fmt::Display for EduError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(error) => error.fmt(f),
            Self::NotEdu { function, register, expected, found } => {
                write!(f, "edu {function}: {register} reads {found:#010x}, expected {expected:#010x}")
            }
            Self::OutsideBuffer { offset, length_bytes } => write!(
                f,
                "edu: a transfer of {length_bytes} bytes at {offset} does not fit the device's {BUFFER_BYTES} bytes"
            ),
            Self::Stuck { function, command, limit } => write!(
                f,
                "edu {function}: transfer not done after {limit:?}: DMA_COMMAND reads {command:#x}, expected bit 0 clear"
            ),
        }
    }
}

impl core::error::Error for EduError {}

impl From<PciError> for EduError {
    fn from(error: PciError) -> Self {
        Self::Pci(error)
    }
}

/// An `edu` device.
pub struct Edu {
    function: DeviceFunction,
    registers: UniqueMmioPointer<'static, Registers>,
}

impl Edu {
    /// Takes over the registers of `function` and checks that it is an `edu`.
    ///
    /// # Errors
    ///
    /// [`EduError::Pci`] without BAR 0, [`EduError::NotEdu`] if a register is not as it should be.
    pub fn new(function: &mut PciFunction) -> Result<Self, EduError> {
        let registers = function.take_bar(0)?.registers()?;
        function.enable_memory();
        let mut this = Self { function: function.address, registers };

        let identification = field_shared!(this.registers, identification).read() & IDENTIFICATION_MASK;
        this.expect("IDENTIFICATION", IDENTIFICATION_VALUE, identification)?;
        field!(this.registers, liveness).write(LIVENESS_PROBE);
        let liveness = field_shared!(this.registers, liveness).read();
        this.expect("LIVENESS", !LIVENESS_PROBE, liveness)?;
        Ok(this)
    }

    fn expect(&self, register: &'static str, expected: u32, found: u32) -> Result<(), EduError> {
        if found == expected {
            return Ok(());
        }
        Err(EduError::NotEdu { function: self.function, register, expected, found })
    }

    /// Copies `length_bytes` from memory at `iova` into the buffer at `offset` (in bytes) and waits for the end.
    ///
    /// # Errors
    ///
    /// [`EduError::OutsideBuffer`], [`EduError::Stuck`]. That the DMA was stopped is no error: the device does not tell.
    pub fn copy_from_memory(&mut self, iova: Iova, offset: usize, length_bytes: usize) -> Result<(), EduError> {
        let buffer = Self::buffer_address(offset, length_bytes)?;
        self.start(iova.get(), buffer, length_bytes, COMMAND_RUN);
        self.finish()
    }

    /// Copies `length_bytes` from the buffer at `offset` (in bytes) to memory at `iova` and waits for the end.
    ///
    /// # Errors
    ///
    /// As for [`Self::copy_from_memory`].
    pub fn copy_to_memory(&mut self, iova: Iova, offset: usize, length_bytes: usize) -> Result<(), EduError> {
        self.start_to_memory(iova, offset, length_bytes)?;
        self.finish()
    }

    /// Begins what [`Self::copy_to_memory`] does. To be ended by [`Self::finish`].
    ///
    /// # Errors
    ///
    /// [`EduError::OutsideBuffer`].
    pub fn start_to_memory(&mut self, iova: Iova, offset: usize, length_bytes: usize) -> Result<(), EduError> {
        let buffer = Self::buffer_address(offset, length_bytes)?;
        self.start(buffer, iova.get(), length_bytes, COMMAND_RUN | COMMAND_TO_MEMORY);
        Ok(())
    }

    /// Where the engine sees a part of the buffer. QEMU ends the whole machine for a transfer beyond the buffer's end.
    fn buffer_address(offset: usize, length_bytes: usize) -> Result<u64, EduError> {
        match offset.checked_add(length_bytes) {
            Some(end) if end <= BUFFER_BYTES => Ok(BUFFER_ADDRESS + offset as u64),
            _ => Err(EduError::OutsideBuffer { offset, length_bytes }),
        }
    }

    fn start(&mut self, source: u64, destination: u64, length_bytes: usize, command: u64) {
        field!(self.registers, dma_source).write(source);
        field!(self.registers, dma_destination).write(destination);
        field!(self.registers, dma_count).write(length_bytes as u64);
        // What the device is to read has to be in memory before it starts, ...
        barrier::dsb(barrier::SY);
        field!(self.registers, dma_command).write(command);
    }

    /// Waits until the transfer is over.
    ///
    /// # Errors
    ///
    /// [`EduError::Stuck`].
    pub fn finish(&mut self) -> Result<(), EduError> {
        let running = field_shared!(self.registers, dma_command);
        let done = wait_for(TRANSFER_LIMIT, || running.read() & COMMAND_RUN == 0);
        // ... and what it wrote is not to be read from before it ended.
        barrier::dmb(barrier::SY);
        if done {
            return Ok(());
        }
        Err(EduError::Stuck { function: self.function, command: running.read(), limit: TRANSFER_LIMIT })
    }
}

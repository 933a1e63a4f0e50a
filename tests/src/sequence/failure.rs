//! What did not come as expected.

use std::error::Error;
use std::fmt;

use smmu::addr::{Iova, StreamId};
use smmu::arch::event::Event;
use smmu::device::{DeviceError, EventDrain, GlobalErrorReport};
use smmu::iommu::{IommuError, UnmapError};
use smmu::pgtable::MapError;
use smmu::platform::OutOfDmaMemory;

use super::Step;
use super::expectation::{MapAnswer, UnmapAnswer};

/// A sequence that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// At which step, counted from 0; `None` before the first or after the last.
    pub step: Option<(usize, Step)>,
    /// How.
    pub mismatch: Mismatch,
}

/// What was expected, and what was found.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// The backend itself failed.
    #[error("the backend failed: {0}")]
    Backend(Box<dyn Error>),
    /// There is no memory for the pages that are mapped.
    #[error(transparent)]
    Pool(#[from] OutOfDmaMemory),
    /// The driver did not bring the SMMU up.
    #[error("the SMMU was not brought up: {0}")]
    BringUp(DeviceError),
    /// The driver did not attach a device.
    #[error("a device was not attached: {0}")]
    Attach(IommuError),
    /// The driver put off attaching a device, though its SMMU is registered.
    #[error("a device was not attached, though its SMMU is there")]
    NotConfigured,
    /// The stream table has no place for the entry of a stream that is attached.
    #[error("the stream table has no entry for stream {0}")]
    NoEntry(StreamId),
    /// The SMMU did not do as the test told it.
    #[error("{register} should become {expected:#x}, it stays {found:#x}")]
    NoAnswer {
        /// The register that would tell.
        register: &'static str,
        /// What it must become.
        expected: u32,
        /// What it is.
        found: u32,
    },
    /// A map was answered otherwise.
    #[error("map: expected {expected:?}, the driver says {found:?}")]
    Map {
        /// What it must say.
        expected: MapAnswer,
        /// What it said.
        found: Result<(), MapError>,
    },
    /// An unmap was answered otherwise.
    #[error("unmap: expected {expected:?}, the driver says {found:?}")]
    Unmap {
        /// What it must say.
        expected: UnmapAnswer,
        /// What it said.
        found: Result<(), UnmapError>,
    },
    /// A device read something else.
    #[error("the device read {found:#010x} at {iova}, expected {expected:#010x}")]
    Read {
        /// Where.
        iova: Iova,
        /// What it must read; 0 if it must be stopped.
        expected: u32,
        /// What it read.
        found: u32,
    },
    /// Memory is not as it should be.
    #[error("memory holds {found:#010x} at byte {offset:#x} of the pool, expected {expected:#010x}")]
    Memory {
        /// Where, in bytes from the start of the pool.
        offset: usize,
        /// What must be there.
        expected: u32,
        /// What is there.
        found: u32,
    },
    /// Other events were recorded.
    #[error("events: expected {expected:?}, found {found:?}")]
    Events {
        /// The one that must be there, if one must.
        expected: Option<Event>,
        /// Those that are.
        found: Vec<Event>,
    },
    /// The event queue is out of order.
    #[error("the event queue is out of order: {0:?}")]
    EventQueue(EventDrain),
    /// A global error is active.
    #[error("global error: {0}")]
    GlobalError(GlobalErrorReport),
    /// The SMMU refused commands.
    #[error("the SMMU refused {0} commands")]
    RefusedCommands(u64),
    /// The driver did not give all memory back, or more than it had.
    #[error("{before} bytes of memory were in use before, {after} are afterwards")]
    Leak {
        /// Before the driver was there.
        before: u64,
        /// After it was gone.
        after: u64,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some((index, step)) => write!(f, "step {index}, {step:?}: {}", self.mismatch),
            None => write!(f, "before the first or after the last step: {}", self.mismatch),
        }
    }
}

impl Error for Failure {}

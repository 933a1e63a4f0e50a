//! What can go wrong between a test and the QEMU whose devices it drives.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use qemu::devicetree::TreeError;
use smmu::pgtable::MapError;
use smmu::platform::OutOfDmaMemory;

/// Why a machine does not do what a test wants. After an error of the connection every later access fails in the same way.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QtestError {
    /// QEMU's memory could not be made.
    #[error("no memory for the machine: {0}")]
    Ram(Arc<io::Error>),
    /// The machine's memory is used up.
    #[error("the machine is {0}")]
    OutOfMemory(OutOfDmaMemory),
    /// The page through which an engine shows what it read could not be mapped.
    #[error("no staging page: {0}")]
    Staging(MapError),
    /// QEMU could not be started.
    #[error("{} does not start: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// QEMU gave no answer and was killed.
    #[error("QEMU did not answer `{command}` within {} s and was killed", limit.as_secs())]
    Silent {
        /// What it was told.
        command: String,
        /// How long was waited.
        limit: Duration,
    },
    /// QEMU is gone.
    #[error("QEMU ended when told `{command}` ({source}); it said: {messages}")]
    Ended {
        /// What it was told.
        command: String,
        /// What the system said.
        source: Arc<io::Error>,
        /// The end of its standard error.
        messages: String,
    },
    /// QEMU does not understand, or answers something that is not understood.
    #[error("QEMU answered {answer:?} to `{command}`")]
    Answer {
        /// What it was told.
        command: String,
        /// The whole line.
        answer: String,
    },
    /// The machine's device tree cannot be read.
    #[error("the device tree that QEMU left in memory: {0}")]
    Tree(Arc<TreeError>),
    /// The device tree lacks something.
    #[error("the machine's device tree has no {what}")]
    Missing {
        /// What is missing.
        what: &'static str,
    },
    /// A PCI slot holds something else.
    #[error("PCI slot {slot} holds {found:#010x} (device, vendor), expected {expected:#010x}")]
    WrongFunction {
        /// The slot on bus 0.
        slot: u8,
        /// Vendor in the lower, device in the upper half.
        expected: u32,
        /// What is there.
        found: u32,
    },
    /// A transfer would leave the buffer of an `edu`, for which QEMU ends the whole machine.
    #[error("a transfer of {length_bytes} bytes at {offset} leaves the buffer of the edu in slot {slot}")]
    OutsideBuffer {
        /// The slot on bus 0.
        slot: u8,
        /// Where in the buffer, in bytes.
        offset: u16,
        /// How many bytes.
        length_bytes: u16,
    },
    /// A transfer of an `edu` is still under way after the time that it takes.
    #[error("the edu in slot {slot} is not done: DMA_COMMAND reads {command:#x}")]
    Unfinished {
        /// The slot on bus 0.
        slot: u8,
        /// DMA_COMMAND.
        command: u64,
    },
    /// `iommu-testdev` refused to try.
    #[error("iommu-testdev refused: RESULT reads {result:#010x}")]
    Refused {
        /// RESULT.
        result: u32,
    },
}

impl From<TreeError> for QtestError {
    fn from(error: TreeError) -> Self {
        Self::Tree(Arc::new(error))
    }
}

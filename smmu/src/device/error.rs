//! What can go wrong with one SMMU, in values and in words.

use core::fmt;
use core::time::Duration;

use crate::addr::{PhysAddr, StreamId, SubstreamId};
use crate::arch::command::CommandError;
use crate::platform::OutOfDmaMemory;

/// An error of one SMMU. Whatever was begun has been undone, unless the variant says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceError {
    /// The identification registers read all ones: the SMMU has no power or no clock, or nothing is there.
    PoweredOff {
        /// The register that was read.
        register: &'static str,
    },
    /// The hardware lacks something without which it cannot be driven.
    Unsupported {
        /// The register that says so.
        register: &'static str,
        /// What it read as.
        found: u32,
        /// What would be needed.
        needed: &'static str,
    },
    /// Somebody else was at the SMMU's registers all the time, and it could not go to sleep or be handed over.
    Busy {
        /// How long it was waited for them.
        waited: Duration,
    },
    /// A register did not take the awaited value in time.
    Timeout {
        /// The register.
        register: &'static str,
        /// The awaited value of the bits in `mask`.
        expected: u32,
        /// What was read last.
        found: u32,
        /// The bits that were compared.
        mask: u32,
        /// How long it was waited for.
        waited: Duration,
    },
    /// CMDQ_CONS went past CMDQ_PROD: the hardware or its registers are broken.
    QueueCorrupt {
        /// The consumer register.
        register: &'static str,
        /// Its value.
        found: u32,
        /// The producer's value that it contradicts.
        producer: u32,
    },
    /// The SMMU was closed after an error; all traffic through it aborts.
    Closed,
    /// The SMMU is suspended. Resume it first.
    Suspended,
    /// The SMMU was handed over to another owner, who has its registers now.
    HandedOver,
    /// The SMMU runs, but cannot be adopted as it is. Nothing was written: it goes on as its former owner left it, until
    /// it is brought up with another policy.
    CannotAdopt(CannotAdopt),
    /// The SMMU refused a command. It was replaced and the queue runs on.
    Command(CommandError),
    /// No message interrupt can be sent to this address.
    BadMessageAddress {
        /// The address.
        address: PhysAddr,
    },
    /// No memory for queues or tables.
    OutOfDmaMemory(OutOfDmaMemory),
    /// The StreamID lies outside the stream table: beyond IDR1.SIDSIZE or [`Platform::stream_id_bits`].
    ///
    /// [`Platform::stream_id_bits`]: crate::platform::Platform::stream_id_bits
    StreamOutOfRange {
        /// The StreamID.
        stream: StreamId,
        /// How many bits of a StreamID the stream table covers.
        stream_id_bits: u8,
    },
    /// The stream is attached already; detach it first.
    StreamInUse {
        /// The StreamID.
        stream: StreamId,
    },
    /// The stream is not attached.
    StreamNotAttached {
        /// The StreamID.
        stream: StreamId,
    },
    /// The SMMU did not confirm that it forgot the stream's entry. The stream stays claimed, and the memory that its entry
    /// leads to must be kept.
    StreamStuck {
        /// The StreamID.
        stream: StreamId,
    },
    /// Another CPU is changing the stream's entry, and does not get done.
    StreamBusy {
        /// The StreamID.
        stream: StreamId,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The SubstreamID lies outside the context descriptor table.
    SubstreamOutOfRange {
        /// The SubstreamID.
        substream: SubstreamId,
        /// log2 of the contexts that the table has.
        log2_contexts: u8,
    },
    /// Another CPU is changing the same context, or dozens are changing others of its table, and they do not get done.
    ContextBusy {
        /// The SubstreamID.
        substream: SubstreamId,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The SMMU did not confirm that it forgot a context. Its table takes no more changes, and the memory that the context
    /// leads to must be kept.
    ContextStuck {
        /// The SubstreamID.
        substream: SubstreamId,
    },
    /// The context table belongs to another SMMU, which alone would be told of changes.
    ContextOfAnother {
        /// Where the table is.
        table: PhysAddr,
    },
    /// The page table is one of stage 1, where stage 2 needs one of its own.
    WrongStage {
        /// Where the table is.
        table: PhysAddr,
    },
    /// Every ASID or VMID is in use.
    OutOfIds {
        /// `"ASID"` or `"VMID"`.
        kind: &'static str,
        /// How many there are to be had: number 0 is not among them.
        count: u32,
    },
    /// The ASID or VMID cannot be retired: it is 0, which is nobody's, was not taken, or has been retired already.
    IdNotTaken {
        /// `"ASID"` or `"VMID"`.
        kind: &'static str,
        /// The identifier.
        number: u16,
    },
}

/// Why a running SMMU cannot be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CannotAdopt {
    /// A register or an entry has a value that nothing can be made of.
    Malformed {
        /// The register or structure.
        what: &'static str,
        /// Its value.
        found: u64,
        /// What it should be.
        expected: &'static str,
    },
    /// The system gives no access to a structure in memory: see
    /// [`Platform::foreign`](crate::platform::Platform::foreign).
    OutOfReach {
        /// The structure.
        what: &'static str,
        /// Where it is.
        address: PhysAddr,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// A stream's translations share VMID 0 with those of stage 1 alone, which is what this driver's domains use.
    VmidInUse {
        /// The StreamID.
        stream: StreamId,
    },
}

impl fmt::Display for CannotAdopt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { what, found, expected } => write!(f, "{what} is {found:#x}, expected {expected}"),
            Self::OutOfReach { what, address, size_bytes } => {
                write!(f, "{what} at {address} ({size_bytes} bytes) is no memory that the platform gives access to")
            }
            Self::VmidInUse { stream } => {
                write!(f, "StreamID {stream} uses stage 2 with VMID 0, which this driver keeps for stage 1")
            }
        }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff { register } => write!(
                f,
                "{register} reads all ones: the SMMU is powered off or not at this address; switch it on or correct its reg property"
            ),
            Self::Unsupported { register, found, needed } => {
                write!(f, "{register} is {found:#010x}: this driver needs {needed}")
            }
            Self::Busy { waited } => write!(
                f,
                "others were still at the SMMU's registers after {waited:?} (an interrupt handler, or a call that enables something); let them finish and try again"
            ),
            Self::Timeout { register, expected, found, mask, waited } => write!(
                f,
                "{register} did not become {expected:#x} (mask {mask:#x}) within {} ms; it reads {found:#x}",
                waited.as_millis()
            ),
            Self::QueueCorrupt { register, found, producer } => {
                write!(f, "{register} reads {found:#x}, which is past the producer's {producer:#x}")
            }
            Self::Closed => f.write_str("the SMMU was closed after an error and aborts all traffic"),
            Self::Suspended => f.write_str("the SMMU is suspended; resume it first"),
            Self::HandedOver => f.write_str("the SMMU was handed over to another owner"),
            Self::CannotAdopt(why) => write!(f, "the running SMMU cannot be adopted: {why}"),
            Self::Command(error) => write!(f, "the SMMU refused a command: {error}"),
            Self::BadMessageAddress { address } => write!(
                f,
                "no message interrupt can be sent to {address}: it is 0, not a multiple of 4, or beyond the output size"
            ),
            Self::OutOfDmaMemory(error) => error.fmt(f),
            Self::StreamOutOfRange { stream, stream_id_bits } => {
                write!(
                    f,
                    "StreamID {stream} does not fit the {stream_id_bits} bits that the stream table covers: check iommus and iommu-map, or let Platform::stream_id_bits return {} if IDR1.SIDSIZE is as large",
                    stream.bits()
                )
            }
            Self::StreamInUse { stream } => write!(f, "StreamID {stream} is attached already; detach it first"),
            Self::StreamNotAttached { stream } => write!(f, "StreamID {stream} is not attached"),
            Self::StreamStuck { stream } => write!(
                f,
                "the SMMU did not confirm that StreamID {stream} aborts; its tables stay allocated, reset the SMMU"
            ),
            Self::StreamBusy { stream, waited } => write!(
                f,
                "another CPU has been changing the entry of StreamID {stream} for {} ms; try again",
                waited.as_millis()
            ),
            Self::SubstreamOutOfRange { substream, log2_contexts } => {
                write!(f, "SubstreamID {substream} does not fit a table of 2^{log2_contexts} contexts")
            }
            Self::ContextBusy { substream, waited } => write!(
                f,
                "another CPU has been changing the context of SubstreamID {substream} for {} ms; try again",
                waited.as_millis()
            ),
            Self::ContextStuck { substream } => write!(
                f,
                "the SMMU did not confirm that it forgot the context of SubstreamID {substream}; its tables stay allocated, reset the SMMU"
            ),
            Self::ContextOfAnother { table } => {
                write!(f, "the context table at {table} was made for another SMMU; make one for each")
            }
            Self::WrongStage { table } => {
                write!(f, "the page table at {table} is one of stage 1; stage 2 needs one of its own")
            }
            Self::IdNotTaken { kind, number } => {
                write!(f, "{kind} {number} cannot be retired: it is not taken, or was retired before")
            }
            Self::OutOfIds { kind, count } => write!(f, "all {count} {kind}s are in use"),
        }
    }
}

impl core::error::Error for DeviceError {}

impl From<OutOfDmaMemory> for DeviceError {
    fn from(error: OutOfDmaMemory) -> Self {
        Self::OutOfDmaMemory(error)
    }
}

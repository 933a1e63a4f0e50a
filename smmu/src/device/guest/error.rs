//! What a guest may not do, in values and in words.

use core::fmt;

use crate::addr::PhysAddr;
use crate::arch::command::{CommandError, IllegalCommand, Opcode};
use crate::arch::stream_table::{Config, Eats, S1Fmt};
use crate::device::DeviceError;

/// Which field of a guest's stream table entry asks for what the guest cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedEntry {
    /// Config: stage 2 is the hypervisor's; or the SMMU has no stage 1.
    Config {
        /// What it asks for.
        config: Config,
    },
    /// S1ContextPtr lies beyond the addresses that stage 2 translates.
    ContextPointer {
        /// The intermediate physical address.
        address: PhysAddr,
        /// Bits of an intermediate physical address.
        input_bits: u8,
    },
    /// S1CDMax: too many contexts.
    Contexts {
        /// log2 of how many.
        log2_contexts: u8,
        /// log2 of how many there may be.
        most: u8,
    },
    /// S1Fmt: two levels without IDR0.CD2L.
    Format {
        /// What it asks for.
        format: S1Fmt,
    },
    /// S1STALLD where no stall is optional (IDR0.STALL_MODEL).
    StallDisabled,
    /// STRW: nested streams are of EL1.
    World {
        /// What it asks for.
        code: u8,
    },
    /// EATS: no ATS for this guest, or of a kind that its SMMU has not got.
    Ats {
        /// What it asks for; `None` is the reserved code.
        eats: Option<Eats>,
    },
}

impl RefusedEntry {
    /// The field, by the architecture's name.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Config { .. } => "Config",
            Self::ContextPointer { .. } => "S1ContextPtr",
            Self::Contexts { .. } => "S1CDMax",
            Self::Format { .. } => "S1Fmt",
            Self::StallDisabled => "S1STALLD",
            Self::World { .. } => "STRW",
            Self::Ats { .. } => "EATS",
        }
    }
}

impl fmt::Display for RefusedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guest's STE.{} is refused: ", self.field())?;
        match self {
            Self::Config { config } => write!(f, "{config:?}, of which the guest has not got every stage"),
            Self::ContextPointer { address, input_bits } => {
                write!(f, "{address} lies beyond the {input_bits} bits that stage 2 translates")
            }
            Self::Contexts { log2_contexts, most } => write!(f, "2^{log2_contexts} contexts, of at most 2^{most}"),
            Self::Format { format } => write!(f, "{format:?} without two-level tables (IDR0.CD2L)"),
            Self::StallDisabled => f.write_str("no stall is optional (IDR0.STALL_MODEL)"),
            Self::World { code } => write!(f, "{code}, where only EL1 (0) is the guest's"),
            Self::Ats { eats: Some(eats) } => write!(f, "{eats:?} is not permitted"),
            Self::Ats { eats: None } => f.write_str("the code is reserved"),
        }
    }
}

impl core::error::Error for RefusedEntry {}

/// The command at which a guest's queue stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedCommand {
    /// Which of the commands: all before it have been carried out, and none from it on, unless `reason` says otherwise.
    pub index: usize,
    /// Why.
    pub reason: CommandRefusal,
}

/// Why a guest's queue stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandRefusal {
    /// It is no command at all.
    Illegal(IllegalCommand),
    /// It needs a feature that the guest's SMMU has not got: stage 2, EL2, or one that the SMMU itself lacks.
    Forbidden {
        /// The opcode.
        opcode: Opcode,
    },
    /// A device did not obey a CMD_ATC_INV, and has been quarantined: its stream aborts. The command is the CMD_SYNC behind
    /// it, which has not been carried out, but all else before it has; or the next one at which the queue stops in any case;
    /// or the one past the end, if neither is among the commands.
    AtcInvSync,
    /// The SMMU did not do as it was told, which is not the guest's fault. From this command on some may have been carried out:
    /// it does no harm to give them again, once the SMMU is well, but for CMD_RESUME and CMD_PRI_RESP, of which a second one
    /// answers nobody, or somebody else.
    Device(DeviceError),
}

impl CommandRefusal {
    /// What CMDQ_CONS.ERR of the guest's SMMU is to say, or `None` where the guest has done nothing wrong.
    #[must_use]
    pub const fn command_error(&self) -> Option<CommandError> {
        match self {
            Self::Illegal(_) | Self::Forbidden { .. } => Some(CommandError::Ill),
            Self::AtcInvSync => Some(CommandError::AtcInvSync),
            Self::Device(_) => None,
        }
    }
}

impl fmt::Display for RefusedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guest's command {}: ", self.index)?;
        match &self.reason {
            CommandRefusal::Illegal(error) => error.fmt(f),
            CommandRefusal::Forbidden { opcode } => write!(f, "{opcode} is not for guests, or the SMMU has not got it"),
            CommandRefusal::AtcInvSync => CommandError::AtcInvSync.fmt(f),
            CommandRefusal::Device(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RefusedCommand {}

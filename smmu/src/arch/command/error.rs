//! Why the command queue stands still, and why words are no command.

use core::fmt;

use super::Opcode;

/// CMDQ_CONS.ERR: what was wrong with the command at CMDQ_CONS.RD, while GERROR.CMDQ_ERR is active (IHI 0070, 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandError {
    /// CERROR_NONE: nothing.
    None,
    /// CERROR_ILL: a bad opcode or operand, or a command for a feature that is not there.
    Ill,
    /// CERROR_ABT: reading the queue aborted.
    Abt,
    /// CERROR_ATC_INV_SYNC: a device did not answer a CMD_ATC_INV in time.
    AtcInvSync,
    /// A code that the architecture does not define yet.
    Unknown(u8),
}

impl CommandError {
    /// Decodes CMDQ_CONS.ERR: the field itself, 7 bits.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::None,
            1 => Self::Ill,
            2 => Self::Abt,
            3 => Self::AtcInvSync,
            _ => Self::Unknown(code),
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("CERROR_NONE: no error"),
            Self::Ill => f.write_str("CERROR_ILL: illegal command"),
            Self::Abt => f.write_str("CERROR_ABT: the SMMU cannot read the command queue"),
            Self::AtcInvSync => f.write_str("CERROR_ATC_INV_SYNC: a device did not answer an ATC invalidation"),
            Self::Unknown(code) => write!(f, "unknown command error {code:#x}"),
        }
    }
}

/// Why two words are no command (CERROR_ILL).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IllegalCommand {
    /// There is no such command in the Non-secure queue, or none that [`Command`](super::Command) has.
    Opcode {
        /// The opcode.
        number: u8,
    },
    /// An operand has a value that is reserved.
    Operand {
        /// The opcode.
        opcode: Opcode,
        /// The operand.
        field: &'static str,
    },
}

impl fmt::Display for IllegalCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opcode { number } => write!(f, "{number:#04x} is no opcode that is known"),
            Self::Operand { opcode, field } => write!(f, "{opcode} with a reserved value: {field}"),
        }
    }
}

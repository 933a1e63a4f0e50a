//! What a mapping allows, and what is recorded of its use (Arm ARM, D8.4 and D8.5).

use core::fmt;

use super::Stage;
use crate::arch::attributes::HardwareUpdate;

/// What data a device may read and write. Whether it may fetch instructions, and who may do all that, is for
/// [`Permissions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read.
    Read,
    /// Write. Stage 1 cannot express this alone: there it becomes [`ReadWrite`](Self::ReadWrite).
    Write,
    /// Read and write.
    ReadWrite,
}

impl Access {
    /// What hardware makes of it at `stage`.
    #[must_use]
    pub const fn enforced(self, stage: Stage) -> Self {
        match (stage, self) {
            (Stage::Stage1, Self::Write) => Self::ReadWrite,
            (_, access) => access,
        }
    }

    pub(super) const fn writes(self) -> bool {
        !matches!(self, Self::Read)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read-only",
            Self::Write => "write-only",
            Self::ReadWrite => "read-write",
        })
    }
}

/// Whose transactions a mapping is for. Those of devices are unprivileged unless the device or STE.PRIVCFG says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Privilege {
    /// Everybody's.
    #[default]
    Any,
    /// Only privileged ones. Stage 2 cannot express this: there it becomes [`Any`](Self::Any).
    PrivilegedOnly,
}

/// Whether instructions may be fetched. Writes never are instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Execute {
    /// Never.
    #[default]
    Never,
    /// By whoever may read; but what unprivileged transactions may write, privileged ones never execute (Arm ARM, D8.4).
    Allowed,
}

/// All that a mapping allows. An [`Access`] alone stands for everybody's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// Data.
    pub access: Access,
    /// Instructions.
    pub execute: Execute,
    /// Who.
    pub privilege: Privilege,
}

impl Permissions {
    /// What hardware makes of it at `stage`.
    #[must_use]
    pub const fn enforced(self, stage: Stage) -> Self {
        let privilege = match stage {
            Stage::Stage1 => self.privilege,
            Stage::Stage2 => Privilege::Any,
        };
        Self { access: self.access.enforced(stage), execute: self.execute, privilege }
    }
}

impl From<Access> for Permissions {
    #[inline(always)]
    fn from(access: Access) -> Self {
        Self { access, execute: Execute::Never, privilege: Privilege::Any }
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.access.fmt(f)?;
        if self.execute == Execute::Allowed {
            f.write_str(", executable")?;
        }
        if self.privilege == Privilege::PrivilegedOnly {
            f.write_str(", privileged only")?;
        }
        Ok(())
    }
}

/// What descriptors record of devices' accesses, and who does that (Arm ARM, D8.5; IHI 0070, 3.13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tracking {
    /// Nothing: the Access flag is set from the start.
    #[default]
    Off,
    /// The Access flag is clear until software sets it: a first access is reported as F_ACCESS.
    SoftwareAccess,
    /// The SMMU sets the Access flag (IDR0.HTTU >= 1).
    HardwareAccess,
    /// It sets the Access flag, and marks what is written to as dirty (IDR0.HTTU >= 2).
    HardwareAccessAndDirty,
}

impl Tracking {
    /// CD.HA and CD.HD, or STE.S2HA and STE.S2HD.
    #[must_use]
    pub const fn hardware_update(self) -> HardwareUpdate {
        match self {
            Self::Off | Self::SoftwareAccess => HardwareUpdate::None,
            Self::HardwareAccess => HardwareUpdate::AccessFlag,
            Self::HardwareAccessAndDirty => HardwareUpdate::AccessFlagAndDirtyState,
        }
    }
}

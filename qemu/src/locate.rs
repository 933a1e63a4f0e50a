//! Which QEMU is used: the one given, the one on PATH, or a private copy.

use std::env;
use std::path::{Path, PathBuf};

use crate::private::{self, PrivateError};
use crate::program::{NAME, ProbeError, Qemu};

/// Why there is no QEMU.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// The one that was asked for does not exist.
    #[error("{asked_by} names {}, which is no executable file", program.display())]
    NotFound {
        /// What asked for it: `--qemu` or `$QEMU`.
        asked_by: &'static str,
        /// What was asked for.
        program: PathBuf,
    },
    /// The one that was asked for is no usable QEMU.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// There is none, and a private copy cannot be had.
    #[error("no {NAME} on PATH, and no private copy: {0}\n{ADVICE}")]
    Private(#[from] PrivateError),
}

/// What helps where a part of QEMU is missing.
pub const ADVICE: &str = "Install QEMU for AArch64 (`qemu-system-aarch64`), best 11.0 or newer, which has \
                          `iommu-testdev` and `-device arm-smmuv3`; 7.2 is the oldest that works. Then put it on PATH, \
                          or name it with --qemu or in $QEMU";

/// Finds the QEMU to use, and fetches a private copy where that is needed and possible.
///
/// That is `given` (from `--qemu`), else `$QEMU`, else the one on PATH if it can build every machine, else a private
/// copy, else the one on PATH with what it can do.
///
/// # Errors
///
/// If the QEMU that was asked for is unusable, or there is none at all.
pub fn locate(given: Option<&Path>) -> Result<Qemu, LocateError> {
    if let Some(qemu) = asked_for(given)? {
        return Ok(qemu);
    }
    let installed = on_path();
    match installed {
        Some(qemu) if qemu.capabilities.is_full() => Ok(qemu),
        Some(qemu) => Ok(private::obtain().unwrap_or_else(|error| {
            crate::tell!("{} cannot do everything, and there is no private copy: {error}", qemu.program.display());
            qemu
        })),
        None => Ok(private::obtain()?),
    }
}

/// Like [`locate`], but downloads nothing, checks no private copy, and answers at once: a QEMU that is not there yet is
/// called by its plain name and taken to be able to do everything.
///
/// # Errors
///
/// If the QEMU that was asked for is unusable.
pub fn locate_at_once(given: Option<&Path>) -> Result<Qemu, LocateError> {
    if let Some(qemu) = asked_for(given)? {
        return Ok(qemu);
    }
    let installed = on_path();
    match installed {
        Some(qemu) if qemu.capabilities.is_full() => Ok(qemu),
        _ => Ok(private::present().or(installed).unwrap_or_else(|| Qemu::unprobed(Path::new(NAME)))),
    }
}

fn asked_for(given: Option<&Path>) -> Result<Option<Qemu>, LocateError> {
    let variable = env::var_os("QEMU").filter(|value| !value.is_empty()).map(PathBuf::from);
    let (program, asked_by) = match (given, variable) {
        (Some(program), _) => (program.to_path_buf(), "--qemu"),
        (None, Some(program)) => (program, "$QEMU"),
        (None, None) => return Ok(None),
    };
    let Ok(found) = which::which(&program) else { return Err(LocateError::NotFound { asked_by, program }) };
    Ok(Some(Qemu::probe(&found)?))
}

/// The QEMU on PATH; one that does not answer as it should counts as none.
fn on_path() -> Option<Qemu> {
    Qemu::probe(&which::which(NAME).ok()?).ok()
}

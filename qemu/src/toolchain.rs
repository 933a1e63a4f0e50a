//! The compiler's target for the kernel, installed through rustup where it is missing.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::workspace;

/// The kernel's target triple.
pub const KERNEL_TARGET: &str = "aarch64-unknown-none-softfloat";

/// Why the kernel's target is not there.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// The compiler does not start.
    #[error("`rustc` does not run: {0}")]
    Rustc(io::Error),
    /// rustup is not there to install the target.
    #[error(
        "Rust's target {KERNEL_TARGET} is missing, and rustup, which installs it, does not run: {0}. \
         Install rustup, or the target by other means"
    )]
    Rustup(io::Error),
    /// rustup ran, and the target is still missing.
    #[error(
        "Rust's target {KERNEL_TARGET} is still missing after `rustup toolchain install` (its messages are above); \
         try `rustup target add {KERNEL_TARGET}` in the workspace"
    )]
    StillMissing,
}

/// Makes sure that the standard library for [`KERNEL_TARGET`] is installed; installs what rust-toolchain.toml names
/// if not, and says so on standard error.
///
/// # Errors
///
/// If the compiler does not run, or the target is missing and cannot be installed.
pub fn ensure_kernel_target() -> Result<(), ToolchainError> {
    if kernel_target_installed()? {
        return Ok(());
    }
    crate::tell!(
        "Rust's target {KERNEL_TARGET} is missing; running `rustup toolchain install` for rust-toolchain.toml"
    );
    // Cargo's rustup proxy names the toolchain in RUSTUP_TOOLCHAIN, which would hide the file with the targets.
    Command::new("rustup")
        .args(["toolchain", "install"])
        .env_remove("RUSTUP_TOOLCHAIN")
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .status()
        .map_err(ToolchainError::Rustup)?;
    if kernel_target_installed()? { Ok(()) } else { Err(ToolchainError::StillMissing) }
}

fn kernel_target_installed() -> Result<bool, ToolchainError> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", KERNEL_TARGET])
        .current_dir(workspace::root())
        .stderr(Stdio::null())
        .output()
        .map_err(ToolchainError::Rustc)?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end());
    Ok(output.status.success() && folder.is_dir())
}

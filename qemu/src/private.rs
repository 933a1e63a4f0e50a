//! A private copy of QEMU.

use crate::program::Qemu;

/// Why there is no private copy.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// This system's packages cannot be used for it.
    #[error("a private copy is only made on Debian and Ubuntu")]
    Unsupported,
}

/// The private copy, made if it is not there yet.
///
/// # Errors
///
/// If this system has no way to make one.
pub fn obtain() -> Result<Qemu, PrivateError> {
    Err(PrivateError::Unsupported)
}

/// The private copy, if there is one.
pub fn present() -> Option<Qemu> {
    None
}

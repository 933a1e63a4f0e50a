//! The kernel: built by Cargo, flattened for QEMU.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use serde_json::Value;

use crate::image::{self, ImageError};
use crate::toolchain::{self, KERNEL_TARGET, ToolchainError};
use crate::workspace;

/// A kernel that can be started.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The ELF file, with symbols and line numbers.
    pub elf: PathBuf,
    /// The raw image made from it.
    pub image: PathBuf,
}

/// Why there is no kernel to start.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The compiler's target is missing.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// Cargo does not start.
    #[error("`cargo` does not run: {0}")]
    Cargo(io::Error),
    /// Cargo ran and failed; it has said why.
    #[error("the kernel does not build; Cargo's messages are above")]
    Build,
    /// Cargo built something else.
    #[error("Cargo reported no executable for package `kernel`")]
    NoExecutable,
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The ELF file is no kernel.
    #[error("{}: {source}", path.display())]
    Image {
        /// The ELF file.
        path: PathBuf,
        /// What is wrong with it.
        source: ImageError,
    },
}

impl Kernel {
    /// Builds package `kernel` in release mode and flattens it. Later calls in this process return the same kernel
    /// without asking Cargo again.
    ///
    /// # Errors
    ///
    /// If the toolchain's target is missing and cannot be installed, or the kernel does not build or flatten.
    pub fn build() -> Result<Self, KernelError> {
        static BUILT: Mutex<Option<Kernel>> = Mutex::new(None);
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = &*built {
            return Ok(kernel.clone());
        }
        toolchain::ensure_kernel_target()?;
        let kernel = Self::from_elf(&build_elf()?)?;
        *built = Some(kernel.clone());
        Ok(kernel)
    }

    /// Where [`build`](Self::build) puts the kernel; nothing is built.
    pub fn expected() -> Self {
        let elf = workspace::target_directory().join(KERNEL_TARGET).join("release").join("kernel");
        Self::beside(&elf)
    }

    /// The kernel with the ELF file `elf` and the image that [`from_elf`](Self::from_elf) makes of it; nothing is read.
    pub fn beside(elf: &Path) -> Self {
        let mut name = elf.as_os_str().to_os_string();
        name.push(".image");
        Self { elf: elf.to_path_buf(), image: name.into() }
    }

    /// Flattens the ELF file `elf`; the image is put next to it, with `.image` added to its name.
    ///
    /// # Errors
    ///
    /// If `elf` cannot be read or is no kernel, or the image cannot be written.
    pub fn from_elf(elf: &Path) -> Result<Self, KernelError> {
        let in_file = |path: &Path, source| KernelError::File { path: path.to_path_buf(), source };
        let bytes = fs::read(elf).map_err(|error| in_file(elf, error))?;
        let flat = image::flatten(&bytes).map_err(|source| KernelError::Image { path: elf.to_path_buf(), source })?;
        let kernel = Self::beside(elf);
        workspace::write_whole(&kernel.image, &flat).map_err(|error| in_file(&kernel.image, error))?;
        Ok(kernel)
    }
}

fn build_elf() -> Result<PathBuf, KernelError> {
    let output = workspace::cargo()
        .args(["build", "--package", "kernel", "--release", "--target", KERNEL_TARGET])
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        .arg(workspace::target_directory())
        .current_dir(workspace::root())
        // The flags in .cargo/config.toml hold only where these do not replace them.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(KernelError::Cargo)?;
    if !output.status.success() {
        return Err(KernelError::Build);
    }
    String::from_utf8_lossy(&output.stdout).lines().find_map(executable).ok_or(KernelError::NoExecutable)
}

/// The executable that a line of Cargo's JSON messages announces, if it is the kernel's.
fn executable(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_kernel = message["reason"] == "compiler-artifact" && message["target"]["name"] == "kernel";
    is_kernel.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_s_message_names_the_executable() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/a b/kernel"}"#;
        assert_eq!(executable(line), Some("/a b/kernel".into()));
        assert_eq!(executable(&line.replace(r#""name":"kernel""#, r#""name":"smmu""#)), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("no JSON"), None);
    }

    #[test]
    fn a_missing_elf_file_is_named() {
        let error = Kernel::from_elf(Path::new("/no/such/kernel")).unwrap_err();
        assert!(error.to_string().starts_with("/no/such/kernel: "));
    }
}

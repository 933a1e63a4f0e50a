//! Where things lie: the workspace's root, its target folder, and Cargo.

use std::env;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use tempfile::NamedTempFile;

/// The folder of the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Cargo's target folder, the one that the running executable was built into.
///
/// `CARGO_TARGET_DIR` may be relative to a folder that is no longer the current one, so the answer comes from the
/// executable's own path: Cargo marks the target folder with a `CACHEDIR.TAG`.
pub fn target_directory() -> PathBuf {
    let executable = env::current_exe().unwrap_or_default();
    let marked = executable.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    match (marked, env::var_os("CARGO_TARGET_DIR")) {
        (Some(folder), _) => folder.to_path_buf(),
        (None, Some(folder)) => root().join(folder),
        (None, None) => root().join("target"),
    }
}

/// The Cargo that runs us, or the one on PATH.
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// A temporary file that others may read as they may read any new file, not only its owner.
fn new_file(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Writes `bytes` to the file `path` in one step: who opens it sees the old contents or the new, never a part. Missing
/// folders are made.
///
/// # Errors
///
/// If the file or a folder cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = new_file(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

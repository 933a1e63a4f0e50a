//! A private copy of QEMU from the system's own package mirror, unpacked under the target folder.
//!
//! What lives here: making the copy without privileges and without touching the system (`apt`, `packages`),
//! noticing damage (`manifest`), and how a copy is started. What does not: the choice between it and other QEMUs
//! ([`crate::locate`]).
//!
//! The folder holds `root`, which appears whole or not at all, the packages it was made from, so that damage is mended
//! without a network, and a lock file, so that of two processes one works and the other waits.

mod apt;
mod manifest;
mod packages;

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::program::{ProbeError, Qemu};
use crate::workspace;

/// Why there is no private copy.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// This system's packages cannot be used for it.
    #[error("one is made only on Debian and Ubuntu, with `apt-get` and `dpkg-deb`")]
    Unsupported,
    /// apt knows no mirror of the distribution.
    #[error("apt's configuration names no mirror of {distribution}'s releases (see `apt-get indextargets`)")]
    NoMirror {
        /// The distribution.
        distribution: &'static str,
    },
    /// apt failed.
    #[error("`apt-get {step}` from {mirror} failed: {message}")]
    Apt {
        /// What it was doing.
        step: &'static str,
        /// The mirror and suite.
        mirror: String,
        /// What it said.
        message: String,
    },
    /// A package is not what apt's index says, even after a second download.
    #[error("package {package} is damaged after its download")]
    Package {
        /// The package's file name.
        package: String,
    },
    /// A package cannot be unpacked.
    #[error("package {package} cannot be unpacked: {message}")]
    Unpack {
        /// The package's file name.
        package: String,
        /// What dpkg-deb said.
        message: String,
    },
    /// The packages hold no QEMU.
    #[error("the packages unpacked in {} hold no dynamic loader or no qemu-system-aarch64", root.display())]
    Incomplete {
        /// Where they were unpacked.
        root: PathBuf,
    },
    /// The copy does not run.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Gives an I/O error the path that it is about.
fn at(path: &Path) -> impl FnOnce(io::Error) -> PrivateError {
    let path = path.to_path_buf();
    move |source| PrivateError::File { path, source }
}

/// The private copy: checked if it is there, made or mended if not. Says on standard error what takes time.
///
/// # Errors
///
/// If this system cannot make one, or the download fails.
pub fn obtain() -> Result<Qemu, PrivateError> {
    let folder = folder();
    let root = folder.join("root");
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let lock = acquire(&folder.join("lock"))?;
    match manifest::check(&root) {
        Ok(()) => return probe(&root),
        Err(manifest::Damage::Absent) => {}
        Err(damage) => crate::tell!("the private copy of QEMU in {} is damaged ({damage}); mending it", root.display()),
    }
    let packages = packages::obtain(&folder, &lock)?;
    make(&folder, &packages)
}

/// The private copy, if there is one; it is not checked for damage.
pub fn present() -> Option<Qemu> {
    let root = folder().join("root");
    if manifest::exists(&root) { probe(&root).ok() } else { None }
}

fn folder() -> PathBuf {
    workspace::target_directory().join("qemu-private")
}

/// Waits until no other process works on the copy. The lock is held as long as the file, or a child that was given it,
/// is open.
fn acquire(path: &Path) -> Result<File, PrivateError> {
    let file = File::create(path).map_err(at(path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            crate::tell!("another process is at work on the private copy of QEMU; waiting")
        }
        Err(TryLockError::Error(error)) => return Err(at(path)(error)),
    }
    file.lock().map_err(at(path))?;
    Ok(file)
}

/// Unpacks `packages` and puts the result in place of the present `root` once it has proved to run.
fn make(folder: &Path, packages: &[PathBuf]) -> Result<Qemu, PrivateError> {
    let (root, partial) = (folder.join("root"), folder.join("root.partial"));
    remove(&partial)?;
    packages::unpack(packages, &partial)?;
    let qemu = probe(&partial)?;
    manifest::write(&partial).map_err(at(&partial))?;
    remove(&root)?;
    fs::rename(&partial, &root).map_err(at(&root))?;
    crate::tell!("{}, private copy in {}", qemu.version, root.display());
    let (program, leading_arguments, environment) = invocation(&root)?;
    Ok(Qemu { program, leading_arguments, environment, ..qemu })
}

fn remove(folder: &Path) -> Result<(), PrivateError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(folder)(error)),
        _ => Ok(()),
    }
}

fn probe(root: &Path) -> Result<Qemu, PrivateError> {
    let (program, leading_arguments, environment) = invocation(root)?;
    Ok(Qemu::probe_with(&program, leading_arguments, environment)?)
}

/// How the QEMU unpacked in `root` is started: by its own dynamic loader, with its own libraries, firmware and modules.
/// Program, leading arguments, environment.
#[expect(clippy::type_complexity, reason = "three parts of one command, taken apart at once")]
fn invocation(root: &Path) -> Result<(PathBuf, Vec<OsString>, Vec<(OsString, OsString)>), PrivateError> {
    let incomplete = || PrivateError::Incomplete { root: root.to_path_buf() };
    let program = root.join("usr/bin/qemu-system-aarch64");
    // Before the merge of /usr, the loader and the C library lay in /lib.
    let loader = ["usr/lib", "lib"].iter().find_map(|lib| dynamic_loader(&root.join(lib))).ok_or_else(incomplete)?;
    let architecture = loader.parent().and_then(Path::file_name).ok_or_else(incomplete)?;
    if !program.is_file() {
        return Err(incomplete());
    }
    let libraries = root.join("usr/lib").join(architecture);
    let mut library_path = libraries.clone().into_os_string();
    library_path.push(":");
    library_path.push(root.join("lib").join(architecture));
    let mut arguments = vec!["--library-path".into(), library_path, program.into()];
    for firmware in ["usr/share/qemu", "usr/lib/ipxe/qemu"] {
        arguments.extend(["-L".into(), root.join(firmware).into()]);
    }
    let environment = vec![("QEMU_MODULE_DIR".into(), libraries.join("qemu").into())];
    Ok((loader, arguments, environment))
}

/// The dynamic loader in `lib/ARCHITECTURE`.
fn dynamic_loader(lib: &Path) -> Option<PathBuf> {
    let files_of = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut candidates = files_of(lib).filter(|folder| folder.is_dir()).flat_map(|folder| files_of(&folder));
    candidates.find(|file| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("ld-linux") && name.contains(".so.")
    })
}

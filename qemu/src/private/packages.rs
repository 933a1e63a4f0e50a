//! The packages that a private copy is made from: listed, downloaded, checked, unpacked.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use sha2::{Sha256, Sha512};
use wait_timeout::ChildExt as _;

use super::apt::{Apt, Source};
use super::{PrivateError, at};
use crate::{hash, workspace};

/// What is installed.
const PACKAGE: &str = "qemu-system-arm";

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// A package as apt's signed index describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Package {
    file: String,
    bytes: u64,
    /// As apt writes it: `SHA256:DIGITS` or `SHA512:DIGITS`, whichever the index has.
    hash: String,
}

impl Package {
    /// Whether the file `path` is what the index says.
    fn describes(&self, path: &Path) -> io::Result<bool> {
        let (algorithm, digits) = self.hash.split_once(':').unwrap_or_default();
        let (bytes, found) = match algorithm {
            "SHA512" => hash::of_file::<Sha512>(path)?,
            _ => hash::of_file::<Sha256>(path)?,
        };
        Ok(bytes == self.bytes && found == digits)
    }
}

/// The files of all packages that the copy consists of, downloaded where they are not there already. Packages that are
/// there are used without asking the network.
pub(super) fn obtain(folder: &Path, lock: &File) -> Result<Vec<PathBuf>, PrivateError> {
    let apt = Apt::new(folder, lock);
    let list = folder.join("packages.json");
    let known: Option<Vec<Package>> = fs::read(&list).ok().and_then(|json| serde_json::from_slice(&json).ok());
    if let Some(packages) = known
        && remove_damaged(&packages, &apt.archives())?.is_empty()
    {
        return Ok(paths(&packages, &apt.archives()));
    }
    crate::tell!("fetching a private copy of QEMU, as there is none here that can do everything");
    let packages = download_from_any(&apt)?;
    let json = serde_json::to_vec_pretty(&packages).map_err(io::Error::from).map_err(at(&list))?;
    workspace::write_whole(&list, &json).map_err(at(&list))?;
    Ok(paths(&packages, &apt.archives()))
}

/// Unpacks the package files `packages` into the new folder `root`.
pub(super) fn unpack(packages: &[PathBuf], root: &Path) -> Result<(), PrivateError> {
    let progress = progress("unpacking", packages.len() as u64, "{pos}/{len} packages");
    fs::create_dir_all(root).map_err(at(root))?;
    for package in packages {
        let unpacked = Command::new("dpkg-deb").arg("--extract").args([package, root]).stdin(Stdio::null()).output();
        let failed = |message| {
            let package = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
            PrivateError::Unpack { package, message }
        };
        let output = unpacked.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(telling_line(&output.stderr)));
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

fn paths(packages: &[Package], archives: &Path) -> Vec<PathBuf> {
    packages.iter().map(|package| archives.join(&package.file)).collect()
}

/// Downloads all packages of the first source that has them. The error is that of the best source.
fn download_from_any(apt: &Apt<'_>) -> Result<Vec<Package>, PrivateError> {
    let mut first_error = None;
    for source in Apt::sources()? {
        match download(apt, &source) {
            Ok(packages) => return Ok(packages),
            Err(error) => {
                crate::tell!("{error}");
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or(PrivateError::Unsupported))
}

/// Downloads all packages of one source.
fn download(apt: &Apt<'_>, source: &Source) -> Result<Vec<Package>, PrivateError> {
    let failed = |step| move |message| PrivateError::Apt { step, mirror: source.name().to_owned(), message };
    apt.configure(source)?;
    crate::tell!("reading the package lists of {}", source.name());
    finished(apt.command(&["update"])?.output()).map_err(failed("update"))?;

    let mut packages: Vec<Package> = Vec::new();
    for hash in ["SHA256", "SHA512"] {
        // Packages that are there already would be missing from the list, so that one is made for an empty folder.
        let force = format!("Acquire::ForceHash={hash}");
        let arguments = ["-o", &force, "-o", "Dir::Cache::archives=empty/", "--print-uris", "install", PACKAGE];
        let listing = finished(apt.command(&arguments)?.output()).map_err(failed("--print-uris install"))?;
        packages = listing.lines().filter_map(parse_uri_line).collect();
        if !packages.is_empty() {
            break;
        }
    }
    if packages.is_empty() {
        return Err(failed("--print-uris install")(format!("{PACKAGE} has no packages to install")));
    }
    remove_damaged(&packages, &apt.archives())?;
    fetch(apt, &packages).map_err(failed("--download-only install"))?;
    match remove_damaged(&packages, &apt.archives())?.into_iter().next() {
        Some(package) => Err(PrivateError::Package { package }),
        None => Ok(packages),
    }
}

/// Has apt download `packages`, and shows how far it is.
fn fetch(apt: &Apt<'_>, packages: &[Package]) -> Result<(), String> {
    let total = packages.iter().map(|package| package.bytes).sum();
    if !io::stderr().is_terminal() {
        crate::tell!("downloading {} packages, {}", packages.len(), HumanBytes(total));
    }
    let progress = progress("downloading", total, "{bytes}/{total_bytes}, {bytes_per_sec}");
    let mut command = apt.command(&["--download-only", "install", PACKAGE]).map_err(|error| error.to_string())?;
    let log = apt.archives().join("download.log");
    let log_file = File::create(&log).map_err(|error| error.to_string())?;
    let mut child = command.stdout(Stdio::null()).stderr(log_file).spawn().map_err(|error| error.to_string())?;
    let status = loop {
        let present = packages.iter().map(|package| bytes_present(&apt.archives(), package)).sum();
        progress.set_position(present);
        if let Some(status) = child.wait_timeout(PROGRESS_INTERVAL).map_err(|error| error.to_string())? {
            break status;
        }
    };
    progress.finish_and_clear();
    if status.success() { Ok(()) } else { Err(telling_line(&fs::read(&log).unwrap_or_default())) }
}

/// How much of a package has arrived, in bytes.
fn bytes_present(archives: &Path, package: &Package) -> u64 {
    let length = |folder: &Path| fs::metadata(folder.join(&package.file)).map(|metadata| metadata.len());
    length(archives).or_else(|_| length(&archives.join("partial"))).unwrap_or(0)
}

/// Removes the files that are not what the index says. Returns the names of the packages that are missing then.
fn remove_damaged(packages: &[Package], archives: &Path) -> Result<Vec<String>, PrivateError> {
    let mut missing = Vec::new();
    for package in packages {
        let path = archives.join(&package.file);
        match package.describes(&path) {
            Ok(true) => continue,
            Ok(false) => fs::remove_file(&path).map_err(at(&path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(&path)(error)),
        }
        missing.push(package.file.clone());
    }
    Ok(missing)
}

/// Parses a line of `apt-get --print-uris`: `'ADDRESS' FILE BYTES ALGORITHM:DIGITS`.
fn parse_uri_line(line: &str) -> Option<Package> {
    let mut words = line.strip_prefix('\'')?.split_once("' ")?.1.split_whitespace();
    let (file, bytes, hash) = (words.next()?, words.next()?, words.next()?);
    let is_strong = hash.starts_with("SHA256:") || hash.starts_with("SHA512:");
    let package = Package { file: file.to_owned(), bytes: bytes.parse().ok()?, hash: hash.to_owned() };
    (is_strong && !file.contains('/')).then_some(package)
}

/// The standard output of a command that succeeded, else what it said last.
fn finished(output: io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(telling_line(&output.stderr))
}

/// The first line that is an error of apt's, which the others follow from; else the last line.
fn telling_line(messages: &[u8]) -> String {
    let text = String::from_utf8_lossy(messages);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let error = lines.iter().find(|line| line.starts_with("E: ")).or(lines.last());
    error.copied().unwrap_or("it said nothing").to_owned()
}

/// A bar on a terminal, nothing elsewhere.
fn progress(what: &'static str, total: u64, counts: &str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(what);
    match ProgressStyle::with_template(&format!("{{msg:12}} [{{wide_bar}}] {counts}")) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn package() -> Package {
        Package { file: "libc6_2%3a1_amd64.deb".to_owned(), bytes: 3, hash: format!("SHA256:{ABC}") }
    }

    #[test]
    fn apt_s_list_is_understood() {
        let line = |file: &str| format!("'mirror://a/b%20c.deb' {file} 3 SHA256:{ABC}");
        assert_eq!(parse_uri_line(&line("libc6_2%3a1_amd64.deb")), Some(package()));
        assert_eq!(parse_uri_line(&line("../escape.deb")), None);
        assert_eq!(parse_uri_line("After this operation, 179 MB"), None);
        assert_eq!(parse_uri_line("'mirror://a' b.deb 3 MD5Sum:00"), None);
    }

    #[test]
    fn damaged_packages_are_removed_and_missing_ones_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(package().file);
        let missing = || remove_damaged(&[package()], folder.path()).unwrap();
        assert_eq!(missing(), [package().file]);
        fs::write(&path, "abd").unwrap();
        assert_eq!(missing(), [package().file]);
        assert!(!path.exists());
        fs::write(&path, "abc").unwrap();
        assert!(missing().is_empty());
    }

    #[test]
    fn the_hash_may_be_sha_512() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("package");
        let (bytes, digits) = (
            3,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                                   2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        );
        let package = Package { file: String::new(), bytes, hash: format!("SHA512:{digits}") };
        fs::write(&path, "abc").unwrap();
        assert!(package.describes(&path).unwrap());
        fs::write(&path, "abd").unwrap();
        assert!(!package.describes(&path).unwrap());
    }

    #[test]
    fn progress_counts_whole_and_partial_files() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(bytes_present(folder.path(), &package()), 0);
        fs::create_dir(folder.path().join("partial")).unwrap();
        fs::write(folder.path().join("partial").join(package().file), "a").unwrap();
        assert_eq!(bytes_present(folder.path(), &package()), 1);
        fs::write(folder.path().join(package().file), "abc").unwrap();
        assert_eq!(bytes_present(folder.path(), &package()), 3);
    }

    #[test]
    fn apt_s_own_error_is_told() {
        let messages = b"W: a warning\nE: Unable to fetch some archives\nE: Aborted\nW: another\n";
        assert_eq!(telling_line(messages), "E: Unable to fetch some archives");
        assert_eq!(telling_line(b"tar: broken\n\n"), "tar: broken");
        assert_eq!(telling_line(b""), "it said nothing");
    }

    #[test]
    fn a_package_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("broken.deb");
        fs::write(&file, "no archive").unwrap();
        let error = unpack(&[file], &folder.path().join("root")).unwrap_err();
        assert!(matches!(error, PrivateError::Unpack { package, .. } if package == "broken.deb"));
    }
}

//! What an unpacked copy consists of, so that damage is noticed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::hash;

/// Name of the manifest within the copy. It is written last.
const NAME: &str = "manifest.json";

/// One file or symbolic link of the copy.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// Where, relative to the copy's root.
    path: PathBuf,
    content: Content,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Content {
    File {
        bytes: u64,
        sha256: String,
        /// When it was last written, in nanoseconds since 1970. A file with the old length and time is not hashed again.
        modified: i128,
    },
    Link {
        target: PathBuf,
    },
}

/// What is wrong with a copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// There is none.
    #[error("it is not there")]
    Absent,
    /// The manifest does not say what it should.
    #[error("its manifest is not readable: {0}")]
    Manifest(serde_json::Error),
    /// A file is missing or unreadable.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not as it was.
    #[error("{} has changed", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
}

/// Whether `root` is a copy that was once whole.
pub(super) fn exists(root: &Path) -> bool {
    root.join(NAME).is_file()
}

/// Writes down what `root` consists of.
pub(super) fn write(root: &Path) -> io::Result<()> {
    let mut entries = Vec::new();
    collect(root, Path::new(""), &mut entries)?;
    fs::write(root.join(NAME), serde_json::to_vec(&entries)?)
}

/// Compares `root` with what was written down.
pub(super) fn check(root: &Path) -> Result<(), Damage> {
    let manifest = match fs::read(root.join(NAME)) {
        Ok(manifest) => manifest,
        Err(_) if !root.exists() => return Err(Damage::Absent),
        Err(source) => return Err(Damage::Unreadable { path: NAME.into(), source }),
    };
    let entries: Vec<Entry> = serde_json::from_slice(&manifest).map_err(Damage::Manifest)?;
    for entry in entries {
        match unchanged(root, &entry) {
            Ok(true) => {}
            Ok(false) => return Err(Damage::Changed { path: entry.path }),
            Err(source) => return Err(Damage::Unreadable { path: entry.path, source }),
        }
    }
    Ok(())
}

fn unchanged(root: &Path, entry: &Entry) -> io::Result<bool> {
    let path = root.join(&entry.path);
    match &entry.content {
        Content::Link { target } => Ok(fs::read_link(&path)? == *target),
        Content::File { bytes, sha256, modified } => {
            let metadata = fs::symlink_metadata(&path)?;
            if !metadata.is_file() || metadata.len() != *bytes {
                return Ok(false);
            }
            Ok(nanoseconds(&metadata) == *modified || hash::of_file::<Sha256>(&path)?.1 == *sha256)
        }
    }
}

fn collect(root: &Path, folder: &Path, entries: &mut Vec<Entry>) -> io::Result<()> {
    for found in fs::read_dir(root.join(folder))? {
        let found = found?;
        let (path, metadata) = (folder.join(found.file_name()), found.metadata()?);
        let content = if metadata.is_dir() {
            collect(root, &path, entries)?;
            continue;
        } else if metadata.is_symlink() {
            Content::Link { target: fs::read_link(found.path())? }
        } else {
            let (bytes, sha256) = hash::of_file::<Sha256>(&found.path())?;
            Content::File { bytes, sha256, modified: nanoseconds(&metadata) }
        };
        entries.push(Entry { path, content });
    }
    Ok(())
}

fn nanoseconds(metadata: &fs::Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A copy with a program, a link to it and a library.
    fn copy() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/bin/qemu"), "program").unwrap();
        fs::write(root.join("library"), "library").unwrap();
        symlink("usr/bin/qemu", root.join("link")).unwrap();
        write(root).unwrap();
        folder
    }

    fn damage(change: impl FnOnce(&Path)) -> String {
        let copy = copy();
        assert!(check(copy.path()).is_ok());
        change(copy.path());
        check(copy.path()).unwrap_err().to_string()
    }

    #[test]
    fn a_copy_that_is_not_there_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        assert!(matches!(check(&root), Err(Damage::Absent)));
        assert!(!exists(&root));
    }

    #[test]
    fn every_kind_of_damage_is_noticed() {
        assert_eq!(damage(|root| fs::write(root.join("library"), "Library").unwrap()), "library has changed");
        assert_eq!(damage(|root| fs::write(root.join("library"), "lib").unwrap()), "library has changed");
        assert!(damage(|root| fs::remove_file(root.join("usr/bin/qemu")).unwrap()).starts_with("usr/bin/qemu: "));
        assert!(damage(|root| fs::write(root.join(NAME), "[{").unwrap()).starts_with("its manifest"));
        assert!(damage(|root| fs::remove_file(root.join(NAME)).unwrap()).starts_with(NAME));
        let relinked = damage(|root| {
            fs::remove_file(root.join("link")).unwrap();
            symlink("library", root.join("link")).unwrap();
        });
        assert_eq!(relinked, "link has changed");
    }

    #[test]
    fn a_copy_of_the_copy_is_as_good() {
        let copy = copy();
        let library = copy.path().join("library");
        fs::write(&library, "library").unwrap();
        assert!(check(copy.path()).is_ok());
    }
}

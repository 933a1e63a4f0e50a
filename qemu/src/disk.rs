//! Disk images, and what their contents should hash to.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde_json::Value;
use sha2::Sha256;

use crate::{console, hash, workspace};

/// Size of the disk that is made from a seed, in bytes: 16 MiB.
pub const SEEDED_BYTES: u64 = 16 << 20;

/// The seed of its contents.
const SEED: u64 = 0x5344_4d4d_5576_3301;

/// Size of a disk sector, in bytes.
const SECTOR_BYTES: u64 = 512;

/// A file that a machine sees as a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes. The machine sees it rounded up to whole sectors of 512 bytes, filled with zeros.
    pub bytes: u64,
    /// The SHA-256 of its contents, in lower-case hexadecimal digits.
    pub sha256: String,
}

/// What is wrong with a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file cannot be read or written.
    #[error("disk {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is empty.
    #[error("disk {} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The kernel did not report what it read.
    #[error("the kernel reported no SHA-256 of disk {} (a record \"disk\" was expected)", path.display())]
    NotReported {
        /// The file.
        path: PathBuf,
    },
    /// The kernel read something else.
    #[error("disk {}: SHA-256 is {expected} on the host, but the kernel read {found}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Length and SHA-256 of the file.
        expected: String,
        /// Length and SHA-256 that the kernel reported.
        found: String,
    },
}

impl Disk {
    /// The disk made from a seed: [`SEEDED_BYTES`] that are the same every time, under the target folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn seeded() -> Result<Self, DiskError> {
        Self::seeded_at(&Self::seeded_path())
    }

    fn seeded_at(path: &Path) -> Result<Self, DiskError> {
        let mut contents = vec![0; SEEDED_BYTES as usize];
        ChaCha8Rng::seed_from_u64(SEED).fill_bytes(&mut contents);
        let up_to_date = fs::read(path).is_ok_and(|present| present == contents);
        if !up_to_date {
            workspace::write_whole(path, &contents)
                .map_err(|source| DiskError::File { path: path.to_path_buf(), source })?;
        }
        Self::file(path)
    }

    /// Where the disk made from a seed lies, or will.
    pub fn seeded_path() -> PathBuf {
        workspace::target_directory().join("disk.img")
    }

    /// The disk over the file `path`, which is only read.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is empty.
    pub fn file(path: &Path) -> Result<Self, DiskError> {
        let in_file = |source| DiskError::File { path: path.to_path_buf(), source };
        let (bytes, sha256) = hash::of_file::<Sha256>(path).map_err(in_file)?;
        if bytes == 0 {
            return Err(DiskError::Empty { path: path.to_path_buf() });
        }
        let path = fs::canonicalize(path).map_err(in_file)?;
        Ok(Self { path, bytes, sha256 })
    }

    /// What the kernel has to be told about it: `disk-bytes=N` where its length is no multiple of a sector.
    pub fn bootargs(&self) -> Option<String> {
        let partial = !self.bytes.is_multiple_of(SECTOR_BYTES);
        partial.then(|| format!("disk-bytes={}", self.bytes))
    }

    /// Compares the record of what the kernel read, `{"record":"disk","sha256":"...","bytes":N}`, with the file.
    ///
    /// # Errors
    ///
    /// If there is no such record among `records`, or it tells of other contents.
    pub fn check(&self, records: &[Value]) -> Result<(), DiskError> {
        let record = console::of_kind(records, "disk").last();
        let record = record.ok_or_else(|| DiskError::NotReported { path: self.path.clone() })?;
        if record["sha256"] == *self.sha256 && record["bytes"] == self.bytes {
            return Ok(());
        }
        let expected = format!("{} ({} bytes)", self.sha256, self.bytes);
        let found = format!("{} ({} bytes)", record["sha256"].as_str().unwrap_or("nothing"), record["bytes"]);
        Err(DiskError::Mismatch { path: self.path.clone(), expected, found })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn disk(contents: &[u8]) -> Result<Disk, DiskError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a disk");
        fs::write(&path, contents).unwrap();
        Disk::file(&path)
    }

    #[test]
    fn the_seeded_disk_is_the_same_every_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let disk = Disk::seeded_at(&path).unwrap();
        assert_eq!(disk.bytes, SEEDED_BYTES);
        assert_eq!(disk.sha256, "10fa3feeae0168abd790ffc9a52eb568a0f414513b0c686a599f084f7435ee94");
        fs::write(&path, "damaged").unwrap();
        assert_eq!(Disk::seeded_at(&path).unwrap(), disk);
    }

    #[test]
    fn the_hash_is_sha_256() {
        let disk = disk(b"abc").unwrap();
        assert_eq!(disk.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_partial_sector_is_told_to_the_kernel() {
        assert_eq!(disk(&[1; 513]).unwrap().bootargs().as_deref(), Some("disk-bytes=513"));
        assert_eq!(disk(&[1; 512]).unwrap().bootargs(), None);
    }

    #[test]
    fn an_empty_or_missing_file_is_refused() {
        assert!(matches!(disk(b""), Err(DiskError::Empty { .. })));
        assert!(matches!(Disk::file(Path::new("/no/such/file")), Err(DiskError::File { .. })));
    }

    #[test]
    fn the_kernel_s_record_has_to_agree() {
        let disk = disk(b"abc").unwrap();
        let record = |sha256: &str, bytes: u64| [json!({"record": "disk", "sha256": sha256, "bytes": bytes})];
        assert!(disk.check(&record(&disk.sha256, 3)).is_ok());
        assert!(matches!(disk.check(&record(&disk.sha256, 512)), Err(DiskError::Mismatch { .. })));
        assert!(matches!(disk.check(&record("00", 3)), Err(DiskError::Mismatch { .. })));
        assert!(matches!(disk.check(&[json!({"record": "other"})]), Err(DiskError::NotReported { .. })));
    }
}

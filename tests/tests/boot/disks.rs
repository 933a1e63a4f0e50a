//! Disks of other sizes and contents than the usual one: the SHA-256 that the kernel reports is that of the file.

use std::fs;

use qemu::disk::{Disk, DiskError, SEEDED_BYTES};
use qemu::machine::Machine;
use tempfile::TempDir;

use crate::boot::{Boot, Booted, DISK, demo_machine};
use crate::demo::assert_complete;

/// A disk with `contents`, and the folder that holds it.
pub(crate) fn disk(contents: &[u8]) -> (Disk, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    fs::write(&path, contents).unwrap();
    (Disk::file(&path).unwrap(), folder)
}

/// Boots the demonstration over a disk with `contents` and checks all of it.
#[track_caller]
fn reads(contents: &[u8]) -> Booted {
    let (disk, _folder) = disk(contents);
    let boot = Boot::new("demo", Machine::demo(&disk.path));
    let booted = disk.bootargs().iter().fold(boot, |boot, argument| boot.argument(argument)).run();
    assert_complete(&booted, &disk);
    assert_eq!(booted.record("disk")["bytes"], contents.len());
    booted
}

/// Bytes that neither repeat soon nor are like those of the usual disk.
pub(crate) fn other_bytes(length: usize) -> Vec<u8> {
    (0..length as u64).map(|index| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[test]
fn a_length_that_is_no_multiple_of_a_sector() {
    reads(&other_bytes((1 << 20) + 13));
}

#[test]
fn less_than_one_sector() {
    let booted = reads(b"abc");
    // The test vector of FIPS 180-2, so that host and kernel cannot agree on something wrong.
    booted.assert_shows("SHA-256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn one_sector() {
    reads(&other_bytes(512));
}

#[test]
fn a_disk_full_of_zeros() {
    let booted = reads(&vec![0; SEEDED_BYTES as usize]);
    assert!(matches!(DISK.check(&booted.result.records), Err(DiskError::Mismatch { .. })));
}

#[test]
fn other_contents_of_the_same_size_are_told_apart() {
    let booted = reads(&other_bytes(SEEDED_BYTES as usize));
    assert!(matches!(DISK.check(&booted.result.records), Err(DiskError::Mismatch { .. })));
    let usual = Boot::new("demo", demo_machine()).run();
    assert!(DISK.check(&usual.result.records).is_ok());
}

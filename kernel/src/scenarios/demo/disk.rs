//! virtio-blk read whole, and bytes from virtio-rng.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::fmt::Write;

use sha2::{Digest, Sha256};

use super::super::Context;
use super::super::system::System;
use super::NO_LIMIT;
use crate::drivers::DriverKind;
use crate::drivers::virtio::{Block, Entropy, SECTOR_BYTES};
use crate::iommu::{Bound, SmmuDma};
use crate::{println, record, timer};

/// virtio device slots, one for each driver.
const DISK_SLOT: usize = 0;
const ENTROPY_SLOT: usize = 1;

/// Reads the disk whole and says what its SHA-256 is.
pub(super) fn read(system: &mut System, context: &Context) -> Result<(), String> {
    let started = timer::now();
    let endpoint = system.endpoint(DriverKind::VirtioBlock)?;
    let device = endpoint.device()?;
    let bound = Bound::new(&mut endpoint.function, &device, NO_LIMIT).map_err(|error| error.to_string())?;
    let dma = Box::new(SmmuDma::new(bound.dma.clone()));
    let mut disk = Block::<DISK_SLOT>::new(&mut *bound.function, dma).map_err(|error| error.to_string())?;
    // A file that is not whole sectors is padded by the launcher, which then tells its length.
    let disk_bytes = disk.capacity_sectors().saturating_mul(SECTOR_BYTES as u64);
    let told = context.arguments.get("disk-bytes").and_then(|bytes| bytes.parse().ok());
    let bytes = told.unwrap_or(disk_bytes).min(disk_bytes);

    let mut remaining = bytes;
    let mut hash = Sha256::new();
    let read = disk.read_whole(|chunk| {
        let wanted = chunk.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
        hash.update(chunk.get(..wanted).unwrap_or_default());
        remaining = remaining.saturating_sub(wanted as u64);
    });
    read.map_err(|error| error.to_string())?;
    let sha256 = hexadecimal(&hash.finalize());
    let seconds = timer::now().saturating_sub(started).as_secs_f32();
    println!("{device}: {bytes} bytes in {seconds:.1} s");
    println!("SHA-256 {sha256}");
    record!("disk", "bytes" => bytes, "sha256" => sha256.as_str());
    Ok(())
}

/// Gets some random bytes.
pub(super) fn random_bytes(system: &mut System) -> Result<(), String> {
    let endpoint = system.endpoint(DriverKind::VirtioEntropy)?;
    let device = endpoint.device()?;
    let bound = Bound::new(&mut endpoint.function, &device, NO_LIMIT).map_err(|error| error.to_string())?;
    let dma = Box::new(SmmuDma::new(bound.dma.clone()));
    let mut entropy = Entropy::<ENTROPY_SLOT>::new(&mut *bound.function, dma).map_err(|error| error.to_string())?;
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.iter().all(|&byte| byte == 0) {
        return Err(alloc::format!("{device} gave {} zeros", bytes.len()));
    }
    println!("{device}: {}", hexadecimal(&bytes));
    record!("entropy", "bytes" => bytes.len());
    Ok(())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

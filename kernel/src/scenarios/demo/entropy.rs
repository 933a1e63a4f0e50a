//! Bytes from virtio-rng.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};

use super::super::disk::hexadecimal;
use super::super::system::System;
use crate::drivers::DriverKind;
use crate::drivers::virtio::Entropy;
use crate::iommu::{Bound, NO_LIMIT, SmmuDma};
use crate::{println, record};

/// The virtio device slot of the source of random bytes. Slot 0 is the disk's.
const SLOT: usize = 1;

/// Gets some random bytes.
pub(super) fn random_bytes(system: &mut System) -> Result<(), String> {
    let endpoint = system.endpoint(DriverKind::VirtioEntropy)?;
    let device = endpoint.device()?;
    let mut bound = Bound::new(&mut endpoint.function, &device, NO_LIMIT).map_err(|error| error.to_string())?;
    let dma = Box::new(SmmuDma::new(bound.dma().clone()));
    let mut entropy = Entropy::<SLOT>::new(bound.function(), dma).map_err(|error| error.to_string())?;
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.iter().all(|&byte| byte == 0) {
        return Err(format!("{device} gave {} zeros", bytes.len()));
    }
    println!("{device}: {}", hexadecimal(&bytes));
    record!("entropy", "bytes" => bytes.len());
    Ok(())
}

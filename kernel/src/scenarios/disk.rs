//! A disk with DMA, read whole while something else may go on.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt::Write;

use sha2::{Digest, Sha256};
use smmu::iommu::Device;

use super::Context;
use super::system::Endpoint;
use crate::drivers::virtio::{Block, SECTOR_BYTES};
use crate::iommu::{Bound, NO_LIMIT, SmmuDma};
use crate::{println, record, timer};

/// The virtio device slot of the disk.
const SLOT: usize = 0;

/// A virtio disk, attached.
pub(super) struct Disk {
    pub(super) device: Arc<Device>,
    block: Block<SLOT>,
    /// Last: bus mastering goes off after everything else.
    _bound: Bound,
}

/// A request for a piece of the disk, which the device may be busy with.
pub(super) struct UnderWay<'a> {
    block: &'a mut Block<SLOT>,
    /// How many pieces were read before.
    pub(super) index: usize,
}

impl UnderWay<'_> {
    /// Whether the device is still busy with it.
    pub(super) fn is_pending(&mut self) -> bool {
        !self.block.is_done()
    }
}

impl Disk {
    pub(super) fn new(endpoint: &mut Endpoint) -> Result<Self, String> {
        let device = endpoint.device()?;
        let bound = endpoint.bind(NO_LIMIT).map_err(|error| error.to_string())?;
        let dma = Box::new(SmmuDma::new(bound.dma().clone()));
        let block = Block::new(&mut endpoint.function, dma).map_err(|error| error.to_string())?;
        Ok(Self { device, block, _bound: bound })
    }

    /// Reads the disk whole and says what its SHA-256 is. `meanwhile` is called while each request is under way.
    pub(super) fn read_whole(
        &mut self,
        context: &Context,
        mut meanwhile: impl FnMut(UnderWay<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let started = timer::now();
        // A file that is not whole sectors is padded by the launcher, which then tells its length.
        let disk_bytes = self.block.capacity_sectors().saturating_mul(SECTOR_BYTES as u64);
        let told = context.arguments.get("disk-bytes").and_then(|bytes| bytes.parse().ok());
        let bytes = told.unwrap_or(disk_bytes).min(disk_bytes);
        let mut remaining = bytes;
        let mut hash = Sha256::new();
        for (index, chunk) in self.block.chunks().enumerate() {
            self.block.start(chunk).map_err(|error| error.to_string())?;
            meanwhile(UnderWay { block: &mut self.block, index })?;
            let read = self.block.finish().map_err(|error| error.to_string())?;
            let wanted = read.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
            hash.update(read.get(..wanted).unwrap_or_default());
            remaining = remaining.saturating_sub(wanted as u64);
        }
        let sha256 = hexadecimal(&hash.finalize());
        let seconds = timer::now().saturating_sub(started).as_secs_f32();
        println!("{}: {bytes} bytes in {seconds:.1} s", self.device);
        println!("SHA-256 {sha256}");
        record!("disk", "bytes" => bytes, "sha256" => sha256.as_str());
        Ok(())
    }
}

/// `bytes` in hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

//! The block device (5.2): reading, which is all that the kernel needs.

use alloc::boxed::Box;

use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};
use virtio_drivers::transport::pci::bus::DeviceFunction;
use zerocopy::{FromZeros, IntoBytes};

use super::hal::{Slot, SlotHal};
use super::transport::{self, TranslatedTransport};
use super::{Page, Reason, VirtioError};
use crate::drivers::dma::DeviceDma;
use crate::pci::PciFunction;

/// Size of a sector, in bytes.
pub const SECTOR_BYTES: usize = virtio_drivers::device::blk::SECTOR_SIZE;
/// How much one request reads at most, in pages, bytes and sectors.
const CHUNK_PAGES: usize = 32;
const CHUNK_BYTES: usize = CHUNK_PAGES * size_of::<Page>();
const CHUNK_SECTORS: usize = CHUNK_BYTES / SECTOR_BYTES;

/// A virtio block device whose DMA is served from slot `SLOT`, which no other device may have.
///
/// Requests go one at a time through a buffer of the driver's own, of whole pages, so that nothing else is ever mapped for
/// the device, and a device that stops cannot keep a caller's buffer.
pub struct Block<const SLOT: usize> {
    function: DeviceFunction,
    /// `None` once the device has failed. Dropping it resets the device: that comes before the buffers are let go.
    disk: Option<VirtIOBlk<SlotHal<SLOT>, TranslatedTransport>>,
    slot: Slot<SLOT>,
    capacity_sectors: u64,
    request: Box<BlkReq>,
    response: Box<BlkResp>,
    data: Box<[Page]>,
}

impl<const SLOT: usize> Block<SLOT> {
    /// Starts the device. Bus mastering is for the caller to turn on, before this.
    ///
    /// # Errors
    ///
    /// [`VirtioError`]; the device is then reset, and its memory unmapped.
    pub fn new(function: &mut PciFunction, dma: Box<dyn DeviceDma>) -> Result<Self, VirtioError> {
        let address = function.address;
        let start = || {
            let data = <[Page]>::new_box_zeroed_with_elems(CHUNK_PAGES).map_err(|_| Reason::OutOfMemory)?;
            let (transport, slot) = transport::open::<SLOT>(function, dma)?;
            let disk = VirtIOBlk::new(transport).map_err(|error| slot.explain(error))?;
            let (capacity_sectors, disk) = (disk.capacity(), Some(disk));
            let (request, response) = (Box::default(), Box::default());
            Ok(Self { function: address, disk, slot, capacity_sectors, request, response, data })
        };
        start().map_err(|reason| VirtioError { function: address, reason })
    }

    /// Size of the device in sectors of [`SECTOR_BYTES`].
    #[must_use]
    pub fn capacity_sectors(&self) -> u64 {
        self.capacity_sectors
    }

    /// Reads whole sectors from `first_sector` on into `buffer`.
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfRange`], or [`Reason::Device`] for what the device could not read. Any other error resets the device
    /// for good, and every further read ends in [`Reason::Gone`].
    pub fn read(&mut self, first_sector: u64, buffer: &mut [u8]) -> Result<(), VirtioError> {
        let (length_bytes, capacity_sectors) = (buffer.len(), self.capacity_sectors);
        let end = first_sector.checked_add((length_bytes / SECTOR_BYTES) as u64);
        if !length_bytes.is_multiple_of(SECTOR_BYTES) || end.is_none_or(|end| end > capacity_sectors) {
            let reason = Reason::OutOfRange { first_sector, length_bytes, capacity_sectors };
            return Err(VirtioError { function: self.function, reason });
        }
        for (part, sector) in buffer.chunks_mut(CHUNK_BYTES).zip((first_sector..).step_by(CHUNK_SECTORS)) {
            part.copy_from_slice(self.read_chunk(sector, part.len())?);
        }
        Ok(())
    }

    /// Reads the whole device and shows it to `visit`, in order and in pieces of whole sectors.
    ///
    /// # Errors
    ///
    /// As for [`Self::read`].
    pub fn read_whole(&mut self, mut visit: impl FnMut(&[u8])) -> Result<(), VirtioError> {
        for sector in (0..self.capacity_sectors).step_by(CHUNK_SECTORS) {
            let sectors = (self.capacity_sectors - sector).min(CHUNK_SECTORS as u64) as usize;
            visit(self.read_chunk(sector, sectors * SECTOR_BYTES)?);
        }
        Ok(())
    }

    /// Reads whole sectors, at most a chunk, into the driver's buffer.
    fn read_chunk(&mut self, sector: u64, length_bytes: usize) -> Result<&[u8], VirtioError> {
        let answer = self.request(sector, length_bytes).inspect_err(|_| {
            // The device may still be at it.
            self.disk = None;
            self.slot.take_back();
        });
        match answer {
            Ok(Ok(())) => Ok(self.data.as_bytes().get(..length_bytes).unwrap_or_default()),
            Ok(Err(error)) => Err(VirtioError { function: self.function, reason: Reason::Device(error) }),
            Err(reason) => Err(VirtioError { function: self.function, reason }),
        }
    }

    /// Has one request done, and returns what the device says about it.
    fn request(&mut self, sector: u64, length_bytes: usize) -> Result<virtio_drivers::Result, Reason> {
        let disk = self.disk.as_mut().ok_or(Reason::Gone)?;
        let data = self.data.as_mut_bytes().get_mut(..length_bytes).unwrap_or_default();
        let (request, response) = (&mut *self.request, &mut *self.response);
        // SAFETY: the buffers are the driver's own, and left alone until the request is complete or has been taken back.
        let token = unsafe { disk.read_blocks_nb(sector as usize, request, data, response) }?;
        self.slot.wait(token, || disk.peek_used())?;
        // SAFETY: these are the same buffers.
        Ok(unsafe { disk.complete_read_blocks(token, request, data, response) })
    }
}

//! The block device (5.2): reading, which is all that the kernel needs, one request at a time.

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
    /// The request that the device is busy with: its token, and how many bytes it reads.
    under_way: Option<(u16, usize)>,
}

/// Sectors that one request reads.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    first_sector: u64,
    length_bytes: usize,
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
            Ok(Self { function: address, disk, slot, capacity_sectors, request, response, data, under_way: None })
        };
        start().map_err(|reason| VirtioError { function: address, reason })
    }

    /// Size of the device in sectors of [`SECTOR_BYTES`].
    #[must_use]
    pub fn capacity_sectors(&self) -> u64 {
        self.capacity_sectors
    }

    /// All of the device, in order, in pieces that one request reads.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + use<SLOT> {
        let capacity_sectors = self.capacity_sectors;
        (0..capacity_sectors).step_by(CHUNK_SECTORS).map(move |first_sector| {
            let sectors = (capacity_sectors - first_sector).min(CHUNK_SECTORS as u64) as usize;
            Chunk { first_sector, length_bytes: sectors * SECTOR_BYTES }
        })
    }

    /// Reads a chunk.
    ///
    /// # Errors
    ///
    /// As for [`Self::start`] and [`Self::finish`].
    pub fn read(&mut self, chunk: Chunk) -> Result<&[u8], VirtioError> {
        self.start(chunk)?;
        self.finish()
    }

    /// Has the device begin to read a chunk, which [`Self::finish`] waits for.
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfRange`] for a chunk of a larger device, [`Reason::Busy`] if it reads one already. Any other error
    /// resets the device for good, and every further request ends in [`Reason::Gone`].
    pub fn start(&mut self, chunk: Chunk) -> Result<(), VirtioError> {
        let Chunk { first_sector, length_bytes } = chunk;
        let capacity_sectors = self.capacity_sectors;
        let end = first_sector.checked_add((length_bytes / SECTOR_BYTES) as u64);
        if end.is_none_or(|end| end > capacity_sectors) {
            return Err(self.error(Reason::OutOfRange { first_sector, length_bytes, capacity_sectors }));
        }
        if self.under_way.is_some() {
            return Err(self.error(Reason::Busy));
        }
        self.request(chunk).map_err(|reason| self.give_up(reason))
    }

    /// Whether the device says that it is done with the request under way.
    pub fn is_done(&mut self) -> bool {
        self.disk.as_mut().is_some_and(|disk| disk.peek_used().is_some())
    }

    /// Waits for the request under way and returns what it read.
    ///
    /// # Errors
    ///
    /// [`Reason::Device`] for what the device could not read. Any other error resets the device for good, as above.
    pub fn finish(&mut self) -> Result<&[u8], VirtioError> {
        let (token, length_bytes) = self.under_way.take().ok_or_else(|| self.error(Reason::Gone))?;
        match self.complete(token, length_bytes) {
            Ok(Ok(())) => Ok(self.data.as_bytes().get(..length_bytes).unwrap_or_default()),
            Ok(Err(error)) => Err(self.error(Reason::Device(error))),
            Err(reason) => Err(self.give_up(reason)),
        }
    }

    /// Gives the device a request.
    fn request(&mut self, chunk: Chunk) -> Result<(), Reason> {
        let Chunk { first_sector, length_bytes } = chunk;
        let disk = self.disk.as_mut().ok_or(Reason::Gone)?;
        let data = self.data.as_mut_bytes().get_mut(..length_bytes).unwrap_or_default();
        let (request, response) = (&mut *self.request, &mut *self.response);
        // SAFETY: the buffers are the driver's own, and left alone until the request is complete or has been taken back.
        let token = unsafe { disk.read_blocks_nb(first_sector as usize, request, data, response) }?;
        self.under_way = Some((token, length_bytes));
        Ok(())
    }

    /// Waits for the request `token`, and returns what the device says about it.
    fn complete(&mut self, token: u16, length_bytes: usize) -> Result<virtio_drivers::Result, Reason> {
        let disk = self.disk.as_mut().ok_or(Reason::Gone)?;
        self.slot.wait(token, || disk.peek_used())?;
        let data = self.data.as_mut_bytes().get_mut(..length_bytes).unwrap_or_default();
        // SAFETY: these are the buffers that `request` passed.
        Ok(unsafe { disk.complete_read_blocks(token, &self.request, data, &mut self.response) })
    }

    /// Resets the device, which may still be at a request, and makes the request's buffers unreachable for it.
    fn give_up(&mut self, reason: Reason) -> VirtioError {
        self.disk = None;
        self.under_way = None;
        self.slot.take_back();
        self.error(reason)
    }

    fn error(&self, reason: Reason) -> VirtioError {
        VirtioError { function: self.function, reason }
    }
}

//! The entropy device (5.4): random bytes.
//!
//! It is operated through the crate's virtqueue, because the crate's own driver for it waits without end.

use alloc::boxed::Box;

use virtio_drivers::device::common::Feature;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::bus::DeviceFunction;
use zerocopy::{FromZeros, IntoBytes};

use super::hal::{Slot, SlotHal};
use super::transport::{self, TranslatedTransport};
use super::{Page, Reason, VirtioError};
use crate::drivers::dma::DeviceDma;
use crate::pci::PciFunction;

/// The device's only virtqueue, and how many descriptors of it are used.
const QUEUE: u16 = 0;
const QUEUE_SIZE: usize = 2;

/// A virtio entropy device whose DMA is served from slot `SLOT`, which no other device may have.
///
/// As with [`super::Block`], one request at a time goes through a page of the driver's own.
pub struct Entropy<const SLOT: usize> {
    function: DeviceFunction,
    /// `None` once the device has failed. Dropping it resets the device: that comes before the page is let go.
    device: Option<Device<SLOT>>,
    slot: Slot<SLOT>,
    data: Box<Page>,
}

/// Dropped in this order: reset, then the queue's memory.
struct Device<const SLOT: usize> {
    transport: TranslatedTransport,
    queue: VirtQueue<SlotHal<SLOT>, QUEUE_SIZE>,
}

impl<const SLOT: usize> Entropy<SLOT> {
    /// Starts the device. Bus mastering is for the caller to turn on, before this.
    ///
    /// # Errors
    ///
    /// [`VirtioError`]; the device is then reset, and its memory unmapped.
    pub fn new(function: &mut PciFunction, dma: Box<dyn DeviceDma>) -> Result<Self, VirtioError> {
        let address = function.address;
        let start = || {
            let data = Page::new_box_zeroed().map_err(|_| Reason::OutOfMemory)?;
            let (mut transport, slot) = transport::open::<SLOT>(function, dma)?;
            transport.begin_init(Feature::VERSION_1);
            let queue = VirtQueue::new(&mut transport, QUEUE, false, false).map_err(|error| slot.explain(error))?;
            transport.finish_init();
            Ok(Self { function: address, device: Some(Device { transport, queue }), slot, data })
        };
        start().map_err(|reason| VirtioError { function: address, reason })
    }

    /// Fills `buffer` with random bytes.
    ///
    /// # Errors
    ///
    /// [`VirtioError`]; the device is then reset for good, and every further call ends in [`Reason::Gone`].
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<(), VirtioError> {
        let mut rest = buffer;
        while !rest.is_empty() {
            let wanted = rest.len().min(size_of::<Page>());
            let given = self.request(wanted).map_err(|reason| {
                // The device may still be at it.
                self.device = None;
                self.slot.take_back();
                VirtioError { function: self.function, reason }
            })?;
            let (part, after) = core::mem::take(&mut rest).split_at_mut(given);
            part.copy_from_slice(self.data.as_bytes().get(..given).unwrap_or_default());
            rest = after;
        }
        Ok(())
    }

    /// Asks for `wanted` bytes, at most a page, and returns how many came: at least one, and no more.
    fn request(&mut self, wanted: usize) -> Result<usize, Reason> {
        let Device { transport, queue } = self.device.as_mut().ok_or(Reason::Gone)?;
        let data = self.data.as_mut_bytes().get_mut(..wanted).unwrap_or_default();
        // SAFETY: the page is the driver's own, and left alone until the request is complete or has been taken back.
        let token = unsafe { queue.add(&[], &mut [&mut *data]) }?;
        if queue.should_notify() {
            transport.notify(QUEUE);
        }
        self.slot.wait(token, || queue.peek_used())?;
        // SAFETY: this is the same buffer.
        let given = unsafe { queue.pop_used(token, &[], &mut [data]) }? as usize;
        if (1..=wanted).contains(&given) { Ok(given) } else { Err(Reason::Device(virtio_drivers::Error::IoError)) }
    }
}

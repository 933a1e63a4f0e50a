//! A device whose queue lies at addresses that nobody mapped for it: what a driver's mistake, or a lost race, looks like.

use alloc::boxed::Box;

use smmu::addr::Iova;
use virtio_drivers::device::common::Feature;
use virtio_drivers::transport::Transport;

use super::VirtioError;
use super::hal::Slot;
use super::transport::{self, TranslatedTransport};
use crate::drivers::dma::DeviceDma;
use crate::pci::PciFunction;

/// The device's first virtqueue, and how many descriptors it is said to have.
const QUEUE: u16 = 0;
const QUEUE_SIZE: u32 = 2;
/// Distance of the queue's three parts in bytes.
const PART_BYTES: u64 = 0x1000;

/// A virtio device that has no memory at all. Its slot is `SLOT`, which no other device may have.
pub struct Astray<const SLOT: usize> {
    transport: TranslatedTransport,
    _slot: Slot<SLOT>,
}

impl<const SLOT: usize> Astray<SLOT> {
    /// Starts the device with a queue at `queue` that is never written, nor mapped. Bus mastering is for the caller to turn
    /// on, before this.
    ///
    /// # Errors
    ///
    /// [`VirtioError`]; the device is then reset.
    pub fn new(function: &mut PciFunction, dma: Box<dyn DeviceDma>, queue: Iova) -> Result<Self, VirtioError> {
        let address = function.address;
        let opened = transport::open::<SLOT>(function, dma);
        let (mut transport, slot) = opened.map_err(|reason| VirtioError { function: address, reason })?;
        transport.begin_init(Feature::VERSION_1);
        let part = |number| queue.get().wrapping_add(number * PART_BYTES);
        transport.queue_set(QUEUE, QUEUE_SIZE, part(0), part(1), part(2));
        transport.finish_init();
        Ok(Self { transport, _slot: slot })
    }

    /// Tells the device to look into its queue.
    pub fn kick(&mut self) {
        self.transport.notify(QUEUE);
    }
}

//! The PCI transport of `virtio-drivers`, made to insist on translated DMA and never to wait without end.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::mem::ManuallyDrop;
use core::sync::atomic::Ordering;
use core::time::Duration;

use virtio_drivers::device::common::Feature;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::hal::{Occupant, Slot, SlotHal};
use super::{Reason, capabilities};
use crate::drivers::dma::DeviceDma;
use crate::pci::PciFunction;
use crate::timer::wait_for;

/// A reset is done at once on most devices, and after the requests under way on the others.
pub(super) const RESET_LIMIT: Duration = Duration::from_secs(1);
/// How often configuration space is read again because it changed meanwhile (2.5.3).
const CONSISTENT_READS: usize = 16;

/// A transport whose device accesses memory by the addresses of its domain, as VIRTIO_F_ACCESS_PLATFORM promises (6.1).
pub(super) struct TranslatedTransport {
    /// Its own drop waits for the reset without end.
    inner: ManuallyDrop<PciTransport>,
    occupant: Arc<Occupant>,
}

/// Takes over `function`: its BARs, with what they hold checked, and slot `SLOT`, from which its DMA is served by `dma`.
pub(super) fn open<const SLOT: usize>(
    function: &mut PciFunction,
    dma: Box<dyn DeviceDma>,
) -> core::result::Result<(TranslatedTransport, Slot<SLOT>), Reason> {
    capabilities::check(function)?;
    let slot = Slot::<SLOT>::occupy(function, dma)?;
    function.enable_memory();
    let inner = PciTransport::new::<SlotHal<SLOT>, _>(&mut function.configuration(), function.address)?;
    // Not dropped, which would use the registers, before it is known where they are.
    let inner = ManuallyDrop::new(inner);
    if slot.occupant().bars_moved.load(Ordering::Relaxed) {
        return Err(Reason::BarsMoved);
    }
    let mut transport = TranslatedTransport { inner, occupant: slot.occupant().clone() };
    if !transport.reset() {
        return Err(Reason::ResetStuck { limit: RESET_LIMIT });
    }
    let offered = transport.read_device_features();
    if offered & Feature::ACCESS_PLATFORM.bits() == 0 {
        return Err(Reason::NotTranslated { offered });
    }
    Ok((transport, slot))
}

impl TranslatedTransport {
    /// Resets the device and waits until it has stopped (2.4.1, 4.1.4.3.1); returns whether it has.
    pub(super) fn reset(&mut self) -> bool {
        self.inner.set_status(DeviceStatus::empty());
        wait_for(RESET_LIMIT, || self.inner.get_status().is_empty())
    }
}

impl Drop for TranslatedTransport {
    fn drop(&mut self) {
        // If it does not stop, its domain stops it: the queue's memory is unmapped before it is freed.
        self.reset();
    }
}

impl Transport for TranslatedTransport {
    fn write_driver_features(&mut self, driver_features: u64) {
        self.inner.write_driver_features(driver_features | Feature::ACCESS_PLATFORM.bits());
    }

    fn set_status(&mut self, status: DeviceStatus) {
        if status.is_empty() {
            self.reset();
            return;
        }
        // After FEATURES_OK has been refused the device must not be started (3.1.1, step 6).
        let refused = &self.occupant.features_refused;
        if refused.load(Ordering::Relaxed) {
            return self.inner.set_status(DeviceStatus::FAILED);
        }
        self.inner.set_status(status);
        if status.contains(DeviceStatus::FEATURES_OK) && !self.inner.get_status().contains(DeviceStatus::FEATURES_OK) {
            refused.store(true, Ordering::Relaxed);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        // A device without queues fails the crate's set-up, which otherwise takes no notice of refused features.
        if self.occupant.features_refused.load(Ordering::Relaxed) { 0 } else { self.inner.max_queue_size(queue) }
    }

    fn read_consistent<T>(&self, f: impl Fn() -> Result<T>) -> Result<T> {
        for _ in 0..CONSISTENT_READS {
            let before = self.read_config_generation();
            let result = f();
            if self.read_config_generation() == before {
                return result;
            }
        }
        Err(Error::NotReady)
    }

    fn device_type(&self) -> DeviceType {
        self.inner.device_type()
    }

    fn read_device_features(&mut self) -> u64 {
        self.inner.read_device_features()
    }

    fn notify(&mut self, queue: u16) {
        self.inner.notify(queue);
    }

    fn get_status(&self) -> DeviceStatus {
        self.inner.get_status()
    }

    fn set_guest_page_size(&mut self, guest_page_size: u32) {
        self.inner.set_guest_page_size(guest_page_size);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.inner.requires_legacy_layout()
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.inner.queue_set(queue, size, descriptors, driver_area, device_area);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.inner.queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.inner.queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.inner.ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.inner.read_config_generation()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        self.inner.read_config_space(offset)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, offset: usize, value: T) -> Result<()> {
        self.inner.write_config_space(offset, value)
    }
}

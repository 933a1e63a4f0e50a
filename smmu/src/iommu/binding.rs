//! A driver bound to a device: its DMA configured just before the driver's probe, and undone when that fails or ends.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::{Attachment, Configuration, Device, IommuError, Iommus, Missing};
use crate::platform::Platform;

/// What bus code does for a device around its binding.
pub trait BusDevice {
    /// Lets the device send requests of its own, or no longer: Bus Master Enable of a PCI function. When `on` is false, what
    /// it has sent has arrived when this returns.
    fn set_bus_master(&mut self, on: bool);
}

/// A device with its driver. When it is dropped the driver goes first, then bus mastering, then the device's DMA.
///
/// A driver keeps the attachment for as long as it has memory mapped; the device is blocked when the last holder lets go
/// of it.
pub struct Binding<P: Platform, B: BusDevice, D> {
    // Dropped in this order.
    driver: D,
    bus: BusMaster<B>,
    attachment: Arc<Attachment<P>>,
}

/// Why no driver was bound. Nothing is left of the attempt.
#[derive(Debug)]
pub enum BindError<E> {
    /// Some of the device's IOMMUs are not ready yet. Try again when they are.
    Deferred(Vec<Missing>),
    /// It is behind no IOMMU: nothing would keep it from any of the memory.
    NoIommu,
    /// The core refused.
    Iommu(IommuError),
    /// The driver's probe failed.
    Probe(E),
}

impl<P: Platform> Iommus<P> {
    /// Configures a device's DMA, turns bus mastering on, and has `probe` make its driver. If any of that fails, what was
    /// done before is undone, in the reverse order.
    ///
    /// # Errors
    ///
    /// [`BindError`], which holds `probe`'s own error if that failed.
    pub fn bind<B: BusDevice, D, E>(
        &self,
        device: &Arc<Device>,
        bus: B,
        probe: impl FnOnce(&mut B, &Arc<Attachment<P>>) -> Result<D, E>,
    ) -> Result<Binding<P, B, D>, BindError<E>> {
        let attachment = match self.configure(device).map_err(BindError::Iommu)? {
            Configuration::Configured(attachment) => Arc::new(attachment),
            Configuration::Deferred(missing) => return Err(BindError::Deferred(missing)),
            Configuration::NoIommu => return Err(BindError::NoIommu),
        };
        let mut bus = BusMaster::on(bus);
        let driver = probe(&mut bus.0, &attachment).map_err(BindError::Probe)?;
        Ok(Binding { driver, bus, attachment })
    }
}

/// A device whose bus mastering is on for as long as this lives.
struct BusMaster<B: BusDevice>(B);

impl<B: BusDevice> BusMaster<B> {
    fn on(mut bus: B) -> Self {
        bus.set_bus_master(true);
        Self(bus)
    }
}

impl<B: BusDevice> Drop for BusMaster<B> {
    fn drop(&mut self) {
        self.0.set_bus_master(false);
    }
}

impl<P: Platform, B: BusDevice, D> Binding<P, B, D> {
    /// The driver.
    #[must_use]
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// The driver, and the device as its bus code knows it.
    pub fn parts_mut(&mut self) -> (&mut D, &mut B) {
        (&mut self.driver, &mut self.bus.0)
    }

    /// The device's DMA.
    #[must_use]
    pub fn attachment(&self) -> &Arc<Attachment<P>> {
        &self.attachment
    }
}

impl<P: Platform, B: BusDevice, D> fmt::Debug for Binding<P, B, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding").field("attachment", &self.attachment).finish_non_exhaustive()
    }
}

impl<E: fmt::Display> fmt::Display for BindError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deferred(missing) => {
                f.write_str("deferred, waiting for IOMMU ")?;
                for (position, missing) in missing.iter().enumerate() {
                    let separator = if position == 0 { "" } else { ", " };
                    write!(f, "{separator}{missing}")?;
                }
                Ok(())
            }
            Self::NoIommu => f.write_str("behind no IOMMU: it could reach all memory, so it stays off"),
            Self::Iommu(error) => error.fmt(f),
            Self::Probe(error) => write!(f, "its driver's probe failed: {error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for BindError<E> {}

//! A device attached to a domain, in all of its IOMMUs or in none.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::domain::PagingDomain;
use super::fwspec::Phandle;
use super::{AttachmentDump, Device, IommuError};
use crate::addr::{Iova, StreamId};
use crate::device::{DeviceError, Smmu};
use crate::platform::Platform;

/// One stream of a device, at the instance that sees it.
pub(super) struct Port<P: Platform> {
    pub(super) iommu: Phandle,
    pub(super) smmu: Arc<Smmu<P>>,
    pub(super) stream: StreamId,
    /// Whether the device is to cache translations of this stream.
    pub(super) uses_ats: bool,
}

impl<P: Platform> Port<P> {
    /// Stops an SMMU that may go on translating for the stream, before anything that the stream reaches is reused. One that
    /// does not even do that keeps the tables when the domain goes.
    fn stop(&self) {
        let _ = self.smmu.close();
    }
}

/// A device whose DMA goes through a domain for as long as this lives. Dropping it makes all of the device's streams
/// abort again.
pub struct Attachment<P: Platform> {
    device: Arc<Device>,
    domain: Arc<PagingDomain<P>>,
    /// The streams that are attached, in the order in which they were.
    ports: Vec<Port<P>>,
}

impl<P: Platform> Attachment<P> {
    /// Attaches all `ports` of a device that the caller has claimed, or none.
    pub(super) fn new(
        device: Arc<Device>,
        domain: Arc<PagingDomain<P>>,
        ports: Vec<Port<P>>,
    ) -> Result<Self, IommuError> {
        // Dropped on failure, it detaches what it holds by then and releases the device.
        let mut attachment = Self { device, domain, ports: Vec::with_capacity(ports.len()) };
        for port in ports {
            if let Err(error) = attachment.domain.attach(&port, &attachment.device) {
                if matches!(error, DeviceError::StreamStuck { .. }) {
                    port.stop();
                }
                return Err(IommuError::Device { iommu: port.iommu, error });
            }
            attachment.ports.push(port);
        }
        Ok(attachment)
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Whether the device may use ATS on all of its streams: it may be switched on in the device's ATS capability from here
    /// on, and is switched off there before this is dropped (IHI 0070, 3.9.2).
    #[must_use]
    pub fn uses_ats(&self) -> bool {
        !self.ports.is_empty() && self.ports.iter().all(|port| port.uses_ats)
    }

    /// The domain that its DMA goes through.
    #[must_use]
    pub fn domain(&self) -> &Arc<PagingDomain<P>> {
        &self.domain
    }

    /// What the device's IOMMUs have of it and how `iova` is translated, for people. Changes nothing, waits for nothing and
    /// for nobody: it may be printed at any time.
    #[must_use]
    pub fn dump(&self, iova: Iova) -> AttachmentDump<'_, P> {
        AttachmentDump { attachment: self, iova }
    }

    /// The streams that are attached.
    pub(super) fn ports(&self) -> &[Port<P>] {
        &self.ports
    }
}

impl<P: Platform> Drop for Attachment<P> {
    fn drop(&mut self) {
        for port in self.ports.drain(..).rev() {
            if self.domain.detach(&port, &self.device).is_err() {
                port.stop();
            }
        }
        self.device.release();
    }
}

impl<P: Platform> fmt::Debug for Attachment<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("device", &self.device).finish_non_exhaustive()
    }
}

//! Bytes from virtio-rng.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

use smmu::iommu::{BindError, Device};

use super::disk::hexadecimal;
use super::system::Endpoint;
use crate::drivers::virtio::Entropy;
use crate::iommu::{Bound, NO_LIMIT, SmmuDma};
use crate::{println, record};

/// A virtio source of random bytes, attached, in the virtio device slot `SLOT`.
pub(super) struct RandomBytes<const SLOT: usize> {
    device: Arc<Device>,
    entropy: Entropy<SLOT>,
    /// Last: bus mastering goes off after everything else.
    _bound: Bound,
}

impl<const SLOT: usize> RandomBytes<SLOT> {
    /// Binds the device. If it has to be deferred it can be tried again.
    pub(super) fn new(endpoint: &mut Endpoint) -> Result<Self, BindError<String>> {
        let bound = endpoint.bind(NO_LIMIT)?;
        let dma = Box::new(SmmuDma::new(bound.dma().clone()));
        let entropy = Entropy::new(&mut endpoint.function, dma);
        let entropy = entropy.map_err(|error| BindError::Probe(error.to_string()))?;
        Ok(Self { device: Arc::clone(bound.dma().device()), entropy, _bound: bound })
    }

    /// Gets some random bytes.
    pub(super) fn fetch(&mut self) -> Result<(), String> {
        let Self { device, entropy, .. } = self;
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.iter().all(|&byte| byte == 0) {
            return Err(format!("{device} gave {} zeros", bytes.len()));
        }
        println!("{device}: {}", hexadecimal(&bytes));
        record!("entropy", "bytes" => bytes.len());
        Ok(())
    }
}

//! The real driver over a model, up to the DMA API.

use std::sync::Arc;

use smmu::addr::StreamId;
use smmu::device::{BootPolicy, DeviceError, Smmu};
use smmu::dma::Dma;
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{Configuration, DeviceDescription, Iommus};
use tests::model::{Caching, Config, Model, ModelPlatform, Pace};

const IOMMU: Phandle = Phandle::new(1);

/// A brought-up SMMU and its registry.
pub(crate) struct System {
    pub(crate) smmu: Arc<Smmu<ModelPlatform>>,
    pub(crate) iommus: Iommus<ModelPlatform>,
}

impl System {
    pub(crate) fn new(model: &Model) -> Self {
        Self::with(model, bring_up(model).unwrap())
    }

    /// With an SMMU that is up already.
    pub(crate) fn with(model: &Model, smmu: Smmu<ModelPlatform>) -> Self {
        let smmu = Arc::new(smmu);
        let iommus = Iommus::new(model.platform());
        iommus.register(IOMMU, Arc::clone(&smmu)).unwrap();
        Self { smmu, iommus }
    }

    /// DMA for a device of its own.
    pub(crate) fn dma(&self, model: &Model, stream: u32) -> Dma<ModelPlatform> {
        let mut fwspec = Fwspec::new();
        fwspec.push(IOMMU, StreamId::new(stream));
        let device = self.iommus.add_device(DeviceDescription::new(format!("device {stream:#x}"), fwspec)).unwrap();
        match self.iommus.configure(&device).unwrap() {
            Configuration::Configured(attachment) => Dma::new(model.platform(), attachment, u64::MAX).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

/// Brings an SMMU up that firmware calls coherent.
pub(crate) fn bring_up(model: &Model) -> Result<Smmu<ModelPlatform>, DeviceError> {
    Smmu::bring_up(model.platform(), model.registers(), true, BootPolicy::Abort)
}

/// Runs a test with every preset at every pace and with every kind of cache.
pub(crate) fn everywhere(test: impl Fn(Config)) {
    for config in [Config::qemu(), Config::minimal(), Config::full(), stage2_only()] {
        for caching in [Caching::Greedy, Caching::Dropping { percent: 50 }, Caching::Nothing] {
            for pace in [Pace::Immediate, Pace::After(3)] {
                test(Config { caching, pace, ..config.clone() });
            }
        }
    }
}

/// QEMU's SMMU without stage 1.
pub(crate) fn stage2_only() -> Config {
    Config { s1p: false, ..Config::qemu() }
}

//! The real driver over the model: what a device reaches, and what it does not.

use std::sync::Arc;

use smmu::addr::{Iova, StreamId};
use smmu::device::{BootPolicy, Smmu};
use smmu::dma::{Direction, Dma};
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{Configuration, Iommus};
use tests::model::{Caching, Config, Model, ModelPlatform, Pace, Refused};

const IOMMU: Phandle = Phandle::new(1);

/// A brought-up SMMU and its registry.
struct System {
    smmu: Arc<Smmu<ModelPlatform>>,
    iommus: Iommus<ModelPlatform>,
}

impl System {
    fn new(model: &Model, coherent: bool) -> Self {
        let smmu = Smmu::bring_up(model.platform(), model.registers(), coherent, BootPolicy::Abort).unwrap();
        let (smmu, iommus) = (Arc::new(smmu), Iommus::new(model.platform()));
        iommus.register(IOMMU, Arc::clone(&smmu)).unwrap();
        Self { smmu, iommus }
    }

    /// DMA for a device of its own.
    fn dma(&self, model: &Model, stream: u32) -> Dma<ModelPlatform> {
        let mut fwspec = Fwspec::new();
        fwspec.push(IOMMU, StreamId::new(stream));
        let device = self.iommus.add_device(format!("device {stream:#x}"), fwspec).unwrap();
        match self.iommus.configure(&device).unwrap() {
            Configuration::Configured(attachment) => Dma::new(model.platform(), attachment, u64::MAX),
            other => panic!("{other:?}"),
        }
    }
}

/// Every preset at every pace, with every kind of cache.
fn everywhere(test: impl Fn(Config)) {
    for config in [Config::qemu(), Config::minimal(), Config::full(), stage2_only()] {
        for caching in [Caching::Greedy, Caching::Dropping { percent: 50 }, Caching::Nothing] {
            for pace in [Pace::Immediate, Pace::After(3)] {
                test(Config { caching, pace, ..config.clone() });
            }
        }
    }
}

fn stage2_only() -> Config {
    Config { s1p: false, ..Config::qemu() }
}

#[test]
fn a_device_reaches_its_buffer_and_no_more() {
    everywhere(|config| {
        let model = Model::new(config);
        let system = System::new(&model, true);
        let disk = model.device(StreamId::new(5));
        let dma = system.dma(&model, 5);
        let buffer = dma.allocate_coherent(4096).unwrap();
        let iova = buffer.iova().get();
        disk.write(Iova::new(iova + 8), &0x1122_3344_5566_7788u64.to_le_bytes()).unwrap();
        assert_eq!(buffer.words()[1].load(std::sync::atomic::Ordering::Relaxed), 0x1122_3344_5566_7788);
        let mut word = [0; 8];
        disk.read(Iova::new(iova + 8), &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), 0x1122_3344_5566_7788);
        assert_eq!(disk.write(Iova::new(iova + 4096), &[1]), Err(Refused::Aborted));
        let mut events = Vec::new();
        system.smmu.drain_events(|event| events.push(event));
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].source.stream, StreamId::new(5));
        drop(buffer);
        assert_eq!(disk.write(Iova::new(iova), &[1]), Err(Refused::Aborted));
        drop(dma);
        assert_eq!(disk.write(Iova::new(iova), &[1]), Err(Refused::Aborted));
    });
}

#[test]
fn ten_thousand_rounds() {
    let model = Model::new(Config::qemu());
    let system = System::new(&model, true);
    let disk = model.device(StreamId::new(5));
    let dma = system.dma(&model, 5);
    let buffer = model.platform().buffer(8192);
    for round in 0..10_000u32 {
        // SAFETY: the buffer outlives the mapping, and nobody else touches it.
        let mapping = unsafe { dma.map(buffer.pointer(), Direction::Bidirectional) }.unwrap();
        disk.write(mapping.iova(), &round.to_le_bytes()).unwrap();
        let iova = mapping.iova();
        mapping.unmap().unwrap();
        assert_eq!(disk.write(iova, &[0]), Err(Refused::Aborted));
        system.smmu.drain_events(|_| {});
    }
    assert_eq!(buffer.contents()[..4], 9_999u32.to_le_bytes());
}

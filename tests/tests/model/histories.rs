//! The core's histories where DMA shows them, and a device that was doing DMA before anybody attached it.

use std::sync::Arc;

use smmu::addr::{Iova, StreamId};
use smmu::device::{BootPolicy, Smmu};
use smmu::dma::Dma;
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{
    Attachment, BindError, BusDevice, Configuration, Device, DeviceDescription, IommuError, Iommus, MissingReason,
    ReservedKind, ReservedRegion,
};
use tests::model::{Config, Model, ModelPlatform, Refused};

use super::system::{bring_up, stage2_only};

const FIRST: Phandle = Phandle::new(1);
const SECOND: Phandle = Phandle::new(2);

/// Two SMMUs and a device with a port behind each: stream 5 of the first, 9 of the second.
struct System {
    first: Model,
    second: Model,
    iommus: Iommus<ModelPlatform>,
}

impl System {
    fn new(first: Config, second: Config) -> Self {
        let first = Model::new(first);
        let second = Model::on(first.platform(), second);
        let iommus = Iommus::new(first.platform());
        Self { first, second, iommus }
    }

    fn register(&self, iommu: Phandle) {
        let model = if iommu == FIRST { &self.first } else { &self.second };
        let registration = self.iommus.register(iommu, Arc::new(bring_up(model).unwrap())).unwrap();
        assert!(registration.refused.is_empty());
    }

    fn add(&self, streams: &[(Phandle, u32)]) -> Arc<Device> {
        let mut fwspec = Fwspec::new();
        streams.iter().for_each(|&(iommu, stream)| _ = fwspec.push(iommu, StreamId::new(stream)));
        self.iommus.add_device(DeviceDescription::new("device", fwspec)).unwrap()
    }

    #[track_caller]
    fn configure(&self, device: &Arc<Device>) -> Attachment<ModelPlatform> {
        match self.iommus.configure(device) {
            Ok(Configuration::Configured(attachment)) => attachment,
            other => panic!("{other:?}"),
        }
    }

    /// What comes of a write through either port.
    fn write(&self, iova: Iova) -> [Result<(), Refused>; 2] {
        [(&self.first, 5), (&self.second, 9)].map(|(model, id)| model.device(StreamId::new(id)).write(iova, &[1]))
    }
}

const ABORTED: [Result<(), Refused>; 2] = [Err(Refused::Aborted); 2];

#[test]
fn history_1_two_iommus_one_deferred() {
    for [early, late] in [[FIRST, SECOND], [SECOND, FIRST]] {
        let system = System::new(Config::qemu(), Config::full());
        let platform = system.first.platform();
        let device = system.add(&[(FIRST, 5), (SECOND, 9)]);
        system.register(early);
        let blocks = platform.block_count();
        let deferred = system.iommus.configure(&device);
        let Ok(Configuration::Deferred(missing)) = deferred else { panic!("{deferred:?}") };
        let missing: Vec<_> = missing.iter().map(|missing| (missing.iommu, missing.reason)).collect();
        assert_eq!(missing, [(late, MissingReason::Absent)]);
        assert_eq!((platform.block_count(), device.is_attached()), (blocks, false), "nothing is left");
        let somewhere = platform.buffer(4096);
        let early_port = if early == FIRST { (&system.first, 5) } else { (&system.second, 9) };
        let refused =
            early_port.0.device(StreamId::new(early_port.1)).write(Iova::new(somewhere.physical().get()), &[1]);
        assert_eq!(refused, Err(Refused::Aborted));
        system.register(late);
        let dma = Dma::new(platform, system.configure(&device), u64::MAX).unwrap();
        let buffer = dma.allocate_coherent(4096).unwrap();
        assert_eq!(system.write(buffer.iova()), [Ok(()); 2], "one domain, one buffer, both ports");
        let iova = buffer.iova();
        drop(buffer);
        assert_eq!(system.write(iova), ABORTED, "unmapped once");
        drop(dma);
        assert_eq!(system.write(iova), ABORTED);
    }
}

#[test]
fn history_3_several_drivers_and_instances() {
    // The second cannot walk the first's tables: it has stage 2 alone.
    let system = System::new(Config::qemu(), stage2_only());
    [FIRST, SECOND].into_iter().for_each(|iommu| system.register(iommu));
    let platform = system.first.platform();
    let [at_first, at_second] = [(FIRST, 5), (SECOND, 9)].map(|stream| system.add(&[stream]));
    let one = Dma::new(platform, system.configure(&at_first), u64::MAX).unwrap();
    let mut other = system.configure(&at_second);
    let had = other.domain().clone();
    let foreign = smmu::iommu::Domain::Paging(Arc::clone(one.domain()));
    assert!(matches!(other.replace(foreign), Err(IommuError::Incompatible { iommu: SECOND, .. })));
    assert_eq!(*other.domain(), had);
    let two = Dma::new(platform, other, u64::MAX).unwrap();
    let [first, second] = [&one, &two].map(|dma| dma.allocate_coherent(4096).unwrap());
    assert_eq!(first.iova(), second.iova(), "each has addresses of its own");
    assert_eq!(system.write(first.iova()), [Ok(()); 2]);
    let bytes = [&first, &second].map(|buffer| buffer.words()[0].load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(bytes, [1, 1]);
    let iova = first.iova();
    drop(first);
    assert_eq!(system.write(iova), [Err(Refused::Aborted), Ok(())], "and each its own translations");
}

/// A device on a bus that may always send: nothing but the IOMMU keeps it from memory.
struct Bus;

impl BusDevice for Bus {
    fn set_bus_master(&mut self, _: bool) {}
}

#[test]
fn history_4_probe_failure_undone() {
    let system = System::new(Config::qemu(), Config::full());
    [FIRST, SECOND].into_iter().for_each(|iommu| system.register(iommu));
    let platform = system.first.platform();
    let device = system.add(&[(FIRST, 5), (SECOND, 9)]);
    // So that second-level stream tables exist.
    drop(system.configure(&device));
    let blocks = platform.block_count();
    for fails in [true, true, false] {
        let mut leaked = Iova::new(0);
        let bound = system.iommus.bind(&device, Bus, |_, attachment| {
            let dma = Dma::new(platform, Arc::clone(attachment), u64::MAX).unwrap();
            let buffer = dma.allocate_coherent(4096).unwrap();
            leaked = buffer.iova();
            assert_eq!(system.write(leaked), [Ok(()); 2], "DMA is there before the driver is");
            if fails { Err("no answer") } else { Ok(buffer) }
        });
        assert_eq!(matches!(bound, Err(BindError::Probe("no answer"))), fails);
        assert_eq!(system.write(leaked) == ABORTED, fails);
        drop(bound);
        assert_eq!((system.write(leaked), platform.block_count()), (ABORTED, blocks), "{fails}");
    }
}

#[test]
fn r39_what_firmware_had_a_device_do_goes_on_while_it_is_attached() {
    let model = Model::new(Config::qemu());
    let platform = model.platform();
    let screen = platform.buffer(8192);
    let start = Iova::new(screen.physical().get());
    let display = model.device(StreamId::new(7));
    let smmu = Smmu::bring_up(platform, model.registers(), true, BootPolicy::Bypass(&[StreamId::new(7)])).unwrap();
    let iommus = Iommus::new(platform);
    iommus.register(FIRST, Arc::new(smmu)).unwrap();
    let mut fwspec = Fwspec::new();
    fwspec.push(FIRST, StreamId::new(7));
    let mut description = DeviceDescription::new("display", fwspec);
    description.reserved = vec![ReservedRegion { start, size_bytes: 8192, kind: ReservedKind::Direct }];
    let device = iommus.add_device(description).unwrap();
    // It draws at every register access.
    let drawing = display.clone();
    model.observe(move |access| assert_eq!(drawing.write(start, &[1]), Ok(()), "{access:?}"));
    let Ok(Configuration::Configured(attachment)) = iommus.configure(&device) else { panic!("not configured") };
    model.stop_observing();
    let elsewhere = platform.buffer(4096);
    assert_eq!(display.write(start, &[2]), Ok(()));
    assert_eq!(display.write(Iova::new(elsewhere.physical().get()), &[1]), Err(Refused::Aborted), "and no more");
    let dma = Dma::new(platform, attachment, u64::MAX).unwrap();
    let buffer = dma.allocate_coherent(4096).unwrap();
    assert_eq!(display.write(buffer.iova(), &[1]), Ok(()));
    drop((buffer, dma));
    assert_eq!(display.write(start, &[3]), Err(Refused::Aborted));
}

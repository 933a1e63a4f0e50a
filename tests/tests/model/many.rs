//! The real driver over the model, at random, and over two models at once.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use smmu::addr::{Iova, StreamId};
use smmu::device::{BootPolicy, Smmu};
use smmu::dma::{CoherentBuffer, Dma};
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{Configuration, DeviceDescription, Iommus};
use tests::model::{Config, Interrupt, Model, ModelPlatform, Opcode, Refused};

use super::system::{System, bring_up, everywhere};

#[test]
fn random_buffers() {
    everywhere(|config| {
        let mut random = fastrand::Rng::with_seed(config.seed);
        let model = Model::new(config);
        let system = System::new(&model);
        let (dma, device) = (system.dma(&model, 5), model.device(StreamId::new(5)));
        let mut buffers: Vec<CoherentBuffer<ModelPlatform>> = Vec::new();
        for _ in 0..60 {
            if buffers.len() > 6 || (random.bool() && !buffers.is_empty()) {
                let buffer = buffers.swap_remove(random.usize(..buffers.len()));
                let (start, size) = (buffer.iova().get(), buffer.size_bytes() as u64);
                drop(buffer);
                for _ in 0..4 {
                    let iova = Iova::new(start + random.u64(..size));
                    assert_eq!(device.write(iova, &[1]), Err(Refused::Aborted), "{iova} was unmapped");
                }
            } else {
                // Some are large enough for blocks.
                let pages = if random.u8(..8) == 0 { random.usize(512..1200) } else { random.usize(1..40) };
                buffers.push(dma.allocate_coherent(pages * 4096).unwrap());
            }
            for buffer in &buffers {
                let word = random.usize(..buffer.words().len());
                let value = random.u64(..);
                let iova = Iova::new(buffer.iova().get() + word as u64 * 8);
                device.write(iova, &value.to_le_bytes()).unwrap();
                assert_eq!(buffer.words()[word].load(SeqCst), value, "{iova}");
            }
        }
        system.smmu.drain_events(|_| {});
    });
}

#[test]
fn a_device_behind_two_smmus_is_cut_off_in_both() {
    let first = Model::new(Config::qemu());
    let second = Model::on(first.platform(), Config::full());
    let platform = first.platform();
    let iommus = Iommus::new(platform);
    let mut fwspec = Fwspec::new();
    for (model, number, stream) in [(&first, 1, 5), (&second, 2, 9)] {
        iommus.register(Phandle::new(number), Arc::new(bring_up(model).unwrap())).unwrap();
        fwspec.push(Phandle::new(number), StreamId::new(stream));
    }
    let device = iommus.add_device(DeviceDescription::new("disk", fwspec)).unwrap();
    let Configuration::Configured(attachment) = iommus.configure(&device).unwrap() else { panic!("two are enough") };
    let dma = Dma::new(platform, attachment, u64::MAX).unwrap();
    let buffer = dma.allocate_coherent(4096).unwrap();
    let iova = buffer.iova();
    let ports = [first.device(StreamId::new(5)), second.device(StreamId::new(9))];
    ports.iter().for_each(|port| port.write(iova, &[1]).unwrap());
    let marks = (first.mark(), second.mark());
    drop(buffer);
    assert_eq!(first.log_since(marks.0).commands(), [Opcode::TlbiNhVa, Opcode::Sync]);
    assert_eq!(second.log_since(marks.1).commands(), [Opcode::TlbiNhVa, Opcode::Sync]);
    ports.iter().for_each(|port| assert_eq!(port.write(iova, &[1]), Err(Refused::Aborted)));
}

#[test]
fn every_size_of_addresses_and_identifiers() {
    for (oas, s1p, wide, coherent) in (0..24).map(|n| (n % 6, n / 6 % 2 == 0, n / 12 == 0, n % 4 < 2)) {
        let hardware = Config { oas, s1p, asid16: wide, vmid16: wide, s2p: !s1p || wide, ..Config::full() };
        let model = Model::new(hardware);
        // Firmware may call an SMMU that snoops incoherent: its accesses are to be uncached then.
        let smmu = Smmu::bring_up(model.platform(), model.registers(), coherent, BootPolicy::Abort).unwrap();
        let system = System::with(&model, smmu);
        let dma = system.dma(&model, 0xff_ffff);
        let (buffer, device) = (dma.allocate_coherent(4096).unwrap(), model.device(StreamId::new(0xff_ffff)));
        device.write(buffer.iova(), &[7]).unwrap();
        assert_eq!(buffer.words()[0].load(SeqCst), 7);
        let iova = buffer.iova();
        drop(buffer);
        assert_eq!(device.write(iova, &[7]), Err(Refused::Aborted));
        assert_eq!(system.smmu.drain_events(|_| {}).events, 1);
    }
}

#[test]
fn events_interrupt_once_they_may() {
    let model = Model::new(Config::qemu());
    let system = System::new(&model);
    let stray = || assert!(model.device(StreamId::new(5)).write(Iova::new(0), &[1]).is_err());
    stray();
    assert!(model.log().interrupts().is_empty());
    system.smmu.enable_interrupts().unwrap();
    assert_eq!(system.smmu.drain_events(|_| {}).events, 1, "what came before is looked at once");
    stray();
    stray();
    assert_eq!(model.log().interrupts(), [Interrupt::Eventq], "the queue became non-empty once");
    assert_eq!(system.smmu.drain_events(|_| {}).events, 2);
}

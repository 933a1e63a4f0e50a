//! Devices with caches of their own behind the real driver: they forget what was unmapped, or reach nothing any more.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use smmu::addr::StreamId;
use smmu::dma::{CoherentBuffer, Dma};
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{
    AtsPolicy, Configuration, Device as Client, DeviceDescription, FaultHandler, FaultReport, IommuError, Iommus,
};
use smmu::platform::Registers;
use tests::model::{Caching, Config, Device, Model, ModelPlatform, Opcode, Pace, Refused, Silent};

use super::bench::{CMDQ_CONS, CMDQ_PROD, CR0ACK};
use super::system::{System, bring_up};

const IOMMU: Phandle = Phandle::new(1);
const ABORTED: Result<(), Refused> = Err(Refused::Aborted);

/// Runs a test with each stage, at every pace and with every kind of cache.
fn everywhere(test: impl Fn(Config)) {
    for s1p in [true, false] {
        for caching in [Caching::Greedy, Caching::Dropping { percent: 50 }, Caching::Nothing] {
            for pace in [Pace::Immediate, Pace::After(3)] {
                for ril in [true, false] {
                    test(Config { s1p, ril, caching, pace, ..Config::full() });
                }
            }
        }
    }
}

/// Makes a device known that may use ATS.
fn add(system: &System, streams: &[u32]) -> Arc<Client> {
    let mut fwspec = Fwspec::new();
    for &stream in streams {
        fwspec.push(IOMMU, StreamId::new(stream));
    }
    let device = system.iommus.add_device(DeviceDescription::new(format!("device {streams:x?}"), fwspec)).unwrap();
    device.set_ats_policy(AtsPolicy::WhereSupported);
    device
}

fn dma(model: &Model, iommus: &Iommus<ModelPlatform>, device: &Arc<Client>) -> Dma<ModelPlatform> {
    match iommus.configure(device).unwrap() {
        Configuration::Configured(attachment) => Dma::new(model.platform(), attachment, u64::MAX).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Has the device translate a page itself, and use that.
fn warm(device: &Device, buffer: &CoherentBuffer<ModelPlatform>, value: u64) {
    assert!(device.request_translation(buffer.iova(), true).unwrap().write);
    device.write_translated(buffer.iova(), &value.to_le_bytes()).unwrap();
    assert_eq!(buffer.words()[0].load(SeqCst), value);
}

#[test]
fn r19_a_device_forgets_what_was_unmapped() {
    everywhere(|config| {
        let model = Model::new(config);
        let system = System::new(&model);
        let dma = dma(&model, &system.iommus, &add(&system, &[5]));
        let device = model.device(StreamId::new(5));
        let [first, second] = [1, 3].map(|pages| dma.allocate_coherent(pages * 4096).unwrap());
        warm(&device, &first, 1);
        warm(&device, &second, 2);
        let (gone, stays) = (first.iova(), second.iova());
        drop(first);
        assert_eq!(device.write_translated(gone, &[3]), ABORTED, "unmapped");
        assert!(!device.request_translation(gone, true).unwrap().read, "there is nothing to translate to");
        assert_eq!(device.write(gone, &[3]), ABORTED);
        warm(&device, &second, 4);
        drop(second);
        drop(dma);
        assert_eq!(device.write_translated(stays, &[5]), ABORTED, "detached");
        assert!(device.request_translation(stays, true).is_err());
    });
}

#[test]
fn one_unmap_takes_two_invalidations_and_two_syncs() {
    let model = Model::new(Config::full());
    let system = System::new(&model);
    let dma = dma(&model, &system.iommus, &add(&system, &[5]));
    let [first, _second] = [dma.allocate_coherent(4096).unwrap(), dma.allocate_coherent(4096).unwrap()];
    let mark = model.mark();
    drop(first);
    assert_eq!(model.log_since(mark).commands(), [Opcode::TlbiNhVa, Opcode::Sync, Opcode::AtcInv, Opcode::Sync]);
}

#[test]
fn r19_ats_is_for_those_who_may_and_where_it_is() {
    let refused = |config: Config, policy| {
        let model = Model::new(config);
        let system = System::new(&model);
        let client = add(&system, &[5]);
        client.set_ats_policy(policy);
        let dma = dma(&model, &system.iommus, &client);
        let buffer = dma.allocate_coherent(4096).unwrap();
        let device = model.device(StreamId::new(5));
        let refused = device.request_translation(buffer.iova(), true).is_err();
        device.write(buffer.iova(), &[1]).unwrap();
        drop((buffer, dma));
        assert_eq!(model.log().commands().contains(&Opcode::AtcInv), !refused);
        refused
    };
    assert!(!refused(Config::full(), AtsPolicy::WhereSupported));
    assert!(refused(Config::full(), AtsPolicy::Never));
    assert!(refused(Config { ats: false, pri: false, ..Config::full() }, AtsPolicy::WhereSupported));
}

#[test]
fn r31_the_caches_behind_every_instance_forget() {
    let first = Model::new(Config::full());
    let second = Model::on(first.platform(), Config { s2p: false, ril: false, ..Config::full() });
    let third = Model::on(first.platform(), Config { oas: 5, ..Config::qemu() });
    let iommus = Iommus::new(first.platform());
    let mut fwspec = Fwspec::new();
    for (model, number) in [(&first, 1), (&second, 2), (&third, 3)] {
        iommus.register(Phandle::new(number), Arc::new(bring_up(model).unwrap())).unwrap();
        fwspec.push(Phandle::new(number), StreamId::new(number));
    }
    let client = iommus.add_device(DeviceDescription::new("disk", fwspec)).unwrap();
    client.set_ats_policy(AtsPolicy::WhereSupported);
    let dma = dma(&first, &iommus, &client);
    let buffer = dma.allocate_coherent(4096).unwrap();
    let ports = [first.device(StreamId::new(1)), second.device(StreamId::new(2))];
    ports.iter().for_each(|port| warm(port, &buffer, 1));
    assert!(third.device(StreamId::new(3)).request_translation(buffer.iova(), true).is_err());
    let (iova, mark) = (buffer.iova(), third.mark());
    drop(buffer);
    ports.iter().for_each(|port| assert_eq!(port.write_translated(iova, &[1]), ABORTED));
    assert_eq!(third.log_since(mark).commands(), [Opcode::TlbiNhVa, Opcode::Sync]);
}

/// Counts how often its device was quarantined.
struct Owner(AtomicU32);

impl FaultHandler for Owner {
    fn fault(&self, _: &FaultReport) {}

    fn quarantined(&self, device: &Client, iommu: Phandle, stream: StreamId) {
        assert!(device.is_quarantined());
        assert_eq!((iommu, stream), (IOMMU, StreamId::new(6)));
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_device_that_never_answers_is_quarantined_and_others_go_on() {
    everywhere(|config| {
        let model = Model::new(config);
        let system = System::new(&model);
        // Two streams in one domain, of which the second is deaf; and another device.
        let client = add(&system, &[5, 6]);
        let owner = Arc::new(Owner(AtomicU32::new(0)));
        client.on_fault(Some(Arc::<Owner>::clone(&owner)));
        let shared = dma(&model, &system.iommus, &client);
        let other = dma(&model, &system.iommus, &add(&system, &[7]));
        let [good, deaf, bystander] = [5, 6, 7].map(|stream| model.device(StreamId::new(stream)));
        let [first, second] = [(); 2].map(|()| shared.allocate_coherent(4096).unwrap());
        let others = other.allocate_coherent(4096).unwrap();
        for buffer in [&first, &second] {
            warm(&good, buffer, 1);
            warm(&deaf, buffer, 2);
        }
        warm(&bystander, &others, 3);
        model.inject(|faults| faults.silent = Silent::Stream(6));
        let gone = first.iova();
        // Freed without a law being broken: nobody reaches it.
        drop(first);
        assert!(client.is_quarantined());
        assert_eq!(owner.0.load(Ordering::Relaxed), 1);
        for iova in [gone, second.iova()] {
            assert_eq!([deaf.write(iova, &[1]), deaf.write_translated(iova, &[1])], [ABORTED; 2]);
            assert!(deaf.request_translation(iova, true).is_err());
        }
        assert_eq!(good.write_translated(gone, &[1]), ABORTED);
        warm(&good, &second, 4);
        warm(&bystander, &others, 5);
        // It is not asked again.
        let mark = model.mark();
        drop(second);
        let asked = model.log_since(mark).commands().iter().filter(|&&opcode| opcode == Opcode::AtcInv).count();
        assert_eq!((asked, owner.0.load(Ordering::Relaxed)), (1, 1));
        assert!(!model.log_since(mark).commands().contains(&Opcode::CfgiSte));
        warm(&bystander, &others, 6);
        drop(shared);
        assert!(matches!(system.iommus.configure(&client), Err(IommuError::Quarantined { .. })));
    });
}

#[test]
fn a_device_that_was_reset_starts_with_an_empty_cache() {
    let model = Model::new(Config::full());
    let system = System::new(&model);
    let client = add(&system, &[6]);
    let device = model.device(StreamId::new(6));
    let first = dma(&model, &system.iommus, &client);
    let buffer = first.allocate_coherent(4096).unwrap();
    let iova = buffer.iova();
    warm(&device, &buffer, 1);
    model.inject(|faults| faults.silent = Silent::Everybody);
    drop(buffer);
    drop(first);
    // Somebody says that it was reset, which it was not: it still knows where the buffer was.
    client.end_quarantine();
    assert!(matches!(system.iommus.configure(&client), Err(IommuError::Device { .. })), "it does not answer");
    assert_eq!([device.write(iova, &[1]), device.write_translated(iova, &[1])], [ABORTED; 2]);
    model.inject(|faults| faults.silent = Silent::Nobody);
    let second = dma(&model, &system.iommus, &client);
    assert_eq!(device.write_translated(iova, &[1]), ABORTED, "it was told before it was attached");
    warm(&device, &second.allocate_coherent(4096).unwrap(), 2);
}

#[test]
fn a_device_that_does_not_answer_is_detached_all_the_same() {
    let model = Model::new(Config::full());
    let system = System::new(&model);
    let client = add(&system, &[6]);
    let dma = dma(&model, &system.iommus, &client);
    let buffer = dma.allocate_coherent(4096).unwrap();
    let device = model.device(StreamId::new(6));
    warm(&device, &buffer, 1);
    let iova = buffer.iova();
    drop(buffer);
    assert!(!client.is_quarantined());
    model.inject(|faults| faults.silent = Silent::Everybody);
    drop(dma);
    assert!(client.is_quarantined() && !client.is_attached());
    assert_eq!([device.write(iova, &[1]), device.write_translated(iova, &[1])], [ABORTED; 2]);
}

#[test]
fn what_is_unmapped_while_the_smmu_is_suspended_stays_out_of_reach() {
    everywhere(|config| {
        let model = Model::new(config);
        let system = System::new(&model);
        let clients = [add(&system, &[5]), add(&system, &[6])];
        let [first, second] = clients.each_ref().map(|client| dma(&model, &system.iommus, client));
        let [gone, stays] = [&first, &second].map(|dma| dma.allocate_coherent(4096).unwrap());
        let [one, two] = [5, 6].map(|stream| model.device(StreamId::new(stream)));
        warm(&one, &gone, 1);
        warm(&two, &stays, 2);
        let iova = gone.iova();
        system.smmu.suspend().unwrap();
        drop(gone);
        system.smmu.resume().unwrap();
        assert_eq!([one.write(iova, &[1]), one.write_translated(iova, &[1])], [ABORTED; 2]);
        assert_eq!(clients.each_ref().map(|client| client.is_quarantined()), [true, false]);
        warm(&two, &stays, 3);
    });
}

/// Lets the SMMU take commands in the background for as long as it lives, unless they are held up.
struct Stepping<'a> {
    held: &'a AtomicBool,
    ended: &'a AtomicBool,
}

impl Drop for Stepping<'_> {
    fn drop(&mut self) {
        self.held.store(false, SeqCst);
        self.ended.store(true, SeqCst);
    }
}

/// Commands are taken for a while before translation is on, and after it is off. CMD_ATC_INV is ignored then.
#[test]
fn r38_what_is_unmapped_while_the_smmu_falls_asleep_or_wakes_stays_out_of_reach() {
    for wakes in [false, true] {
        // The clock stands still: however long another thread takes, nothing times out.
        let model = Model::new(Config { pace: Pace::Stepped, relax: Duration::ZERO, ..Config::full() });
        let (held, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(SeqCst) {
                    if !held.load(SeqCst) {
                        model.step();
                    }
                    std::thread::yield_now();
                }
            });
            let stepping = Stepping { held: &held, ended: &ended };
            let system = System::new(&model);
            let client = add(&system, &[5]);
            let dma = dma(&model, &system.iommus, &client);
            let gone = dma.allocate_coherent(4096).unwrap();
            let (device, iova) = (model.device(StreamId::new(5)), gone.iova());
            warm(&device, &gone, 1);
            if wakes {
                system.smmu.suspend().unwrap();
            }
            stepping.held.store(true, SeqCst);
            let smmu = &system.smmu;
            std::thread::scope(|scope| {
                scope.spawn(|| if wakes { smmu.resume().unwrap() } else { smmu.suspend().unwrap() });
                let produced = || model.registers().read32(CMDQ_PROD);
                let consumed = || model.registers().read32(CMDQ_CONS);
                // Translation is off, commands are taken, and the first are under way.
                while model.registers().read32(CR0ACK) & 0b1001 != 0b1000 || produced() == consumed() {
                    std::thread::yield_now();
                }
                let before = produced();
                scope.spawn(|| drop(gone));
                while produced() == before {
                    std::thread::yield_now();
                }
                stepping.held.store(false, SeqCst);
            });
            smmu.resume().unwrap();
            assert_eq!([device.write(iova, &[1]), device.write_translated(iova, &[1])], [ABORTED; 2]);
            assert!(client.is_quarantined());
            drop(dma);
        });
    }
}

#[test]
fn an_smmu_that_hangs_on_the_way_to_the_devices_is_closed() {
    let model = Model::new(Config::full());
    let system = System::new(&model);
    let dma = dma(&model, &system.iommus, &add(&system, &[6]));
    let buffer = model.platform().buffer(4096);
    // SAFETY: the buffer outlives the mapping, and nobody else touches it.
    let mapping = unsafe { dma.map(buffer.pointer(), smmu::dma::Direction::Bidirectional) }.unwrap();
    let (iova, device) = (mapping.iova(), model.device(StreamId::new(6)));
    device.request_translation(iova, true).unwrap();
    model.inject(|faults| faults.hang = Some(Opcode::AtcInv));
    assert!(mapping.unmap().is_err());
    assert_eq!([device.write(iova, &[1]), device.write_translated(iova, &[1])], [ABORTED; 2]);
}

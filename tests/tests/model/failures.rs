//! The real driver over a model that fails: every wait ends, nothing leaks, nobody reaches what they should not.

use smmu::addr::{Iova, StreamId};
use smmu::device::DeviceError;
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{DeviceDescription, IommuError};
use smmu::platform::Registers;
use tests::model::{Config, GlobalError, Model, Opcode, Refused};

use super::system::{System, bring_up, everywhere};

#[test]
fn registers_that_read_all_ones() {
    let model = Model::new(Config::qemu());
    model.inject(|faults| faults.registers_read_ones = true);
    assert!(matches!(bring_up(&model), Err(DeviceError::PoweredOff { .. })));
    assert_eq!(model.platform().block_count(), 0);
}

#[test]
fn acknowledgements_that_never_come() {
    let model = Model::new(Config::qemu());
    model.inject(|faults| faults.never_acknowledge = true);
    assert!(matches!(bring_up(&model), Err(DeviceError::Timeout { .. })));
}

#[test]
fn commands_that_hang_or_are_refused_during_bring_up() {
    for opcode in [Opcode::CfgiSteRange, Opcode::TlbiNsnhAll, Opcode::Sync] {
        let model = Model::new(Config::qemu());
        model.inject(|faults| faults.hang = Some(opcode));
        assert!(matches!(bring_up(&model), Err(DeviceError::Timeout { .. })), "{opcode:?} hangs");
        assert_eq!(model.platform().block_count(), 0, "switched off, so nothing is kept");
        let model = Model::new(Config::qemu());
        model.inject(|faults| faults.refuse = Some((opcode, 1)));
        assert!(matches!(bring_up(&model), Err(DeviceError::Command(_))), "{opcode:?} is refused");
        assert_eq!(model.platform().block_count(), 0);
    }
}

#[test]
fn memory_that_runs_out() {
    everywhere(|config| {
        for allocations in 0.. {
            let model = Model::new(config.clone());
            let platform = model.platform();
            platform.allow_allocations(allocations);
            let done = bring_up(&model).is_ok_and(|smmu| {
                let smmu = std::sync::Arc::new(smmu);
                let iommus = smmu::iommu::Iommus::new(platform);
                iommus.register(Phandle::new(1), smmu).unwrap();
                let mut fwspec = Fwspec::new();
                fwspec.push(Phandle::new(1), StreamId::new(5));
                let device = iommus.add_device(DeviceDescription::new("disk", fwspec)).unwrap();
                let disk = model.device(StreamId::new(5));
                let attached = iommus.configure(&device);
                let result = match attached {
                    Ok(smmu::iommu::Configuration::Configured(attachment)) => {
                        let dma = smmu::dma::Dma::new(platform, attachment, u64::MAX).unwrap();
                        dma.allocate_coherent(4096).is_ok()
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => false,
                };
                assert_eq!(disk.write(Iova::new(0x1000), &[1]), Err(Refused::Aborted));
                result
            });
            assert_eq!(platform.block_count(), 0, "after {allocations} allocations");
            if done {
                return;
            }
        }
    });
}

#[test]
fn an_invalidation_that_is_refused_closes_the_smmu() {
    let model = Model::new(Config::qemu());
    let system = System::new(&model);
    let dma = system.dma(&model, 5);
    let buffer = model.platform().buffer(4096);
    // SAFETY: the buffer outlives the mapping, and nobody else touches it.
    let mapping = unsafe { dma.map(buffer.pointer(), smmu::dma::Direction::Bidirectional) }.unwrap();
    let iova = mapping.iova();
    let disk = model.device(StreamId::new(5));
    disk.write(iova, &[1]).unwrap();
    model.inject(|faults| faults.refuse = Some((Opcode::TlbiNhVa, 1)));
    assert!(mapping.unmap().is_err());
    assert_eq!(disk.write(iova, &[2]), Err(Refused::Aborted));
    assert_eq!(buffer.contents()[0], 1);
}

#[test]
fn an_invalidation_that_hangs_closes_the_smmu() {
    let model = Model::new(Config::qemu());
    let system = System::new(&model);
    let dma = system.dma(&model, 5);
    let buffer = dma.allocate_coherent(4096).unwrap();
    let iova = buffer.iova();
    let disk = model.device(StreamId::new(5));
    disk.write(iova, &[1]).unwrap();
    model.inject(|faults| faults.hang = Some(Opcode::TlbiNhVa));
    drop(buffer);
    assert_eq!(disk.write(iova, &[2]), Err(Refused::Aborted));
}

#[test]
fn an_attach_that_fails_leaves_the_stream_aborting() {
    for opcode in [Opcode::CfgiSte, Opcode::Sync] {
        let model = Model::new(Config::qemu());
        let system = System::new(&model);
        let mut fwspec = Fwspec::new();
        fwspec.push(Phandle::new(1), StreamId::new(5));
        let device = system.iommus.add_device(DeviceDescription::new("disk", fwspec)).unwrap();
        model.inject(|faults| faults.refuse = Some((opcode, 1)));
        assert!(matches!(system.iommus.configure(&device), Err(IommuError::Device { .. })));
        assert_eq!(model.device(StreamId::new(5)).write(Iova::new(0x1000), &[1]), Err(Refused::Aborted));
    }
}

#[test]
fn a_command_queue_that_cannot_be_read_ends_every_wait() {
    let model = Model::new(Config::qemu());
    let system = System::new(&model);
    let dma = system.dma(&model, 5);
    let buffer = dma.allocate_coherent(4096).unwrap();
    let iova = buffer.iova();
    // CERROR_ABT.
    model.inject(|faults| faults.refuse = Some((Opcode::TlbiNhVa, 2)));
    drop(buffer);
    assert_eq!(model.device(StreamId::new(5)).write(iova, &[1]), Err(Refused::Aborted));
}

#[test]
fn global_errors_are_acknowledged_once() {
    use GlobalError::{EventqAbt, MsiCmdq, MsiEventq, MsiGerror, MsiPriq, PriqAbt, Sfm};
    let model = Model::new(Config::full());
    let system = System::new(&model);
    for error in [EventqAbt, PriqAbt, MsiCmdq, MsiEventq, MsiPriq, MsiGerror, Sfm] {
        model.raise(error);
        assert_eq!(system.smmu.handle_global_errors().bits(), 1 << error as u32);
        assert!(system.smmu.handle_global_errors().is_empty());
    }
}

#[test]
fn an_event_queue_that_overflows_is_emptied() {
    let model = Model::new(Config { eventqs: 2, ..Config::qemu() });
    let system = System::new(&model);
    let disk = model.device(StreamId::new(5));
    for _ in 0..3 {
        (0..6).for_each(|_| assert!(disk.write(Iova::new(0), &[1]).is_err()));
        let drain = system.smmu.drain_events(|_| {});
        assert_eq!((drain.events, drain.overflowed, drain.inconsistent), (4, true, false));
        assert!(!system.smmu.drain_events(|_| {}).overflowed, "acknowledged");
    }
    let statistics = system.smmu.statistics();
    assert_eq!((statistics.events, statistics.event_overflows), (12, 3));
}

#[test]
fn an_event_queue_that_cannot_be_written_is_set_up_again() {
    let model = Model::new(Config { eventqs: 2, ..Config::qemu() });
    let system = System::new(&model);
    let stray = |stream| assert!(model.device(StreamId::new(stream)).write(Iova::new(0), &[1]).is_err());
    let base = model.registers().read64(0xa0) & 0xf_ffff_ffe0;
    stray(1);
    model.platform().abort_at(base..base + 128);
    stray(2);
    model.platform().abort_nowhere();
    stray(3);
    let report = system.smmu.handle_global_errors().to_string();
    assert_eq!(report, "EVENTQ_ABT_ERR: event records were lost, the event queue could not be written");
    // What was in it cannot be told from what an aborted write left there.
    (4..7).for_each(stray);
    let mut streams = Vec::new();
    system.smmu.drain_events(|event| streams.push(event.source.stream.get()));
    assert_eq!(streams, [4, 5, 6]);
    // QEMU reports a full queue this way. Nothing is wrong with the records.
    (10..14).for_each(stray);
    model.raise(GlobalError::EventqAbt);
    assert!(!system.smmu.handle_global_errors().is_empty());
    streams.clear();
    system.smmu.drain_events(|event| streams.push(event.source.stream.get()));
    assert_eq!(streams, [10, 11, 12, 13]);
    stray(20);
    assert_eq!(system.smmu.drain_events(|_| {}).events, 1);
}

#[test]
fn an_event_queue_that_stays_broken_costs_events_and_no_more() {
    let model = Model::new(Config { eventqs: 2, ..Config::qemu() });
    let system = System::new(&model);
    let dma = system.dma(&model, 5);
    let base = model.registers().read64(0xa0) & 0xf_ffff_ffe0;
    model.platform().abort_at(base..base + 128);
    for _ in 0..5 {
        assert!(model.device(StreamId::new(6)).write(Iova::new(0), &[1]).is_err());
        assert_eq!(system.smmu.handle_global_errors().bits(), 4);
        assert_eq!(system.smmu.drain_events(|_| {}).events, 0);
    }
    let buffer = dma.allocate_coherent(4096).unwrap();
    model.device(StreamId::new(5)).write(buffer.iova(), &[1]).unwrap();
}

#[test]
fn each_global_error_is_dealt_with_by_one_cpu() {
    let model = Model::new(Config::full());
    let system = System::new(&model);
    for _ in 0..50 {
        [GlobalError::EventqAbt, GlobalError::PriqAbt, GlobalError::MsiPriq]
            .into_iter()
            .for_each(|error| model.raise(error));
        let reports = std::thread::scope(|scope| {
            let looks = [(); 3].map(|()| scope.spawn(|| system.smmu.handle_global_errors().bits()));
            looks.map(|look| look.join().unwrap())
        });
        assert_eq!(reports.iter().sum::<u32>(), 1 << 2 | 1 << 3 | 1 << 6, "{reports:x?}");
    }
}

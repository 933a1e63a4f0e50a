//! Suspended and resumed, closed, shut down: what passes meanwhile, and what works afterwards.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use smmu::addr::{Iova, StreamId};
use smmu::device::{DeviceError, Handover};
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{Configuration, DeviceDescription, DriverError, IommuError};
use smmu::platform::Registers;
use tests::model::{Config, GlobalError, Model, Opcode, Refused};

use super::bench::{CR0ACK, touch};
use super::system::{System, bring_up, everywhere};
use super::watch::{Watch, Working};

/// GBPA after reset: everything aborts. Before the first register write nobody else could see to that.
const ABORTING: u32 = 0x10_1000;

/// Does something while no register may be touched.
fn without_registers<T>(model: &Model, act: impl FnOnce() -> T) -> T {
    model.observe(|access| panic!("{access:?} while the SMMU is suspended"));
    let result = act();
    model.stop_observing();
    result
}

#[test]
fn a_resumed_smmu_does_what_it_did_before() {
    everywhere(|config| {
        for loses_power in [true, false] {
            let model = Model::new(Config { gbpa: ABORTING, ..config.clone() });
            let system = System::new(&model);
            let (dma, disk) = (system.dma(&model, 5), model.device(StreamId::new(5)));
            let (kept, dropped) = (dma.allocate_coherent(4096).unwrap(), dma.allocate_coherent(8192).unwrap());
            let gone = dropped.iova();
            disk.write(gone, &[1]).unwrap();
            for round in 1..4 {
                disk.write(kept.iova(), &[round]).unwrap();
                system.smmu.suspend().unwrap();
                if loses_power {
                    model.power_off();
                }
                assert_eq!(disk.write(kept.iova(), &[9]), Err(Refused::Aborted));
                assert_eq!(kept.words()[0].load(SeqCst), u64::from(round));
                if loses_power {
                    model.power_on();
                }
                system.smmu.resume().unwrap();
            }
            disk.write(kept.iova(), &[7]).unwrap();
            assert_eq!(kept.words()[0].load(SeqCst), 7);
            drop(dropped);
            assert_eq!(disk.write(gone, &[1]), Err(Refused::Aborted));
            let other = system.dma(&model, 6);
            let buffer = other.allocate_coherent(4096).unwrap();
            model.device(StreamId::new(6)).write(buffer.iova(), &[1]).unwrap();
        }
    });
}

#[test]
fn nobody_gets_through_at_any_register_access_of_suspend_and_resume() {
    everywhere(|config| {
        let model = Model::new(Config { gbpa: ABORTING, ..config });
        let system = System::new(&model);
        let dma = system.dma(&model, 5);
        let buffer = dma.allocate_coherent(4096).unwrap();
        let watch = Watch::new(&model, &[4, 6, 63], Vec::new());
        system.smmu.suspend().unwrap();
        model.power_off();
        model.power_on();
        system.smmu.resume().unwrap();
        assert!(watch.end() > 20);
        model.device(StreamId::new(5)).write(buffer.iova(), &[1]).unwrap();
    });
}

#[test]
fn after_power_on_the_first_write_stops_everything() {
    let model = Model::new(Config::qemu());
    let smmu = bring_up(&model).unwrap();
    smmu.suspend().unwrap();
    model.power_off();
    model.power_on();
    let stranger = model.device(StreamId::new(5));
    let buffer = model.platform().buffer(4096);
    let target = buffer.physical().get();
    assert!(touch(&stranger, target).is_ok(), "as after reset");
    let mut written = false;
    model.observe(move |access| {
        written |= access.written.is_some();
        assert!(!written || touch(&stranger, target).is_err(), "{access:?}");
    });
    smmu.resume().unwrap();
    model.stop_observing();
}

#[test]
fn while_suspended_memory_is_managed_and_no_register_touched() {
    everywhere(|config| {
        let model = Model::new(config);
        model.platform().reuse_freed_memory(true);
        let system = System::new(&model);
        let (dma, disk) = (system.dma(&model, 5), model.device(StreamId::new(5)));
        let removed = (system.dma(&model, 7), model.device(StreamId::new(7)));
        assert!(touch(&removed.1, 0).is_err());
        let old = dma.allocate_coherent(8 << 20).unwrap();
        let (old_iova, blocks) = (old.iova(), model.platform().block_count());
        disk.write(old_iova, &[1]).unwrap();
        system.smmu.suspend().unwrap();
        let new = without_registers(&model, || {
            drop(old);
            drop(removed.0);
            assert!(model.platform().block_count() < blocks, "its memory and tables are free");
            let smmu = &system.smmu;
            assert!(smmu.is_suspended() && !smmu.is_closed());
            assert_eq!(smmu.drain_events(|_| {}).events, 1, "what came before is in memory");
            assert!(smmu.handle_global_errors().is_empty());
            assert_eq!(smmu.suspend(), Err(DeviceError::Suspended));
            assert_eq!(smmu.enable_interrupts(), Err(DeviceError::Suspended));
            let mut fwspec = Fwspec::new();
            fwspec.push(Phandle::new(1), StreamId::new(6));
            let device = system.iommus.add_device(DeviceDescription::new("late", fwspec)).unwrap();
            let refused = system.iommus.configure(&device);
            assert!(
                matches!(refused, Err(IommuError::Device { error: DriverError::Smmu(DeviceError::Suspended), .. })),
                "{refused:?}"
            );
            (dma.allocate_coherent(4096).unwrap(), device)
        });
        let (buffer, late) = new;
        system.smmu.resume().unwrap();
        system.smmu.resume().unwrap();
        assert_eq!(touch(&removed.1, 0), Err(Refused::Aborted));
        assert_eq!(
            system.smmu.detach(StreamId::new(7)),
            Err(DeviceError::StreamNotAttached { stream: StreamId::new(7) })
        );
        disk.write(buffer.iova(), &[3]).unwrap();
        assert_eq!(buffer.words()[0].load(SeqCst), 3);
        let beyond = Iova::new(old_iova.get() + (4 << 20));
        assert_eq!(disk.write(beyond, &[1]), Err(Refused::Aborted));
        let configured = system.iommus.configure(&late).unwrap();
        assert!(matches!(configured, Configuration::Configured(_)), "{configured:?}");
    });
}

#[test]
fn events_outlive_the_power() {
    for config in [Config { eventqs: 3, ..Config::qemu() }, Config::minimal()] {
        let model = Model::new(Config { gbpa: ABORTING, ..config });
        let smmu = bring_up(&model).unwrap();
        let stray = |streams: std::ops::Range<u32>| {
            streams.for_each(|stream| assert!(touch(&model.device(StreamId::new(stream)), 0).is_err()));
        };
        let drain = |most: usize| {
            let mut streams = Vec::new();
            let drained = smmu.drain_events(|event| streams.push(event.source.stream.get()));
            assert!(streams.len() <= most && !drained.inconsistent);
            streams
        };
        // Not at the start of a lap.
        stray(0..5);
        assert_eq!(drain(5), [0, 1, 2, 3, 4]);
        stray(10..16);
        smmu.suspend().unwrap();
        model.power_off();
        assert_eq!(without_registers(&model, || drain(6)), [10, 11, 12, 13, 14, 15]);
        assert!(without_registers(&model, || drain(0)).is_empty());
        model.power_on();
        smmu.resume().unwrap();
        stray(20..24);
        smmu.suspend().unwrap();
        model.power_off();
        model.power_on();
        smmu.resume().unwrap();
        stray(24..26);
        assert_eq!(drain(6), [20, 21, 22, 23, 24, 25]);
    }
}

#[test]
fn an_overflow_outlives_the_power() {
    let model = Model::new(Config { eventqs: 2, gbpa: ABORTING, ..Config::qemu() });
    let smmu = bring_up(&model).unwrap();
    (0..6).for_each(|stream| assert!(touch(&model.device(StreamId::new(stream)), 0).is_err()));
    smmu.suspend().unwrap();
    model.power_off();
    model.power_on();
    smmu.resume().unwrap();
    let drained = smmu.drain_events(|_| {});
    assert_eq!((drained.events, drained.overflowed), (4, true));
    (0..6).for_each(|stream| assert!(touch(&model.device(StreamId::new(stream)), 0).is_err()));
    let drained = smmu.drain_events(|_| {});
    assert_eq!((drained.events, drained.overflowed), (4, true));
    assert!(!smmu.drain_events(|_| {}).overflowed);
}

#[test]
fn r13_without_power_there_is_nothing_to_resume_yet() {
    let model = Model::new(Config::qemu());
    let system = System::new(&model);
    let dma = system.dma(&model, 5);
    let buffer = dma.allocate_coherent(4096).unwrap();
    system.smmu.suspend().unwrap();
    model.power_off();
    model.observe(|access| assert_eq!(access.written, None));
    assert_eq!(system.smmu.resume(), Err(DeviceError::PoweredOff { register: "IDR0" }));
    model.stop_observing();
    assert!(system.smmu.is_suspended());
    model.power_on();
    system.smmu.resume().unwrap();
    model.device(StreamId::new(5)).write(buffer.iova(), &[1]).unwrap();
}

#[test]
fn a_resume_that_fails_leaves_it_suspended_and_may_be_repeated() {
    for opcode in [Opcode::CfgiSteRange, Opcode::TlbiNsnhAll, Opcode::Sync] {
        let model = Model::new(Config { gbpa: ABORTING, ..Config::qemu() });
        let system = System::new(&model);
        let dma = system.dma(&model, 5);
        let (buffer, disk) = (dma.allocate_coherent(4096).unwrap(), model.device(StreamId::new(5)));
        system.smmu.suspend().unwrap();
        model.power_off();
        model.power_on();
        model.inject(|faults| faults.hang = Some(opcode));
        let watch = Watch::new(&model, &[4], Vec::new());
        assert!(matches!(system.smmu.resume(), Err(DeviceError::Timeout { .. })), "{opcode:?}");
        watch.end();
        assert!(system.smmu.is_suspended());
        assert_eq!(model.registers().read32(CR0ACK), 0);
        assert_eq!(disk.write(buffer.iova(), &[1]), Err(Refused::Aborted));
        model.inject(|faults| faults.hang = None);
        system.smmu.resume().unwrap();
        disk.write(buffer.iova(), &[1]).unwrap();
    }
}

#[test]
fn an_smmu_that_does_not_suspend_is_closed() {
    let model = Model::new(Config::qemu());
    let system = System::new(&model);
    let dma = system.dma(&model, 5);
    let (buffer, disk) = (dma.allocate_coherent(4096).unwrap(), model.device(StreamId::new(5)));
    model.inject(|faults| faults.hang = Some(Opcode::TlbiNsnhAll));
    assert!(matches!(system.smmu.suspend(), Err(DeviceError::Timeout { register: "CMDQ_CONS", .. })));
    assert!(system.smmu.is_closed());
    assert_eq!(system.smmu.resume(), Err(DeviceError::Closed));
    assert_eq!(disk.write(buffer.iova(), &[1]), Err(Refused::Aborted));
}

#[test]
fn one_that_is_suspended_is_closed_and_dropped_without_its_registers() {
    let model = Model::new(Config::qemu());
    let smmu = bring_up(&model).unwrap();
    smmu.suspend().unwrap();
    model.power_off();
    without_registers(&model, || {
        smmu.close().unwrap();
        assert_eq!(smmu.resume(), Err(DeviceError::Closed));
        smmu.close().unwrap();
        assert!(smmu.is_closed() && smmu.handle_global_errors().is_empty() && !smmu.aborts_while_disabled());
        assert!(smmu.dump(StreamId::new(5)).to_string().contains("not looked at"));
        drop(smmu);
    });
    model.power_on();
    let smmu = bring_up(&model).unwrap();
    smmu.suspend().unwrap();
    without_registers(&model, || drop(smmu));
    assert_eq!(model.platform().block_count(), 0);
}

#[test]
fn cpus_map_and_unmap_while_it_sleeps_and_wakes() {
    everywhere(|config| {
        // Slowly, because time also passes while the host has a thread wait.
        let model = Model::new(Config { gbpa: ABORTING, relax: Duration::from_nanos(100), ..config });
        let system = System::new(&model);
        std::thread::scope(|scope| {
            let workers = [5, 6].map(|stream| {
                let (dma, device) = (system.dma(&model, stream), model.device(StreamId::new(stream)));
                scope.spawn(move || {
                    for round in 0..30u64 {
                        let buffer = dma.allocate_coherent(4096).unwrap();
                        // It works or it aborts; where it works it is the right memory.
                        if device.write(buffer.iova(), &round.to_le_bytes()).is_ok() {
                            assert_eq!(buffer.words()[0].load(SeqCst), round);
                        }
                        let iova = buffer.iova();
                        drop(buffer);
                        assert_eq!(device.write(iova, &[1]), Err(Refused::Aborted));
                    }
                    (dma, device)
                })
            });
            for _ in 0..8 {
                system.smmu.suspend().unwrap();
                model.power_off();
                model.power_on();
                system.smmu.resume().unwrap();
            }
            for worker in workers {
                let (dma, device) = worker.join().unwrap();
                let buffer = dma.allocate_coherent(4096).unwrap();
                device.write(buffer.iova(), &[1]).unwrap();
            }
        });
        assert!(!system.smmu.is_closed());
    });
}

#[test]
fn shut_down_it_aborts_and_answers_to_nobody() {
    let model = Model::new(Config { gbpa: ABORTING, ..Config::qemu() });
    let smmu = bring_up(&model).unwrap();
    let watch = Watch::new(&model, &[5], Vec::new());
    smmu.shutdown(Handover::Abort).unwrap();
    watch.end();
    assert!(smmu.is_closed());
    assert_eq!(model.registers().read32(CR0ACK), 0);
    assert!(smmu.aborts_while_disabled());
    assert_eq!(smmu.shutdown(Handover::Running), Err(DeviceError::Closed));
    assert_eq!(smmu.suspend(), Err(DeviceError::Closed));
    assert_eq!(smmu.detach(StreamId::new(5)), Err(DeviceError::Closed));
}

#[test]
fn handed_over_it_goes_on_and_is_left_alone() {
    everywhere(|config| {
        let model = Model::new(config);
        let system = System::new(&model);
        let dma = system.dma(&model, 5);
        let buffer = dma.allocate_coherent(4096).unwrap();
        buffer.words()[0].store(7, SeqCst);
        let working = Working { device: model.device(StreamId::new(5)), iova: buffer.iova(), word: 7 };
        let watch = Watch::new(&model, &[4, 6], vec![working]);
        system.smmu.shutdown(Handover::Running).unwrap();
        assert!(watch.end() > 2);
        assert_eq!(model.registers().read32(CR0ACK) & !0x10, 1, "SMMUEN alone, and ATSCHK");
        without_registers(&model, || {
            let smmu = &system.smmu;
            for refused in [smmu.close(), smmu.suspend(), smmu.resume(), smmu.detach(StreamId::new(5))] {
                assert_eq!(refused, Err(DeviceError::HandedOver));
            }
            assert_eq!(smmu.drain_events(|_| {}).events, 0);
            assert!(smmu.handle_global_errors().is_empty());
            // The buffer stays mapped: nobody can tell the SMMU to forget it.
            drop((buffer, dma));
        });
        assert!(touch(&model.device(StreamId::new(5)), 0).is_err());
        without_registers(&model, || drop(system));
    });
}

#[test]
fn service_failure_mode_closes_it() {
    let model = Model::new(Config::qemu());
    let system = System::new(&model);
    let dma = system.dma(&model, 5);
    let (buffer, disk) = (dma.allocate_coherent(4096).unwrap(), model.device(StreamId::new(5)));
    model.inject(|faults| faults.service_failure = true);
    model.raise(GlobalError::Sfm);
    assert_eq!(disk.write(buffer.iova(), &[1]), Err(Refused::Aborted));
    let report = system.smmu.handle_global_errors();
    assert_eq!(report.to_string(), "SFM_ERR: the SMMU entered service failure mode and stopped");
    assert!(system.smmu.is_closed() && system.smmu.handle_global_errors().is_empty());
    assert_eq!(model.registers().read32(CR0ACK), 0);
    model.inject(|faults| faults.service_failure = false);
    assert_eq!(disk.write(buffer.iova(), &[1]), Err(Refused::Aborted), "for good");
}

/// Another CPU closes the SMMU at any register access of a resume: it goes off, whatever was under way, and nothing that was
/// written is overtaken, which the model would tell.
#[test]
fn an_smmu_may_be_closed_while_it_wakes_up() {
    let config = Config { acknowledge_after: 5, ..Config::full() };
    let accesses = (1..).find(|&at| {
        let model = Model::new(config.clone());
        let system = System::new(&model);
        system.smmu.suspend().unwrap();
        let (is_closing, mut seen) = (&AtomicBool::new(false), 0);
        let (sender, receiver) = mpsc::channel();
        model.observe(move |_| {
            seen += 1;
            if seen == at {
                _ = sender.send(());
            }
        });
        thread::scope(|scope| {
            let smmu = &system.smmu;
            scope.spawn(move || {
                if receiver.recv().is_ok() {
                    is_closing.store(true, SeqCst);
                    smmu.close().unwrap();
                }
            });
            let _ = system.smmu.resume();
            model.stop_observing();
        });
        assert_eq!(is_closing.load(SeqCst), system.smmu.is_closed());
        assert!(!system.smmu.is_closed() || model.registers().read32(CR0ACK) == 0, "at {at}");
        !system.smmu.is_closed()
    });
    assert!(accesses > Some(20), "{accesses:?}");
}

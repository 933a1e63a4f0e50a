//! The real driver over the model: what a device reaches, and what it does not.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use smmu::addr::{Iova, StreamId};
use smmu::arch::event::EventKind;
use smmu::dma::Direction;
use tests::model::Cacheability::WriteBack;
use tests::model::{Config, Fetched, MemoryType, Model, Opcode, Pace, Refused};

use super::system::{System, everywhere};

#[test]
fn a_device_reaches_its_buffer_and_no_more() {
    everywhere(|config| {
        let model = Model::new(config);
        let system = System::new(&model);
        let disk = model.device(StreamId::new(5));
        assert_eq!(disk.write(Iova::new(0x1000), &[1]), Err(Refused::Aborted), "not attached");
        let dma = system.dma(&model, 5);
        let buffer = dma.allocate_coherent(4096).unwrap();
        let iova = buffer.iova().get();
        disk.write(Iova::new(iova + 8), &0x1122_3344_5566_7788u64.to_le_bytes()).unwrap();
        let cached = MemoryType::Normal { outer: WriteBack, inner: WriteBack };
        assert_eq!(disk.memory_type(buffer.iova()), Some(cached));
        assert_eq!(buffer.words()[1].load(SeqCst), 0x1122_3344_5566_7788);
        let mut word = [0; 8];
        disk.read(Iova::new(iova + 8), &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), 0x1122_3344_5566_7788);
        assert_eq!(disk.fetch_add(Iova::new(iova + 8), 1), Ok(0x1122_3344_5566_7788));
        assert_eq!(disk.write(Iova::new(iova + 4096), &[1]), Err(Refused::Aborted));
        drop(buffer);
        assert_eq!(disk.write(Iova::new(iova), &[1]), Err(Refused::Aborted), "unmapped");
        drop(dma);
        assert_eq!(disk.write(Iova::new(iova), &[1]), Err(Refused::Aborted), "detached");
    });
}

#[test]
fn faults_carry_stream_address_and_kind() {
    everywhere(|config| {
        let stage1 = config.s1p;
        let model = Model::new(config);
        let system = System::new(&model);
        let dma = system.dma(&model, 5);
        let disk = model.device(StreamId::new(5));
        assert!(disk.write(Iova::new(0x7_f123), &[1]).is_err());
        assert!(model.device(StreamId::new(6)).write(Iova::new(0), &[1]).is_err());
        let mut events = Vec::new();
        let drain = system.smmu.drain_events(|event| events.push(event));
        assert!(!drain.overflowed && !drain.inconsistent);
        let [fault, stranger] = &events[..] else { panic!("{events:?}") };
        assert_eq!(fault.source.stream, StreamId::new(5));
        let EventKind::Translation(fault) = fault.kind else { panic!("{fault:?}") };
        assert_eq!(fault.input, Iova::new(0x7_f123));
        assert_eq!(format!("{:?}", fault.stage).contains('1'), stage1);
        assert_eq!(stranger.source.stream, StreamId::new(6));
        drop(dma);
    });
}

#[test]
fn directions_are_permissions() {
    everywhere(|config| {
        let model = Model::new(config);
        let system = System::new(&model);
        let (dma, disk) = (system.dma(&model, 5), model.device(StreamId::new(5)));
        let buffer = model.platform().buffer(4096);
        for (direction, reads, writes) in [
            (Direction::ToDevice, true, false),
            (Direction::FromDevice, false, true),
            (Direction::Bidirectional, true, true),
        ] {
            // SAFETY: the buffer outlives the mapping, and nobody else touches it.
            let mapping = unsafe { dma.map(buffer.pointer(), direction) }.unwrap();
            // Stage 1 has no way to say "write only".
            let reads = reads || model.log().fetches(Fetched::Cd) != 0;
            assert_eq!(disk.write(mapping.iova(), &[1]).is_ok(), writes, "{direction:?}");
            assert_eq!(disk.read(mapping.iova(), &mut [0]).is_ok(), reads, "{direction:?}");
            assert!(disk.execute(mapping.iova(), &mut [0]).is_err(), "{direction:?}");
        }
    });
}

#[test]
fn one_unmap_is_one_invalidation_and_one_sync() {
    let model = Model::new(Config::qemu());
    let system = System::new(&model);
    let dma = system.dma(&model, 5);
    let [first, _second] = [dma.allocate_coherent(4096).unwrap(), dma.allocate_coherent(4096).unwrap()];
    let mark = model.mark();
    drop(first);
    assert_eq!(model.log_since(mark).commands(), [Opcode::TlbiNhVa, Opcode::Sync]);
}

#[test]
fn a_queue_of_two_commands_is_enough() {
    let model = Model::new(Config { cmdqs: 1, ril: false, pace: Pace::After(2), ..Config::qemu() });
    let system = System::new(&model);
    let dma = system.dma(&model, 5);
    let buffer = dma.allocate_coherent(20 * 4096).unwrap();
    let disk = model.device(StreamId::new(5));
    let last = Iova::new(buffer.iova().get() + 19 * 4096);
    assert_eq!(disk.write(last, &[1]), Ok(()));
    drop(buffer);
    assert_eq!(disk.write(last, &[1]), Err(Refused::Aborted));
}

#[test]
fn tables_that_a_range_leaves_empty_serve_the_next() {
    everywhere(|config| {
        let model = Model::new(config);
        let system = System::new(&model);
        let dma = system.dma(&model, 5);
        let disk = model.device(StreamId::new(5));
        let mut blocks = None;
        for _ in 0..3 {
            let buffer = dma.allocate_coherent(5 << 20).unwrap();
            let now = model.platform().block_count();
            assert_eq!(*blocks.get_or_insert(now), now, "as many tables as the first time");
            let middle = Iova::new(buffer.iova().get() + (3 << 20));
            disk.write(middle, &[1]).unwrap();
            drop(buffer);
            assert_eq!(disk.write(middle, &[1]), Err(Refused::Aborted));
        }
    });
}

#[test]
fn devices_do_not_reach_each_others_memory() {
    everywhere(|config| {
        let model = Model::new(config);
        let system = System::new(&model);
        let (one, two) = (system.dma(&model, 5), system.dma(&model, 6));
        let (first, second) = (one.allocate_coherent(4096).unwrap(), two.allocate_coherent(8192).unwrap());
        model.device(StreamId::new(5)).write(first.iova(), &[1]).unwrap();
        model.device(StreamId::new(6)).write(second.iova(), &[2]).unwrap();
        let (first_word, second_word) = (first.words()[0].load(SeqCst), second.words()[0].load(SeqCst));
        assert_eq!((first_word, second_word), (1, 2));
        let beyond = Iova::new(second.iova().get() + 4096);
        assert_eq!(model.device(StreamId::new(5)).write(beyond, &[3]), Err(Refused::Aborted));
    });
}

#[test]
fn tags_and_memory_are_reused_without_a_trace() {
    everywhere(|config| {
        let model = Model::new(config);
        model.platform().reuse_freed_memory(true);
        let system = System::new(&model);
        for round in 0..20 {
            let dma = system.dma(&model, round);
            let device = model.device(StreamId::new(round));
            let buffer = dma.allocate_coherent(4096).unwrap();
            device.write(buffer.iova(), &[round as u8 + 1]).unwrap();
            assert_eq!(buffer.words()[0].load(SeqCst), u64::from(round) + 1);
        }
    });
}

#[test]
fn cpus_map_and_unmap_at_once() {
    everywhere(|config| {
        // Slowly, because time also passes while the host has a thread wait.
        let model = Model::new(Config { relax: Duration::from_nanos(100), ..config });
        let system = System::new(&model);
        std::thread::scope(|scope| {
            for stream in [5, 6, 7] {
                let dma = system.dma(&model, stream);
                let device = model.device(StreamId::new(stream));
                scope.spawn(move || {
                    for round in 0..20u64 {
                        let buffer = dma.allocate_coherent(4096).unwrap();
                        device.write(buffer.iova(), &round.to_le_bytes()).unwrap();
                        assert_eq!(buffer.words()[0].load(SeqCst), round);
                        let iova = buffer.iova();
                        drop(buffer);
                        assert_eq!(device.write(iova, &[0]), Err(Refused::Aborted));
                    }
                });
            }
        });
    });
}

#[test]
fn commands_that_complete_on_another_thread() {
    // The clock stands still: however long the other thread takes, nothing times out.
    let model = Model::new(Config { pace: Pace::Stepped, relax: Duration::ZERO, ..Config::qemu() });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                model.step();
                std::thread::yield_now();
            }
        });
        // Dropped last, and also when something has panicked: the other thread ends.
        let _stop = Stop(&done);
        let system = System::new(&model);
        let dma = system.dma(&model, 5);
        let buffer = dma.allocate_coherent(4096).unwrap();
        model.device(StreamId::new(5)).write(buffer.iova(), &[1]).unwrap();
    });
}

/// Sets a flag when dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn ten_thousand_rounds() {
    let model = Model::new(Config::qemu());
    let system = System::new(&model);
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

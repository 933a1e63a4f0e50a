//! A running SMMU changes its owner: chosen streams work throughout, all others abort.

use std::sync::atomic::Ordering::SeqCst;

use smmu::addr::{Asid, Iova, StreamId, Vmid};
use smmu::arch::stream_table::{Shcfg, StreamTableEntry};
use smmu::device::{DeviceError, Handover, Takeover};
use smmu::platform::{Platform, Registers};
use tests::model::{Buffer, Config, Entry, Model, Refused};

use super::bench::{Bench, CD0, CMDQ_CONS, CMDQ_PROD, CR0, STREAM, put, put_cd, stage1_ste, touch, word};
use super::former::{Former, adopt, boot_streams};
use super::system::{System, everywhere};
use super::watch::{Watch, Working};

#[test]
fn a_stream_goes_on_from_one_kernel_to_the_next() {
    everywhere(|config| {
        let sidsize = config.sidsize;
        for handed_over in [true, false] {
            let model = Model::new(config.clone());
            let before = System::new(&model);
            let [screen, other, late] = [5, 6, 7].map(|stream| before.dma(&model, stream));
            let buffers = [&screen, &other, &late].map(|dma| dma.allocate_coherent(4096).unwrap());
            buffers[0].words()[0].store(0x1234, SeqCst);
            for (stream, buffer) in (5..).zip(&buffers) {
                touch(&model.device(StreamId::new(stream)), buffer.iova().get()).unwrap();
            }
            if handed_over {
                before.smmu.shutdown(Handover::Running).unwrap();
            }
            let iova = buffers[0].iova();
            let working = Working { device: model.device(StreamId::new(5)), iova, word: 0x1234 };
            // Stream 4 never had anything, stream 63 has no second level.
            let watch = Watch::new(&model, &[4, 63], vec![working]);
            let after = adopt(&model, &[5, 9, 5]).unwrap();
            assert!(watch.end() > 20);
            assert_eq!((after.takeover(), boot_streams(&after)), (Takeover::Adopted, vec![5]));
            assert!(touch(&model.device(StreamId::new(5)), iova.get()).is_ok());
            for (stream, buffer) in [(6, &buffers[1]), (7, &buffers[2])] {
                let aborted = touch(&model.device(StreamId::new(stream)), buffer.iova().get());
                assert_eq!(aborted, Err(Refused::Aborted), "stream {stream} was not chosen");
            }
            // The others are to be had, and so is a stream far away.
            let system = System::with(&model, after);
            for stream in [6, 9, (1 << sidsize.min(24)) - 1] {
                let dma = system.dma(&model, stream);
                let buffer = dma.allocate_coherent(4096).unwrap();
                let device = model.device(StreamId::new(stream));
                device.write(buffer.iova(), &[9]).unwrap();
                assert_eq!(buffer.words()[0].load(SeqCst), 9);
                drop((buffer, dma));
                assert!(touch(&device, 0).is_err());
            }
            // It sleeps and wakes with what it adopted.
            system.smmu.suspend().unwrap();
            assert!(touch(&model.device(StreamId::new(5)), iova.get()).is_err());
            model.power_off();
            model.power_on();
            system.smmu.resume().unwrap();
            assert!(touch(&model.device(StreamId::new(5)), iova.get()).is_ok());
            system.smmu.detach(StreamId::new(5)).unwrap();
            assert_eq!(touch(&model.device(StreamId::new(5)), iova.get()), Err(Refused::Aborted));
            assert!(boot_streams(&system.smmu).is_empty());
            drop(system);
            // The former owner is not told: whatever it does now, it finds a closed SMMU or none.
            std::mem::forget((before, screen, other, late, buffers));
        }
    });
}

#[test]
fn a_linear_table_is_adopted_in_place() {
    let former = Former::new(Config::qemu());
    let model = &former.bench.model;
    assert!(touch(&model.device(StreamId::new(STREAM + 1)), 0).is_ok());
    let watch = Watch::new(model, &[STREAM + 2, STREAM + 3], vec![former.working()]);
    let smmu = adopt(model, &[STREAM]).unwrap();
    watch.end();
    assert_eq!(boot_streams(&smmu), [STREAM]);
    assert_eq!(touch(&model.device(StreamId::new(STREAM + 1)), 0), Err(Refused::Aborted));
    for stream in (0..64).filter(|stream| *stream != STREAM) {
        let words: Vec<_> = (0..8).map(|word| former.ste_word(stream, word)).collect();
        assert_eq!(words, [0; 8], "stream {stream}");
    }
    // Beyond the former owner's table there is nothing.
    let refused = smmu.attach(StreamId::new(64), &StreamTableEntry::abort());
    assert!(matches!(refused, Err(DeviceError::StreamOutOfRange { .. })), "{refused:?}");
    smmu.attach(StreamId::new(STREAM + 1), &StreamTableEntry::abort()).unwrap();
    drop(smmu);
    drop(former);
}

#[test]
fn the_driver_of_an_adopted_stream_takes_it_over_without_a_gap() {
    let former = Former::new(Config::qemu());
    let model = &former.bench.model;
    let smmu = adopt(model, &[STREAM]).unwrap();
    // What the former owner's contexts say, but for the ASID: 9.
    let context: [u64; 8] = std::array::from_fn(|index| word(&former.buffers[0], index));
    let contexts = model.platform().buffer(4096);
    put_cd(&contexts, 0, &[context[0] & !(0xffff << 48) | 9 << 48, context[1], 0, context[3]]);
    let [first, second, ..] = stage1_ste(&contexts);
    let entry = StreamTableEntry::from_words([first, second, 0, 0, 0, 0, 0, 0]);
    let watch = Watch::new(model, &[STREAM + 1, STREAM + 2], vec![former.working()]);
    smmu.replace(StreamId::new(STREAM), &entry).unwrap();
    watch.end();
    assert!(boot_streams(&smmu).is_empty());
    // The former owner's contexts are free from here on.
    put(&former.buffers[0], 0, 0);
    assert_eq!(touch(&model.device(StreamId::new(STREAM)), 0), Ok(0x77));
    let again = smmu.attach(StreamId::new(STREAM), &entry);
    assert_eq!(again, Err(DeviceError::StreamInUse { stream: StreamId::new(STREAM) }));
    drop(smmu);
    drop(former);
}

#[test]
fn r27_identifiers_of_adopted_streams_are_not_given_out() {
    let former = Former::new(Config::qemu());
    let smmu = adopt(&former.bench.model, &[STREAM]).unwrap();
    // The tag of an ASID that is in use must not be somebody else's: 7 and the stream's number were put into the CD.
    let used = Asid::new(7 + STREAM as u16);
    assert!(!smmu.reserve_asid(used));
    assert!(smmu.reserve_asid(Asid::new(8 + STREAM as u16)), "of a stream that was not chosen");
    assert!((0..20).all(|_| smmu.take_asid().unwrap() != used));
    drop(smmu);
}

#[test]
fn r27_a_vmid_of_an_adopted_stream_is_not_given_out() {
    let mut bench = Bench::new(Config::qemu());
    let table = bench.buffer(4096);
    // Stage 2 from level 2 on, VMID 9: T0SZ 39, SL0 0, 4 KiB, 44 bits.
    let vtcr = 9 | 39 << 32 | 1 << 40 | 1 << 42 | 3 << 44 | 4 << 48 | 1 << 51 | 1 << 58;
    bench.set_ste(STREAM, &[0b1101, 0, vtcr, table.physical().get()]);
    let smmu = adopt(&bench.model, &[STREAM]).unwrap();
    assert_eq!(boot_streams(&smmu), [STREAM]);
    assert!((0..20).all(|_| smmu.take_vmid().unwrap() != Vmid::new(9)));
    drop(smmu);
    drop((bench, table));
}

#[test]
fn a_bypassed_stream_can_be_adopted_and_one_that_aborts_stays_so() {
    let mut bench = Bench::new(Config::qemu());
    bench.set_ste(STREAM, &[0b1001, 1 << 44]);
    bench.set_ste(STREAM + 1, &[0b0001]);
    let data = bench.buffer(4096);
    let target = data.physical().get();
    let working = Working { device: bench.device(), iova: Iova::new(target), word: 0 };
    let watch = Watch::new(&bench.model, &[STREAM + 1], vec![working]);
    let smmu = adopt(&bench.model, &[STREAM, STREAM + 1]).unwrap();
    watch.end();
    assert_eq!(boot_streams(&smmu), [STREAM]);
    drop(smmu);
}

/// Two levels with a split of 6, 8 or 10 and a second level that is as short as its span says.
#[test]
fn second_levels_of_every_split_are_replaced_and_not_moved() {
    for (split, span) in [(6u32, 7u64), (8, 3), (8, 9), (10, 11)] {
        let mut former = Former::new(Config::qemu());
        let first = former.bench.buffer(8 << (16 - split));
        let second = former.bench.buffer(64 << (span - 1));
        former.bench.registers_off();
        for word in 0..8u64 << (span - 1).min(6) {
            let value = former.bench.streams.words()[word as usize].load(SeqCst);
            put(&second, word, value);
        }
        // The first run; a run that shares its second level; one whose span is too large; one that is reserved.
        let runs =
            [second.physical().get() | span, second.physical().get() | span, 0xdead_0000 | (u64::from(split) + 2), 31];
        (0..).zip(runs).for_each(|(run, word)| put(&first, run, word));
        former.bench.program_streams(&first, 16 | split << 6 | 1 << 16);
        former.bench.registers_on();
        let chosen = if span == 3 { vec![STREAM, 200] } else { vec![STREAM] };
        let far = (1 << split) + STREAM;
        let watch = Watch::new(&former.bench.model, &[2 << split, 3 << split, 5 << split], vec![former.working()]);
        let smmu = adopt(&former.bench.model, &chosen).unwrap();
        watch.end();
        assert_eq!(boot_streams(&smmu), [STREAM], "beyond a short span there was nothing");
        let device = |stream| former.bench.model.device(StreamId::new(stream));
        assert!(touch(&device(far), 0).is_err(), "the same entry, by another number");
        // Their entries are apart from now on.
        smmu.attach(StreamId::new(far), &StreamTableEntry::bypass(Shcfg::UseIncoming)).unwrap();
        assert!(touch(&device(far), former.buffers[0].physical().get()).is_ok());
        assert_eq!(touch(&device(STREAM), 0), Ok(0x77));
        smmu.detach(StreamId::new(far)).unwrap();
        smmu.attach(StreamId::new(200), &StreamTableEntry::abort()).unwrap();
        drop(second);
        assert_eq!(touch(&device(STREAM), 0), Ok(0x77), "the former owner's second level is free");
        drop(smmu);
        drop(former);
    }
}

#[test]
fn substreams_keep_their_asids() {
    for (format, leaves) in [(0u64, None), (1, Some(64)), (2, Some(1024))] {
        let mut bench = Bench::new(Config { s2p: false, ..Config::full() });
        let leaf = bench.buffer(64 << 11);
        let first = bench.buffer(4096);
        let table = bench.buffer(4096);
        // Contexts 1 and 3 of 2^11 (linear), or of the second leaf table; ASIDs 0x41 and 0x43.
        for index in [1u64, 3] {
            put_cd(
                &leaf,
                index,
                &[(CD0 - (7 << 48) + ((0x40 + index) << 48)) | 39 | 5 << 32, table.physical().get(), 0, 0xff44],
            );
        }
        let pointer = match leaves {
            None => leaf.physical().get(),
            Some(_) => {
                put(&first, 1, leaf.physical().get() | 1);
                first.physical().get()
            }
        };
        let [_, second, ..] = stage1_ste(&first);
        bench.set_ste(STREAM, &[pointer | 0b1011 | format << 4 | 11 << 59, second, 0, 0]);
        let smmu = adopt(&bench.model, &[STREAM]).unwrap();
        assert!(!smmu.reserve_asid(Asid::new(0x41)) && !smmu.reserve_asid(Asid::new(0x43)), "format {format}");
        assert!(smmu.reserve_asid(Asid::new(0x42)));
        drop(smmu);
        drop((bench, leaf, first, table));
    }
}

#[test]
fn a_command_queue_that_had_stopped_and_an_event_queue_that_had_overflowed_are_no_obstacle() {
    let mut former = Former::new(Config::qemu());
    former.bench.registers.write32(0x50, 5);
    (0..40).for_each(|_| assert!(touch(&former.bench.model.device(StreamId::new(20)), 0).is_err()));
    former.bench.send(&[[0xff, 0], [0x30, 0]]);
    let _ = former.bench.broken_laws();
    assert_ne!(former.bench.registers.read32(0x60), former.bench.registers.read32(0x64), "CMDQ_ERR");
    let old_commands = former.bench.commands.physical().get();
    let watch = Watch::new(&former.bench.model, &[STREAM + 2], vec![former.working()]);
    let smmu = adopt(&former.bench.model, &[STREAM]).unwrap();
    watch.end();
    let model = &former.bench.model;
    assert_eq!(model.registers().read32(0x50), 0, "interrupts are off");
    assert_ne!(model.registers().read64(0x90) & 0xf_ffff_ffe0, old_commands);
    assert_eq!(model.registers().read32(CMDQ_PROD), model.registers().read32(CMDQ_CONS) & 0xf_ffff);
    smmu.drain_events(|_| {});
    assert!(touch(&model.device(StreamId::new(20)), 0).is_err());
    let mut seen = Vec::new();
    assert!(!smmu.drain_events(|event| seen.push(event.source.stream.get())).overflowed);
    assert_eq!(seen, [20]);
    assert!(smmu.handle_global_errors().is_empty());
    drop(smmu);
}

#[test]
fn uncached_queues_and_tables_of_the_former_owner_stay_so() {
    // CR1 as an owner has it that maps everything uncached, although the SMMU could snoop.
    let former = Former::new(Config::qemu());
    former.bench.registers.write32(CR0, 0);
    former.bench.registers.write32(0x28, 0x820);
    let platform = former.bench.model.platform();
    let clean = |buffer: &Buffer| platform.clean_cache(buffer.pointer().cast(), buffer.words().len() * 8);
    [&former.bench.streams, &former.bench.commands, &former.bench.events].into_iter().for_each(clean);
    former.bench.registers.write32(CR0, 0xd);
    let _ = former.bench.model.take_violations();
    let watch = Watch::new(&former.bench.model, &[STREAM + 2], vec![former.working()]);
    let smmu = adopt(&former.bench.model, &[STREAM]).unwrap();
    watch.end();
    let model = &former.bench.model;
    assert_eq!(touch(&model.device(StreamId::new(STREAM + 1)), 0), Err(Refused::Aborted));
    let mut seen = Vec::new();
    smmu.drain_events(|event| seen.push(event.source.stream.get()));
    assert!(seen.contains(&(STREAM + 1)) && seen.contains(&(STREAM + 2)), "{seen:?}");
    smmu.suspend().unwrap();
    smmu.resume().unwrap();
    assert_eq!(model.registers().read32(0x28), 0x820);
    drop(smmu);
}

#[test]
fn memory_is_the_only_thing_that_is_written_while_the_table_changes() {
    let former = Former::new(Config::qemu());
    let mark = former.bench.model.mark();
    let smmu = adopt(&former.bench.model, &[STREAM]).unwrap();
    let writes: Vec<_> = former.bench.model.log_since(mark).entries().iter().filter_map(write).collect();
    let at = |offset: usize| writes.iter().position(|(written, _)| *written == offset);
    assert_eq!(writes[0], (0x44, 0x8010_1000), "GBPA.ABORT comes first");
    assert!([0x28, 0x2c, 0x80, 0x88].iter().all(|guarded| at(*guarded).is_none()));
    let enables: Vec<_> = writes.iter().filter(|(offset, _)| *offset == CR0).map(|(_, value)| *value).collect();
    assert_eq!(enables, [1, 9, 0xd], "SMMUEN stays");
    drop(smmu);
}

fn write(entry: &Entry) -> Option<(usize, u64)> {
    if let Entry::Write { offset, value } = entry { Some((*offset, *value)) } else { None }
}

//! Bring-up: nothing passes that was not let through, at any step; and hardware that is of no use.

use smmu::addr::{Iova, StreamId};
use smmu::device::{BootPolicy, DeviceError, Smmu, Takeover};
use tests::model::{Config, Model, ModelPlatform, Opcode, Refused};

use super::bench::{Bench, CR0ACK};
use super::system::{System, bring_up, everywhere};
use super::watch::{Watch, Working};
use smmu::platform::Registers;

fn bring_up_with(model: &Model, policy: BootPolicy<'_>) -> Result<Smmu<ModelPlatform>, DeviceError> {
    Smmu::bring_up(model.platform(), model.registers(), true, policy)
}

#[test]
fn r17_no_stranger_gets_through_at_any_register_access_of_bring_up_and_shutdown() {
    everywhere(|config| {
        // An SMMU that is off may let everything pass, up to the first write.
        let model = Model::new(Config { gbpa: 0x10_1000, ..config });
        let watch = Watch::new(&model, &[5, 6, 63], Vec::new());
        let smmu = bring_up(&model).unwrap();
        assert_eq!(smmu.takeover(), Takeover::Off);
        drop(smmu);
        assert!(watch.end() > 20);
    });
}

#[test]
fn an_smmu_that_lets_everything_pass_does_so_until_the_first_write_only() {
    let model = Model::new(Config::qemu());
    let stranger = model.device(StreamId::new(5));
    let canary = model.platform().buffer(4096);
    let target = Iova::new(canary.physical().get());
    assert_eq!(stranger.write(target, &[1]), Ok(()), "GBPA is 0x1000 after reset");
    let mut written = false;
    let watched = stranger.clone();
    model.observe(move |access| {
        written |= access.written.is_some();
        assert!(!written || watched.write(target, &[1]).is_err(), "{access:?}");
    });
    drop(bring_up(&model).unwrap());
    model.stop_observing();
}

#[test]
fn r21_what_firmware_had_running_aborts_before_and_after_it_is_stopped() {
    let bench = Bench::new(Config::qemu());
    let watch = Watch::new(&bench.model, &[5, 6], Vec::new());
    let smmu = bring_up(&bench.model).unwrap();
    assert_eq!(smmu.takeover(), Takeover::Stopped);
    watch.end();
    drop(smmu);
}

#[test]
fn r19_an_address_is_not_translated_because_a_device_says_so() {
    let model = Model::new(Config::full());
    let smmu = bring_up(&model).unwrap();
    let canary = model.platform().buffer(4096);
    let stranger = model.device(StreamId::new(5));
    assert_eq!(stranger.forge_translated(canary.physical().get(), &[1]), Err(Refused::Aborted), "ATSCHK is 1");
    assert_eq!(canary.contents()[0], 0);
    drop(smmu);
}

#[test]
fn bypassed_streams_reach_memory_and_the_others_do_not() {
    everywhere(|config| {
        let model = Model::new(Config { gbpa: 0x10_1000, ..config });
        let screen = model.platform().buffer(4096);
        let (target, streams) =
            (Iova::new(screen.physical().get()), [StreamId::new(7), StreamId::new(7), StreamId::new(9)]);
        let watch = Watch::new(&model, &[6, 8], Vec::new());
        let smmu = bring_up_with(&model, BootPolicy::Bypass(&streams)).unwrap();
        watch.end();
        assert_eq!(smmu.boot_streams().collect::<Vec<_>>(), streams[1..]);
        for stream in &streams {
            assert_eq!(model.device(*stream).write(target, &[1]), Ok(()));
        }
        assert_eq!(model.device(StreamId::new(8)).write(target, &[1]), Err(Refused::Aborted));
        // Nobody else gets it, until it is detached.
        let entry = smmu.stream_table_entry(streams[0]).unwrap();
        let refused = smmu.attach(streams[0], &entry);
        assert_eq!(refused, Err(DeviceError::StreamInUse { stream: streams[0] }));
        smmu.detach(streams[0]).unwrap();
        assert_eq!(model.device(streams[0]).write(target, &[1]), Err(Refused::Aborted));
        assert_eq!(smmu.boot_streams().collect::<Vec<_>>(), streams[2..]);
        let system = System::with(&model, smmu);
        let dma = system.dma(&model, 7);
        let buffer = dma.allocate_coherent(4096).unwrap();
        model.device(streams[0]).write(buffer.iova(), &[1]).unwrap();
    });
}

#[test]
fn a_stream_that_the_table_does_not_cover_is_not_bypassed() {
    let model = Model::new(Config::minimal());
    let refused = bring_up_with(&model, BootPolicy::Bypass(&[StreamId::new(3), StreamId::new(64)]));
    assert!(matches!(refused, Err(DeviceError::StreamOutOfRange { stream, .. }) if stream == StreamId::new(64)));
    assert_eq!((model.registers().read32(CR0ACK), model.platform().block_count()), (0, 0));
}

#[test]
fn r13_every_register_that_reads_all_ones_is_told_and_nothing_is_written() {
    for (offset, name) in [(0x0, "IDR0"), (0x4, "IDR1"), (0x14, "IDR5"), (0x1c, "AIDR")] {
        let model = Model::new(Config { overrides: vec![(offset, u32::MAX)], ..Config::qemu() });
        model.observe(|access| assert_eq!(access.written, None));
        assert_eq!(bring_up(&model).unwrap_err(), DeviceError::PoweredOff { register: name });
        model.stop_observing();
    }
}

#[test]
fn r20_a_newer_minor_version_is_driven_and_another_architecture_is_not() {
    let model = Model::new(Config { overrides: vec![(0x1c, 0xf)], ..Config::qemu() });
    drop(bring_up(&model).unwrap());
    let model = Model::new(Config { overrides: vec![(0x1c, 0x10)], ..Config::qemu() });
    model.observe(|access| assert_eq!(access.written, None));
    let refused = bring_up(&model).unwrap_err();
    assert!(matches!(refused, DeviceError::Unsupported { register: "AIDR", found: 0x10, .. }), "{refused}");
    model.stop_observing();
}

#[test]
fn adopting_an_smmu_that_is_off_is_starting_it() {
    let model = Model::new(Config::qemu());
    let smmu = bring_up_with(&model, BootPolicy::Adopt(&[StreamId::new(5)])).unwrap();
    assert_eq!((smmu.takeover(), smmu.boot_streams().count()), (Takeover::Off, 0));
    assert!(model.device(StreamId::new(5)).write(Iova::new(0), &[1]).is_err());
}

#[test]
fn queues_are_no_larger_than_need_be() {
    let model = Model::new(Config::qemu());
    let smmu = bring_up(&model).unwrap();
    let bytes = smmu.statistics().dma_bytes;
    assert!(bytes <= 512 << 10, "{bytes}");
    assert_eq!(bytes as u64, model.platform().bytes_in_use());
}

#[test]
fn a_watch_notices_who_gets_through_and_who_does_not_any_more() {
    let model = Model::new(Config::qemu());
    let word = model.platform().buffer(4096);
    let (device, iova) = (model.device(StreamId::new(6)), Iova::new(word.physical().get()));
    let working = Working { device, iova, word: 0 };
    let watch = Watch::new(&model, &[5], vec![working]);
    // GBPA lets both pass, then neither.
    assert_ne!(model.registers().read32(0), 0);
    model.registers().write32(0x44, 0x8010_0000);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| watch.end())).unwrap_err();
    let said = failed.downcast_ref::<String>().unwrap();
    assert!(said.contains("got through after the read of 0x0, the 1th access"), "{said}");
    assert!(said.contains("did not read its word: Err(Aborted) after 0x44 = 0x80100000, the 2th access"), "{said}");
}

/// A model without them refuses the command, and that is against its laws.
#[test]
fn a_hypervisors_translations_are_forgotten_where_there_can_be_any() {
    for hyp in [true, false] {
        let model = Model::new(Config { hyp, ..Config::qemu() });
        let smmu = bring_up(&model).unwrap();
        assert_eq!(model.log().commands().contains(&Opcode::TlbiEl2All), hyp);
        let mark = model.mark();
        smmu.suspend().unwrap();
        smmu.resume().unwrap();
        assert_eq!(model.log_since(mark).commands().contains(&Opcode::TlbiEl2All), hyp);
        assert_eq!(smmu.statistics().refused, 0);
    }
}

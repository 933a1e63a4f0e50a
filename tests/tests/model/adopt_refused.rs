//! What a former owner left in registers and memory is not believed: what cannot be adopted is told before anything is
//! written, and what fails later ends with all traffic aborted.

use std::sync::atomic::Ordering::SeqCst;

use proptest::prelude::*;
use smmu::addr::StreamId;
use smmu::device::{CannotAdopt, DeviceError, Takeover};
use smmu::platform::Registers;
use tests::model::{Config, Model};

use super::bench::{Bench, CR0, CR0ACK, STREAM, put, stage1_ste, touch};
use super::former::{Former, adopt, boot_streams};
use super::watch::Watch;

/// Why an adoption was refused; nothing may have been written by then.
fn refusal(model: &Model, streams: &[u32]) -> CannotAdopt {
    model.observe(|access| assert_eq!(access.written, None));
    let refused = adopt(model, streams);
    model.stop_observing();
    match refused {
        Err(DeviceError::CannotAdopt(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stage_2_stream_of_vmid_0_is_not_adopted() {
    let mut bench = Bench::new(Config::qemu());
    let table = bench.buffer(4096);
    let vtcr = 39 << 32 | 1 << 40 | 1 << 42 | 3 << 44 | 4 << 48 | 1 << 51 | 1 << 58;
    bench.set_ste(STREAM, &[0b1101, 0, vtcr, table.physical().get()]);
    assert_eq!(refusal(&bench.model, &[STREAM]), CannotAdopt::VmidInUse { stream: StreamId::new(STREAM) });
    bench.set_ste(STREAM, &[0]);
    bench.run(&[[0x30, 0]]);
}

#[test]
fn what_nothing_can_be_made_of_is_refused_before_anything_is_written() {
    let former = Former::new(Config::qemu());
    let model = &former.bench.model;
    let base = former.bench.streams.physical().get();
    let with = |base: u64, config: u32| {
        former.bench.registers_off();
        model.registers().write64(0x80, base);
        model.registers().write32(0x88, config);
        // Behind the model's back: only bring-up looks.
        let _ = model.take_violations();
        let registers = model.registers();
        registers.write32(CR0, registers.read32(CR0) | 1);
        let _ = model.take_violations();
        let why = refusal(model, &[STREAM]);
        assert_eq!(registers.read32(CR0ACK), 0xd, "it goes on");
        why
    };
    let malformed = |why: &CannotAdopt, value: u64| match why {
        CannotAdopt::Malformed { what, found, .. } => (*what, *found) == ("STRTAB_BASE_CFG", value),
        _ => false,
    };
    // FMT 2, SPLIT 7, SPLIT 0, and a linear table far too large for memory.
    for config in [2u32 << 16 | 6, 1 << 16 | 7 << 6 | 8, 1 << 16 | 8] {
        let why = with(base, config);
        assert!(malformed(&why, config.into()), "{config:#x}: {why:?}");
    }
    for (base, config) in [(base, 16), (0x1000, 6), (0xf_ffff_ffff_f000, 6), (base, 1 << 16 | 8 << 6 | 63)] {
        let why = with(base, config);
        assert!(matches!(why, CannotAdopt::OutOfReach { what: "the stream table", .. }), "{why:?}");
    }
}

#[test]
fn structures_out_of_reach_are_refused_before_anything_is_written() {
    let mut former = Former::new(Config::qemu());
    let [_, second, ..] = stage1_ste(&former.buffers[0]);
    // Contexts where there is no memory.
    former.bench.set_ste(STREAM, &[0x10_0000 | 0b1011, second, 0, 0]);
    let _ = former.bench.broken_laws();
    let why = refusal(&former.bench.model, &[STREAM]);
    let text = DeviceError::CannotAdopt(why).to_string();
    assert_eq!(
        text,
        "the running SMMU cannot be adopted: a table of context descriptors at 0x100000 (64 bytes) is no memory that the \
         platform gives access to"
    );
    // Nobody asked for it: then it does not matter.
    drop(adopt(&former.bench.model, &[STREAM + 1]).unwrap());
    let _ = former.bench.broken_laws();
    let refused = adopt(&former.bench.model, &[STREAM, 64]);
    assert!(refused.is_ok_and(|smmu| smmu.takeover() == Takeover::Off), "off by now");
}

#[test]
fn a_stream_that_the_table_does_not_cover_is_not_adopted() {
    let former = Former::new(Config::qemu());
    former.bench.model.observe(|access| assert_eq!(access.written, None));
    let refused = adopt(&former.bench.model, &[STREAM, 64]).unwrap_err();
    former.bench.model.stop_observing();
    assert_eq!(refused, DeviceError::StreamOutOfRange { stream: StreamId::new(64), stream_id_bits: 6 });
}

#[test]
fn an_adoption_that_fails_half_way_ends_with_everything_aborted() {
    for allocations in 0.. {
        let mut former = Former::new(Config::qemu());
        let (first, second) = (former.bench.buffer(8 << 8), former.bench.buffer(64 << 8));
        former.bench.registers_off();
        (0..512).for_each(|word| put(&second, word, former.bench.streams.words()[word as usize].load(SeqCst)));
        put(&first, 0, second.physical().get() | 9);
        former.bench.program_streams(&first, 16 | 8 << 6 | 1 << 16);
        former.bench.registers_on();
        let (model, registers) = (&former.bench.model, &former.bench.registers);
        let blocks = model.platform().block_count();
        model.platform().allow_allocations(allocations);
        let watch = Watch::new(model, &[STREAM + 2], Vec::new());
        let adopted = adopt(model, &[STREAM]);
        watch.end();
        model.platform().allow_allocations(usize::MAX);
        if let Ok(smmu) = adopted {
            assert_eq!(allocations, 5, "two queues, ASIDs, VMIDs, a second level");
            drop(smmu);
            return;
        }
        assert!(matches!(adopted, Err(DeviceError::OutOfDmaMemory(_))), "{adopted:?}");
        let has_begun = registers.read32(0x44) & 1 << 20 != 0;
        assert_eq!((registers.read32(CR0ACK) & 1 == 0, has_begun), (allocations == 4, allocations == 4));
        assert_eq!(model.platform().block_count(), blocks);
        registers.write32(CR0, 0);
    }
}

/// A word that may mean something in a table: anything, small, or marked (bit 55) to become a pointer into the table.
fn plausible_word() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0u64..64, (0u64..4096).prop_map(|low| 1 << 55 | low), Just(0)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is in the table and in what it leads to: it is adopted or refused, and only what was chosen gets through.
    #[test]
    fn junk_is_survived(
        words in prop::collection::vec(plausible_word(), 512),
        config in prop::sample::select(vec![6u32, 5, 12, 6 | 6 << 6 | 1 << 16, 12 | 8 << 6 | 1 << 16, 16 | 10 << 6 | 1 << 16]),
        chosen in prop::collection::vec(0u32..80, 0..4),
    ) {
        let mut bench = Bench::new(Config { gbpa: 0x10_1000, ..Config::full() });
        bench.registers_off();
        // Places in the table itself stand for any place in memory.
        let base = bench.streams.physical().get();
        for (word, value) in (0..).zip(&words) {
            put(&bench.streams, word, if value & 1 << 55 == 0 { *value } else { base | value & 0xfff });
        }
        bench.program_streams(&bench.streams, config);
        bench.registers_on();
        let adopted = adopt(&bench.model, &chosen);
        let kept: Vec<_> = adopted.iter().flat_map(boot_streams).collect();
        prop_assert!(kept.iter().all(|stream| chosen.contains(stream)));
        match &adopted {
            Ok(smmu) => {
                for stream in (0..80).filter(|stream| !kept.contains(stream)) {
                    prop_assert!(touch(&bench.model.device(StreamId::new(stream)), base).is_err(), "{stream}");
                }
                let drained = smmu.drain_events(|_| {});
                prop_assert!(!drained.inconsistent);
            }
            Err(DeviceError::CannotAdopt(_) | DeviceError::StreamOutOfRange { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
        drop(adopted);
        bench.registers.write32(CR0, 0);
        // The former owner's entries are no example to follow.
        let _ = bench.broken_laws();
    }
}

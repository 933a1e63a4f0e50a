//! Context descriptor tables: their shapes, and contexts that change while their streams go on.

use std::sync::Mutex;
use std::vec;

use super::streams::with_ids;
use super::*;
use crate::addr::{PhysAddr, StreamId, SubstreamId};
use crate::arch::attributes::WalkAttributes;
use crate::arch::command::CommandError;
use crate::arch::context_descriptor::ContextDescriptor;
use crate::arch::stream_table::StreamTableEntry;
use crate::device::ContextTable;
use crate::testing::rounds;

const IDR0_CD2L: u32 = 0x0d44_101b | 1 << 19;
const IDR0_LINEAR: u32 = 0x0d44_101b;
const STREAMS: [StreamId; 2] = [StreamId::new(8), StreamId::new(9)];
const OUT_OF_RANGE: u32 = u32::MAX;

type Setup = (&'static TestPlatform, Arc<FakeSmmu>, Smmu<TestPlatform>);

/// An SMMU with that many bits of SubstreamID.
fn with_substreams(idr0: u32, ssidsize: u32) -> Setup {
    with_ids(idr0, 0x0273_0010 | ssidsize << 6)
}

/// A valid context of an ASID with tables at 4 KiB times the same number.
fn context(number: u64) -> ContextDescriptor {
    ContextDescriptor::from_words([number << 48 | 0x1_e200_c000_3519, number << 12, 0, 0xff44, 0, 0, 0, 0])
}

/// A table of `2^log2_contexts` contexts with both streams attached to it, and from here on a journal.
fn live(setup: &Setup, log2_contexts: u8) -> ContextTable<TestPlatform> {
    let (platform, _, smmu) = setup;
    let table = ContextTable::with_substreams(smmu, log2_contexts).unwrap();
    for stream in STREAMS {
        let entry = StreamTableEntry::stage1(&table.stage1_stream(WalkAttributes::COHERENT));
        smmu.attach(stream, &entry).unwrap();
    }
    platform.journal();
    table
}

/// How the SMMU finds a context: by S1ContextPtr, S1Fmt and S1CDMax of the first stream's entry.
fn seen_by_hardware(setup: &Setup, substream: u64) -> Option<[u64; 8]> {
    let (platform, _, smmu) = setup;
    let word0 = smmu.stream_table_entry(STREAMS[0]).unwrap().words()[0];
    let (pointer, format, s1cdmax) = (word0 & 0x00ff_ffff_ffff_ffc0, word0 >> 4 & 3, word0 >> 59);
    assert!(substream < 1 << s1cdmax);
    let word = |address| platform.snooped_word(PhysAddr::new(address));
    let entry = match format {
        0 => {
            assert_eq!(pointer & ((64 << s1cdmax) - 1), 0, "aligned to its size");
            pointer + substream * 64
        }
        _ => {
            let leaf = if format == 1 { 6 } else { 10 };
            assert_eq!(pointer & ((8 << (s1cdmax - leaf)) - 1), 0, "aligned to its size");
            let descriptor = word(pointer + (substream >> leaf) * 8);
            if descriptor & 1 == 0 {
                return None;
            }
            assert_eq!(descriptor & ((64 << leaf) - 1), 1, "aligned to its size");
            (descriptor & !1) + (substream & ((1 << leaf) - 1)) * 64
        }
    };
    Some([0, 1, 2, 3, 4, 5, 6, 7].map(|index| word(entry + index * 8)))
}

#[test]
fn tables_have_the_format_that_fits() {
    // IDR0, SSIDSIZE and the wanted log2 of contexts; S1CDMax, S1Fmt, bytes of the top and of a leaf.
    for (idr0, ssidsize, wanted, s1cdmax, format, top, leaf) in [
        (IDR0_CD2L, 20, 0, 0, 0, 64, 0),
        (IDR0_CD2L, 20, 6, 6, 0, 4096, 0),
        (IDR0_CD2L, 20, 7, 7, 1, 16, 4096),
        (IDR0_CD2L, 20, 15, 15, 1, 4096, 4096),
        (IDR0_CD2L, 20, 16, 16, 2, 512, 65536),
        (IDR0_CD2L, 20, 20, 20, 2, 8192, 65536),
        (IDR0_CD2L, 8, 20, 8, 1, 32, 4096),
        (IDR0_CD2L, 0, 20, 0, 0, 64, 0),
        (IDR0_LINEAR, 20, 20, 10, 0, 65536, 0),
        (IDR0_LINEAR, 5, 20, 5, 0, 2048, 0),
    ] {
        let setup = with_substreams(idr0, ssidsize);
        let blocks = setup.0.blocks();
        let table = ContextTable::with_substreams(&setup.2, wanted).unwrap();
        assert_eq!((table.log2_contexts(), table.size_bytes()), (s1cdmax, top));
        let [word0, ..] = StreamTableEntry::stage1(&table.stage1_stream(WalkAttributes::COHERENT)).words();
        assert_eq!(word0, table.physical().get() | format << 4 | u64::from(s1cdmax) << 59 | 0xb);
        let last = SubstreamId::new((1 << s1cdmax) - 1);
        setup.2.set_context(&table, &[], last, &context(1)).unwrap();
        assert_eq!(table.size_bytes(), top + leaf);
        assert_eq!(table.context(last), Ok(context(1)));
        for substream in [1 << s1cdmax, OUT_OF_RANGE].map(SubstreamId::new) {
            let refused = DeviceError::SubstreamOutOfRange { substream, log2_contexts: s1cdmax };
            assert_eq!(setup.2.set_context(&table, &[], substream, &context(1)), Err(refused));
            assert_eq!(table.context(substream), Err(refused));
        }
        drop(table);
        assert_eq!(setup.0.blocks(), blocks, "the leaves went too");
    }
}

#[test]
fn r16_leaves_are_made_on_demand_and_stay() {
    let setup = with_substreams(IDR0_CD2L, 20);
    let table = live(&setup, 20);
    let set = |substream: u32, number| {
        setup.2.set_context(&table, &STREAMS, SubstreamId::new(substream), &context(number)).unwrap();
    };
    let blocks = setup.0.blocks();
    assert_eq!(seen_by_hardware(&setup, 5), None);
    setup.2.set_context(&table, &STREAMS, SubstreamId::new(5), &ContextDescriptor::INVALID).unwrap();
    assert_eq!(setup.0.blocks(), blocks, "nothing is made for what is not there");
    set(5, 1);
    set(1023, 2);
    assert_eq!(setup.0.blocks(), blocks + 1);
    set(0xf_ffff, 3);
    assert_eq!(setup.0.blocks(), blocks + 2);
    for (substream, number) in [(5, 1), (1023, 2), (0xf_ffff, 3)] {
        assert_eq!(seen_by_hardware(&setup, substream), Some(context(number).words()));
    }
    setup.2.set_context(&table, &STREAMS, SubstreamId::new(5), &ContextDescriptor::INVALID).unwrap();
    let left = [5, 1023].map(|substream| seen_by_hardware(&setup, substream).unwrap()[0]);
    assert_eq!(left, [0, context(2).words()[0]]);
}

#[test]
fn r15_every_stream_that_leads_to_a_context_is_told() {
    let setup = with_substreams(IDR0_CD2L, 20);
    let table = live(&setup, 8);
    let (platform, _, smmu) = &setup;
    let set = |context: ContextDescriptor| {
        smmu.set_context(&table, &STREAMS, SubstreamId::new(0x41), &context).unwrap();
    };
    let cfgi = |stream: u64, leaf| [stream << 32 | 0x41 << 12 | CMD_CFGI_CD, leaf];
    let sync = [CMD_SYNC, 0];
    let round = |leaf| vec![cfgi(8, leaf), cfgi(9, leaf), sync];
    // New: the leaf table may be unknown yet. Another ASID and its tables: through invalid. Gone: one store.
    set(context(1));
    assert_eq!(commands(&platform.journal()), [round(0), round(1)].concat());
    set(context(2));
    assert_eq!(commands(&platform.journal()), [round(1), round(1), round(1)].concat());
    set(ContextDescriptor::INVALID);
    assert_eq!(commands(&platform.journal()), round(1));
    smmu.set_context(&table, &[], SubstreamId::new(0x42), &context(1)).unwrap();
    assert_eq!(commands(&platform.journal()), [[0; 2]; 0], "nobody leads there");
}

#[test]
fn r14_a_live_context_is_never_half_written() {
    let setup = with_substreams(IDR0_LINEAR, 4);
    let table = live(&setup, 4);
    let (platform, fake, smmu) = (setup.0, &setup.1, &setup.2);
    let physical = table.physical();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let result = Arc::clone(&seen);
    fake.on_command(move |[word, _]| {
        if word & 0xff == CMD_SYNC {
            let words = [0, 1, 2, 3].map(|index| physical.checked_add(3 * 64 + index * 8).unwrap());
            result.lock().unwrap().push(words.map(|address| platform.snooped_word(address)));
        }
        Outcome::Done
    });
    let set = |context: &ContextDescriptor| {
        smmu.set_context(&table, &STREAMS, SubstreamId::new(3), context).unwrap();
        std::mem::take(&mut *seen.lock().unwrap())
    };
    let [[a0, a1, ..], [b0, b1, ..]] = [context(1), context(2)].map(|context| context.words());
    assert_eq!(set(&context(1)), [[0, a1, 0, 0xff44], [a0, a1, 0, 0xff44]]);
    assert_eq!(set(&context(2)), [[0, a1, 0, 0xff44], [0, b1, 0, 0xff44], [b0, b1, 0, 0xff44]]);
    // Without walks the table does not count, so that another one takes its place without a gap.
    let quiet = b0 | 1 << 14;
    assert_eq!(set(&context(2).without_walks()), [[quiet, b1, 0, 0xff44]]);
    assert_eq!(set(&context(1)), [[quiet, a1, 0, 0xff44], [a0, a1, 0, 0xff44]]);
    assert_eq!(set(&ContextDescriptor::INVALID), [[0, a1, 0, 0xff44]]);
    assert_eq!(seen_by_hardware(&setup, 3), Some([0; 8]), "nothing of it is left");
}

#[test]
fn leaves_are_seen_by_an_smmu_that_does_not_snoop() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR0, IDR0_CD2L);
    fake.set(IDR1, 0x0273_0010 | 20 << 6);
    let smmu = Smmu::bring_up(platform, Arc::clone(&fake), false, BootPolicy::Abort).unwrap();
    let table = ContextTable::with_substreams(&smmu, 20).unwrap();
    smmu.set_context(&table, &[], SubstreamId::new(0x401), &context(1)).unwrap();
    let word = |address| platform.memory_word(PhysAddr::new(address));
    assert_eq!(word(table.physical().get()), 0);
    let leaf = word(table.physical().get() + 8) - 1;
    assert_eq!([leaf, leaf + 64, leaf + 72].map(word), [0, context(1).words()[0], context(1).words()[1]]);
    let single = ContextTable::new(&smmu, &context(3)).unwrap();
    assert_eq!(word(single.physical().get()), context(3).words()[0]);
}

#[test]
fn r38_a_context_whose_change_fails_is_the_old_one_or_none() {
    let substream = SubstreamId::new(1);
    // Two streams: four commands until the second CMD_SYNC, six until the third.
    for (from, failing, left) in [
        (ContextDescriptor::INVALID, 0, 0),
        (ContextDescriptor::INVALID, 3, 0),
        (context(1), 1, 0),
        (context(1), 3, 0),
        (context(1), 5, 0),
        (context(2).without_walks(), 0, context(2).without_walks().words()[0]),
    ] {
        let setup = with_substreams(IDR0_LINEAR, 4);
        let table = live(&setup, 4);
        setup.2.set_context(&table, &STREAMS, substream, &from).unwrap();
        super::streams::fail(&setup.1, move |number| (number == failing).then_some(Outcome::Refused(1)));
        let result = setup.2.set_context(&table, &STREAMS, substream, &context(3));
        assert_eq!(result, Err(DeviceError::Command(CommandError::Ill)));
        assert_eq!(seen_by_hardware(&setup, 1).unwrap()[0], left);
        setup.2.set_context(&table, &STREAMS, substream, &context(3)).unwrap();
        assert_eq!(table.context(substream), Ok(context(3)));
    }
}

#[test]
fn r35_a_table_is_its_smmus_alone() {
    let setup = with_substreams(IDR0_LINEAR, 4);
    let table = live(&setup, 4);
    let (platform, _, smmu) = &setup;
    let another = FakeSmmu::new(platform, "B");
    let other = bring_up(platform, &another).unwrap();
    smmu.set_context(&table, &STREAMS, SubstreamId::new(1), &context(1)).unwrap();
    platform.journal();
    let refused = Err(DeviceError::ContextOfAnother { table: table.physical() });
    assert_eq!(other.set_context(&table, &STREAMS, SubstreamId::new(1), &context(1)), refused);
    assert_eq!(other.set_context(&table, &[], SubstreamId::new(2), &context(2)), refused);
    assert_eq!(platform.journal().len(), 0);
    assert_eq!(table.context(SubstreamId::new(2)), Ok(ContextDescriptor::INVALID));
    drop(other);
}

#[test]
fn r38_a_context_that_may_be_cached_blocks_its_table() {
    let setup = with_substreams(IDR0_LINEAR, 4);
    let table = live(&setup, 4);
    let (_, fake, smmu) = &setup;
    let set = |substream, number| smmu.set_context(&table, &STREAMS, SubstreamId::new(substream), &context(number));
    set(1, 1).unwrap();
    super::streams::fail(fake, |_| Some(Outcome::Refused(1)));
    assert_eq!(set(1, 2), Err(DeviceError::ContextStuck { substream: SubstreamId::new(1) }));
    assert_eq!(seen_by_hardware(&setup, 1).unwrap()[0], 0);
    fake.on_command(|_| Outcome::Done);
    assert_eq!(set(2, 2), Err(DeviceError::ContextStuck { substream: SubstreamId::new(2) }));
}

#[test]
fn cpus_that_change_contexts_of_one_table_take_turns() {
    let setup = with_substreams(IDR0_CD2L, 20);
    let table = live(&setup, 16);
    let (platform, _, smmu) = &setup;
    platform.set_nanoseconds_per_relax(1);
    let last = rounds(25);
    std::thread::scope(|scope| {
        for cpu in 0..4u32 {
            let (smmu, table) = (&smmu, &table);
            scope.spawn(move || {
                for round in 1..=last {
                    let substream = SubstreamId::new(cpu % 2 * 1024 + cpu);
                    smmu.set_context(table, &STREAMS, substream, &context(u64::from(cpu) * 100 + round)).unwrap();
                }
            });
        }
    });
    for cpu in 0..4 {
        let found = seen_by_hardware(&setup, cpu % 2 * 1024 + cpu);
        assert_eq!(found, Some(context(cpu * 100 + last).words()));
    }
}

#[test]
fn who_comes_second_to_a_context_does_not_wait_for_ever() {
    let setup = with_substreams(IDR0_LINEAR, 4);
    let table = Arc::new(live(&setup, 4));
    let (_, fake, smmu) = setup;
    let smmu = Arc::new(smmu);
    let set = |smmu: &Smmu<_>, table: &ContextTable<_>, substream, context| {
        smmu.set_context(table, &STREAMS, SubstreamId::new(substream), &context)
    };
    let (second, its_table) = (Arc::clone(&smmu), Arc::clone(&table));
    // While the first CPU's command is under way, for ever as far as the second one can tell.
    fake.on_command(move |_| {
        // Even what is invalid as yet is not cleared by saying so.
        for wanted in [context(1), ContextDescriptor::INVALID] {
            let busy = set(&second, &its_table, 2, wanted);
            assert!(matches!(busy, Err(DeviceError::ContextBusy { .. })), "{busy:?}");
        }
        assert!(its_table.claim(SubstreamId::new(1)).is_ok(), "its neighbours are free");
        Outcome::Done
    });
    set(&smmu, &table, 2, context(1)).unwrap();
    fake.on_command(|_| Outcome::Done);
    set(&smmu, &table, 1, context(1)).unwrap();
    STREAMS.iter().for_each(|&stream| smmu.detach(stream).unwrap());
}

//! Guests with a stage 1 of their own: what they reach, what they invalidate, and what is taken from them.

use proptest::prelude::*;
use smmu::addr::{Iova, StreamId, SubstreamId, Vmid};
use smmu::arch::attributes::Granule;
use smmu::arch::context_descriptor::{ContextDescriptor, Stage1Context, UpperHalf};
use smmu::arch::event::{EventKind, FaultClass, FaultKind, Stage as FaultStage};
use smmu::arch::stream_table::{Eats, Stage2Stream, StreamTableEntry};
use smmu::device::{AtcTarget, CommandRefusal, ContextTable, StaleRange, TranslationTag};
use smmu::pgtable::{
    Access, Half, MemoryType as Memory, PageTable, SharedConfig, SharedTable, Stage, TableConfig, Tracking,
};
use tests::guest::{DATA, GUEST_STREAM, LAST, PAGE, PAGES, RAM, page, stage2_config};
use tests::model::{Cacheability, Config, Device, MemoryType, Model, ModelPlatform, Opcode, Refused};

use super::bench::{dirty, put, touch};
use super::guest::{Vm, full, smmu, vm, vm_with};

const ABORTED: Result<u8, Refused> = Err(Refused::Aborted);
/// STE.S1CDMax: two contexts.
const SUBSTREAMS: u64 = 1 << 59;
/// STE.EATS.
const ATS: u64 = 1 << 28;
/// The guest's stream in a command.
const OF_STREAM: u64 = (GUEST_STREAM as u64) << 32;

/// The range that `unmapped` leaves to be invalidated.
macro_rules! stale {
    ($unmapped:expr) => {
        StaleRange {
            start: $unmapped.start(),
            size_bytes: $unmapped.size_bytes(),
            granule: $unmapped.granule(),
            stale: $unmapped.stale(),
        }
    };
}

#[test]
fn r25_a_guests_stage_1_runs_on_its_hypervisors_stage_2() {
    for config in [full(), Config::qemu()] {
        let model = Model::new(config);
        let mut vm = vm(&model, &smmu(&model), 5, 1);
        assert_eq!(touch(&vm.device, 0), ABORTED, "nothing yet");
        vm.write_entry(0, 2);
        assert_eq!(touch(&vm.device, 0), Ok(0xa1));
        dirty(&vm.device, 8).unwrap();
        assert_eq!(vm.word(DATA[0], 1), 0x5a);
        // Bypass is stage 2 alone: the device uses the guest's addresses.
        vm.entry = [9, 1 << 44, 0, 0, 0, 0, 0, 0];
        vm.tell(&[[0x04, 31]]);
        assert_eq!([touch(&vm.device, 0), touch(&vm.device, page(DATA[1]))], [ABORTED, Ok(0xb1)]);
        // Abort is silent; what is not valid, or refused, is an event each.
        let _ = vm.events();
        for (first, events) in [(1, 0), (0, 1), (0xd, 1)] {
            vm.entry[0] = first;
            vm.tell(&[[0x03 | OF_STREAM, 1]]);
            assert_eq!(touch(&vm.device, page(DATA[1])), ABORTED);
            let found: Vec<_> = vm.events().into_iter().map(|event| event.kind).collect();
            assert_eq!(found, vec![EventKind::BadSte; events], "{first:#x}");
        }
    }
}

#[test]
fn r25_every_default_of_a_guests_substreams() {
    // S1DSS: what becomes of a transaction without substream, and with substream 0.
    let model = Model::new(full());
    let mut vm = vm(&model, &smmu(&model), 5, 1);
    let disabled =
        |vm: &Vm| vm.events().iter().map(|event| event.kind == EventKind::StreamDisabled).collect::<Vec<_>>();
    for s1dss in [0, 1, 2, 3] {
        vm.write_entry(SUBSTREAMS, s1dss);
        assert_eq!(touch(&vm.device.substream(1), 0), Ok(0xb1), "{s1dss}");
        let (plain, zero) = match s1dss {
            // Stage 1 is passed by: page 0 is nowhere.
            1 => (touch(&vm.device, page(DATA[0])), Ok(0xa1)),
            2 => (touch(&vm.device, 0), ABORTED),
            _ => (touch(&vm.device, 0), Ok(0xa1)),
        };
        assert_eq!(plain, if matches!(s1dss, 1 | 2) { Ok(0xa1) } else { ABORTED }, "{s1dss}");
        assert_eq!(touch(&vm.device.substream(0), 0), zero, "{s1dss}");
        assert_eq!(disabled(&vm), if s1dss == 1 { vec![] } else { vec![true] }, "{s1dss}");
        assert_eq!(touch(&vm.device.substream(2), 0), ABORTED, "of two contexts");
        assert_eq!(vm.events().len(), 1);
    }
    // Without substreams S1DSS does not count.
    vm.write_entry(0, 0);
    assert_eq!(touch(&vm.device, 0), Ok(0xa1));
}

#[test]
fn r25_a_guest_invalidates_and_sees_the_effect() {
    let model = Model::new(full());
    let smmu = smmu(&model);
    let [mut vm, mut other] = [(5, 1), (6, 2)].map(|(stream, number)| vm(&model, &smmu, stream, number));
    vm.write_entry(0, 2);
    other.write_entry(0, 2);
    let both = |vm: &Vm, other: &Vm| [touch(&vm.device, 0), touch(&other.device, 0)];
    assert_eq!(both(&vm, &other), [Ok(0xa1), Ok(0xa2)]);
    // Both change a page; by ASID and address, by address, by ASID, all, and all by another name.
    let commands = [[7 << 48 | 0x12, 1], [0x13, 1], [7 << 48 | 0x11, 0], [0x10, 0], [0x30, 0]];
    for (round, command) in commands.into_iter().enumerate() {
        for guest in [&vm, &other] {
            guest.put(LAST[0], 0, page(DATA[(round + 1) % 2]) | PAGE);
        }
        let (old, new) = if round % 2 == 0 { (0xa1, 0xb1) } else { (0xb1, 0xa1) };
        assert_eq!(both(&vm, &other), [Ok(old), Ok(0xa2)], "cached");
        vm.tell(&[command]);
        assert_eq!(both(&vm, &other), [Ok(new), Ok(0xa2)], "{command:#x?}: only the guest's own");
    }
    other.tell(&[[0x10, 0]]);
    assert_eq!(both(&vm, &other), [Ok(0xb1), Ok(0xb2)]);
    // Another ASID, and other tables: the context is cached, too.
    model.judge_entries_of(vm.stream, false);
    vm.put_context(0, &vm.context(1));
    vm.put(LAST[1], 0, page(DATA[0]) | PAGE);
    assert_eq!(touch(&vm.device, 0), Ok(0xb1), "cached");
    vm.tell(&[[0x05 | OF_STREAM, 1]]);
    assert_eq!((touch(&vm.device, 0), vm.syncs), (Ok(0xa1), 7));
}

#[test]
fn r25_beyond_its_memory_a_guest_meets_a_fault_of_stage_2() {
    for config in [full(), Config::qemu()] {
        let model = Model::new(config);
        let mut vm = vm(&model, &smmu(&model), 5, 1);
        vm.write_entry(0, 2);
        let outside = 0x9000_3000;
        vm.put(LAST[0], 1, outside | PAGE);
        assert_eq!(touch(&vm.device, 0x1010), ABORTED);
        // Its tables, and its contexts.
        vm.put(LAST[0] - 1, 1, outside | 3);
        assert_eq!(touch(&vm.device, 0x20_0000), ABORTED);
        model.judge_entries_of(vm.stream, false);
        vm.entry[0] = 0x9000_4000 | 0b1011;
        vm.tell(&[[0x03 | OF_STREAM, 1]]);
        assert_eq!(touch(&vm.device, 0), ABORTED);
        let events = vm.events();
        let found = events.into_iter().map(|event| {
            let EventKind::Translation(fault) = event.kind else { panic!("{event:?}") };
            assert_eq!(
                (event.source.stream, fault.kind, fault.stage),
                (vm.stream, FaultKind::Translation, FaultStage::Stage2)
            );
            (fault.class, fault.input.get(), fault.ipa.map(Iova::get))
        });
        let found: Vec<_> = found.collect();
        let expected = [
            (FaultClass::In, 0x1010, Some(outside)),
            (FaultClass::Tt, 0x20_0000, Some(outside)),
            (FaultClass::Cd, 0, Some(0x9000_4000)),
        ];
        assert_eq!(found, expected);
    }
}

/// Has a device translate page 0 itself.
fn warm(device: &Device) -> bool {
    device.request_translation(Iova::new(0), true).is_ok_and(|found| found.write)
        && device.write_translated(Iova::new(0), &[0x11]).is_ok()
}

#[test]
fn r26_what_stage_2_takes_away_is_out_of_reach_of_every_guest_device() {
    for ats in [Eats::Off, Eats::Full, Eats::SplitStage] {
        let model = Model::new(full());
        let mut vm = vm(&model, &smmu(&model), 5, 1);
        vm.parent.ats = ats;
        vm.write_entry(SUBSTREAMS, 2 | if ats == Eats::Off { 0 } else { ATS });
        let devices = [vm.device.clone(), vm.device.substream(1)];
        for (device, value) in devices.iter().zip([0xa1, 0xb1]) {
            assert_eq!(touch(device, 0), Ok(value));
            assert_eq!(warm(device), ats != Eats::Off);
        }
        let unmapped = vm.stage2.unmap(Iova::new(page(DATA[0])), 2 * 4096).unwrap();
        let range = stale!(unmapped);
        // By stage 2 alone, combined translations stay.
        vm.smmu.invalidate(TranslationTag::Stage2 { vmid: vm.vmid }, &range).unwrap();
        assert!(touch(&devices[1], 0).is_ok());
        let target = AtcTarget { stream: vm.stream, substream: None };
        let mark = model.mark();
        let targets = (ats != Eats::Off).then_some(target);
        vm.smmu.invalidate_with_atcs(vm.tag(), &range, targets.into_iter(), |_| unreachable!()).unwrap();
        let expected: &[_] = match ats {
            Eats::Off => &[Opcode::TlbiS12Vmall, Opcode::Sync],
            _ => &[Opcode::TlbiS12Vmall, Opcode::Sync, Opcode::AtcInv, Opcode::AtcInv, Opcode::Sync],
        };
        assert_eq!(&model.log_since(mark).commands()[..expected.len()], expected);
        vm.stage2.free(unmapped);
        for device in &devices {
            assert_eq!(touch(device, 0), ABORTED);
            assert!(device.write_translated(Iova::new(0), &[1]).is_err(), "{ats:?}");
        }
    }
}

#[test]
fn r26_what_a_device_kept_is_gone_before_its_guest_has_ats_again() {
    let model = Model::new(full());
    let mut vm = vm(&model, &smmu(&model), 5, 1);
    vm.write_entry(SUBSTREAMS, 2 | ATS);
    let device = vm.device.substream(1);
    assert!(warm(&device));
    vm.write_entry(SUBSTREAMS, 2);
    assert!(device.write_translated(Iova::new(0), &[1]).is_err(), "switched off");
    // Nobody tells the device that stage 2 changes: it has no ATS.
    let unmapped = vm.stage2.unmap(Iova::new(page(DATA[1])), 4096).unwrap();
    vm.smmu.invalidate(vm.tag(), &stale!(unmapped)).unwrap();
    vm.stage2.free(unmapped);
    vm.write_entry(0, 2 | ATS);
    assert!(device.write_translated(Iova::new(0), &[1]).is_err());
}

#[test]
fn r27_the_next_guest_of_a_vmid_finds_nothing_of_the_last_one() {
    let model = Model::new(full());
    let smmu = smmu(&model);
    let mut first = vm(&model, &smmu, 5, 1);
    first.write_entry(0, 2);
    assert_eq!(touch(&first.device, 0), Ok(0xa1));
    let vmid = first.vmid;
    // Dropped with everything that was cached under its VMID; otherwise a law is broken.
    drop(first);
    let mut second = vm(&model, &smmu, 5, 2);
    assert_eq!(second.vmid, vmid);
    second.write_entry(0, 2);
    assert_eq!(touch(&second.device, 0), Ok(0xa2));
}

#[test]
fn r29_hardware_notes_at_stage_2_what_a_guests_devices_write() {
    let config = TableConfig { tracking: Tracking::HardwareAccessAndDirty, ..stage2_config() };
    let model = Model::new(full());
    let mut vm = vm_with(&model, &smmu(&model), 5, 1, &config);
    vm.write_entry(0, 2);
    let dirty_pages = |vm: &Vm| {
        let mut pages = Vec::new();
        vm.stage2.dirty(Iova::new(RAM), 8 * 4096, |iova, _| pages.push(iova.get())).unwrap();
        pages
    };
    assert_eq!(touch(&vm.device, 0), Ok(0xa1));
    assert_eq!(dirty_pages(&vm), [0; 0]);
    dirty(&vm.device, 0).unwrap();
    assert_eq!(dirty_pages(&vm), [page(DATA[0])]);
    let stale = vm.stage2.clean_dirty(Iova::new(RAM), 8 * 4096, |_, _| ()).unwrap().unwrap();
    let range = StaleRange { start: Iova::new(RAM), size_bytes: 8 * 4096, granule: config.granule, stale };
    vm.smmu.invalidate(vm.tag(), &range).unwrap();
    assert_eq!(dirty_pages(&vm), [0; 0]);
    dirty(&vm.device, 0).unwrap();
    assert_eq!(dirty_pages(&vm), [page(DATA[0])], "once more");
}

#[test]
fn r29_a_guests_memory_is_cacheable_whatever_it_says() {
    for (forced, expected) in [(true, Cacheability::WriteBack), (false, Cacheability::NonCacheable)] {
        let model = Model::new(full());
        let config = TableConfig { force_write_back: forced, ..stage2_config() };
        let mut vm = vm_with(&model, &smmu(&model), 5, 1, &config);
        vm.put(LAST[0], 0, page(DATA[0]) | (PAGE & !(7 << 2)));
        vm.write_entry(0, 2);
        let expected = MemoryType::Normal { outer: expected, inner: expected };
        assert_eq!(vm.device.memory_type(Iova::new(0)), Some(expected));
    }
}

#[test]
fn r29_a_hypervisors_own_table_with_forced_write_back_or_without() {
    let cacheability = |forced, leaf| {
        let model = Model::new(full());
        let [first, second, last] = [(); 3].map(|()| model.platform().buffer(4096));
        let mut vm = vm(&model, &smmu(&model), 5, 1);
        put(&first, RAM >> 30, second.physical().get() | 3);
        put(&second, 0, last.physical().get() | 3);
        (0..PAGES).for_each(|number| put(&last, number, (vm.ram.physical().get() + number * 4096) | leaf));
        let config = SharedConfig {
            root: first.physical(),
            granule: Granule::K4,
            input_bits: 39,
            output_bits: 44,
            start_level: 1,
        };
        let table = SharedTable::new(&config).unwrap();
        let stage2 = vm.smmu.stage2_stream(vm.vmid, &table).unwrap();
        vm.parent.stage2 = Stage2Stream { force_write_back: forced, ..stage2 };
        // The guest calls its memory non-cacheable.
        vm.put(LAST[0], 0, page(DATA[0]) | (PAGE & !(7 << 2)));
        vm.write_entry(0, 2);
        assert_eq!(touch(&vm.device, 0), Ok(0xa1));
        vm.device.memory_type(Iova::new(0))
    };
    let normal = |cacheability| Some(MemoryType::Normal { outer: cacheability, inner: cacheability });
    // MemAttr 0110 with S2FWB, and 1111 without.
    assert_eq!(cacheability(true, 0x7db), normal(Cacheability::WriteBack));
    assert_eq!(cacheability(false, 0x7ff), normal(Cacheability::NonCacheable));
}

const OPCODES: &[u64] =
    &[0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x20, 0x28, 0x2a, 0x30, 0x40, 0x41, 0x44, 0x45, 0x46];

/// Commands that a guest may come up with: anything at all, and what has some sense.
fn commands() -> impl Strategy<Value = Vec<[u64; 2]>> {
    let sensible = (prop::sample::select(OPCODES), 0..8_u64, any::<u64>(), any::<u64>(), 0..4_u32).prop_map(
        |(opcode, stream, word0, word1, junk)| {
            // Where StreamID and VMID are is a small number; the rest is junk, or little of it.
            let [keep0, keep1] =
                [[0, 0], [0xfff_f000, 0xfff], [0xff00_0000_0fff_f800, !0], [!0x7ff, !0]][junk as usize];
            [opcode | stream << 32 | word0 & keep0 & !0xff, word1 & keep1]
        },
    );
    let any_words = (any::<u64>(), any::<u64>()).prop_map(|(word0, word1)| [word0, word1]);
    prop::collection::vec(prop_oneof![8 => sensible, 1 => any_words], 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever a guest sends, the others keep what they have, the SMMU never stops, and the guest's own goes when it says so.
    #[test]
    fn r25_no_command_of_a_guest_reaches_beyond_it(commands in commands(), ril: bool, asid16: bool, ats: bool) {
        let model = Model::new(Config { ril, asid16, ats, pri: ats, ..full() });
        let smmu = smmu(&model);
        let [mut vm, mut other] = [(5, 1), (6, 2)].map(|(stream, number)| vm(&model, &smmu, stream, number));
        let ats_bit = if ats { ATS } else { 0 };
        vm.write_entry(SUBSTREAMS, 2 | ats_bit);
        other.write_entry(SUBSTREAMS, 2 | ats_bit);
        prop_assert_eq!([touch(&vm.device, 0), touch(&other.device, 0)], [Ok(0xa1), Ok(0xa2)]);
        prop_assert_eq!(warm(&other.device), ats);
        prop_assert_eq!(touch(&other.device.substream(1), 0), Ok(0xb2));
        // From here on nobody finds the other guest's data but in caches.
        for index in 0..2 {
            other.put(LAST[index], 0, 0);
            other.put(DATA[index], 0, 0xc2);
        }
        let refused = smmu.statistics().refused;
        let mut rest = &commands[..];
        while let Err(stopped) = vm.forward(rest) {
            prop_assert!(!matches!(stopped.reason, CommandRefusal::Device(_)), "{}", stopped);
            prop_assert!(stopped.index < rest.len());
            rest = &rest[stopped.index + 1..];
        }
        prop_assert_eq!(smmu.statistics().refused, refused);
        prop_assert_eq!(touch(&other.device, 0), Ok(0xc2));
        prop_assert_eq!(touch(&other.device.substream(1), 0), Ok(0xc2));
        prop_assert_eq!(other.device.write_translated(Iova::new(0), &[0xc2]).is_ok(), ats);
        vm.put(LAST[0], 0, page(DATA[1]) | PAGE);
        vm.tell(&[[0x30, 0], [0x04, 31]]);
        prop_assert_eq!(touch(&vm.device, 0), Ok(0xb1));
        other.tell(&[[0x10, 0]]);
        prop_assert_eq!(touch(&other.device, 0), ABORTED);
    }
}

#[test]
fn both_halves_of_an_address_space() {
    let model = Model::new(full());
    let smmu = smmu(&model);
    let config = TableConfig { stage: Stage::Stage1, ..stage2_config() };
    let [lower, upper] = [Half::Lower, Half::Upper]
        .map(|half| PageTable::new(model.platform(), &TableConfig { half, ..config }).unwrap());
    let data = model.platform().buffer(4096);
    put(&data, 0, 0x77);
    let (low, high) = (0x1000, !0 << 40 | 0x3000);
    lower.map(Iova::new(low), data.physical(), 4096, Access::Read, Memory::WriteBack).unwrap();
    upper.map(Iova::new(high), data.physical(), 4096, Access::ReadWrite, Memory::WriteBack).unwrap();
    let walk = smmu.features().walk_attributes();
    let asid = smmu.take_asid().unwrap();
    let one = ContextDescriptor::new(&Stage1Context {
        asid,
        granule: config.granule,
        t0sz: lower.t0sz(),
        table: lower.root(),
        output_size: smmu.features().output_size(),
        walk,
        mair: PageTable::<ModelPlatform>::MAIR,
        hardware_update: Tracking::Off.hardware_update(),
        access_flag_fault_disabled: false,
        stall: false,
    });
    let half = UpperHalf { granule: config.granule, t1sz: upper.t0sz(), table: upper.root(), walk };
    let contexts = ContextTable::new(&smmu, &one).unwrap();
    let stream = StreamId::new(5);
    smmu.attach(stream, &StreamTableEntry::stage1(&contexts.stage1_stream(walk))).unwrap();
    let device = model.device(stream);
    let both = || [touch(&device, low), touch(&device, high)];
    assert_eq!(both(), [Ok(0x77), ABORTED]);
    // The upper half comes and goes while the lower one is in use; then everything under the ASID is invalidated.
    let tag = TranslationTag::Stage1 { asid, vmid: Vmid::new(0) };
    for (context, expected) in [(one.with_upper_half(&half), Ok(0x77)), (one, ABORTED)] {
        let mark = model.mark();
        smmu.set_context(&contexts, &[stream], SubstreamId::new(0), &context).unwrap();
        assert!(model.log_since(mark).commands().len() <= 6);
        smmu.invalidate_all(tag).unwrap();
        assert_eq!(both(), [Ok(0x77), expected]);
    }
    assert_eq!(dirty(&device, low), Err(Refused::Aborted));
    smmu.detach(stream).unwrap();
    smmu.retire(tag).unwrap();
}

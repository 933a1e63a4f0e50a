//! Guests on QEMU's SMMU: their stage 1 on top of the hypervisor's stage 2.

use qemu::machine::{Iommu, Stage};
use smmu::addr::Iova;
use smmu::arch::event::{AccessDirection, Event, EventKind, FaultClass, FaultKind, Stage as FaultStage};
use smmu::device::StaleRange;
use tests::guest::{self, DATA, GUEST_STREAM, LAST, PAGE as READ_WRITE, page, stage2_config};
use tests::qtest::{Edu, QtestPlatform};
use tests::sequence::signature;

use crate::setup::{PAGE, Setup};

type Vm = guest::Vm<QtestPlatform, Edu>;

/// The guest's stream in a command.
const OF_STREAM: u64 = (GUEST_STREAM as u64) << 32;

fn setup() -> Setup {
    Setup::with(Iommu::SmmuV3Stage(Stage::Nested))
}

/// A guest that has an engine, and a stage 1.
fn vm(setup: &Setup, engine: usize) -> Vm {
    let engine = setup.machine.engines()[engine].clone();
    let (platform, stream) = (setup.machine.platform(), engine.stream());
    let mut vm = Vm::new(platform, &setup.smmu, stream, engine, 0, &stage2_config());
    vm.write_entry(0, 2);
    vm
}

/// Has the guest's engine write word `index` of its signature to the start of its page 0. Where it ends up.
fn write(vm: &Vm, index: u16) -> Option<usize> {
    vm.device.write_word(Iova::new(0), index).unwrap();
    let written = u64::from(signature(vm.stream, index));
    DATA.iter().position(|data| vm.word(*data, 0) & 0xffff_ffff == written)
}

#[test]
fn r25_a_guest_on_qemu_invalidates_and_sees_the_effect() {
    let setup = setup();
    let [mut vm, other] = [0, 1].map(|engine| self::vm(&setup, engine));
    assert_eq!([write(&vm, 1), write(&other, 1)], [Some(0); 2]);
    for (round, command) in
        [[7 << 48 | 0x12, 1], [0x13, 1], [7 << 48 | 0x11, 0], [0x10, 0], [0x30, 0]].into_iter().enumerate()
    {
        let (old, new) = (round % 2, (round + 1) % 2);
        vm.put(LAST[0], 0, page(DATA[new]) | READ_WRITE);
        assert_eq!(write(&vm, 2 * round as u16 + 2), Some(old), "cached");
        vm.tell(&[command]);
        assert_eq!(write(&vm, 2 * round as u16 + 3), Some(new), "{command:#x?}");
    }
    assert_eq!(write(&other, 40), Some(0));
    // The second context in the place of the first.
    vm.put_context(0, &vm.context(1));
    vm.put(LAST[1], 0, page(DATA[0]) | READ_WRITE);
    vm.tell(&[[0x05 | OF_STREAM, 1]]);
    assert_eq!(write(&vm, 41), Some(0));
    // Bypass, and abort.
    vm.entry = [9, 1 << 44, 0, 0, 0, 0, 0, 0];
    vm.tell(&[[0x03 | OF_STREAM, 1]]);
    vm.device.write_word(Iova::new(page(DATA[1])), 42).unwrap();
    setup.assert_no_event();
    vm.entry = [1, 0, 0, 0, 0, 0, 0, 0];
    vm.tell(&[[0x04, 31]]);
    vm.device.write_word(Iova::new(page(DATA[1])), 43).unwrap();
    assert_eq!(vm.word(DATA[1], 0) & 0xffff_ffff, u64::from(signature(vm.stream, 42)));
    setup.assert_no_event();
}

#[test]
fn r25_a_guest_on_qemu_meets_faults_of_stage_2_beyond_its_memory() {
    let setup = setup();
    let vm = vm(&setup, 1);
    let outside = 0x9000_3000;
    vm.put(LAST[0], 0, outside | READ_WRITE);
    assert_eq!(write(&vm, 1), None);
    let events = setup.events();
    let [event @ Event { kind: EventKind::Translation(fault), .. }] = events[..] else { panic!("{events:?}") };
    assert_eq!((event.stream(), fault.kind, fault.stage), (vm.stream, FaultKind::Translation, FaultStage::Stage2));
    assert_eq!((fault.class, fault.access.direction), (FaultClass::In, AccessDirection::Write));
    assert_eq!((fault.input, fault.ipa), (Iova::new(0), Some(Iova::new(outside))));
}

#[test]
fn r26_what_stage_2_takes_away_on_qemu_is_out_of_reach() {
    let setup = setup();
    let vm = vm(&setup, 0);
    assert_eq!(write(&vm, 1), Some(0));
    let unmapped = vm.stage2.unmap(Iova::new(page(DATA[0])), PAGE).unwrap();
    let range = StaleRange {
        start: unmapped.start(),
        size_bytes: unmapped.size_bytes(),
        granule: unmapped.granule(),
        stale: unmapped.stale(),
    };
    assert_eq!(write(&vm, 2), Some(0), "cached");
    vm.smmu.invalidate(vm.tag(), &range).unwrap();
    vm.stage2.free(unmapped);
    assert_eq!(write(&vm, 3), None);
    assert_eq!(setup.events().len(), 1);
}

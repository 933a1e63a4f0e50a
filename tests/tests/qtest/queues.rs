//! The queues over many laps, full, and out of order.

use qemu::machine::{Iommu, Stage};
use smmu::addr::{Asid, Vmid};
use smmu::arch::command::CommandError;
use smmu::device::{DeviceError, TranslationTag};
use smmu::pgtable::Access;
use smmu::platform::Registers as _;
use tests::qtest::WriteOutcome;

use crate::setup::{HERE, PAGE, Setup, THERE};

/// How many events the driver's queue holds.
const EVENTS: usize = 1024;
const EVENTQ_ABT_ERR: u32 = 1 << 2;
const CMDQ_BASE: usize = 0x90;
/// Nothing is at this address of the machine.
const OUTSIDE_RAM: u64 = 0x30_0000_0000;

/// A tag that an SMMU without stage 1 has no command for.
const STAGE1_TAG: TranslationTag = TranslationTag::Stage1 { asid: Asid::new(1), vmid: Vmid::new(0) };

#[test]
fn r04_the_command_queue_runs_for_many_laps() {
    let setup = Setup::new();
    let device = setup.attach(0);
    let page = setup.page();
    for _ in 0..2000 {
        device.map(HERE, page.physical(), PAGE, Access::ReadWrite);
        device.unmap(HERE, PAGE);
    }
    // 256 commands to a lap, two for each unmap.
    assert!(setup.smmu.statistics().commands > 4000);
    device.map(HERE, page.physical(), PAGE, Access::ReadWrite);
    device.write(HERE, 1);
    setup.assert_no_event();
}

#[test]
fn r01_the_event_queue_runs_for_many_laps() {
    let setup = Setup::new();
    let device = setup.attach(0);
    let testdev = setup.machine.testdev();
    let _attachment = setup.configure(&setup.device(testdev.stream()));
    for lap in 0..5 {
        // One event for every 4 bytes; not a whole lap, so that each starts elsewhere in the queue.
        let bytes = 4 * (EVENTS as u32 - 100);
        assert_eq!(testdev.write(HERE, bytes, setup.page().physical()).unwrap(), WriteOutcome::Stopped);
        let events = setup.events();
        assert_eq!(events.len(), bytes as usize / 4, "lap {lap}");
        assert!(events.iter().all(|event| event.stream() == testdev.stream()), "lap {lap}");
        device.write(THERE, 1);
        assert_eq!(setup.events().len(), 1);
    }
    assert!(setup.smmu.handle_global_errors().is_empty());
}

#[test]
fn events_that_do_not_fit_are_lost_and_told() {
    let setup = Setup::new();
    let device = setup.attach(0);
    for _ in 0..EVENTS + 3 {
        device.write(HERE, 1);
    }
    let report = setup.smmu.handle_global_errors();
    assert_eq!(report.bits(), EVENTQ_ABT_ERR, "{report}");
    assert!(setup.smmu.handle_global_errors().is_empty(), "acknowledged");
    assert_eq!(setup.events().len(), EVENTS);
    device.write(HERE, 1);
    assert_eq!(setup.events().len(), 1);
}

#[test]
fn r08_a_refused_command_is_told_and_repaired() {
    let setup = Setup::with(Iommu::SmmuV3Stage(Stage::Two));
    let device = setup.attach(0);
    let page = setup.page();
    for _ in 0..300 {
        let refused = setup.smmu.invalidate_all(STAGE1_TAG);
        assert_eq!(refused, Err(DeviceError::Command(CommandError::Ill)));
        device.map(HERE, page.physical(), PAGE, Access::ReadWrite);
        device.unmap(HERE, PAGE);
    }
    assert_eq!(setup.smmu.statistics().refused, 300);
    assert!(setup.smmu.handle_global_errors().is_empty());
}

#[test]
fn a_command_queue_out_of_the_smmu_s_reach_ends_in_an_error() {
    let setup = Setup::new();
    let device = setup.attach(0);
    let page = setup.page();
    device.map(HERE, page.physical(), PAGE, Access::ReadWrite);
    let registers = setup.machine.registers();
    registers.write64(CMDQ_BASE, OUTSIDE_RAM | 8);
    let error = device.attachment.paging().unwrap().unmap(HERE, PAGE).unwrap_err();
    let expected = DeviceError::Command(CommandError::Abt);
    assert_eq!(error, smmu::iommu::UnmapError::Invalidation(expected.into()));
    // The SMMU was closed: what was to be unmapped is out of reach all the same.
    device.write(HERE, 1);
    assert_eq!(crate::setup::word(&page, 0), 0);
    assert_eq!(setup.smmu.invalidate_all(STAGE1_TAG), Err(DeviceError::Closed));
}

//! What goes wrong while a disk is being read, and how the read goes on.

use qemu::device::{Device, DeviceKind};
use qemu::disk::Disk;
use qemu::machine::Machine;
use qemu::outcome::Outcome;
use serde_json::{Value, json};

use crate::boot::{Boot, Booted, DISK, demo_machine};
use crate::disks::{disk, other_bytes};
use crate::isolation::{CR0, CR0_SMMUEN, TESTDEV_STREAM};
use crate::log::RegisterWrite;

/// Requests a second that the slow disk answers, so that one is under way for as long as the SMMU takes to be mended.
const REQUESTS_PER_SECOND: u32 = 20;

/// The machine of the demonstration with a slow disk.
fn slow(disk: &Disk) -> Machine {
    let mut machine = demo_machine();
    let slow = "virtio-blk-pci,drive=slow,iommu_platform=on,disable-legacy=on".to_owned();
    machine.devices[0] = Device::new(DeviceKind::Other(slow));
    let drive = format!(
        "if=none,id=slow,format=raw,readonly=on,file={},throttling.iops-total={REQUESTS_PER_SECOND}",
        disk.path.display()
    );
    machine.extra_arguments.extend(["-drive".into(), drive.into()]);
    machine
}

/// The kernel read what is on `disk`, and nobody's DMA was stopped.
#[track_caller]
fn assert_read(booted: &Booted, disk: &Disk) {
    booted.assert_outcome(Outcome::Success);
    if let Err(error) = disk.check(&booted.result.records) {
        booted.fail(&error.to_string());
    }
    assert_eq!(booted.log.events(), [].into());
}

#[test]
fn commands_that_are_none_are_told_to_their_sender_alone() {
    let (disk, _folder) = disk(&other_bytes(8 << 17));
    let booted = Boot::new("poisoned-queue", slow(&disk)).logged(&[]).run();
    assert_read(&booted, &disk);
    let record = booted.record("poisoned-queue");
    assert_eq!(record["refused"], 8);
    assert_ne!(record["while_pending"], 0, "the disk is too fast");
    assert_eq!(booted.log.lines_of("smmuv3_cmdq_consume_error ").count(), 8);
    let reports = booted.result.console.matches("CMDQ_ERR: a command was refused").count();
    assert_eq!(reports, 8);
}

#[test]
fn a_storm_of_faults_is_counted_to_the_last_and_told_in_a_few_lines() {
    let booted = Boot::of("event-storm").logged(&[]).run();
    booted.assert_outcome(Outcome::Success);
    let [first, second] = booted.records("disk")[..] else { booted.fail("the disk was to be read twice") };
    assert_eq!((&first["sha256"], &second["sha256"]), (&json!(DISK.sha256), &json!(DISK.sha256)));

    // One for each time that it is told, and one for when it is started.
    let (storm, unseen) = (booted.record("storm"), booted.record("unseen"));
    let number = |record: &Value, member: &str| record[member].as_u64().unwrap();
    assert_eq!(number(storm, "faults"), number(storm, "kicks") + 1);
    assert_eq!(storm["events"], storm["faults"], "somebody else was stopped");
    let recorded = booted.log.lines_of("smmuv3_propagate_event SMMU_EVT_F_TRANSLATION sid=0x10").count() as u64;
    assert_eq!(recorded, number(storm, "faults") + number(unseen, "kicks"));
    assert_eq!(booted.log.events(), [("SMMU_EVT_F_TRANSLATION", 0x10)].into());
    // Those that found the queue full are lost, which is said.
    assert!(number(unseen, "faults") < number(unseen, "kicks"));
    booted.assert_shows("EVENTQ_ABT_ERR: event records were lost");

    let lines = booted.result.console.lines().filter(|line| line.contains("DMA stopped: "));
    let told: Vec<u64> = lines.map(faults_so_far).collect();
    assert_eq!(told, [1, 16, 256, 4096]);
}

/// How many faults a line of the log says that there have been.
fn faults_so_far(line: &str) -> u64 {
    line.split_once(" [").map_or(1, |(_, rest)| rest.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_suspended_smmu_lets_nothing_through_and_wakes_up_as_it_was() {
    let booted = Boot::of("suspend").logged(&[]).run();
    booted.assert_outcome(Outcome::Success);
    assert_eq!(booted.record("disk")["sha256"], DISK.sha256);
    assert_eq!(booted.record("suspend"), &json!({ "record": "suspend", "times": 4, "reported": true }));
    // Nothing passed untranslated, ...
    assert_eq!(booted.log.lines_of("smmuv3_translate_bypass").next(), None);
    assert_eq!(booted.log.lines_of("smmuv3_translate_disable").next(), None);
    // ... and all that was stopped besides, or reported, was the last attempt.
    assert_eq!(booted.log.events(), [("SMMU_EVT_F_TRANSLATION", TESTDEV_STREAM)].into());
    let on = |write: RegisterWrite| (write.offset == CR0).then_some(write.value & CR0_SMMUEN != 0);
    let mut on: Vec<bool> = booted.log.register_writes().filter_map(on).collect();
    on.dedup();
    let times = [[false, true]; 5];
    assert_eq!(on, times.as_flattened());
}

//! The demonstration on a machine as it comes, and what every other machine has to show as well.

use qemu::disk::Disk;
use qemu::machine::Machine;
use qemu::outcome::Outcome;
use serde_json::json;

use crate::boot::{Boot, Booted, DISK, demo_machine};

/// Boots the demonstration on `machine`, whose disk is [`DISK`], and checks all that it shows.
#[track_caller]
pub(crate) fn shows_everything(machine: Machine) -> Booted {
    let booted = Boot::new("demo", machine).run();
    assert_complete(&booted, &DISK);
    booted
}

/// Checks all five parts of the demonstration over `disk`.
#[track_caller]
pub(crate) fn assert_complete(booted: &Booted, disk: &Disk) {
    booted.assert_outcome(Outcome::Success);
    for part in 1..=5 {
        booted.assert_shows(&format!("== {part}. "));
    }
    booted.assert_shows("up: every stream aborts");
    assert_disk(booted, disk);
    assert_eq!(booted.record("entropy")["bytes"], 32);
    let copy = booted.record("edu");
    assert_eq!(copy["equal"], true);
    booted.assert_shows(&format!("edu: {} bytes there and back, equal to the byte", copy["bytes"]));
    let faults = assert_rogues_stopped(booted);
    assert_summary(booted, faults);
    booted.assert_never_shows("ERROR");
}

/// The kernel read what the host sees in the file.
#[track_caller]
fn assert_disk(booted: &Booted, disk: &Disk) {
    if let Err(error) = disk.check(&booted.result.records) {
        booted.fail(&error.to_string());
    }
    booted.assert_shows(&format!("SHA-256 {}", disk.sha256));
}

/// Three attempts, each stopped, each blamed on the right device. Returns the faults of all devices together.
#[track_caller]
fn assert_rogues_stopped(booted: &Booted) -> u64 {
    let rogues = booted.records("rogue");
    let [edu_write, edu_read, testdev_write] = rogues[..] else {
        booted.fail("three attempts of rogues expected");
    };
    for (rogue, name, attempt) in
        [(edu_write, "edu", "write"), (edu_read, "edu", "read"), (testdev_write, "iommu-testdev", "write")]
    {
        assert!(rogue["device"].as_str().unwrap().ends_with(name), "{rogue}");
        assert_eq!((&rogue["attempt"], &rogue["stopped"]), (&json!(attempt), &json!(true)));
    }
    let faults = |rogue: &serde_json::Value| rogue["faults"].as_u64().unwrap();
    assert!(0 < faults(edu_write) && faults(edu_write) < faults(edu_read) && 0 < faults(testdev_write));
    let name = |rogue: &serde_json::Value| rogue["device"].as_str().unwrap().to_owned();
    booted.assert_shows(&format!("DMA stopped: {}, stream ", name(edu_write)));
    booted.assert_shows(": F_TRANSLATION: write to ");
    booted.assert_shows(": F_TRANSLATION: read of ");
    booted.assert_shows(&format!("DMA stopped: {}, not attached, stream ", name(testdev_write)));
    booted.assert_shows("stopped; the page is as it was, byte for byte");
    booted.assert_shows("stopped; no word of the secret is in the device");
    faults(edu_read) + faults(testdev_write)
}

/// Everything that was mapped is unmapped, every fault is a rogue's, and no memory is lost.
#[track_caller]
fn assert_summary(booted: &Booted, faults: u64) {
    let summary = booted.record("summary");
    assert!(summary["mapped"].as_u64() > Some(0));
    assert_eq!(summary["mapped"], summary["unmapped"]);
    assert_eq!(summary["events"], faults, "somebody but the rogues was stopped");
    booted.assert_shows(" commands, 0 of them refused");
    let bytes = |member: &str| summary[member].as_u64().unwrap();
    let (before, after) = (bytes("dma_bytes_before"), bytes("dma_bytes_after"));
    assert_eq!(after, before + bytes("stream_table_bytes"), "DMA memory is lost");
}

#[test]
fn the_demonstration_shows_all_its_parts() {
    shows_everything(demo_machine());
}

#[test]
fn a_part_that_qemu_lacks_is_left_out_by_name() {
    let machine = demo_machine().without(&[qemu::machine::Part::IommuTestdev]);
    let booted = Boot::new("demo", machine).argument("without=iommu-testdev").run();
    booted.assert_outcome(Outcome::Success);
    booted.assert_shows("left out: iommu-testdev, which this QEMU does not have");
    assert_eq!(booted.records("rogue").len(), 2);
}

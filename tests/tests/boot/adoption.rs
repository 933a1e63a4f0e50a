//! The kernel starts over with its SMMU live: what QEMU saw of the DMA that went on, and of all other DMA.

use std::collections::BTreeSet;

use qemu::machine::{ExceptionLevel, Gic};
use qemu::outcome::Outcome;
use qemu::scenario::Scenario;

use crate::boot::{Boot, Booted, DISK};
use crate::isolation::{CR0, CR0_SMMUEN};
use crate::log::{CONFIGURATION_WRITES, RegisterWrite, Step};

/// StreamIDs: of the USB controller that works on, of a device that nobody attaches, and of one that the first run does.
const WORKING: u64 = 0x10;
const ROGUE: u64 = 0x18;
const OTHER: u64 = 0x20;

/// Boots and checks all that does not depend on how the first run ends.
#[track_caller]
fn adopts(boot: Boot) -> Booted {
    let booted = boot.logged(&CONFIGURATION_WRITES).run();
    booted.assert_outcome(Outcome::Success);
    booted.assert_shows("up: every stream aborts");
    booted.assert_shows("up: it was on, and was adopted; DMA of stream 0x10 goes on, all others abort");
    if let Err(error) = DISK.check(&booted.result.records) {
        booted.fail(&error.to_string());
    }
    let (first, second) = (booted.record("first-run"), booted.record("second-run"));
    assert_eq!((&second["failed"], &second["words_changed"], &second["faults"]), (&false.into(), &0.into(), &0.into()));
    let frames = [&first["frame"], &second["first_frame"], &second["last_frame"]].map(|frame| frame.as_u64().unwrap());
    assert!(frames.is_sorted() && frames[0] < frames[2], "{frames:?}");
    assert_eq!(booted.record("ended")["failed"], true);
    assert_never_stopped(&booted);
    assert_refused(&booted);
    booted
}

/// Every frame's DMA was translated, to one page, up to the end; and translation was never off.
#[track_caller]
fn assert_never_stopped(booted: &Booted) {
    let meanwhile = booted.log.before_event_of(WORKING);
    let translations: Vec<(u64, u64)> = meanwhile.translations(WORKING).collect();
    // The controller reads its memory once in each frame, and writes to it once.
    let frames = booted.record("second-run")["last_frame"].as_u64().unwrap();
    assert!(translations.len() as u64 >= 2 * frames, "{frames} frames, {} translations", translations.len());
    assert_eq!(BTreeSet::from_iter(translations).len(), 1);

    let is_bus_master = |step| match step {
        Step::BusMaster(function, on) if function == "00:02.0" => Some(on),
        _ => None,
    };
    let mut bus_master: Vec<bool> = booted.log.steps().filter_map(is_bus_master).collect();
    bus_master.dedup();
    assert_eq!(bus_master, [false, true]);
    let is_enabled = |write: RegisterWrite| (write.offset == CR0).then_some(write.value & CR0_SMMUEN != 0);
    let mut enabled: Vec<bool> = booted.log.register_writes().filter_map(is_enabled).collect();
    enabled.dedup();
    assert_eq!(enabled, [false, true]);
}

/// The rogue reaches nothing, and the other device nothing but its page. Both are named, and the controller too in the end.
#[track_caller]
fn assert_refused(booted: &Booted) {
    assert_eq!(booted.log.translations(ROGUE).next(), None);
    assert_eq!(booted.log.translations(OTHER).collect::<BTreeSet<_>>().len(), 1);
    assert_eq!(booted.log.lines_of("smmuv3_translate_bypass").next(), None);
    assert_eq!(booted.log.lines_of("smmuv3_translate_disable").next(), None);
    let stopped = [WORKING, ROGUE, OTHER].map(|stream| ("SMMU_EVT_C_BAD_STE", stream));
    assert_eq!(booted.log.events(), stopped.into());
}

#[test]
fn a_device_works_on_while_the_kernel_starts_over() {
    let booted = adopts(Boot::of("adopt"));
    assert_eq!(booted.record("first-run")["orderly"], true);
}

#[test]
fn without_a_word_from_the_first_run_to_the_smmu() {
    let booted = adopts(Boot::of("adopt").argument("handover=none"));
    assert_eq!(booted.record("first-run")["orderly"], false);
}

#[test]
fn after_a_start_at_el2() {
    let mut machine = Scenario::by_name("adopt").unwrap().machine(&DISK.path);
    (machine.start, machine.gic) = (ExceptionLevel::El2, Gic::V2);
    adopts(Boot::new("adopt", machine));
}

//! Machines that lack something: the kernel says what, gives no device DMA, and ends orderly.

use qemu::machine::{Iommu, Machine, Part, Stage};
use qemu::outcome::Outcome;

use crate::boot::{Boot, Booted, demo_machine};
use crate::log::CONFIGURATION_WRITES;

/// The demonstration came to an orderly end before any device could do DMA.
#[track_caller]
pub(crate) fn assert_failed_closed(booted: &Booted, why: &str) {
    booted.assert_outcome(Outcome::Failed);
    booted.assert_shows(&format!("FAILED: {why}"));
    assert!(booted.record("failure")["message"].as_str().unwrap().starts_with(why));
    assert_eq!(booted.log.bus_masters(), [].into());
    assert_eq!(booted.log.translated_streams(), [].into());
    for kind in ["disk", "entropy", "edu", "rogue", "summary"] {
        assert_eq!(booted.records(kind).len(), 0, "record {kind:?}");
    }
}

#[test]
fn without_an_smmu_no_device_is_given_dma() {
    let machine = Machine { iommu: Iommu::None, ..demo_machine() };
    let booted = Boot::new("demo", machine).logged(&CONFIGURATION_WRITES).run();
    assert_failed_closed(&booted, "no SMMU: the device tree has no enabled node compatible with arm,smmu-v3");
    booted.assert_shows("no device is given DMA, bus mastering stays off");
    for driver in ["virtio-blk", "virtio-rng", "edu", "iommu-testdev"] {
        booted.assert_shows(driver);
    }
}

#[test]
fn without_a_disk() {
    let booted = Boot::new("demo", Machine::default()).logged(&CONFIGURATION_WRITES).run();
    assert_failed_closed(&booted, "no virtio-blk on this machine");
    booted.assert_shows("up: every stream aborts");
}

#[test]
fn without_a_device_for_the_last_part() {
    let booted = Boot::new("demo", demo_machine().without(&[Part::IommuTestdev])).run();
    booted.assert_outcome(Outcome::Failed);
    booted.assert_shows("FAILED: no iommu-testdev on this machine");
    assert_eq!(booted.records("rogue").len(), 2);
}

#[test]
fn without_stage_1_the_stale_translation_cannot_be_shown() {
    let machine = Machine { iommu: Iommu::SmmuV3Stage(Stage::Two), ..demo_machine() };
    let booted = Boot::new("stale-translation", machine).run();
    booted.assert_outcome(Outcome::Failed);
    booted.assert_shows("FAILED: this SMMU has no stage 1");
}

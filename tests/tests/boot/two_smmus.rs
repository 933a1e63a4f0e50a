//! Two SMMUs, and devices that wait for one or for both.

use qemu::devicetree::{Tree, TreeError};
use qemu::machine::{Iommu, Stage};
use qemu::outcome::Outcome;
use qemu::two_smmus::{DUAL_PORT, FIRST, SECOND};

use crate::boot::{Boot, Booted};
use crate::log::{CONFIGURATION_WRITES, Step};

const BEHIND_FIRST: [&str; 2] = ["00:01.0 virtio-rng", "00:02.0 edu"];
const BEHIND_SECOND: [&str; 2] = ["09:00.0 virtio-rng", "0a:00.0 edu"];
const BEHIND_BOTH: &str = "dual-port";

/// The streams of the devices, in the order of their names above.
const FIRST_STREAMS: [u64; 2] = [0x8, 0x10];
const SECOND_STREAMS: [u64; 2] = [0x900, 0xa00];
const BOTH_STREAMS: [u64; 2] = [0x18, 0xb00];
/// That of the `iommu-testdev` behind the second SMMU, whose driver fails once.
const FAILING_STREAM: u64 = 0xc00;

fn boot(edit: impl FnOnce(&mut Tree) -> Result<(), TreeError>) -> Booted {
    let booted = Boot::of("two-smmus").logged(&CONFIGURATION_WRITES).device_tree(edit).run();
    booted.assert_outcome(Outcome::Success);
    booted
}

/// The devices that records of kind `kind` name, in order.
fn devices<'a>(booted: &'a Booted, kind: &'a str) -> Vec<&'a str> {
    booted.records(kind).iter().filter_map(|record| record["device"].as_str()).collect()
}

/// Only the devices behind the first SMMU ever did DMA, the dual-port device on none of its ports.
#[track_caller]
fn assert_first_alone(booted: &Booted) {
    assert_eq!(devices(booted, "bound"), BEHIND_FIRST);
    assert_eq!(booted.log.translated_streams(), FIRST_STREAMS.into());
    assert_eq!(booted.log.bus_masters(), ["00:01.0", "00:02.0"].map(str::to_owned).into());
    let touched = |step| matches!(step, Step::StreamTableEntryChanged(stream) if BOTH_STREAMS.contains(&stream));
    assert!(!booted.log.steps().any(touched), "something was done for {DUAL_PORT}");
    booted.assert_shows("0c:00.0 iommu-testdev cannot be bound at all: ");
}

/// Both ports of the dual-port device reached one buffer, and neither did once it was unmapped.
#[track_caller]
fn assert_dual_port_works(booted: &Booted) {
    let record = booted.record("dual-port");
    assert_eq!((&record["ports"], &record["mapped"], &record["unmapped"]), (&2.into(), &1.into(), &1.into()));
    let stopped = booted.records("stopped-port");
    assert_eq!(stopped.iter().map(|record| record["port"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1)]);
    for stream in BOTH_STREAMS {
        assert!(booted.log.events().contains(&("SMMU_EVT_F_TRANSLATION", stream)), "{stream:#x} was not stopped");
        booted.assert_shows(&format!("DMA stopped: dual-port, stream {stream:#x}: F_TRANSLATION: write to "));
    }
}

#[test]
fn history_1_two_iommus_one_deferred() {
    let booted = boot(|_| Ok(()));
    let [first, second] = [BEHIND_FIRST, BEHIND_SECOND];
    assert_eq!(devices(&booted, "bound"), [&first[..], &second, &[BEHIND_BOTH]].concat());
    // All of them before there is any SMMU, then those that wait for the second.
    let both = [BEHIND_BOTH];
    assert_eq!(devices(&booted, "deferred"), [&first[..], &second, &both, &second, &both].concat());
    assert_eq!(booted.record("boot-finished")["unready"], 0);
    let all = [&FIRST_STREAMS[..], &SECOND_STREAMS, &BOTH_STREAMS, &[FAILING_STREAM]].concat();
    assert_eq!(booted.log.translated_streams(), all.into_iter().collect());
    assert_dual_port_works(&booted);
    // While it had to wait nothing was done at the first SMMU either: the second is used before that.
    let steps: Vec<Step> = booted.log.steps().collect();
    let position = |step: Step| steps.iter().position(|other| *other == step).unwrap();
    let second_used = position(Step::Translated(SECOND_STREAMS[0]));
    assert!(position(Step::StreamTableEntryChanged(BOTH_STREAMS[0])) > second_used);
    assert!(position(Step::BusMaster("00:03.0".to_owned(), true)) > second_used);
}

#[test]
fn the_second_smmu_registered_first() {
    let booted = boot(|tree| tree.move_to_end(FIRST));
    assert_eq!(devices(&booted, "bound"), [&BEHIND_SECOND[..], &BEHIND_FIRST, &[BEHIND_BOTH]].concat());
    assert_eq!(booted.record("boot-finished")["unready"], 0);
    assert_dual_port_works(&booted);
}

/// There is an IOMMU, but nobody knows how to drive it.
#[test]
fn the_second_smmu_absent() {
    let booted = boot(|tree| tree.set_property(SECOND, "compatible", "unknown,iommu"));
    assert_first_alone(&booted);
    assert_eq!(devices(&booted, "refused"), [""; 0]);
    booted.assert_shows("dual-port stays blocked: it waits for IOMMU 0x9000 (not registered yet)");
    assert!(devices(&booted, "unready").contains(&BEHIND_BOTH));
}

#[test]
fn the_second_smmu_disabled() {
    let booted = boot(|tree| tree.disable(SECOND));
    assert_first_alone(&booted);
    booted.assert_shows("0a:00.0 edu: refused: IOMMU 0x9000 failed: /smmuv3@c020000 is disabled");
    booted.assert_shows("dual-port: refused: ");
    booted.assert_shows("property `iommus`, byte 8: ");
}

#[test]
fn the_second_smmu_broken() {
    let booted = boot(|tree| tree.set_property(SECOND, "reg", [0_u32, 0xc02_0000, 0, 0x1000]));
    assert_first_alone(&booted);
    assert_eq!(devices(&booted, "refused"), [&BEHIND_SECOND[..], &[BEHIND_BOTH]].concat());
    let complaint = "property `reg`, byte 0: the window is 0x1000 bytes, but an SMMUv3 has at least 0x20000";
    booted.assert_shows(&format!("SMMU left out: {SECOND}: {complaint}"));
    booted.assert_shows(&format!("dual-port stays blocked: IOMMU 0x9000 failed: {SECOND}: {complaint}"));
}

/// Two SMMUs, one that translates in stage 1 alone and one in stage 2 alone: each device gets page tables of its own SMMU's
/// kind, and one behind both, for which there are none, gets nothing.
#[test]
fn history_3_domains_come_from_the_devices_own_iommu() {
    let two = Iommu::TwoSmmuV3([Stage::One, Stage::Two]);
    let booted = Boot::of("two-smmus").on(two).logged(&CONFIGURATION_WRITES).run();
    booted.assert_outcome(Outcome::Success);
    assert_eq!(devices(&booted, "bound"), [BEHIND_FIRST, BEHIND_SECOND].concat());
    assert_eq!(devices(&booted, "refused"), [BEHIND_BOTH]);
    booted.assert_shows("dual-port: refused: IOMMU 0x9000 cannot use the domain: it lacks the translation stage");
    let all = [&FIRST_STREAMS[..], &SECOND_STREAMS, &[FAILING_STREAM]].concat();
    assert_eq!(booted.log.translated_streams(), all.into_iter().collect());
    assert!(!booted.log.bus_masters().contains("00:03.0"));
    let touched = |step| matches!(step, Step::StreamTableEntryChanged(stream) if BOTH_STREAMS.contains(&stream));
    assert!(!booted.log.steps().any(touched));
}

#[test]
fn history_4_probe_failure_undone() {
    let booted = boot(|_| Ok(()));
    let record = booted.record("failed-probe");
    assert_eq!(
        (&record["bus_master"], &record["attached"], &record["leaked_bytes"]),
        (&false.into(), &false.into(), &0.into())
    );
    assert_eq!(booted.record("bound-again")["device"], "0c:00.0 iommu-testdev");
    // Stopped by its SMMU in between, where its entry had become invalid again.
    assert!(booted.log.events().contains(&("SMMU_EVT_C_BAD_STE", FAILING_STREAM)));
    let switched =
        |step| if let Step::BusMaster(function, on) = step { (function == "0c:00.0").then_some(on) } else { None };
    let mut switched: Vec<bool> = booted.log.steps().filter_map(switched).collect();
    switched.dedup();
    assert_eq!(switched, [false, true, false, true, false]);
}

//! Every event that QEMU's SMMU can raise, raised by real DMA: each field of it, as the driver decodes it.

use qemu::machine::{Iommu, Stage};
use qemu::outcome::Outcome;
use serde_json::{Value, json};

use crate::boot::{Boot, Booted};

/// StreamIDs: of an `edu`, of an `iommu-testdev`, and of another one that is alone on its bus.
const READER: u32 = 0x8;
const WRITER: u32 = 0x10;
const FAR: u32 = 0x100;

/// Where there is no memory.
const NOT_MEMORY: &str = "0x3000000000";
/// Where the tables map nothing.
const UNMAPPED: &str = "0x100000000";

/// An event without any fields but those that every event has.
fn bare(case: &str, name: &str, stream: u32) -> Value {
    let mut event = json!({ "record": "event", "case": case, "name": name, "stream": stream, "substream": null });
    for field in ["direction", "instruction", "privileged", "stage", "class", "input", "ipa", "address", "stalled"] {
        event[field] = Value::Null;
    }
    event
}

/// A structure that cannot be read at `address`.
fn fetch(case: &str, name: &str, stream: u32, address: &str) -> Value {
    let mut event = bare(case, name, stream);
    event["address"] = address.into();
    event
}

/// An access that a table, or the lack of one, stopped.
fn access(case: &str, name: &str, stream: u32, direction: &str, stage: u8, class: &str, input: &str) -> Value {
    let mut event = bare(case, name, stream);
    event["direction"] = direction.into();
    (event["instruction"], event["privileged"]) = (false.into(), false.into());
    (event["stage"], event["class"], event["input"]) = (stage.into(), class.into(), input.into());
    if name != "F_WALK_EABT" {
        event["stalled"] = false.into();
        event["ipa"] = if stage == 2 { input.into() } else { Value::Null };
    }
    event
}

/// The four ways in which a translation of `stage` fails.
fn translation_faults(stage: u8) -> [Value; 4] {
    [
        ("address too large", "F_ADDR_SIZE", "0xc0000000"),
        ("no Access flag", "F_ACCESS", "0x40000000"),
        ("read-only", "F_PERMISSION", "0x80000000"),
        ("no mapping", "F_TRANSLATION", UNMAPPED),
    ]
    .map(|(case, name, input)| access(case, name, WRITER, "write", stage, "IN", input))
}

/// What comes of an SMMU with `stage`.
fn expected(stage: Stage) -> Vec<Value> {
    let (has_stage1, has_stage2) = (stage != Stage::Two, stage != Stage::One);
    let mut events = vec![
        bare("no second level", "C_BAD_STREAMID", FAR),
        fetch("second level outside memory", "F_STE_FETCH", FAR, NOT_MEMORY),
    ];
    if has_stage1 {
        let mut walk = access("table outside memory", "F_WALK_EABT", WRITER, "write", 1, "TT", UNMAPPED);
        // The descriptor of the fifth GiB.
        walk["address"] = "0x3000000020".into();
        // QEMU has the address where InputAddr is in other events, instead of where FetchAddr is.
        events.push(fetch("context descriptor outside memory", "F_CD_FETCH", WRITER, "0x0"));
        events.extend([bare("invalid context descriptor", "C_BAD_CD", WRITER), walk]);
    }
    if has_stage1 && has_stage2 {
        for (case, class) in [("stage 2 maps no context descriptor", "CD"), ("stage 2 maps no stage-1 table", "TT")] {
            events.push(access(case, "F_TRANSLATION", WRITER, "read", 2, class, UNMAPPED));
        }
    }
    events.extend(
        [(has_stage2, 2), (has_stage1, 1)].into_iter().filter(|it| it.0).flat_map(|it| translation_faults(it.1)),
    );
    events.push(bare("not attached", "C_BAD_STE", WRITER));
    events.push(access("a read", "F_TRANSLATION", READER, "read", if has_stage1 { 1 } else { 2 }, "IN", UNMAPPED));
    events
}

/// Boots on an SMMU with `stage`, compares every event, and returns what QEMU says it recorded.
#[track_caller]
fn raises_all(stage: Stage) -> Booted {
    let booted = Boot::of("events").on(Iommu::SmmuV3Stage(stage)).logged(&[]).run();
    booted.assert_outcome(Outcome::Success);
    let mut found: Vec<Value> = booted.records("event").into_iter().cloned().collect();
    for event in &mut found {
        let text = event.as_object_mut().unwrap().remove("text").unwrap();
        booted.assert_shows(&format!("{}:\n  {}\n", event["case"].as_str().unwrap(), text.as_str().unwrap()));
    }
    assert_eq!(found, expected(stage));
    let recorded: Vec<String> =
        found.iter().map(|event| format!("SMMU_EVT_{}", event["name"].as_str().unwrap())).collect();
    let logged: Vec<&str> =
        booted.log.lines_of("smmuv3_propagate_event ").filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(logged, recorded, "QEMU recorded others");
    booted
}

#[test]
fn of_both_stages() {
    let booted = raises_all(Stage::Nested);
    let names = ["C_BAD_STREAMID", "F_STE_FETCH", "C_BAD_STE", "F_CD_FETCH", "C_BAD_CD", "F_WALK_EABT"];
    for name in names.into_iter().chain(["F_TRANSLATION", "F_ADDR_SIZE", "F_ACCESS", "F_PERMISSION"]) {
        booted.assert_shows(&format!(": {name}: "));
    }
}

#[test]
fn of_stage_1() {
    raises_all(Stage::One);
}

#[test]
fn of_stage_2() {
    raises_all(Stage::Two);
}

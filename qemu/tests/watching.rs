//! Runs of something that is no QEMU but behaves like one, so that every end can be had.

use std::path::Path;
use std::time::Duration;

use qemu::machine::Machine;
use qemu::outcome::Outcome;
use qemu::program::{Capabilities, ProbeError, Qemu};
use qemu::run::{Run, RunResult};
use serde_json::json;

const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake-qemu.sh");

/// A run of the fake, which behaves as `behaviour` says.
fn run(behaviour: &str, timeout: Option<Duration>) -> RunResult {
    let mut qemu = Qemu::unprobed(Path::new(FAKE));
    qemu.environment.push(("FAKE_QEMU".into(), behaviour.into()));
    let machine = Machine::default();
    let run = Run { timeout, ..Run::new(&qemu, &machine, Path::new("an image"), "scenario=demo") };
    run.execute().unwrap()
}

fn outcome(behaviour: &str) -> Outcome {
    run(behaviour, None).outcome
}

#[test]
fn every_end_is_told_apart() {
    assert_eq!(outcome("success"), Outcome::Success);
    assert_eq!(outcome("failure"), Outcome::Failed);
    assert_eq!(outcome("panic"), Outcome::Panicked);
    assert_eq!(outcome("crash"), Outcome::QemuCrashed { signal: 11 });
    assert_eq!(outcome("power-off"), Outcome::PoweredOff);
}

#[test]
fn a_hang_ends_with_all_that_was_started() {
    let after = Duration::from_millis(200);
    let result = run("hang", Some(after));
    assert_eq!(result.outcome, Outcome::Hang { after });
    assert_eq!(result.records, [json!({"record": "hello", "number": 1})]);
}

#[test]
fn a_refusal_keeps_qemu_s_message() {
    let result = run("refuse", None);
    assert_eq!(result.outcome, Outcome::NotStarted { exit_status: 1 });
    assert_eq!(result.messages, "qemu-system-aarch64: -device nonsense: no such thing\n");
}

#[test]
fn console_and_records_are_kept_apart() {
    let result = run("panic", None);
    assert!(result.console.starts_with("arguments: -M virt,"));
    assert!(result.console.contains("-kernel an image -append scenario=demo"));
    assert_eq!(result.last_lines(1), ["panicked at line 1"]);
    assert_eq!(result.records, [json!({"record": "hello", "number": 1})]);
    assert_eq!(result.messages, "");
}

#[test]
fn a_qemu_is_asked_what_it_can_do() {
    let probe = |devices: &str| {
        let environment = vec![("FAKE_QEMU_DEVICES".into(), devices.into())];
        Qemu::probe_with(Path::new(FAKE), Vec::new(), environment).unwrap()
    };
    let full = probe(r#"name "iommu-testdev", bus PCI\nname "arm-smmuv3", bus System\n"#);
    assert!(full.capabilities.is_full());
    assert_eq!(full.version, "QEMU emulator version 99.0 (fake)");
    let nothing = Capabilities {
        iommu_testdev: false,
        user_creatable_smmu: false,
        smmu_stage_property: false,
        board_virt_9_1: false,
    };
    assert_eq!(probe(r#"name "arm-smmuv3-accel", bus System\n"#).capabilities, nothing);
}

#[test]
fn what_is_no_qemu_is_refused() {
    assert!(matches!(Qemu::probe(Path::new("/bin/echo")), Err(ProbeError::NotQemu { .. })));
    assert!(matches!(Qemu::probe(Path::new("/no/such/qemu")), Err(ProbeError::Start { .. })));
}

//! The launcher as people call it: `cargo run`.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::LazyLock;

use qemu::{scenario, workspace};
use serde_json::Value;

use crate::boot::{DISK, KERNEL, QEMU};

/// `cargo run -- ARGUMENTS` in the workspace. It finds the same QEMU as the tests.
fn cargo_run(arguments: &[&str]) -> Output {
    // What may have to be downloaded or built is, where its progress can be seen.
    LazyLock::force(&QEMU);
    LazyLock::force(&KERNEL);
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--target-dir"]).arg(workspace::target_directory()).arg("--").args(arguments);
    command.current_dir(workspace::root()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_status(output: &Output, status: i32) {
    assert_eq!(output.status.code(), Some(status), "{}\n{}", stdout(output), stderr(output));
}

fn report(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn the_demonstration_and_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let output = cargo_run(&["--json", json.to_str().unwrap()]);
    assert_status(&output, 0);
    assert!(stdout(&output).contains("== 5. Summary"));
    assert!(stdout(&output).contains(&format!("SHA-256 {}, the same on the host", DISK.sha256)));
    let report = report(&json);
    assert_eq!((&report["scenario"], &report["outcome"]), (&"demo".into(), &"success".into()));
    assert_eq!(report["exit_status"], 0);
    let kinds: Vec<&str> =
        report["records"].as_array().unwrap().iter().filter_map(|it| it["record"].as_str()).collect();
    assert_eq!(kinds, ["smmu", "disk", "entropy", "edu", "rogue", "rogue", "rogue", "summary"]);
}

#[test]
fn a_panic_is_told_apart_and_its_backtrace_resolved() {
    let output = cargo_run(&["panic"]);
    assert_status(&output, 101);
    assert!(stderr(&output).contains("kernel::scenarios::faults::panic at "), "{}", stderr(&output));
    assert!(stderr(&output).contains("error: the kernel panicked"));
}

#[test]
fn a_hang_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    // QEMU's -S: the machine never starts.
    let output = cargo_run(&["--timeout", "2", "--json", json.to_str().unwrap(), "--", "-S"]);
    assert_status(&output, 124);
    assert!(stderr(&output).contains("the kernel hung: no end after 2 s"));
    assert_eq!(report(&json)["outcome"], "hang");
}

#[test]
fn a_machine_that_qemu_refuses_is_told_apart() {
    let output = cargo_run(&["--cpu", "no-such-cpu"]);
    assert_status(&output, 125);
    assert!(stderr(&output).contains("QEMU did not start the machine"), "{}", stderr(&output));
}

#[test]
fn the_command_line_is_printed() {
    let output = cargo_run(&["--print", "--stage", "nested"]);
    assert_status(&output, 0);
    let line = stdout(&output);
    assert!(line.contains("arm-smmuv3,primary-bus=pcie.0,stage=nested") && line.contains("scenario=demo"), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
}

/// The clock that counts instructions, and what a person adds to it.
#[test]
fn a_scenario_s_own_arguments_are_passed() {
    let output = cargo_run(&["--print", "bench-page-tables", "--", "-device", "edu"]);
    assert_status(&output, 0);
    let line = stdout(&output);
    assert!(line.contains("-cpu max") && line.contains("-icount 'shift=0,sleep=off' -device edu "), "{line}");
}

#[test]
fn scenarios_are_listed() {
    let output = cargo_run(&["--list"]);
    assert_status(&output, 0);
    assert!(scenario::SCENARIOS.iter().all(|scenario| stdout(&output).contains(scenario.name)));
}

#[test]
fn an_unknown_scenario_is_refused() {
    let output = cargo_run(&["nonsense"]);
    assert_status(&output, 2);
    assert!(stderr(&output).contains("stale-translation"), "{}", stderr(&output));
}

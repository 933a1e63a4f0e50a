//! The launcher's binary, called as people call it. Nothing here needs a network, a kernel or a real QEMU.

mod elf;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use elf::{AARCH64, Segment, image_header};
use serde_json::Value;

const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake-qemu.sh");
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A folder, with a space in its name, that holds a kernel and a disk.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("with space").tempdir().unwrap();
        let header = image_header();
        let segment = Segment { address: 0x4020_0000, contents: &header, memory_bytes: 64 };
        fs::write(folder.path().join("kernel"), elf::elf(AARCH64, &[segment])).unwrap();
        fs::write(folder.path().join("disk"), "abc").unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs kernel and disk of this folder in the fake QEMU.
    fn launch(&self, behaviour: &str, sha256: &str, more: &[&str]) -> Output {
        self.command(behaviour, sha256, more).output().unwrap()
    }

    fn command(&self, behaviour: &str, sha256: &str, more: &[&str]) -> Command {
        let mut command = launcher();
        command.arg("--qemu").arg(FAKE).arg("--kernel").arg(self.path("kernel")).arg("--disk").arg(self.path("disk"));
        command.arg("--json").arg(self.path("report.json")).args(more);
        command.env("FAKE_QEMU", behaviour).env("FAKE_QEMU_SHA256", sha256).env("FAKE_QEMU_DEVICES", "");
        command
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("report.json")).unwrap()).unwrap()
    }
}

fn launcher() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qemu"));
    command.env_remove("QEMU");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_disk_s_hash_decides() {
    let folder = Folder::new();
    let good = folder.launch("disk", ABC, &[]);
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert!(stdout(&good).contains(&format!("SHA-256 {ABC}, the same on the host")));
    assert_eq!(folder.report()["outcome"], "success");

    let bad = folder.launch("disk", "00", &[]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(stderr(&bad).contains("but the kernel read 00 (3 bytes)"));
    assert_eq!(folder.report()["outcome"], "wrong-result");

    let none = folder.launch("success", "", &[]);
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr(&none).contains("reported no SHA-256"));
}

#[test]
fn a_panic_is_reported_with_the_console_s_end() {
    let folder = Folder::new();
    let output = folder.launch("panic", "", &["hello"]);
    assert_eq!(output.status.code(), Some(101));
    let end = "last lines of the console:\n";
    assert!(stderr(&output).contains(end) && stderr(&output).contains("  | panicked at line 1\n"));
    assert!(stderr(&output).contains("error: the kernel panicked"));
    let report = folder.report();
    assert_eq!(report["scenario"], "hello");
    assert_eq!(report["exit_status"], 101);
    assert_eq!(report["records"][0]["number"], 1);
    assert_eq!(report["qemu_version"], "QEMU emulator version 99.0 (fake)");
}

#[test]
fn the_console_s_end_is_not_repeated_where_it_is_to_be_seen() {
    let folder = Folder::new();
    let one = fs::File::create(folder.path("one")).unwrap();
    let mut command = folder.command("panic", "", &["hello"]);
    command.stdout(one.try_clone().unwrap()).stderr(one);
    assert_eq!(command.status().unwrap().code(), Some(101));
    let told = fs::read_to_string(folder.path("one")).unwrap();
    assert_eq!(told.matches("panicked at line 1").count(), 1, "{told}");
    assert!(!told.contains("last lines of the console"), "{told}");
}

#[test]
fn a_silent_console_is_called_so() {
    let silent = Folder::new().launch("silent", "", &["hello"]);
    assert_eq!(silent.status.code(), Some(1), "{}", stderr(&silent));
    assert!(stderr(&silent).contains("the console shows nothing\n"), "{}", stderr(&silent));
    assert!(!stderr(&silent).contains("last lines of the console"), "{}", stderr(&silent));
}

#[test]
fn a_hang_ends_in_time() {
    let output = Folder::new().launch("hang", "", &["--timeout", "1"]);
    assert_eq!(output.status.code(), Some(124));
    assert!(stderr(&output).contains("the kernel hung: no end after 1 s"));
}

#[test]
fn an_older_qemu_leaves_parts_out_by_name() {
    let folder = Folder::new();
    let output = folder.launch("disk", ABC, &[]);
    assert!(stderr(&output).contains("left out, because QEMU emulator version 99.0 (fake) has no such thing"));
    assert!(stdout(&output).contains("scenario=demo disk-bytes=3 without=iommu-testdev"));
    assert!(!stdout(&output).contains("-device iommu-testdev"));
    assert_eq!(folder.report()["left_out"], serde_json::json!(["iommu-testdev"]));
    let staged = folder.launch("disk", ABC, &["--stage", "2"]);
    assert_eq!(staged.status.code(), Some(1));
    assert!(stderr(&staged).contains("does not have an SMMU with stage 2"));
}

#[test]
fn arguments_reach_qemu() {
    let more = ["hello", "--el2", "--gic", "2", "--memory", "4G", "--smp", "3", "--", "-d", "guest_errors"];
    let console = stdout(&Folder::new().launch("success", "", &more));
    assert!(console.contains("gic-version=2") && console.contains("virtualization=on"));
    assert!(console.contains("-smp 3 -m 4096M") && console.contains("-d guest_errors"));
    assert!(console.contains("scenario=hello"));
}

#[test]
fn a_command_line_is_printed_where_there_is_nothing_yet() {
    let folder = Folder::new();
    let output = launcher().env("PATH", folder.0.path()).args(["--print", "--gdb"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let words = shlex::split(&stdout(&output)).unwrap();
    assert!(words.iter().any(|word| Path::new(word).ends_with("qemu-system-aarch64")));
    assert!(words.windows(2).any(|pair| pair == ["-gdb", "tcp:127.0.0.1:1234"]));
    assert!(words.iter().any(|word| word == "iommu-testdev"));
}

#[test]
fn all_scenarios_are_listed() {
    let listed = stdout(&launcher().arg("--list").output().unwrap());
    assert!(qemu::scenario::SCENARIOS.iter().all(|scenario| listed.contains(scenario.name)));
}

#[test]
fn careless_input_gets_one_clear_line() {
    let folder = Folder::new();
    let missing = folder.path("missing");
    let missing = missing.to_str().unwrap();
    let kernel = folder.path("kernel");
    let kernel = kernel.to_str().unwrap();
    for (arguments, wanted) in [
        (vec!["nonsense"], "demo"),
        (vec!["--memory", "0"], "MiB"),
        (vec!["--memory", "4T"], "MiB"),
        (vec!["--stage", "3"], "nested"),
        (vec!["--smp", "0"], "1..=255"),
        (vec!["--smp", "9", "--gic", "2"], "at most 8 CPUs"),
        (vec!["--cpu", ""], "cortex-a57"),
        (vec!["--cpu", "cortex-a15"], "AArch64"),
        (vec!["--cpu", "cortex-a7,pmu=off"], "AArch64"),
        (vec!["--gdb", "1234"], "--gdb=1234"),
        (vec!["--gdb", "abc"], "--gdb=abc"),
        (vec!["hello", "--trace", "a file"], "--trace=a file"),
        (vec!["--timeout", "0"], "--timeout"),
        (vec!["--gdb=70000"], "65535"),
        (vec!["--nonsense"], "--nonsense"),
        (vec!["--disk", missing], missing),
        (vec!["--kernel", missing, "--qemu", FAKE], missing),
        (vec!["--kernel", kernel, "--qemu", missing], missing),
        (vec!["--kernel", kernel, "--qemu", "/bin/echo"], "no QEMU"),
        (vec!["--kernel", kernel, "--qemu", "/bin/ls"], "qemu-system-aarch64"),
        // No kernel is read, let alone built, for a QEMU that is none.
        (vec!["--kernel", "/no/such/kernel", "--qemu", missing], missing),
        (vec!["--kernel", kernel, "--qemu", FAKE, "--json", "/no/such/folder/file"], "/no/such/folder/file"),
        (vec!["--kernel", kernel, "--qemu", FAKE, "--trace=/no/such/folder/file"], "/no/such/folder/file"),
    ] {
        let output = launcher().args(&arguments).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.starts_with("error: ") && message.contains(wanted), "{arguments:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    }
}

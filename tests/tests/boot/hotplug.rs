//! A device is taken out of the machine while it works, and put in again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use qemu::device::{Device, DeviceKind};
use qemu::machine::Machine;
use qemu::outcome::Outcome;

use crate::boot::{Boot, DISK, KERNEL, QEMU};
use crate::log::{CONFIGURATION_WRITES, Step};

/// How long QEMU may take until it listens.
const LIMIT: Duration = Duration::from_secs(60);
const STREAM: u64 = 0x100;

/// Has QEMU take out the device `hot`, and, when the kernel has let go of it, put it in again (QEMU Machine Protocol).
fn replug(socket: &Path) {
    let started = Instant::now();
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(started.elapsed() < LIMIT, "QEMU does not listen: {error}"),
        }
        thread::yield_now();
    };
    let say = |text: &str| (&stream).write_all(text.as_bytes()).unwrap();
    let mut lines = BufReader::new(&stream).lines();
    say(r#"{"execute":"qmp_capabilities"}"#);
    say(r#"{"execute":"device_del","arguments":{"id":"hot"}}"#);
    let is_gone = |line: &String| line.contains(r#""DEVICE_DELETED""#) && line.contains(r#""device": "hot""#);
    lines.by_ref().map_while(Result::ok).find(is_gone).expect("the kernel does not let go of the device");
    say(r#"{"execute":"device_add","arguments":{"driver":"virtio-blk-pci","id":"hot","bus":"port1","drive":"hotdisk",
        "iommu_platform":true,"disable-legacy":"on"}}"#);
    // Until QEMU ends.
    lines.map_while(Result::ok).for_each(drop);
}

#[test]
fn a_disk_taken_out_during_a_read_and_put_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("qmp");
    let disk = "virtio-blk-pci,id=hot,drive=hotdisk,iommu_platform=on,disable-legacy=on".to_owned();
    let devices = vec![Device::root_port("port1", 1), Device::new(DeviceKind::Other(disk)).on_bus("port1")];
    let blockdev = format!("driver=file,node-name=hotdisk,read-only=on,filename={}", DISK.path.display());
    let qmp = format!("unix:{},server=on,wait=off", socket.display());
    let extra_arguments = ["-blockdev", &blockdev, "-qmp", &qmp].map(Into::into).to_vec();
    let machine = Machine { devices, extra_arguments, ..Machine::default() };
    let boot = Boot::new("hotplug", machine).logged(&CONFIGURATION_WRITES);
    // What takes long is done before anybody waits for QEMU.
    LazyLock::force(&QEMU);
    LazyLock::force(&KERNEL);
    let operator = thread::spawn(move || replug(&socket));
    let booted = boot.run();
    booted.assert_outcome(Outcome::Success);
    operator.join().unwrap();
    booted.assert_shows("01:00.0 virtio-blk is let go in the middle of a read");
    assert_eq!((&booted.record("unplugged")["faults"], &booted.record("plugged")["faults"]), (&0.into(), &0.into()));
    assert_eq!(booted.records("disk").last().unwrap()["sha256"].as_str(), Some(DISK.sha256.as_str()));
    let step = |step| match step {
        Step::Translated(STREAM) => Some("translated"),
        Step::BusMaster(function, on) if function == "01:00.0" => Some(if on { "on" } else { "off" }),
        _ => None,
    };
    let mut steps: Vec<&str> = booted.log.steps().filter_map(step).collect();
    steps.dedup();
    assert_eq!(steps, ["off", "on", "translated", "off", "on", "translated", "off"]);
    assert_eq!(booted.log.events(), [].into());
}

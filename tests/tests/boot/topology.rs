//! Where devices are plugged in, and the StreamIDs that they have there.

use qemu::device::{Device, DeviceKind};
use qemu::machine::Machine;
use qemu::outcome::Outcome;

use crate::boot::{Boot, Booted, DISK, demo_machine};
use crate::demo::{assert_complete, shows_everything};

/// The kernel knows the device at `address` as `driver` and under the StreamIDs `stream_ids`, and says so in its table.
#[track_caller]
fn assert_listed(booted: &Booted, address: &str, driver: &str, stream_ids: &str) {
    let start = format!("  {address}  {driver} ");
    let end = format!(": StreamID {stream_ids}");
    if !booted.result.console.lines().any(|line| line.starts_with(&start) && line.ends_with(&end)) {
        booted.fail(&format!("{driver} is not listed at {address} with StreamID {stream_ids}"));
    }
}

/// The devices of the demonstration, each placed by `place`, which is told its number.
fn placed(place: impl Fn(usize, Device) -> Device) -> Vec<Device> {
    demo_machine().devices.into_iter().enumerate().map(|(number, device)| place(number, device)).collect()
}

#[test]
fn devices_in_another_order() {
    let mut devices = demo_machine().devices;
    devices.reverse();
    let booted = shows_everything(Machine { devices, ..demo_machine() });
    assert_listed(&booted, "00:01.0", "iommu-testdev", "0x8");
    assert_listed(&booted, "00:02.0", "edu", "0x10");
    assert_listed(&booted, "00:03.0", "virtio-rng", "0x18");
    assert_listed(&booted, "00:04.0", "virtio-blk", "0x20");
}

#[test]
fn devices_in_the_last_slots() {
    let devices = placed(|number, device| device.in_slot(31 - number as u8));
    let booted = shows_everything(Machine { devices, ..demo_machine() });
    assert_listed(&booted, "00:1f.0", "virtio-blk", "0xf8");
    assert_listed(&booted, "00:1c.0", "iommu-testdev", "0xe0");
}

#[test]
fn devices_behind_root_ports() {
    let ports = (0..4).map(|number| Device::root_port(&format!("port{number}"), number));
    let devices = placed(|number, device| device.on_bus(&format!("port{number}")));
    let machine = Machine { devices: ports.chain(devices).collect(), ..demo_machine() };
    let booted = Boot::new("demo", machine).logged(&[]).run();
    assert_complete(&booted, &DISK);
    assert_listed(&booted, "01:00.0", "virtio-blk", "0x100");
    assert_listed(&booted, "02:00.0", "virtio-rng", "0x200");
    assert_listed(&booted, "03:00.0", "edu", "0x300");
    assert_listed(&booted, "04:00.0", "iommu-testdev", "0x400");
    assert_eq!(booted.log.translated_streams(), [0x100, 0x200, 0x300].into());
}

#[test]
fn devices_behind_a_switch() {
    let other = |device: &str| Device::new(DeviceKind::Other(device.to_owned()));
    let mut devices = vec![
        Device::root_port("root", 0),
        other("x3130-upstream,id=up").on_bus("root"),
        other("xio3130-downstream,id=down0,chassis=1").on_bus("up").in_slot(0),
        other("xio3130-downstream,id=down1,chassis=2").on_bus("up").in_slot(1),
    ];
    devices.extend(placed(|number, device| match number {
        0 | 1 => device.on_bus(&format!("down{number}")),
        _ => device,
    }));
    let booted = shows_everything(Machine { devices, ..demo_machine() });
    assert_listed(&booted, "03:00.0", "virtio-blk", "0x300");
    assert_listed(&booted, "04:00.0", "virtio-rng", "0x400");
    assert_listed(&booted, "00:02.0", "edu", "0x10");
}

#[test]
fn a_device_behind_a_conventional_bridge_has_the_bridge_s_stream() {
    let bridge = Device::new(DeviceKind::Other("pcie-pci-bridge,id=conventional".to_owned()));
    let mut devices = vec![Device::root_port("root", 0), bridge.on_bus("root")];
    devices.extend(placed(|number, device| match number {
        2 => device.on_bus("conventional").in_slot(5),
        _ => device,
    }));
    let booted = Boot::new("demo", Machine { devices, ..demo_machine() }).logged(&[]).run();
    assert_complete(&booted, &DISK);
    // PCI Express to PCI bridges pass requests on as function 0 of device 0 of the bus behind them, or as they are.
    assert_listed(&booted, "02:05.0", "edu", "0x228, 0x200");
    assert!(booted.log.translated_streams().contains(&0x200));
}

/// Two devices behind one conventional bridge, and two functions of one device, are a group each; a fifth one is alone.
#[test]
fn devices_that_cannot_be_isolated_share_a_domain() {
    let booted = Boot::of("groups").logged(&[]).run();
    booted.assert_outcome(Outcome::Success);
    let groups: Vec<_> = booted.records("group").iter().filter_map(|record| record["devices"].as_str()).collect();
    assert_eq!(groups, ["02:05.0 edu, 02:06.0 edu", "00:02.0 edu", "00:04.0 edu, 00:04.1 edu"]);
    assert_eq!(booted.log.translated_streams(), [0x10, 0x20, 0x21, 0x200].into());
    booted
        .assert_shows("DMA stopped: 02:05.0 edu or 02:06.0 edu (same StreamID), stream 0x200: F_TRANSLATION: read of ");
    booted.assert_shows("DMA stopped: 00:04.1 edu, stream 0x21: F_TRANSLATION: read of ");
    assert_eq!(booted.records("shared").len(), 2);
}

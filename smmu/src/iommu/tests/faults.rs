//! Events find their device.

use alloc::string::ToString;

use super::*;
use crate::arch::event::Event;

/// An F_TRANSLATION: a write to 0x1000.
fn write_by(stream: u64) -> Event {
    Event::decode([stream << 32 | 0x10, 2 << 40, 0x1000, 0])
}

#[test]
fn an_event_is_its_devices_and_counts_there() {
    let system = System::new().registered();
    let device = system.device();
    let other = system.add("other", &[(A, 0x22)]).unwrap();
    for (iommu, stream, count) in [(A, 0x11, 1), (B, 0x22, 2), (A, 0x11, 3)] {
        let report = system.iommus.attribute(iommu, write_by(stream));
        assert_eq!((report.iommu, report.count, report.device.unwrap().name()), (iommu, count, "both"));
    }
    assert_eq!((device.faults(), other.faults()), (3, 0));
    assert_eq!(system.iommus.attribute(A, write_by(0x22)).device.unwrap().name(), "other");
    assert_eq!(other.faults(), 1);
}

#[test]
fn an_event_of_nobody_is_reported_as_such() {
    let system = System::new().registered();
    let device = system.device();
    for (iommu, stream) in [(A, 0x22), (B, 0x11), (Phandle::new(1), 0x11)] {
        let report = system.iommus.attribute(iommu, write_by(stream));
        assert!(report.device.is_none());
        assert!(report.to_string().starts_with("unknown device, "), "{report}");
    }
    assert_eq!(device.faults(), 0);
}

#[test]
fn a_report_says_whether_the_device_is_attached() {
    let system = System::new().registered();
    let device = system.device();
    assert!(system.iommus.attribute(A, write_by(0x11)).to_string().starts_with("both, not attached, "));
    let attachment = system.configured(&device);
    let report = system.iommus.attribute(A, write_by(0x11)).to_string();
    assert!(report.starts_with("both, ") && !report.contains("not attached"), "{report}");
    assert!(report.ends_with("[2 faults so far]"), "{report}");
    drop(attachment);
}

#[test]
fn events_go_from_the_queue_to_the_device() {
    let system = System::new().registered();
    let device = system.device();
    (0..3).for_each(|_| system.a.fake.record([0x11 << 32 | 0x10, 2 << 40, 0x1000, 0]));
    let mut due = 0;
    system.a.smmu.drain_events(|event| due += u32::from(system.iommus.attribute(A, event).is_due));
    assert_eq!((device.faults(), due), (3, 1));
}

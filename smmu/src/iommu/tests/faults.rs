//! Events find their device.

use alloc::boxed::Box;
use alloc::string::ToString;
use core::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::arch::event::Event;
use crate::iommu::{FaultHandler, FaultReport};

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
        assert_eq!((report.iommu, report.count, report.device().unwrap().name()), (iommu, count, "both"));
    }
    assert_eq!((device.faults(), other.faults()), (3, 0));
    assert_eq!(system.iommus.attribute(A, write_by(0x22)).device().unwrap().name(), "other");
    assert_eq!(other.faults(), 1);
}

#[test]
fn an_event_of_nobody_is_reported_as_such() {
    let system = System::new().registered();
    let device = system.device();
    for (iommu, stream) in [(A, 0x22), (B, 0x11), (Phandle::new(1), 0x11)] {
        let report = system.iommus.attribute(iommu, write_by(stream));
        assert!(report.device().is_none());
        assert!(report.to_string().starts_with("unknown device, "), "{report}");
    }
    assert_eq!((device.faults(), system.iommus.strangers().total()), (0, 3));
    let report = system.iommus.attribute(A, write_by(0x22)).to_string();
    assert!(report.ends_with("[4 faults of unknown devices so far]"), "{report}");
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

#[test]
fn a_storm_is_counted_to_the_last_event() {
    let system = System::new().registered();
    let device = system.device();
    let due = (0..1000).filter(|_| system.iommus.attribute(A, write_by(0x11)).is_due).count();
    (0..10).for_each(|_| _ = system.iommus.attribute(B, Event::decode([0x22 << 32 | 0x04, 0, 0, 0])));
    assert_eq!((due, device.faults()), (3, 1010));
    assert_eq!(device.fault_counts().to_string(), "1010 faults: 10 C_BAD_STE, 1000 F_TRANSLATION");
}

#[test]
fn the_owner_hears_of_every_fault_and_may_ask_back() {
    /// Asks for all that the registry and the device have, as a handler may.
    struct Owner(&'static System, AtomicU64);

    impl FaultHandler for Owner {
        fn fault(&self, report: &FaultReport) {
            let device = report.device().unwrap();
            assert_eq!(report.count, device.faults());
            // A lock that is held would be waited for, for ever.
            assert!(self.0.iommus.register(A, Arc::clone(&self.0.a.smmu)).is_err());
            assert!(device.on_fault(None).is_some());
            device.on_fault(Some(Arc::new(|_: &FaultReport| ())));
            self.1.store(report.count, Ordering::Relaxed);
        }
    }

    let system: &'static System = Box::leak(Box::new(System::new().registered()));
    let device = system.device();
    let owner = Arc::new(Owner(system, AtomicU64::new(0)));
    for count in 1..=40 {
        device.on_fault(Some(Arc::<Owner>::clone(&owner)));
        system.iommus.attribute(A, write_by(0x11));
        assert_eq!(owner.1.load(Ordering::Relaxed), count, "due or not");
    }
    device.on_fault(None);
    system.iommus.attribute(A, write_by(0x11));
    assert_eq!(owner.1.load(Ordering::Relaxed), 40);
}

#[test]
fn all_that_share_a_stream_id_are_suspects() {
    let system = System::new().registered();
    let [first, second] = ["first", "second"].map(|name| system.add(name, &[(A, 0x11)]).unwrap());
    let heard = Arc::new(AtomicU64::new(0));
    for device in [&first, &second] {
        let heard = Arc::clone(&heard);
        device.on_fault(Some(Arc::new(move |_: &FaultReport| _ = heard.fetch_add(1, Ordering::Relaxed))));
    }
    let report = system.iommus.attribute(A, write_by(0x11));
    assert_eq!(names(report.suspects()), ["first", "second"]);
    assert!(report.to_string().starts_with("first or second (same StreamID), stream 0x11: F_TRANSLATION"), "{report}");
    assert_eq!((first.faults(), second.faults(), heard.load(Ordering::Relaxed)), (1, 1, 2));
    system.iommus.remove_device(&first).unwrap();
    assert_eq!(names(system.iommus.attribute(A, write_by(0x11)).suspects()), ["second"]);
    assert_eq!(names(report.suspects()), ["first", "second"], "what was reported stays");
}

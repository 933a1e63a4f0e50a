//! Instances come up one after the other, or at once, while devices come and are bound.

use super::*;
use crate::iommu::{Unready, WithoutIommu};
use MissingReason::{Absent, Gone, Registering};

#[test]
fn r32_nothing_is_told_to_the_first_iommu_before_the_second_is_there() {
    let others = Others::new();
    let device = others.add("both", &[(A, 0x11), (B, 0x22)]);
    assert_eq!(missing(others.iommus.configure(&device)), [(A, Absent), (B, Absent)]);
    assert_eq!(names(&others.register(A).probed), [""; 0]);
    assert_eq!(missing(others.iommus.configure(&device)), [(B, Absent)]);
    assert_eq!(others.script.journal(), [""; 0]);
    assert_eq!(names(&others.register(B).probed), ["both"]);
    assert_eq!(others.script.journal(), ["A: probe 0x11", "B: probe 0x22"]);
    let attachment = others.configured(&device);
    assert_eq!(others.places(0x11, 0x22), ["0", "0"]);
    drop(attachment);
    assert_eq!(others.places(0x11, 0x22), ["blocked", "blocked"]);
}

#[test]
fn devices_are_probed_in_the_order_in_which_they_were_added() {
    let others = Others::new();
    for stream in [9, 3, 7, 1] {
        others.add(&std::format!("device {stream}"), &[(A, stream)]);
    }
    others.add("elsewhere", &[(B, 9)]);
    assert_eq!(names(&others.register(A).probed), ["device 9", "device 3", "device 7", "device 1"]);
}

#[test]
fn r33_whoever_is_bound_while_an_iommu_registers_is_deferred() {
    let others = Others::new();
    others.register(B);
    let first = others.add("first", &[(A, 0x11)]);
    let second = others.add("second", &[(B, 0x22), (A, 0x12)]);
    let bound_early = [Arc::clone(&first), Arc::clone(&second)];
    others.script.during("A: probe 0x11", move || {
        for device in &bound_early {
            assert_eq!(missing(others.iommus.configure(device)), [(A, Registering)]);
            assert!(!device.is_attached());
        }
        assert!(others.iommus.register(A, Arc::clone(&others.a)).is_err());
        assert_eq!(others.iommus.unregister(A).unwrap_err(), IommuError::NotRegistered { iommu: A });
    });
    assert_eq!(names(&others.register(A).probed), ["first", "second"]);
    let _attachments = [&first, &second].map(|device| others.configured(device));
    assert_eq!(others.streams().map(|streams| streams.len()), [2, 1]);
}

#[test]
fn r34_a_device_that_is_added_during_the_walk_is_probed_once() {
    let others = Others::new();
    others.add("first", &[(A, 1)]);
    others.script.during("A: probe 0x1", || {
        let late = others.add("late", &[(A, 2)]);
        assert_eq!(missing(others.iommus.configure(&late)), [(A, Registering)]);
    });
    assert_eq!(names(&others.register(A).probed), ["first", "late"]);
    assert_eq!(others.script.journal(), ["A: probe 0x1", "A: probe 0x2"]);
    others.add("later", &[(A, 3)]);
    assert_eq!(others.script.journal(), ["A: probe 0x3"]);
}

#[test]
fn of_two_iommus_that_register_at_once_the_last_to_be_ready_probes_the_device_behind_both() {
    let others = Others::new();
    others.add("first", &[(A, 1)]);
    let both = others.add("both", &[(A, 2), (B, 2)]);
    let waiting = Arc::clone(&both);
    others.script.during("A: probe 0x1", move || {
        assert_eq!(names(&others.register(B).probed), [""; 0], "A is not ready");
        assert_eq!(missing(others.iommus.configure(&waiting)), [(A, Registering)]);
    });
    assert_eq!(names(&others.register(A).probed), ["first", "both"]);
    assert_eq!(others.script.journal(), ["A: probe 0x1", "A: probe 0x2", "B: probe 0x2"]);
    drop(others.configured(&both));
}

#[test]
fn a_device_that_one_of_its_iommus_refuses_is_known_to_none_and_may_try_again() {
    let others = Others::new();
    let device = others.add("both", &[(A, 1), (A, 2), (B, 3)]);
    others.register(A);
    others.script.fail_after(2);
    let registration = others.register(B);
    assert_eq!(names(&registration.probed), [""; 0]);
    assert!(
        matches!(&registration.refused[..], [(refused, IommuError::Device { iommu: B, .. })] if Arc::ptr_eq(refused, &device))
    );
    let undone = ["A: probe 0x1", "A: probe 0x2", "B: probe 0x3 fails", "A: release 0x2", "A: release 0x1"];
    assert_eq!((others.script.journal(), others.streams()), (undone.map(String::from).into(), [vec![], vec![]]));
    drop(others.configured(&device));
    assert_eq!(others.streams()[0].len(), 2);
}

#[test]
fn an_iommu_that_failed_is_an_error_and_not_waited_for() {
    let others = Others::new();
    others.register(A);
    let device = others.add("both", &[(A, 1), (B, 1)]);
    others.iommus.fail(B, "no answer".into()).unwrap();
    let error = others.iommus.configure(&device).unwrap_err();
    assert_eq!(error, IommuError::InstanceFailed { iommu: B, reason: "no answer".into() });
    assert_eq!(others.streams(), [vec![], vec![]]);
    let unready = others.iommus.finish_boot();
    assert!(
        matches!(&unready[..], [Unready { device: of, reason: Err(reason) }] if Arc::ptr_eq(of, &device) && *reason == error)
    );
    assert_eq!(others.iommus.fail(A, String::new()).unwrap_err(), IommuError::AlreadyRegistered { iommu: A });
    // It was switched off and on again.
    assert_eq!(names(&others.register(B).probed), ["both"]);
}

#[test]
fn what_is_not_ready_when_boot_ends_is_listed_with_the_reason() {
    let others = Others::new();
    others.register(A);
    others.add("well", &[(A, 1)]);
    others.add("free", &[]);
    others.add("waiting", &[(A, 2), (B, 2)]);
    others.add("wide", &[(A, 0x100)]);
    others.script.fail_after(0);
    others.add("unlucky", &[(A, 4)]);
    let unready = others.iommus.finish_boot();
    let reasons: Vec<_> = unready.iter().map(|unready| (unready.device.name(), &unready.reason)).collect();
    let [("waiting", Ok(missing)), ("wide", Err(IommuError::StreamIdTooLarge(_)))] = &reasons[..] else {
        panic!("{reasons:?}")
    };
    assert_eq!(missing.iter().map(|missing| missing.iommu).collect::<Vec<_>>(), [B]);
    assert_eq!(others.a.place(4), "blocked", "known at the second attempt");
}

#[test]
fn only_after_boot_a_device_may_go_without_an_iommu_that_never_came() {
    let others = Others::new();
    others.register(A);
    let allow = |description: &mut DeviceDescription| description.without_iommu = WithoutIommu::Allow;
    let may = others.add_with("may", &[(A, 1), (B, 1)], allow);
    let may_not = others.add("may not", &[(A, 2), (B, 2)]);
    assert_eq!(missing(others.iommus.configure(&may)), [(B, Absent)], "it may come yet");
    assert_eq!(others.iommus.finish_boot().len(), 2);
    assert!(matches!(others.iommus.configure(&may), Ok(Configuration::NoIommu)));
    assert!(!may.is_attached());
    assert_eq!(missing(others.iommus.configure(&may_not)), [(B, Absent)]);
    // One that came and went, or failed, is no reason.
    others.register(B);
    others.iommus.unregister(B).unwrap();
    assert_eq!(missing(others.iommus.configure(&may)), [(B, Gone)]);
    others.iommus.fail(B, "broken".into()).unwrap();
    assert!(matches!(others.iommus.configure(&may), Err(IommuError::InstanceFailed { iommu: B, .. })));
}

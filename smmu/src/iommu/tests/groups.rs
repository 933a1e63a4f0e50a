//! Devices that cannot be isolated from one another: one group, one domain, one kind of owner.

use super::*;
use crate::iommu::Domain;

#[test]
fn devices_that_the_bus_cannot_isolate_go_through_one_domain() {
    let others = Others::registered();
    let first = others.add("function 0", &[(A, 1)]);
    let inseparable = vec![Arc::clone(&first)];
    let second = others.add_with("function 1", &[(A, 2)], |description| description.inseparable_from = inseparable);
    let alone = others.add("alone", &[(A, 3)]);
    let [one, two, three] = [&first, &second, &alone].map(|device| others.configured(device));
    assert_eq!([1, 2, 3].map(|stream| others.a.place(stream)), ["0", "0", "1"]);
    drop((one, two, three));
    others.iommus.remove_device(&first).unwrap();
    let inseparable = vec![first];
    let mut description = DeviceDescription::new("function 2", fwspec(&[(A, 4)]));
    description.inseparable_from = inseparable;
    assert!(matches!(others.iommus.add_device(description), Err(IommuError::UnknownDevice { .. })));
    assert_eq!(others.streams()[0].len(), 2);
}

#[test]
fn a_device_that_waits_links_those_that_do_not() {
    let others = Others::new();
    // It can use both StreamIDs at A, whether or not B is there.
    let waiting = others.add("waiting", &[(A, 1), (A, 2), (B, 1)]);
    let [first, second] = [1, 2].map(|stream| others.add("at A", &[(A, stream)]));
    others.register(A);
    let [one, two] = [&first, &second].map(|device| others.configured(device));
    assert_eq!(one.domain(), two.domain());
    assert_eq!(names(&others.register(B).probed), ["waiting"]);
    let attachment = others.configured(&waiting);
    assert_eq!(attachment.domain(), one.domain());
    drop((one, two));
    assert_eq!(others.places(1, 1), ["0", "0"]);
    drop(attachment);
    assert_eq!(others.places(1, 1), ["blocked", "blocked"]);
}

#[test]
fn a_device_that_joins_two_groups_too_late_is_refused_by_all_of_its_iommus() {
    let others = Others::registered();
    let [first, second] = [1, 2].map(|stream| others.add(&std::format!("device {stream}"), &[(A, stream)]));
    let _attachments = [&first, &second].map(|device| others.configured(device));
    let streams = others.streams();
    let link = others.add("link", &[(A, 1), (A, 2), (B, 3)]);
    let differ = IommuError::GroupsDiffer { device: "link".into(), others: ["device 1".into(), "device 2".into()] };
    assert_eq!(others.iommus.configure(&link).unwrap_err(), differ);
    assert_eq!(others.streams(), streams);
}

#[test]
fn an_owner_and_drivers_exclude_one_another() {
    let others = Others::registered();
    let first = others.add("first", &[(A, 1), (B, 1)]);
    let second = others.add("second", &[(A, 1)]);
    let attachment = others.configured(&second);
    let owned = others.iommus.own_group(&first, Domain::Identity);
    assert!(matches!(owned, Err(IommuError::AlreadyAttached { device }) if device == "second"));
    assert!(!first.is_attached());
    drop(attachment);
    let mut ownership = others.iommus.own_group(&first, Domain::Identity).unwrap();
    assert_eq!(names(ownership.devices()), ["first", "second"]);
    for device in [&first, &second] {
        assert!(matches!(others.iommus.configure(device), Err(IommuError::AlreadyAttached { .. })));
    }
    // One that comes now is in the group as well, and not a driver's.
    let third = others.add("third", &[(B, 1), (B, 3)]);
    assert!(matches!(others.iommus.configure(&third), Err(IommuError::GroupOwned { .. })));
    assert!(matches!(others.iommus.own_group(&third, Domain::Identity), Err(IommuError::AlreadyAttached { .. })));
    assert_eq!(others.places(1, 1), ["identity", "identity"]);
    ownership
        .replace(Domain::Paging(others.iommus.allocate_domain(&first, &DomainConfig::default()).unwrap()))
        .unwrap();
    assert_eq!((others.places(1, 1), others.b.place(3)), (["1".into(), "1".into()], "blocked".into()));
    drop(ownership);
    assert_eq!(others.places(1, 1), ["blocked", "blocked"]);
    let _attachments = [&first, &second, &third].map(|device| others.configured(device));
    assert_eq!((others.places(1, 1), others.b.place(3)), (["2".into(), "2".into()], "2".into()));
}

#[test]
fn an_owner_loses_what_is_behind_an_instance_that_is_taken_away() {
    let others = Others::registered();
    let first = others.add("first", &[(A, 1), (B, 1)]);
    let second = others.add("second", &[(B, 1), (B, 2)]);
    let mut ownership = others.iommus.own_group(&first, Domain::Identity).unwrap();
    others.iommus.unregister(A).unwrap();
    assert_eq!(others.b.streams(), [(1, 1, "identity".into()), (2, 1, "identity".into())]);
    let domain = Domain::Paging(others.iommus.allocate_domain(&second, &DomainConfig::default()).unwrap());
    assert!(matches!(ownership.replace(domain), Err(IommuError::Detached { device }) if device == "first"));
    drop(ownership);
    assert_eq!(others.b.place(1), "blocked");
    assert!(matches!(others.iommus.own_group(&first, Domain::Identity), Err(IommuError::Busy { .. })));
}

#[test]
fn the_policy_of_a_device_decides_what_its_group_may_go_through() {
    use DomainPolicy::{Blocked, Identity, Translated};
    let bound = |first, second| {
        let others = Others::registered();
        let with = |policy| move |description: &mut DeviceDescription| description.domain = policy;
        let [one, two] = [first, second].map(|policy| others.add_with("device", &[(A, 1)], with(policy)));
        let one = others.iommus.configure(&one);
        let place = others.a.place(1);
        let two = others.iommus.configure(&two);
        assert!(one.is_err() || others.a.place(1) == place, "what one has is not the other's to change");
        let result = [one.map(drop), two.map(drop)];
        assert_eq!(others.a.place(1), "blocked");
        (place, result)
    };
    let blocked = || Err(IommuError::BlockedByPolicy { device: "device".into() });
    assert_eq!(bound(Translated, Translated), ("0".into(), [Ok(()), Ok(())]));
    assert_eq!(bound(Identity, Identity), ("identity".into(), [Ok(()), Ok(())]));
    assert_eq!(bound(Translated, Identity), ("0".into(), [Ok(()), Ok(())]), "less than it asks for is safe");
    let untranslated = Err(IommuError::GroupUntranslated { device: "device".into() });
    assert_eq!(bound(Identity, Translated), ("identity".into(), [Ok(()), untranslated]));
    assert_eq!(bound(Blocked, Translated), ("blocked".into(), [blocked(), Ok(())]));
    assert_eq!(bound(Translated, Blocked), ("0".into(), [Ok(()), blocked()]));
}

#[test]
fn one_of_several_does_not_move_the_group() {
    let others = Others::registered();
    let [first, second] = [(); 2].map(|()| others.add("alias", &[(A, 1)]));
    let [mut one, two] = [&first, &second].map(|device| others.configured(device));
    assert!(matches!(one.replace(Domain::Identity), Err(IommuError::GroupOwned { .. })));
    drop(two);
    one.replace(Domain::Identity).unwrap();
    assert_eq!(others.a.place(1), "identity");
    others.script.journal();
    one.replace(Domain::Identity).unwrap();
    assert!(!others.script.journal().iter().any(|line| line.contains("->")), "nothing to do");
}

//! Whatever step fails, what was before is there again: each of them is made to fail, one after the other.

use super::*;
use crate::addr::Iova;
use crate::iommu::{BindError, BusDevice, Domain, GroupOwnership, ReservedKind, ReservedRegion};
use other::own;

/// A device with two streams in A and one in B, and a range that it uses from the start.
fn device(others: &Others) -> Arc<Device> {
    let reserved = |start| ReservedRegion { start: Iova::new(start), size_bytes: 0x1000, kind: ReservedKind::Direct };
    others.add_with("device", &[(A, 1), (A, 2), (B, 1)], |description| {
        description.reserved = vec![reserved(0x1000), reserved(0x5000)];
    })
}

/// What the instances have of streams, whether the device is attached, how many pages a domain has.
type State = ([Vec<(u32, usize, String)>; 2], bool, Option<usize>);

/// What must be as it was.
fn state(others: &Others, device: &Device, domain: Option<&Domain<TestPlatform>>) -> State {
    (others.streams(), device.is_attached(), domain.map(|domain| own(domain).unwrap().pages()))
}

/// Tries `change` on what `prepare` has made, once for each of its steps, which fails; and once more. `domain` is one that
/// must have been left as it was.
fn every_step<T>(
    prepare: impl Fn(&'static Others, &Arc<Device>) -> T,
    domain: impl Fn(&T) -> Option<&Domain<TestPlatform>>,
    change: impl Fn(&'static Others, &Arc<Device>, &mut T) -> Result<(), IommuError>,
) -> usize {
    for step in 0.. {
        let others = Others::registered();
        let device = device(others);
        let mut prepared = prepare(others, &device);
        let before = state(others, &device, domain(&prepared));
        others.script.fail_after(step);
        let changed = change(others, &device, &mut prepared);
        if others.script.fail_no_more() {
            changed.unwrap();
            return step;
        }
        changed.unwrap_err();
        assert_eq!(state(others, &device, domain(&prepared)), before, "step {step}: {:?}", others.script.journal());
        change(others, &device, &mut prepared).unwrap();
    }
    unreachable!("it has an end")
}

type Attached = (Option<Attachment<TestPlatform>>, Domain<TestPlatform>);
type Owned = (Option<GroupOwnership<TestPlatform>>, Domain<TestPlatform>);

fn another(others: &Others, device: &Arc<Device>) -> Domain<TestPlatform> {
    Domain::Paging(others.iommus.allocate_domain(device, &DomainConfig::default()).unwrap())
}

#[test]
fn of_configuring() {
    let configure = |others: &'static Others, device: &Arc<Device>, kept: &mut Option<_>| {
        *kept = Some(others.iommus.configure(device)?);
        Ok(())
    };
    // A domain, two mappings, three streams.
    assert_eq!(every_step(|_, _| None, |_| None, configure), 6);
}

#[test]
fn of_joining_a_group() {
    let prepare = |others: &'static Others, _: &Arc<Device>| {
        let alias = others.add("alias", &[(A, 2), (A, 3)]);
        (others.configured(&alias), None)
    };
    let configure = |others: &'static Others, device: &Arc<Device>, kept: &mut (_, Option<_>)| {
        kept.1 = Some(others.iommus.configure(device)?);
        Ok(())
    };
    // The domain and one of the streams are there already.
    assert_eq!(every_step(prepare, |(alias, _)| Some(alias.domain()), configure), 4);
}

#[test]
fn of_replacing() {
    let prepare = |others: &'static Others, device: &Arc<Device>| -> Attached {
        (Some(others.configured(device)), another(others, device))
    };
    let replace = |_: &'static Others, _: &Arc<Device>, (attachment, domain): &mut Attached| {
        attachment.as_mut().unwrap().replace(domain.clone())
    };
    assert_eq!(every_step(prepare, |(_, domain)| Some(domain), replace), 5);
}

#[test]
fn of_owning_a_group_and_moving_it() {
    let prepare = |others: &'static Others, device: &Arc<Device>| -> Owned {
        others.add("alias", &[(A, 2), (A, 3)]);
        (None, another(others, device))
    };
    let own = |others: &'static Others, device: &Arc<Device>, (ownership, domain): &mut Owned| {
        *ownership = Some(others.iommus.own_group(device, domain.clone())?);
        Ok(())
    };
    assert_eq!(every_step(prepare, |(_, domain)| Some(domain), own), 6);
    let prepare = |others: &'static Others, device: &Arc<Device>| -> Owned {
        let mut owned = prepare(others, device);
        own(others, device, &mut owned).unwrap();
        (owned.0, another(others, device))
    };
    let replace = |_: &'static Others, _: &Arc<Device>, (ownership, domain): &mut Owned| {
        ownership.as_mut().unwrap().replace(domain.clone())
    };
    assert_eq!(every_step(prepare, |(_, domain)| Some(domain), replace), 6);
}

#[test]
fn of_binding() {
    struct Bus;

    impl BusDevice for Bus {
        fn set_bus_master(&mut self, _: bool) {}
    }

    let bind = |others: &'static Others, device: &Arc<Device>, kept: &mut Option<_>| {
        let bound = others.iommus.bind(device, Bus, |_, _| Ok::<_, ()>(()));
        *kept = Some(bound.map_err(|error| match error {
            BindError::Iommu(error) => error,
            other => panic!("{other:?}"),
        })?);
        Ok(())
    };
    assert_eq!(every_step(|_, _| None, |_| None, bind), 6);
}

#[test]
fn of_probing() {
    let prepare = |others: &'static Others, device: &Arc<Device>| {
        others.iommus.unregister(B).unwrap();
        others.script.journal();
        assert_eq!(device.name(), "device");
    };
    let register = |others: &'static Others, _: &Arc<Device>, _: &mut ()| {
        // It stays registered when it has refused a device, which may try again.
        let registered = others.iommus.register(B, Arc::clone(&others.b)).or_else(|_| {
            others.iommus.unregister(B).unwrap();
            others.iommus.register(B, Arc::clone(&others.b))
        });
        registered?.refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    };
    assert_eq!(every_step(prepare, |()| None, register), 3);
}

#[test]
fn what_cannot_go_back_aborts_and_is_not_left_in_a_domain_that_goes() {
    for step in 0..5 {
        let others = Others::registered();
        let device = device(others);
        let mut attachment = others.configured(&device);
        let domain = another(others, &device);
        others.script.fail_from(step);
        attachment.replace(domain).unwrap_err();
        others.script.fail_no_more();
        for (_, _, place) in others.streams().into_iter().flatten() {
            assert!(["0", "blocked"].contains(&place.as_str()), "step {step}: {place}");
        }
        drop(attachment);
        assert!(others.streams().into_iter().flatten().all(|(_, _, place)| place == "blocked"));
    }
}

#[test]
fn an_instance_whose_streams_cannot_be_blocked_is_taken_away_all_the_same() {
    for step in 0..3 {
        let others = Others::registered();
        let attachment = others.configured(&device(others));
        others.script.fail_after(step);
        assert_eq!(names(&others.iommus.unregister(A).unwrap()), ["device"]);
        assert!(!others.script.fail_no_more());
        assert_eq!(others.streams(), [vec![], vec![]]);
        drop(attachment);
    }
}

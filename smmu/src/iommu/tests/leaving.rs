//! Devices are unplugged and instances taken away, while others go on.

use std::thread::{self, JoinHandle};

use super::*;
use crate::iommu::Domain;
use crate::platform::Platform;
use MissingReason::Gone;

#[test]
fn an_instance_that_is_taken_away_takes_its_devices_off_all_of_theirs() {
    let others = Others::registered();
    let both = others.add("both", &[(A, 1), (B, 1)]);
    let of_b = others.add("of B", &[(B, 2)]);
    let mut attachments = [&both, &of_b].map(|device| others.configured(device));
    assert_eq!(names(&others.iommus.unregister(A).unwrap()), ["both"]);
    assert_eq!(others.streams(), [vec![], vec![(2, 1, "1".into())]], "the other goes on");
    assert_eq!(others.iommus.unregister(A).unwrap_err(), IommuError::NotRegistered { iommu: A });
    // Its driver still thinks that it has it.
    assert!(both.is_attached());
    assert!(matches!(attachments[0].replace(Domain::Identity), Err(IommuError::Detached { .. })));
    let [of_both, of_b] = attachments;
    drop(of_both);
    assert_eq!(missing(others.iommus.configure(&both)), [(A, Gone)]);
    assert_eq!(names(&others.register(A).probed), ["both"]);
    let again = others.configured(&both);
    assert_eq!(others.places(1, 1), ["2", "2"]);
    drop((again, of_b));
}

#[test]
fn an_attachment_from_before_does_not_touch_the_one_after() {
    let others = Others::registered();
    let both = others.add("both", &[(A, 1), (B, 1)]);
    let stale = others.configured(&both);
    others.iommus.unregister(A).unwrap();
    others.register(A);
    assert!(matches!(others.iommus.configure(&both), Err(IommuError::AlreadyAttached { .. })));
    let alias = others.add("alias", &[(A, 1)]);
    let attachment = others.configured(&alias);
    drop(stale);
    assert_eq!(others.places(1, 1), ["1", "blocked"]);
    drop(attachment);
}

#[test]
fn a_device_with_the_same_stream_id_elsewhere_goes_on() {
    let others = Others::registered();
    let both = others.add("both", &[(A, 1), (B, 7)]);
    let alias = others.add("alias", &[(B, 7)]);
    let [of_both, of_alias] = [&both, &alias].map(|device| others.configured(device));
    others.iommus.unregister(A).unwrap();
    assert_eq!(others.places(1, 7), ["nobody's", "0"]);
    drop(of_both);
    assert_eq!(others.places(1, 7), ["nobody's", "0"]);
    drop(of_alias);
    assert_eq!(others.places(1, 7), ["nobody's", "blocked"]);
}

#[test]
fn an_instance_that_is_leaving_does_not_come_back_before_it_is_gone() {
    let others = Others::registered();
    let device = others.add("both", &[(A, 1), (B, 1)]);
    drop(others.configured(&device));
    others.script.during("B: release 0x1", || {
        let again = others.iommus.register(A, Arc::clone(&others.a));
        assert_eq!(again.unwrap_err(), IommuError::AlreadyRegistered { iommu: A });
        let late = others.add("late", &[(A, 2)]);
        assert_eq!(missing(others.iommus.configure(&late)), [(A, Gone)]);
    });
    others.iommus.unregister(A).unwrap();
    assert_eq!(names(&others.register(A).probed), ["both", "late"]);
    assert_eq!(others.streams().map(|streams| streams.len()), [2, 1]);
}

#[test]
fn whoever_does_not_let_go_of_a_device_is_not_waited_for_for_ever() {
    let others = Others::new();
    others.register(A);
    let begin = others.platform.now();
    others.script.during("A: probe 0x1", || {
        // Never to be done, because the probe waits for this.
        assert!(matches!(others.iommus.unregister(A), Err(IommuError::Busy { .. })));
    });
    let device = others.add("one", &[(A, 1)]);
    assert!(others.platform.now() - begin < 2 * super::super::group::PATIENCE);
    // It was probed for an instance that went meanwhile, and so it is not.
    assert_eq!(others.streams(), [vec![], vec![]]);
    assert_eq!(missing(others.iommus.configure(&device)), [(A, Gone)]);
}

/// Takes A away on another thread, and goes on as soon as nobody can begin to use it.
fn unregister_meanwhile(others: &'static Others) -> JoinHandle<Vec<Arc<Device>>> {
    // Slowly, so that waiting for one another takes no time.
    others.platform.set_nanoseconds_per_relax(1);
    let probe = others.add("probe", &[(A, 0x77), (Phandle::new(0x77), 0)]);
    let thread = thread::spawn(|| others.iommus.unregister(A).unwrap());
    while !missing(others.iommus.configure(&probe)).contains(&(A, Gone)) {
        thread::yield_now();
    }
    others.iommus.remove_device(&probe).unwrap();
    thread
}

#[test]
fn an_instance_that_is_taken_away_while_a_device_is_attached_detaches_it() {
    for point in ["A: accepts", "A: 0x1 blocked -> 0", "B: 0x1 blocked -> 0"] {
        let others = Others::registered();
        let device = others.add("both", &[(A, 1), (B, 1)]);
        let (sender, receiver) = std::sync::mpsc::channel();
        others.script.during(point, move || sender.send(unregister_meanwhile(others)).unwrap());
        let attachment = others.configured(&device);
        assert_eq!(names(&receiver.recv().unwrap().join().unwrap()), ["both"], "{point}");
        assert_eq!(others.streams(), [vec![], vec![]], "{point}");
        drop(attachment);
        others.register(A);
        drop(others.configured(&device));
    }
}

#[test]
fn an_instance_that_is_taken_away_while_a_device_is_probed_waits_until_it_has_forgotten_it() {
    let others = Others::registered();
    let (sender, receiver) = std::sync::mpsc::channel();
    others.script.during("B: probe 0x1", move || sender.send(unregister_meanwhile(others)).unwrap());
    let device = others.add("both", &[(A, 1), (B, 1)]);
    assert_eq!(names(&receiver.recv().unwrap().join().unwrap()), [""; 0]);
    assert_eq!(others.streams(), [vec![], vec![]]);
    assert_eq!(missing(others.iommus.configure(&device)), [(A, Gone)]);
    assert_eq!(names(&others.register(A).probed), ["both"]);
}

#[test]
fn a_device_is_unplugged_whole_before_another_takes_its_place() {
    let others = Others::registered();
    let device = others.add("old", &[(A, 1), (B, 1)]);
    let old = Arc::clone(&device);
    others.script.during("B: release 0x1", move || {
        assert!(matches!(others.iommus.configure(&old), Err(IommuError::AlreadyAttached { .. })));
        others.add("new", &[(A, 1), (B, 1)]);
    });
    others.iommus.remove_device(&device).unwrap();
    assert_eq!(others.streams(), [vec![(1, 1, "blocked".into())], vec![(1, 1, "blocked".into())]]);
    assert!(matches!(others.iommus.configure(&device), Err(IommuError::UnknownDevice { .. })));
    assert!(matches!(others.iommus.remove_device(&device), Err(IommuError::UnknownDevice { .. })));
    assert!(!device.is_attached());
}

#[test]
fn a_device_that_is_bound_or_in_somebodys_hands_is_not_unplugged() {
    let others = Others::registered();
    let device = others.add("bound", &[(A, 1)]);
    let attachment = others.configured(&device);
    assert!(matches!(others.iommus.remove_device(&device), Err(IommuError::AlreadyAttached { .. })));
    drop(attachment);
    let waiting = others.add("waiting", &[(A, 2), (Phandle::new(9), 2)]);
    let in_hand = Arc::clone(&waiting);
    others.script.during("A: probe 0x2", move || {
        assert!(matches!(others.iommus.remove_device(&in_hand), Err(IommuError::Busy { .. })));
    });
    others.iommus.register(Phandle::new(9), Other::new("C", others.platform, &others.script)).unwrap();
    others.iommus.remove_device(&waiting).unwrap();
    others.iommus.remove_device(&device).unwrap();
    assert_eq!(others.streams(), [vec![], vec![]]);
}

//! Who is told about a fault.

use smmu::arch::event::{AccessDirection, FaultKind};

use crate::setup::{HERE, IOMMU, Setup};

#[test]
fn a_fault_is_attributed_to_its_device() {
    let setup = Setup::new();
    let [first, second] = [setup.attach(0), setup.attach(1)];
    second.write(HERE, 1);
    let events = setup.events();
    let [event] = events[..] else { panic!("{events:?}") };
    let report = setup.iommus.attribute(IOMMU, event);
    assert_eq!(report.device().unwrap().name(), second.attachment.device().name());
    assert_eq!((first.attachment.device().faults(), second.attachment.device().faults()), (0, 1));
}

#[test]
fn events_of_two_devices_keep_their_order() {
    let setup = Setup::new();
    let devices = [setup.attach(0), setup.attach(1)];
    for device in [&devices[1], &devices[0], &devices[1]] {
        device.write(HERE, 1);
    }
    let streams: Vec<_> = setup.events().iter().map(|event| event.stream()).collect();
    assert_eq!(streams, [1, 0, 1].map(|index: usize| devices[index].stream()));
    devices[0].write(HERE, 1);
    setup.assert_fault(FaultKind::Translation, devices[0].stream(), AccessDirection::Write, HERE);
}

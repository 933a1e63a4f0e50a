//! Devices apart: each in its own domain, and in none before and after.

use smmu::arch::event::{AccessDirection, Event, EventKind, FaultKind, Source};
use smmu::pgtable::Access;
use tests::qtest::{QtestMachine, WriteOutcome};
use tests::sequence::signature;

use crate::setup::{ALL_STAGES, HERE, PAGE, QEMU, Setup, set_word, word};

#[test]
fn r17_nothing_passes_before_a_device_is_attached() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let page = setup.page();
        let engine = &setup.machine.engines()[0];
        let identity = smmu::addr::Iova::new(page.physical().get());
        engine.write_word(identity, 1).unwrap();
        assert_eq!(word(&page, 0), 0);
        // No second level of the stream table covers it yet.
        let source = Source { stream: engine.stream(), substream: None };
        assert_eq!(setup.events(), [Event { source, kind: EventKind::BadStreamId }]);
    }
}

#[test]
fn the_same_write_passes_while_the_smmu_is_off_after_reset() {
    let machine = QtestMachine::start(&QEMU, ALL_STAGES[0], 1).unwrap();
    let page = smmu::memory::DmaMemory::allocate(machine.platform(), PAGE as usize, PAGE as usize).unwrap();
    let engine = &machine.engines()[0];
    engine.write_word(smmu::addr::Iova::new(page.physical().get()), 1).unwrap();
    assert_eq!(word(&page, 0), signature(engine.stream(), 1));
}

#[test]
fn r17_nothing_passes_after_the_driver_is_gone() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let device = setup.attach(0);
        let page = setup.page();
        device.map(HERE, page.physical(), PAGE, Access::ReadWrite);
        device.write(HERE, 1);
        let engine = device.engine.clone();
        drop(device);
        let Setup { smmu, iommus, machine } = setup;
        drop((smmu, iommus));
        for iova in [HERE.get(), page.physical().get()].map(smmu::addr::Iova::new) {
            engine.write_word(iova, 2).unwrap();
        }
        assert_eq!(word(&page, 0), signature(engine.stream(), 1));
        assert!(machine.failure().is_none());
    }
}

#[test]
fn a_detached_device_aborts_and_is_named() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let device = setup.attach(0);
        let page = setup.page();
        device.map(HERE, page.physical(), PAGE, Access::ReadWrite);
        device.write(HERE, 1);
        setup.assert_no_event();
        let (engine, source) = (device.engine.clone(), Source { stream: device.stream(), substream: None });
        drop(device);
        engine.write_word(HERE, 2).unwrap();
        assert_eq!(word(&page, 0), signature(engine.stream(), 1));
        assert_eq!(setup.events(), [Event { source, kind: EventKind::BadSte }]);
    }
}

#[test]
fn two_devices_do_not_see_each_other_s_mappings() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let [first, second] = [setup.attach(0), setup.attach(1)];
        let [first_page, second_page] = [setup.page(), setup.page()];
        // The same address in both, cached by both.
        first.map(HERE, first_page.physical(), PAGE, Access::ReadWrite);
        second.map(HERE, second_page.physical(), PAGE, Access::ReadWrite);
        first.write(HERE, 1);
        second.write(HERE, 2);
        assert_eq!(word(&first_page, 0), signature(first.stream(), 1));
        assert_eq!(word(&second_page, 0), signature(second.stream(), 2));
        setup.assert_no_event();
        // What one loses the other keeps.
        first.unmap(HERE, PAGE);
        set_word(&second_page, 8, 0xcafe);
        assert_eq!(second.read(smmu::addr::Iova::new(HERE.get() + 8)), 0xcafe);
        setup.assert_no_event();
        assert_eq!(first.read(HERE), 0);
        setup.assert_fault(FaultKind::Translation, first.stream(), AccessDirection::Read, HERE);
    }
}

#[test]
fn r36_a_device_that_is_attached_again_starts_empty() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let testdev = setup.machine.testdev();
        let device = setup.device(testdev.stream());
        let page = setup.page();
        let before = setup.machine.platform().bytes_in_use();
        for _ in 0..3 {
            let attachment = setup.configure(&device);
            let domain = attachment.paging().unwrap();
            assert_eq!(testdev.write(HERE, 4, page.physical()).unwrap(), WriteOutcome::Stopped);
            setup.assert_fault(FaultKind::Translation, testdev.stream(), AccessDirection::Write, HERE);
            domain.map(HERE, page.physical(), PAGE, Access::ReadWrite, smmu::pgtable::MemoryType::WriteBack).unwrap();
            assert_eq!(testdev.write(HERE, 4, page.physical()).unwrap(), WriteOutcome::Written);
            setup.assert_no_event();
        }
        let second_level = 16 << 10;
        assert_eq!(setup.machine.platform().bytes_in_use(), before + second_level, "{iommu:?}");
    }
}

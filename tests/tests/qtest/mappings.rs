//! What an attached device reaches: what is mapped, for as long as it is, and in no other way.

use smmu::addr::Iova;
use smmu::arch::event::{AccessDirection, FaultKind};
use smmu::pgtable::{Access, Stage};
use tests::qtest::{PATTERN, WriteOutcome};
use tests::sequence::{Deviation, signature};

use crate::setup::{ALL_STAGES, HERE, PAGE, Setup, THERE, plus, set_word, word};

#[test]
fn a_device_reads_and_writes_what_is_mapped() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let device = setup.attach(0);
        let page = setup.page();
        device.map(HERE, page.physical(), PAGE, Access::ReadWrite);
        device.write(plus(HERE, 0x40), 7);
        assert_eq!(word(&page, 0x40), signature(device.stream(), 7), "{iommu:?}");
        set_word(&page, 0xff8, 0xcafe);
        assert_eq!(device.read(plus(HERE, 0xff8)), 0xcafe, "{iommu:?}");
        setup.assert_no_event();
    }
}

#[test]
fn stages_are_what_the_machine_has() {
    let stages = ALL_STAGES.map(|iommu| Setup::with(iommu).attach(0).attachment.paging().unwrap().stage());
    assert_eq!(stages, [Stage::Stage1, Stage::Stage2, Stage::Stage1]);
}

#[test]
fn a_device_does_not_reach_past_its_mapping() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let device = setup.attach(0);
        let [before, page, after] = [setup.page(), setup.page(), setup.page()];
        device.map(HERE, page.physical(), PAGE, Access::ReadWrite);
        let (below, above) = (Iova::new(HERE.get() - 8), plus(HERE, PAGE));
        device.write(above, 1);
        setup.assert_fault(FaultKind::Translation, device.stream(), AccessDirection::Write, above);
        device.write(below, 1);
        setup.assert_fault(FaultKind::Translation, device.stream(), AccessDirection::Write, below);
        assert_eq!(device.read(above), 0);
        setup.assert_fault(FaultKind::Translation, device.stream(), AccessDirection::Read, above);
        for memory in [before, page, after] {
            assert!((0..PAGE as usize).step_by(8).all(|offset| word(&memory, offset) == 0), "{iommu:?}");
        }
    }
}

#[test]
fn addresses_beyond_the_table_s_range_fault() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let device = setup.attach(0);
        let bits = device.attachment.paging().unwrap().input_bits();
        for iova in [1 << bits, 1 << 52, 1 << 63].map(Iova::new) {
            device.write(iova, 1);
            let deviation = device.at_stage2(Deviation::Stage2InputRange);
            // What stage 1 does not look at is checked against the intermediate addresses (IHI 0070, 3.4).
            let kind = if deviation.is_some() { FaultKind::AddrSize } else { FaultKind::Translation };
            setup.assert_fault_but_for(deviation, kind, device.stream(), AccessDirection::Write, iova);
        }
        let page = setup.page();
        let last = Iova::new((1 << bits) - PAGE);
        device.map(last, page.physical(), PAGE, Access::ReadWrite);
        device.write(last, 1);
        assert_eq!(word(&page, 0), signature(device.stream(), 1));
        setup.assert_no_event();
    }
}

#[test]
fn a_mapping_for_reading_refuses_writes() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let device = setup.attach(0);
        let page = setup.page();
        set_word(&page, 0, 0xcafe);
        device.map(HERE, page.physical(), PAGE, Access::Read);
        assert_eq!(device.read(HERE), 0xcafe);
        setup.assert_no_event();
        device.write(HERE, 1);
        assert_eq!(word(&page, 0), 0xcafe);
        let deviation = device.at_stage2(Deviation::CachedStage2Permission);
        let (kind, direction) = (FaultKind::Permission, AccessDirection::Write);
        setup.assert_fault_but_for(deviation, kind, device.stream(), direction, HERE);
    }
}

#[test]
fn only_stage_2_has_mappings_for_writing_alone() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let device = setup.attach(0);
        let page = setup.page();
        device.map(HERE, page.physical(), PAGE, Access::Write);
        device.write(HERE, 1);
        setup.assert_no_event();
        let read = device.read(HERE);
        if device.attachment.paging().unwrap().stage() == Stage::Stage2 {
            assert_eq!(read, 0);
            let deviation = device.at_stage2(Deviation::CachedStage2Permission);
            let (kind, direction) = (FaultKind::Permission, AccessDirection::Read);
            setup.assert_fault_but_for(deviation, kind, device.stream(), direction, HERE);
        } else {
            assert_eq!(read, signature(device.stream(), 1));
            setup.assert_no_event();
        }
    }
}

#[test]
fn r31_an_unmapped_page_is_out_of_reach_at_once() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let device = setup.attach(0);
        let page = setup.page();
        device.map(HERE, page.physical(), PAGE, Access::ReadWrite);
        // Twice, so that the translation is cached.
        device.write(HERE, 1);
        device.write(HERE, 2);
        device.unmap(HERE, PAGE);
        setup.assert_no_event();
        device.write(HERE, 3);
        setup.assert_fault(FaultKind::Translation, device.stream(), AccessDirection::Write, HERE);
        assert_eq!(word(&page, 0), signature(device.stream(), 2));
    }
}

#[test]
fn a_page_that_is_mapped_elsewhere_is_found_there() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let device = setup.attach(0);
        let [old, new] = [setup.page(), setup.page()];
        device.map(HERE, old.physical(), PAGE, Access::ReadWrite);
        device.write(HERE, 1);
        device.unmap(HERE, PAGE);
        device.map(HERE, new.physical(), PAGE, Access::ReadWrite);
        device.write(HERE, 2);
        assert_eq!(word(&old, 0), signature(device.stream(), 1));
        assert_eq!(word(&new, 0), signature(device.stream(), 2));
        setup.assert_no_event();
    }
}

#[test]
fn permissions_change_both_ways() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let device = setup.attach(0);
        let page = setup.page();
        for (index, access) in [Access::ReadWrite, Access::Read, Access::ReadWrite].into_iter().enumerate() {
            device.map(HERE, page.physical(), PAGE, access);
            device.write(HERE, index as u16);
            if access == Access::Read {
                setup.assert_fault(FaultKind::Permission, device.stream(), AccessDirection::Write, HERE);
            } else {
                setup.assert_no_event();
                assert_eq!(word(&page, 0), signature(device.stream(), index as u16));
            }
            device.unmap(HERE, PAGE);
        }
    }
}

#[test]
fn many_pages_and_blocks_are_unmapped_by_range() {
    const BLOCK: u64 = 2 << 20;
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let device = setup.attach(0);
        let size = (BLOCK + 3 * PAGE) as usize;
        let memory = smmu::memory::DmaMemory::allocate(setup.machine.platform(), size, BLOCK as usize).unwrap();
        let places = [0, BLOCK - 8, BLOCK, BLOCK + 2 * PAGE];
        device.map(THERE, memory.physical(), size as u64, Access::ReadWrite);
        for place in places {
            device.write(plus(THERE, place), 5);
            assert_eq!(word(&memory, place as usize), signature(device.stream(), 5), "{iommu:?} {place:#x}");
        }
        let commands = setup.smmu.statistics().commands;
        device.unmap(THERE, size as u64);
        assert_eq!(setup.smmu.statistics().commands - commands, 2, "a range and a CMD_SYNC");
        setup.assert_no_event();
        for place in places {
            device.write(plus(THERE, place), 6);
            assert_eq!(word(&memory, place as usize), signature(device.stream(), 5), "{iommu:?} {place:#x}");
            setup.assert_fault(FaultKind::Translation, device.stream(), AccessDirection::Write, plus(THERE, place));
        }
    }
}

#[test]
fn iommu_testdev_confirms_where_its_writes_went() {
    for iommu in ALL_STAGES {
        let setup = Setup::with(iommu);
        let testdev = setup.machine.testdev();
        let attachment = setup.configure(&setup.device(testdev.stream()));
        let [page, other] = [setup.page(), setup.page()];
        let memory = smmu::pgtable::MemoryType::WriteBack;
        attachment.paging().unwrap().map(HERE, page.physical(), PAGE, Access::ReadWrite, memory).unwrap();
        assert_eq!(testdev.write(HERE, 64, page.physical()).unwrap(), WriteOutcome::Written);
        assert_eq!(testdev.write(HERE, 64, other.physical()).unwrap(), WriteOutcome::Elsewhere);
        assert_eq!((word(&page, 56), word(&page, 64)), (PATTERN, 0));
        setup.assert_no_event();
        assert_eq!(testdev.write(THERE, 4, page.physical()).unwrap(), WriteOutcome::Stopped);
        setup.assert_fault(FaultKind::Translation, testdev.stream(), AccessDirection::Write, THERE);
    }
}

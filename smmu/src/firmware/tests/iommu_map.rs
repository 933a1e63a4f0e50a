//! `iommu-map` and `iommu-map-mask` of PCI host bridges.

use alloc::string::ToString;
use alloc::vec;

use super::*;
use crate::addr::StreamId;
use crate::firmware::{IommuMap, RequesterId};
use crate::iommu::fwspec::Phandle;

const PCIE: &str = "/pcie@10000000";

fn pcie(map: &[u32]) -> Source {
    node("pcie@10000000").cells("iommu-map", map)
}

fn read(pcie: Source) -> Result<IommuMap, FirmwareError> {
    let blob = board().child(smmu0()).child(smmu1()).child(pcie).blob();
    DeviceTree::new(&blob).unwrap().iommu_map(PCIE).map(Option::unwrap)
}

/// What each requester ID becomes: phandle and StreamID.
fn check(map: &IommuMap, expected: &[(u16, Option<(u32, u32)>)]) {
    for &(requester_id, target) in expected {
        let target = target.map(|(iommu, stream_id)| (Phandle::new(iommu), StreamId::new(stream_id)));
        assert_eq!(map.translate(RequesterId::new(requester_id)), target, "{requester_id:#x}");
    }
}

fn length_error(length_bytes: usize) -> PropertyProblem {
    PropertyProblem::BadLength { length_bytes, entry_bytes: 16 }
}

#[test]
fn requester_ids_display_as_bus_device_function() {
    assert_eq!(RequesterId::new(0x0111).to_string(), "01:02.1");
    assert_eq!(RequesterId::new(0xffff).to_string(), "ff:1f.7");
}

#[test]
fn a_host_bridge_split_between_two_smmus() {
    let map = [0x0, SMMU0, 0x1_0000, 0x8, 0x100, SMMU1, 0x0, 0xf00, 0x1000, SMMU0, 0x2_0000, 0xf000];
    let map = read(pcie(&map)).unwrap();
    check(
        &map,
        &[
            (0x0000, Some((SMMU0, 0x1_0000))),
            (0x0007, Some((SMMU0, 0x1_0007))),
            (0x0008, None),
            (0x00ff, None),
            (0x0100, Some((SMMU1, 0x00000))),
            (0x0111, Some((SMMU1, 0x00011))),
            (0x0fff, Some((SMMU1, 0x00eff))),
            (0x1000, Some((SMMU0, 0x2_0000))),
            (0xffff, Some((SMMU0, 0x2_efff))),
        ],
    );
    assert_eq!(map.warnings(), []);
}

#[test]
fn a_mask_lets_functions_share_a_stream_id() {
    let map = read(pcie(&[0x0, SMMU1, 0x4000, 0x1_0000]).cells("iommu-map-mask", &[0xfff8])).unwrap();
    check(
        &map,
        &[
            (0x0000, Some((SMMU1, 0x4000))),
            (0x001d, Some((SMMU1, 0x4018))),
            (0x0200, Some((SMMU1, 0x4200))),
            (0x0201, Some((SMMU1, 0x4200))),
        ],
    );
}

#[test]
fn bus_numbers_can_be_swapped() {
    let map = read(pcie(&[0x0, SMMU0, 0x8000, 0x8000, 0x8000, SMMU0, 0x0, 0x8000])).unwrap();
    check(&map, &[(0x0108, Some((SMMU0, 0x8108))), (0x8108, Some((SMMU0, 0x0108)))]);
}

#[test]
fn the_identity_of_qemu_virt() {
    let map = read(pcie(&[0x0, SMMU0, 0x0, 0x1_0000])).unwrap();
    check(&map, &[(0, Some((SMMU0, 0))), (0x0108, Some((SMMU0, 0x0108))), (0xffff, Some((SMMU0, 0xffff)))]);
    assert_eq!((map.warnings(), map.check_stream_ids(Phandle::new(SMMU0), 16)), (&[][..], Ok(())));
}

#[test]
fn aliases_are_folded_into_one_fwspec() {
    let map = read(pcie(&[0x0, SMMU0, 0x0, 0x1_0000]).cells("iommu-map-mask", &[0xfff8])).unwrap();
    let fwspec = map.fwspec([0x0208, 0x020f, 0x0100].map(RequesterId::new));
    assert_eq!(fwspec.to_string(), "IOMMU 0x10: StreamID 0x208, 0x100");
}

#[test]
fn absent_map_and_absent_bridge() {
    let blob = board().child(node("pcie@10000000")).blob();
    let tree = DeviceTree::new(&blob).unwrap();
    assert_eq!(tree.iommu_map(PCIE), Ok(None));
    assert_eq!(tree.iommu_map("/pcie@2"), Err(FirmwareError::NoSuchNode { path: "/pcie@2".to_string() }));
}

#[test]
fn a_bridge_may_have_iommus_of_its_own() {
    let pcie = pcie(&[0x0, SMMU0, 0x0, 0x1_0000]).cells("iommus", &[SMMU1, 9]);
    let blob = board().child(smmu0()).child(smmu1()).child(pcie).blob();
    let tree = DeviceTree::new(&blob).unwrap();
    assert_eq!(tree.iommus(PCIE).unwrap().fwspec.to_string(), "IOMMU 0x11: StreamID 0x9");
    check(&tree.iommu_map(PCIE).unwrap().unwrap(), &[(0x9, Some((SMMU0, 0x9)))]);
}

#[test]
fn the_length_is_a_positive_multiple_of_a_tuple() {
    let empty = at(read(pcie(&[])));
    assert_eq!(empty, (PCIE.to_string(), "iommu-map", 0, length_error(0)));
    assert_eq!(at(read(pcie(&[0, SMMU0, 0]))).3, length_error(12));
    assert_eq!(at(read(pcie(&[0, SMMU0, 0, 1, 0]))).3, length_error(20));
}

#[test]
fn the_mask_is_one_cell() {
    let map = pcie(&[0x0, SMMU0, 0x0, 0x1_0000]);
    let (_, property, offset, problem) = at(read(map.clone().bytes("iommu-map-mask", &[0xff, 0xf8])));
    assert_eq!((property, offset, problem), ("iommu-map-mask", 0, PropertyProblem::Truncated { left_bytes: 2 }));
    let problem = at(read(map.clone().cells("iommu-map-mask", &[0, 0xffff]))).3;
    assert_eq!(problem, PropertyProblem::TooLong { length_bytes: 8, expected_bytes: 4 });
    let wide = read(map.cells("iommu-map-mask", &[0x1_ffff])).unwrap();
    assert_eq!(oddities(wide.warnings()), [("iommu-map-mask", 0, Oddity::WideMask { mask: 0x1_ffff })]);
}

#[test]
fn a_base_that_the_mask_hides() {
    let reachable = pcie(&[0x4, SMMU1, 0x4000, 0x10]).cells("iommu-map-mask", &[0xfff8]);
    let expected = PropertyProblem::BaseUnderMask { rid_base: 4, mask: 0xfff8 };
    assert_eq!(at(read(reachable)).3, expected);
    let unreachable = [0x0, SMMU1, 0x4000, 0x1_0000, 0x4, SMMU1, 0x4000, 0x10];
    let (.., offset, problem) = at(read(pcie(&unreachable).cells("iommu-map-mask", &[0xfff8])));
    assert_eq!((offset, problem), (16, expected));
}

#[test]
fn every_phandle_must_name_an_iommu() {
    let second = |phandle| pcie(&[0x0, SMMU0, 0x0, 0x1_0000, 0x0, phandle, 0x0, 0x1_0000]);
    let dangling = at(read(second(0x99)));
    assert_eq!((dangling.2, dangling.3), (20, PropertyProblem::DanglingPhandle { phandle: Phandle::new(0x99) }));
    assert_eq!(at(read(second(0))).3, PropertyProblem::NullPhandle { value: 0 });
    assert_eq!(at(read(second(u32::MAX))).3, PropertyProblem::NullPhandle { value: u32::MAX });
    let target = "/intc@8000000".to_string();
    assert_eq!(at(read(second(GIC))).3, PropertyProblem::NotAnIommu { phandle: Phandle::new(GIC), target });
}

#[test]
fn a_disabled_iommu_keeps_its_devices_waiting() {
    let board = board().child(smmu0()).child(smmu1().strings("status", &["disabled"]));
    let blob = board.child(pcie(&[0x0, SMMU0, 0x0, 0x800, 0x800, SMMU1, 0x800, 0x800])).blob();
    let map = DeviceTree::new(&blob).unwrap().iommu_map(PCIE).unwrap().unwrap();
    check(&map, &[(0x1, Some((SMMU0, 0x1))), (0x801, Some((SMMU1, 0x801)))]);
    let target = "/iommu@2b500000".to_string();
    let oddity = Oddity::DisabledIommu { phandle: Phandle::new(SMMU1), target };
    assert_eq!(oddities(map.warnings()), [("iommu-map", 16, oddity)]);
}

#[test]
fn tuples_that_match_nothing_too_much_or_in_vain() {
    let empty = read(pcie(&[0x8, SMMU0, 0x0, 0x0])).unwrap();
    check(&empty, &[(0x8, None)]);
    assert_eq!(oddities(empty.warnings()), [("iommu-map", 0, Oddity::EmptyTuple)]);

    let beyond = read(pcie(&[0x100, SMMU0, 0x100, 0x1_0000])).unwrap();
    check(&beyond, &[(0xff, None), (0xffff, Some((SMMU0, 0xffff)))]);
    let oddity = Oddity::BeyondRequesterIds { rid_base: 0x100, length: 0x1_0000 };
    assert_eq!(oddities(beyond.warnings()), [("iommu-map", 0, oddity)]);

    let overlapping = read(pcie(&[0x0, SMMU0, 0x0, 0x10, 0xf, SMMU1, 0x0, 0x10])).unwrap();
    check(&overlapping, &[(0xf, Some((SMMU0, 0xf))), (0x10, Some((SMMU1, 0x1)))]);
    let oddity = Oddity::OverlappingTuples { earlier_offset_bytes: 0 };
    assert_eq!(oddities(overlapping.warnings()), [("iommu-map", 16, oddity)]);
}

#[test]
fn the_match_does_not_wrap_around() {
    let map = read(pcie(&[0xfff0, SMMU0, 0x0, u32::MAX])).unwrap();
    check(&map, &[(0x0, None), (0xffef, None), (0xfff0, Some((SMMU0, 0x0))), (0xffff, Some((SMMU0, 0xf)))]);
}

#[test]
fn stream_ids_past_32_bits() {
    let overflow = PropertyProblem::StreamIdOverflow { iommu_base: 0xffff_fff0, length: 0x11 };
    assert_eq!(at(read(pcie(&[0x0, SMMU0, 0xffff_fff0, 0x11]))).3, overflow);
    let map = read(pcie(&[0x0, SMMU0, 0xffff_fff0, 0x10])).unwrap();
    check(&map, &[(0xf, Some((SMMU0, u32::MAX)))]);
    assert_eq!(map.check_stream_ids(Phandle::new(SMMU0), 32), Ok(()));
}

#[test]
fn stream_ids_past_sidsize() {
    let iommu = Phandle::new(SMMU1);
    let map = read(pcie(&[0x0, SMMU0, 0x8_0000, 0x10, 0x10, SMMU1, 0xfff0, 0x11])).unwrap();
    let (.., offset, problem) = at(map.check_stream_ids(iommu, 16));
    let expected = PropertyProblem::StreamIdTooLarge { stream_id: 0x1_0000, iommu, sidsize: 16 };
    assert_eq!((offset, problem), (16, expected));
    assert_eq!(map.check_stream_ids(iommu, 17), Ok(()));
}

#[test]
fn only_stream_ids_that_requesters_reach_count() {
    let masked = read(pcie(&[0x0, SMMU0, 0xff, 0x1_0000]).cells("iommu-map-mask", &[0x0])).unwrap();
    assert_eq!(masked.check_stream_ids(Phandle::new(SMMU0), 8), Ok(()));
    let empty = read(pcie(&[0x0, SMMU0, 0xffff, 0x0])).unwrap();
    assert_eq!(empty.check_stream_ids(Phandle::new(SMMU0), 8), Ok(()));
}

#[test]
fn an_endless_map_ends() {
    let tuples: Vec<u32> = vec![[0, SMMU0, 0, 1]; 1025].concat();
    assert_eq!(at(read(pcie(&tuples))).3, PropertyProblem::TooManyEntries { limit: 1024 });
    assert!(read(pcie(&tuples[..1024 * 4])).is_ok());
}

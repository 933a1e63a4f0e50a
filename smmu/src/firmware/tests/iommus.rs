//! `iommus` of platform devices.

use alloc::string::ToString;

use super::*;
use crate::addr::StreamId;
use crate::firmware::{Iommus, MAX_ENTRIES};
use crate::iommu::fwspec::Phandle;

const SMMU0_NAME: Phandle = Phandle::new(SMMU0);

fn read(board: Source, gpu: Source) -> Result<Iommus, FirmwareError> {
    DeviceTree::new(&board.child(gpu).blob()).unwrap().iommus("/gpu@50000000")
}

fn gpu(iommus: &[u32]) -> Source {
    node("gpu@50000000").cells("iommus", iommus)
}

fn both() -> Source {
    board().child(smmu0()).child(smmu1())
}

#[test]
fn two_stream_ids_at_one_smmu() {
    let Iommus { fwspec, warnings, .. } = read(both(), gpu(&[SMMU0, 0x20, SMMU0, 0x21])).unwrap();
    assert_eq!(fwspec.to_string(), "IOMMU 0x10: StreamID 0x20, 0x21");
    assert!(warnings.is_empty());
}

#[test]
fn two_smmus() {
    let fwspec = read(both(), gpu(&[SMMU1, 7, SMMU0, 7])).unwrap().fwspec;
    assert_eq!(fwspec.iommus().collect::<Vec<_>>(), [Phandle::new(SMMU1), SMMU0_NAME]);
}

#[test]
fn absent_means_no_iommu_even_if_the_parent_has_one() {
    let bus = node("soc").cells("iommus", &[SMMU0, 1]).child(node("uart"));
    let blob = both().child(bus).blob();
    assert!(DeviceTree::new(&blob).unwrap().iommus("/soc/uart").unwrap().fwspec.is_empty());
    assert!(!DeviceTree::new(&blob).unwrap().iommus("/soc").unwrap().fwspec.is_empty());
}

#[test]
fn a_duplicate_counts_once() {
    let Iommus { fwspec, warnings, .. } = read(both(), gpu(&[SMMU0, 5, SMMU1, 5, SMMU0, 5])).unwrap();
    assert_eq!(fwspec.entries().len(), 2);
    let oddity = Oddity::RepeatedStreamId { iommu: SMMU0_NAME, stream_id: StreamId::new(5) };
    assert_eq!(oddities(&warnings), [("iommus", 16, oddity)]);
}

#[test]
fn a_truncated_list() {
    let no_specifier = at(read(both(), gpu(&[SMMU0, 5, SMMU0])));
    let expected = PropertyProblem::Truncated { left_bytes: 0 };
    assert_eq!(no_specifier, ("/gpu@50000000".to_string(), "iommus", 12, expected));
    let odd = at(read(both(), node("gpu@50000000").bytes("iommus", &[0, 0, 0, 0x10, 0, 5])));
    assert_eq!((odd.2, odd.3), (4, PropertyProblem::Truncated { left_bytes: 2 }));
    let empty = at(read(both(), gpu(&[])));
    assert_eq!((empty.2, empty.3), (0, PropertyProblem::Truncated { left_bytes: 0 }));
}

#[test]
fn phandles_that_name_nothing() {
    for value in [0, u32::MAX] {
        let (.., offset, problem) = at(read(both(), gpu(&[SMMU0, 5, value, 5])));
        assert_eq!((offset, problem), (8, PropertyProblem::NullPhandle { value }));
    }
    let (.., offset, problem) = at(read(both(), gpu(&[0x99, 5])));
    assert_eq!((offset, problem), (0, PropertyProblem::DanglingPhandle { phandle: Phandle::new(0x99) }));
    let text = read(both(), gpu(&[0x99, 5])).unwrap_err().to_string();
    let what = "no node has phandle 0x99; add the node or correct the phandle";
    assert_eq!(text, ["/gpu@50000000: property `iommus`, byte 0: ", what].concat());
}

#[test]
fn a_target_that_is_no_iommu() {
    let problem = at(read(both(), gpu(&[GIC, 5]))).3;
    let target = "/intc@8000000".to_string();
    assert_eq!(problem, PropertyProblem::NotAnIommu { phandle: Phandle::new(GIC), target });
    let (node, property, _, problem) =
        at(read(board().child(smmu0().cells("#iommu-cells", &[2])), gpu(&[SMMU0, 5, 0])));
    assert_eq!((node.as_str(), property), (SMMU0_PATH, "#iommu-cells"));
    assert_eq!(problem, PropertyProblem::UnsupportedCells { found: 2, smallest: 1, largest: 1 });
}

#[test]
fn a_target_that_two_nodes_claim() {
    let twin = node("twin").cells("phandle", &[SMMU0]);
    let problem = at(read(both().child(twin), gpu(&[SMMU0, 5]))).3;
    assert!(matches!(problem, PropertyProblem::AmbiguousPhandle { phandle: SMMU0_NAME, .. }), "{problem}");
}

#[test]
fn a_disabled_iommu() {
    let board = board().child(smmu0().strings("status", &["disabled"]));
    let (.., offset, problem) = at(read(board, gpu(&[SMMU0, 5])));
    let target = SMMU0_PATH.to_string();
    assert_eq!((offset, problem), (0, PropertyProblem::IommuDisabled { phandle: SMMU0_NAME, target }));
}

#[test]
fn an_endless_list_ends() {
    let list = |count: usize, stream_id: fn(usize) -> u32| -> Vec<u32> {
        (0..count).flat_map(|entry| [SMMU0, stream_id(entry)]).collect()
    };
    assert!(read(both(), gpu(&list(MAX_ENTRIES, |entry| entry as u32))).is_ok());
    for stream_id in [|entry| entry as u32, |_| 5] {
        let (.., offset, problem) = at(read(both(), gpu(&list(MAX_ENTRIES + 1, stream_id))));
        assert_eq!((offset, problem), (MAX_ENTRIES * 8, PropertyProblem::TooManyEntries { limit: MAX_ENTRIES }));
    }
}

#[test]
fn substreams_are_bounded_by_what_a_pasid_has() {
    for (says, bits) in [(0, 0), (5, 5), (20, 20), (21, 20), (u32::MAX, 20)] {
        let iommus = read(both(), gpu(&[SMMU0, 5]).cells("pasid-num-bits", &[says])).unwrap();
        assert_eq!(iommus.pasid_bits, bits);
        let odd = (says > 20).then_some(("pasid-num-bits", 0, Oddity::TooManyPasidBits { bits: says }));
        assert_eq!(oddities(&iommus.warnings), Vec::from_iter(odd));
    }
    assert_eq!(read(both(), gpu(&[SMMU0, 5])).unwrap().pasid_bits, 0);
    let wide = at(read(both(), gpu(&[SMMU0, 5]).cells("pasid-num-bits", &[0, 5])));
    assert_eq!((wide.1, wide.2), ("pasid-num-bits", 4));
}

#[test]
fn no_pci_device_is_kept_waiting() {
    let gpu = gpu(&[SMMU0, 5]).flag("dma-can-stall");
    assert!(read(both(), gpu.clone()).unwrap().can_stall);
    assert!(!read(both(), gpu.clone().without("dma-can-stall")).unwrap().can_stall);
    let blob = both().child(node("pcie@10000000").strings("device_type", &["pci"]).child(gpu)).blob();
    let iommus = DeviceTree::new(&blob).unwrap().iommus("/pcie@10000000/gpu@50000000").unwrap();
    assert!(!iommus.can_stall);
    assert_eq!(oddities(&iommus.warnings), [("dma-can-stall", 0, Oddity::StallingPci)]);
}

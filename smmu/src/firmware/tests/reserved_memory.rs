//! `iommu-addresses` of reserved memory.

use alloc::string::ToString;

use super::*;
use crate::addr::Iova;
use crate::firmware::ReservedMemory;
use crate::iommu::{ReservedKind, ReservedRegion};

const GPU: u32 = 0x20;
const DISPLAY: u32 = 0x21;
const REGION: &str = "/reserved-memory/fb@9f000000";

fn region() -> Source {
    node("fb@9f000000").cells("reg", &[0, 0x9f00_0000, 0, 0x80_0000])
}

fn board_with(regions: &[Source]) -> Source {
    let memory = node("reserved-memory").cells("#address-cells", &[2]).cells("#size-cells", &[2]).flag("ranges");
    let memory = regions.iter().fold(memory, |memory, region| memory.child(region.clone()));
    let narrow = node("soc").cells("#address-cells", &[1]).cells("#size-cells", &[1]).flag("ranges");
    board()
        .child(memory)
        .child(node("gpu@50000000").cells("phandle", &[GPU]))
        .child(narrow.child(node("display@60000000").cells("phandle", &[DISPLAY])))
}

fn read(regions: &[Source], path: &str) -> Result<ReservedMemory, FirmwareError> {
    DeviceTree::new(&board_with(regions).blob()).unwrap().reserved_memory(path)
}

fn of_gpu(addresses: &[u32]) -> Result<ReservedMemory, FirmwareError> {
    read(&[region().cells("iommu-addresses", addresses)], "/gpu@50000000")
}

const fn at_address(start: u64, size_bytes: u64, kind: ReservedKind) -> ReservedRegion {
    ReservedRegion { start: Iova::new(start), size_bytes, kind }
}

#[test]
fn the_same_addresses_are_a_direct_mapping() {
    let reserved = of_gpu(&[GPU, 0, 0x9f00_0000, 0, 0x80_0000]).unwrap();
    assert_eq!(reserved.regions, [at_address(0x9f00_0000, 0x80_0000, ReservedKind::Direct)]);
    assert!(reserved.warnings.is_empty());
}

#[test]
fn addresses_without_memory_are_a_hole() {
    let hole = node("hole").cells("iommu-addresses", &[GPU, 1, 0, 0, 0x1000]);
    let reserved = read(&[hole], "/gpu@50000000").unwrap();
    assert_eq!(reserved.regions, [at_address(0x1_0000_0000, 0x1000, ReservedKind::Hole)]);
    assert!(reserved.warnings.is_empty());
}

#[test]
fn memory_elsewhere_is_not_mapped() {
    let reserved = of_gpu(&[GPU, 0, 0x1000_0000, 0, 0x80_0000]).unwrap();
    assert_eq!(reserved.regions, [at_address(0x1000_0000, 0x80_0000, ReservedKind::Hole)]);
    let oddity = Oddity::MemoryElsewhere { address: 0x1000_0000, memory: 0x9f00_0000 };
    assert_eq!(oddities(&reserved.warnings), [("iommu-addresses", 0, oddity)]);
}

#[test]
fn entries_of_other_devices_are_passed_over_by_their_own_cells() {
    let addresses = [DISPLAY, 0x9f00_0000, 0x80_0000, GPU, 0, 0x9f00_0000, 0, 0x80_0000, DISPLAY, 0x1000, 0x1000];
    let region = [region().cells("iommu-addresses", &addresses)];
    let of_gpu = read(&region, "/gpu@50000000").unwrap();
    assert_eq!(of_gpu.regions, [at_address(0x9f00_0000, 0x80_0000, ReservedKind::Direct)]);
    let of_display = read(&region, "/soc/display@60000000").unwrap();
    let expected =
        [at_address(0x9f00_0000, 0x80_0000, ReservedKind::Direct), at_address(0x1000, 0x1000, ReservedKind::Hole)];
    assert_eq!(of_display.regions, expected);
    assert!(read(&region, "/intc@8000000").unwrap().regions.is_empty());
}

#[test]
fn two_cells_each_are_understood_on_a_narrower_bus() {
    let region = region().cells("iommu-addresses", &[DISPLAY, 0, 0x9f00_0000, 0, 0x80_0000]);
    let reserved = read(&[region], "/soc/display@60000000").unwrap();
    assert_eq!(reserved.regions, [at_address(0x9f00_0000, 0x80_0000, ReservedKind::Direct)]);
    assert_eq!(oddities(&reserved.warnings), [("iommu-addresses", 0, Oddity::TwoCellsEach)]);
}

#[test]
fn what_is_not_whole_pages_is_rounded_outwards() {
    let hole = node("hole").cells("iommu-addresses", &[GPU, 0, 0x1801, 0, 0x800]);
    let reserved = read(&[hole], "/gpu@50000000").unwrap();
    assert_eq!(reserved.regions, [at_address(0x1000, 0x2000, ReservedKind::Hole)]);
    let oddity = Oddity::PartOfPage { address: 0x1801, size_bytes: 0x800 };
    assert_eq!(oddities(&reserved.warnings), [("iommu-addresses", 0, oddity)]);
    let empty = read(&[node("hole").cells("iommu-addresses", &[GPU, 0, 0x1000, 0, 0])], "/gpu@50000000").unwrap();
    assert!(empty.regions.is_empty());
    assert_eq!(oddities(&empty.warnings), [("iommu-addresses", 0, Oddity::EmptyRegion { address: 0x1000 })]);
}

#[test]
fn regions_that_overlap_are_refused() {
    let overlap = [GPU, 0, 0x9f00_0000, 0, 0x80_0000, GPU, 0, 0x9f7f_f000, 0, 0x2000];
    let problem = PropertyProblem::RegionsOverlap { address: 0x9f7f_f000, other: 0x9f00_0000 };
    assert_eq!(at(of_gpu(&overlap)), (REGION.to_string(), "iommu-addresses", 20, problem));
}

#[test]
fn a_list_that_goes_wrong() {
    let (_, _, offset_bytes, problem) = at(of_gpu(&[GPU, 0, 0x9f00_0000, 0]));
    assert_eq!((offset_bytes, problem), (16, PropertyProblem::Truncated { left_bytes: 0 }));
    let (_, _, offset_bytes, problem) = at(of_gpu(&[GPU, 0, 0x1000, 0, 0x1000, 0x77, 0, 0, 0, 0]));
    assert_eq!(offset_bytes, 20);
    assert!(matches!(problem, PropertyProblem::DanglingPhandle { .. }));
    let (_, _, offset_bytes, problem) = at(of_gpu(&[GPU, u32::MAX, u32::MAX, 0, 2]));
    assert_eq!((offset_bytes, problem), (0, PropertyProblem::AddressOverflow { address: u64::MAX, size_bytes: 2 }));
    // It is nobody else's trouble.
    let broken = region().cells("iommu-addresses", &[0x77, 0]);
    assert_eq!(read(&[broken], "/gpu@50000000").unwrap(), ReservedMemory::default());
}

#[test]
fn a_disabled_region_and_a_device_that_nobody_can_name() {
    let region = region().cells("iommu-addresses", &[GPU, 0, 0x9f00_0000, 0, 0x80_0000]);
    let disabled = [region.clone().strings("status", &["disabled"])];
    assert!(read(&disabled, "/gpu@50000000").unwrap().regions.is_empty());
    assert!(read(&[region], "/soc").unwrap().regions.is_empty());
    assert_eq!(of_gpu(&[]).unwrap(), ReservedMemory::default());
}

#[test]
fn the_last_page_of_all_cannot_be_reserved() {
    let hole = node("hole").cells("iommu-addresses", &[GPU, u32::MAX, 0xffff_f800, 0, 0x100]);
    let reserved = read(&[hole], "/gpu@50000000").unwrap();
    assert!(reserved.regions.is_empty() && reserved.warnings.len() == 1, "{reserved:?}");
}

//! `dma-ranges` and the windows of PCI host bridges.

use super::*;

/// Start and size of each hole.
fn holes(board: &Source, path: &str) -> Result<Vec<(u64, u64)>, FirmwareError> {
    let regions = DeviceTree::new(&board.blob()).unwrap().unusable_addresses(path)?;
    Ok(regions.iter().map(|region| (region.start.get(), region.size_bytes)).collect())
}

fn soc(dma_ranges: &[u32]) -> Source {
    let soc = node("soc").cells("#address-cells", &[1]).cells("#size-cells", &[1]).flag("ranges");
    board().child(soc.cells("dma-ranges", dma_ranges).child(node("gpu@0")))
}

fn host_bridge() -> Source {
    node("pcie@10000000").strings("device_type", &["pci"]).cells("#address-cells", &[3]).cells("#size-cells", &[2])
}

#[test]
fn without_dma_ranges_or_with_empty_ones_nothing_is_known() {
    assert_eq!(holes(&board().child(node("gpu@0")), "/gpu@0").unwrap(), []);
    assert_eq!(holes(&soc(&[]), "/soc/gpu@0").unwrap(), []);
    assert_eq!(holes(&board().child(host_bridge()), "/pcie@10000000").unwrap(), []);
}

#[test]
fn what_dma_ranges_leave_out_cannot_be_used() {
    // The lower GiB of the bus is the second of memory; then a page, in any order.
    let soc = soc(&[0x8000_0000, 0, 0, 0x1000, 0, 0, 0x4000_0000, 0x4000_0000]);
    let end = !0xfff_u64;
    let expected = [(0x4000_0000, 0x4000_0000), (0x8000_1000, end - 0x8000_1000)];
    assert_eq!(holes(&soc, "/soc/gpu@0").unwrap(), expected);
    // They say nothing of the bus itself.
    assert_eq!(holes(&soc, "/soc").unwrap(), []);
}

#[test]
fn what_is_not_whole_pages_is_left_out_as_a_whole() {
    let holes = |size_bytes| holes(&soc(&[0x1800, 0, 0, size_bytes]), "/soc/gpu@0").unwrap();
    let end = !0xfff_u64;
    assert_eq!(holes(0x2000), [(0, 0x2000), (0x3000, end - 0x3000)]);
    assert_eq!(holes(0x1000), [(0, end)], "no whole page");
}

#[test]
fn windows_of_a_host_bridge_are_holes_but_for_io() {
    let io = [0x100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000];
    let memory = [0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000];
    let high = [0x300_0000, 0x80, 0, 0x80, 0, 0x80, 0];
    let bridge = host_bridge().cells("ranges", &[io, memory, high].concat());
    let expected = [(0x1000_0000, 0x2eff_0000), (0x80_0000_0000, 0x80_0000_0000)];
    assert_eq!(holes(&board().child(bridge.clone()), "/pcie@10000000").unwrap(), expected);
    // Joined with what lies outside `dma-ranges`: all but the first 512 MiB.
    let bridge = bridge.cells("dma-ranges", &[0x300_0000, 0, 0, 0, 0, 0, 0x2000_0000]);
    let end = !0xfff_u64;
    assert_eq!(holes(&board().child(bridge), "/pcie@10000000").unwrap(), [(0x1000_0000, end - 0x1000_0000)]);
}

#[test]
fn ranges_that_overlap_are_refused() {
    let (node, property, offset_bytes, problem) =
        at(holes(&soc(&[0, 0, 0, 0x2000, 0x1000, 0, 0, 0x1000]), "/soc/gpu@0"));
    assert_eq!((node.as_str(), property, offset_bytes), ("/soc", "dma-ranges", 16));
    assert_eq!(problem, PropertyProblem::RegionsOverlap { address: 0x1000, other: 0 });
}

#[test]
fn ranges_that_are_cut_or_too_wide() {
    let cut = at(holes(&soc(&[0, 0, 0]), "/soc/gpu@0"));
    assert_eq!(cut.3, PropertyProblem::BadLength { length_bytes: 12, entry_bytes: 16 });
    let bridge = host_bridge().cells("ranges", &[0x300_0000, u32::MAX, 0, 0, 0, u32::MAX, 0]);
    let wide = at(holes(&board().child(bridge), "/pcie@10000000"));
    assert!(matches!(wide.3, PropertyProblem::AddressOverflow { .. }), "{:?}", wide.3);
}

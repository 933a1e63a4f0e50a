//! SMMU nodes: address, size, quirks, status, and everything that makes one unusable.

use alloc::string::ToString;
use alloc::vec;

use super::*;
use crate::addr::PhysAddr;
use crate::firmware::{Interrupt, SmmuInterrupts, SmmuQuirks};
use crate::iommu::fwspec::Phandle;

fn only(board: Source) -> Result<SmmuNode, FirmwareError> {
    let mut all = smmus(&board);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn spi(number: u32) -> Option<Interrupt> {
    Some(Interrupt { parent: Phandle::new(GIC), specifier: vec![0, number, 1] })
}

#[test]
fn two_complete_nodes() {
    let all: Vec<_> = smmus(&board().child(smmu0()).child(smmu1())).into_iter().map(Result::unwrap).collect();
    let expected = SmmuNode {
        path: SMMU0_PATH.to_string(),
        phandle: Some(Phandle::new(SMMU0)),
        base: PhysAddr::new(0x2b40_0000),
        size_bytes: 0x2_0000,
        interrupts: SmmuInterrupts {
            eventq: spi(74),
            gerror: spi(79),
            priq: spi(75),
            cmdq_sync: spi(77),
            combined: None,
        },
        dma_coherent: true,
        quirks: SmmuQuirks::default(),
        enabled: true,
        warnings: Vec::new(),
    };
    assert_eq!(all[0], expected);
    assert_eq!(all[1].interrupts, SmmuInterrupts { combined: spi(80), ..SmmuInterrupts::default() });
    assert_eq!((all[1].dma_coherent, all[1].warnings.len()), (false, 0));
}

/// Whoever waits for it can be told that it will not come.
#[test]
fn a_broken_node_has_a_phandle_all_the_same() {
    let blob = board().child(smmu0().without("reg")).child(smmu1()).blob();
    let tree = DeviceTree::new(&blob).unwrap();
    assert!(tree.smmus().next().unwrap().is_err());
    assert_eq!(tree.phandle(SMMU0_PATH), Some(Phandle::new(SMMU0)));
    assert_eq!(tree.phandle("/"), None);
    assert_eq!(tree.phandle("/nothing"), None);
}

#[test]
fn the_node_of_qemu_virt() {
    let qemu = smmu("smmuv3@9050000", 0x8004, 0x905_0000)
        .strings("interrupt-names", &["eventq", "priq", "cmdq-sync", "gerror"])
        .cells("interrupts", &[0, 74, 1, 0, 75, 1, 0, 76, 1, 0, 77, 1])
        .flag("dma-coherent");
    let smmu = only(board().child(node("platform-bus@c000000")).child(qemu).flag("dma-coherent")).unwrap();
    assert_eq!((smmu.path.as_str(), smmu.base), ("/smmuv3@9050000", PhysAddr::new(0x905_0000)));
    let expected =
        SmmuInterrupts { eventq: spi(74), priq: spi(75), cmdq_sync: spi(76), gerror: spi(77), combined: None };
    assert_eq!((smmu.interrupts, smmu.warnings), (expected, Vec::new()));
    assert!(smmu.dma_coherent);
}

#[test]
fn found_by_any_of_its_compatible_strings_and_no_other() {
    let specific = smmu0().strings("compatible", &["vendor,smmu-600", "arm,smmu-v3"]);
    let others = [smmu1().strings("compatible", &["arm,smmu-v3-pmcg"]), smmu1().strings("compatible", &["arm,smmu"])];
    let [pmcg, v2] = others;
    assert_eq!(only(board().child(specific).child(pmcg).child(v2)).unwrap().path, SMMU0_PATH);
}

#[test]
fn a_broken_node_does_not_hide_the_others() {
    let all = smmus(&board().child(smmu0().without("reg")).child(smmu1()));
    assert!(all[0].is_err());
    assert_eq!(all[1].as_ref().unwrap().base, PhysAddr::new(0x2b50_0000));
}

#[test]
fn iommu_cells_must_be_one() {
    let missing = at(only(board().child(smmu0().without("#iommu-cells"))));
    assert_eq!(missing, (SMMU0_PATH.to_string(), "#iommu-cells", 0, PropertyProblem::Missing));
    let two = at(only(board().child(smmu0().cells("#iommu-cells", &[2]))));
    assert_eq!(two.3, PropertyProblem::UnsupportedCells { found: 2, smallest: 1, largest: 1 });
    let long = at(only(board().child(smmu0().cells("#iommu-cells", &[1, 1]))));
    assert_eq!((long.2, long.3), (4, PropertyProblem::TooLong { length_bytes: 8, expected_bytes: 4 }));
}

#[test]
fn reg_must_be_there_whole_and_large_enough() {
    let (path, property, _, problem) = at(only(board().child(smmu0().without("reg"))));
    assert_eq!((path.as_str(), property, problem), (SMMU0_PATH, "reg", PropertyProblem::Missing));
    let short = at(only(board().child(smmu0().cells("reg", &[0, 0x2b40_0000, 0]))));
    assert_eq!(short.3, PropertyProblem::BadLength { length_bytes: 12, entry_bytes: 16 });
    let small = at(only(board().child(smmu0().cells("reg", &[0, 0x2b40_0000, 0, 0x1_ffff]))));
    assert_eq!(small.3, PropertyProblem::WindowTooSmall { size_bytes: 0x1_ffff, expected_bytes: 0x2_0000 });
    let wrapping = at(only(board().child(smmu0().cells("reg", &[u32::MAX, 0xffff_0000, 0, 0x2_0000]))));
    let overflow = PropertyProblem::AddressOverflow { address: 0xffff_ffff_ffff_0000, size_bytes: 0x2_0000 };
    assert_eq!(wrapping.3, overflow);
}

/// Gives the only empty property another name, one too long for the writer.
fn renamed(blob: &[u8], from: &str, to: &str) -> Vec<u8> {
    let words: Vec<u32> = blob.as_chunks().0.iter().map(|&word| u32::from_be_bytes(word)).collect();
    let (strings_at, strings_bytes) = (words[3] as usize, words[8] as usize);
    let strings = &blob[strings_at..strings_at + strings_bytes];
    let old = strings.windows(from.len()).position(|window| window == from.as_bytes()).unwrap() as u32;
    let property = words.windows(3).position(|window| window == [3, 0, old]).unwrap();

    let mut blob = [&blob[..strings_at + strings_bytes], to.as_bytes(), &[0]].concat();
    let total_bytes = blob.len() as u32;
    let changes = [(1, total_bytes), (8, total_bytes - words[3]), (property + 2, words[8])];
    for (word, value) in changes {
        blob[word * 4..word * 4 + 4].copy_from_slice(&value.to_be_bytes());
    }
    blob
}

#[test]
fn one_page_is_enough_with_the_quirk() {
    let half = smmu0().cells("reg", &[0, 0x2b40_0000, 0, 0x1_0000]);
    let problem = at(only(board().child(half.clone()))).3;
    assert_eq!(problem, PropertyProblem::WindowTooSmall { size_bytes: 0x1_0000, expected_bytes: 0x2_0000 });
    let blob = renamed(&board().child(half.flag("quirk")).blob(), "quirk", "cavium,cn9900-broken-page1-regspace");
    let smmu = DeviceTree::new(&blob).unwrap().smmus().next().unwrap().unwrap();
    assert_eq!((smmu.size_bytes, smmu.quirks.page1_in_page0), (0x1_0000, true));
    assert!(!smmu.quirks.broken_prefetch_cmd);
    let hisilicon = only(board().child(smmu0().flag("hisilicon,broken-prefetch-cmd"))).unwrap();
    assert_eq!(hisilicon.quirks, SmmuQuirks { broken_prefetch_cmd: true, page1_in_page0: false });
}

#[test]
fn an_unaligned_window_is_a_warning() {
    let smmu = only(board().child(smmu0().cells("reg", &[0, 0x2b40_1000, 0, 0x2_0000]))).unwrap();
    let oddity = Oddity::UnalignedWindow { base: PhysAddr::new(0x2b40_1000) };
    assert_eq!(oddities(&smmu.warnings), [("reg", 0, oddity)]);
}

#[test]
fn status_of_the_node_and_of_the_buses_above() {
    for (status, enabled) in [("okay", true), ("ok", true), ("disabled", false), ("fail", false), ("", false)] {
        let smmu = only(board().child(smmu0().strings("status", &[status]))).unwrap();
        assert_eq!(smmu.enabled, enabled, "{status}");
    }
    let bus = node("soc").cells("#address-cells", &[2]).cells("#size-cells", &[2]).flag("ranges");
    assert!(!only(board().child(bus.strings("status", &["disabled"]).child(smmu0()))).unwrap().enabled);
}

#[test]
fn coherency_comes_from_the_nearest_node_that_speaks_of_it() {
    let silent = smmu0().without("dma-coherent");
    assert!(!only(board().child(silent.clone())).unwrap().dma_coherent);
    assert!(only(board().flag("dma-coherent").child(silent.clone())).unwrap().dma_coherent);
    assert!(!only(board().flag("dma-coherent").child(silent.flag("dma-noncoherent"))).unwrap().dma_coherent);
}

fn bus(name: &'static str, ranges: &[u32]) -> Source {
    node(name).cells("#address-cells", &[1]).cells("#size-cells", &[1]).cells("ranges", ranges)
}

#[test]
fn reg_is_translated_through_every_bus() {
    let smmu = smmu0().cells("reg", &[0x1_0000, 0x2_0000]);
    let inner = bus("inner", &[0, 0x0, 0x1_0000, 0x1_0000, 0x40_0000, 0x2_0000]).child(smmu);
    let outer = bus("outer", &[0, 1, 0x2000_0000, 0x1000_0000]).child(inner);
    let smmu = only(board().child(outer)).unwrap();
    assert_eq!(smmu.path, "/outer/inner/iommu@2b400000");
    assert_eq!(smmu.base, PhysAddr::new(0x1_2040_0000));
}

#[test]
fn a_window_that_no_range_covers_is_refused() {
    let smmu = smmu0().cells("reg", &[0x1_0000, 0x2_0000]);
    let refused = |bus: Source| at(only(board().child(bus.child(smmu.clone()))));
    let too_short = refused(bus("soc", &[0, 0, 0x4000_0000, 0x2_ffff]));
    let untranslatable = PropertyProblem::Untranslatable { address: 0x1_0000, size_bytes: 0x2_0000 };
    assert_eq!(too_short, ("/soc".to_string(), "ranges", 0, untranslatable));
    assert_eq!(refused(bus("soc", &[]).without("ranges")).3, PropertyProblem::Missing);
    let cut = refused(bus("soc", &[0, 0, 0x4000_0000]));
    assert_eq!(cut.3, PropertyProblem::BadLength { length_bytes: 12, entry_bytes: 16 });
    let wide = refused(bus("soc", &[]).cells("#address-cells", &[3]));
    assert_eq!(wide.3, PropertyProblem::UnsupportedCells { found: 3, smallest: 1, largest: 2 });
    let wrapping = refused(bus("soc", &[0, u32::MAX, 0xffff_0000, 0x10_0000]));
    let overflow = PropertyProblem::AddressOverflow { address: 0xffff_ffff_ffff_0000, size_bytes: 0x10_0000 };
    assert_eq!((wrapping.2, wrapping.3), (0, overflow));
}

#[test]
fn two_smmus_cannot_share_registers() {
    let overlapping = smmu1().cells("reg", &[0, 0x2b41_0000, 0, 0x2_0000]);
    let all = smmus(&board().child(smmu0()).child(overlapping.clone()));
    assert!(all[0].is_ok());
    let (path, property, _, problem) = at(all[1].clone());
    assert_eq!((path.as_str(), property), ("/iommu@2b500000", "reg"));
    let base = PhysAddr::new(0x2b41_0000);
    assert_eq!(problem, PropertyProblem::WindowTaken { base, other: SMMU0_PATH.to_string() });

    let below = smmus(&board().child(overlapping.clone()).child(smmu0()));
    assert!(below[1].is_err());
    let disabled = smmus(&board().child(smmu0()).child(overlapping.strings("status", &["disabled"])));
    assert!(disabled[1].is_ok());
    let adjacent = smmu1().cells("reg", &[0, 0x2b42_0000, 0, 0x2_0000]);
    assert!(smmus(&board().child(smmu0()).child(adjacent)).iter().all(Result::is_ok));
}

#[test]
fn its_own_phandle_must_name_it_alone() {
    assert_eq!(only(board().child(smmu0().without("phandle"))).unwrap().phandle, None);
    for value in [0, u32::MAX] {
        let problem = at(only(board().child(smmu0().cells("phandle", &[value])))).3;
        assert_eq!(problem, PropertyProblem::NullPhandle { value });
    }
    let twin = node("twin").cells("phandle", &[SMMU0]);
    let ambiguous = PropertyProblem::AmbiguousPhandle {
        phandle: Phandle::new(SMMU0),
        first: SMMU0_PATH.to_string(),
        second: "/twin".to_string(),
    };
    assert_eq!(at(only(board().child(smmu0()).child(twin))).3, ambiguous);
}

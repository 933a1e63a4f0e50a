//! Damaged trees: whatever the bytes, every reader returns.

use alloc::string::ToString;
use proptest::prelude::*;

use super::*;
use crate::firmware::RequesterId;
use crate::iommu::fwspec::Phandle;
use crate::testing::tries;

fn whole_board() -> Vec<u8> {
    let bus = node("soc")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("ranges", &[0, 0, 0x4000_0000, 0x1000_0000])
        .child(smmu1().cells("reg", &[0x50_0000, 0x2_0000]).cells("interrupts-extended", &[GIC, 0, 80, 1]))
        .child(node("gpu@0").cells("iommus", &[SMMU0, 0x20, SMMU1, 0x21]).strings("status", &["okay"]));
    let pcie = node("pcie@10000000")
        .cells("iommu-map", &[0x0, SMMU0, 0x0, 0x800, 0x800, SMMU1, 0x800, 0xf800])
        .cells("iommu-map-mask", &[0xffff]);
    board().child(smmu0()).child(bus).child(pcie).blob()
}

/// Runs every reader over every node, and prints what they say.
fn read_everything(blob: &[u8]) {
    let tree = match DeviceTree::new(blob) {
        Ok(tree) => tree,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for smmu in tree.smmus() {
        match smmu {
            Ok(smmu) => smmu.warnings.iter().for_each(|warning| assert!(!warning.to_string().is_empty())),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    for node in tree.nodes() {
        let _ = tree.iommus(&node.path()).map(|iommus| iommus.fwspec.to_string());
        if let Ok(Some(map)) = tree.iommu_map(&node.path()) {
            for requester_id in [0, 0x7ff, 0x800, 0xffff] {
                let _ = map.translate(RequesterId::new(requester_id));
            }
            let _ = map.check_stream_ids(Phandle::new(SMMU0), 16).map_err(|error| error.to_string());
        }
    }
}

#[test]
fn the_undamaged_board_is_read_without_complaint() {
    let blob = whole_board();
    let tree = DeviceTree::new(&blob).unwrap();
    assert!(tree.smmus().all(|smmu| smmu.unwrap().warnings.is_empty()));
    assert_eq!(tree.iommus("/soc/gpu@0").unwrap().fwspec.entries().len(), 2);
    assert!(tree.iommu_map("/pcie@10000000").unwrap().unwrap().warnings().is_empty());
    read_everything(&blob);
}

/// Values at which arithmetic goes wrong.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        0..20_u32,
        Just(u32::MAX),
        Just(u32::MAX - 3),
        Just(0x8000_0000),
        Just(SMMU0),
        Just(SMMU1),
    ]
}

proptest! {
    #![proptest_config(tries(2000))]

    #[test]
    fn damaged_bytes(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut blob = whole_board();
        for (position, byte) in damage {
            let position = position.index(blob.len());
            blob[position] = byte;
        }
        read_everything(&blob);
    }

    #[test]
    fn damaged_words(damage in prop::collection::vec((any::<prop::sample::Index>(), word()), 1..6)) {
        let mut blob = whole_board();
        for (position, word) in damage {
            let position = position.index(blob.len() / 4) * 4;
            blob[position..position + 4].copy_from_slice(&word.to_be_bytes());
        }
        read_everything(&blob);
    }

    #[test]
    fn damaged_header(field in 0..10_usize, word in word(), length in any::<prop::sample::Index>()) {
        let mut blob = whole_board();
        blob[field * 4..field * 4 + 4].copy_from_slice(&word.to_be_bytes());
        read_everything(&blob);
        read_everything(&blob[..length.index(blob.len())]);
    }

    #[test]
    fn noise(blob in prop::collection::vec(any::<u8>(), 0..200)) {
        read_everything(&blob);
    }
}

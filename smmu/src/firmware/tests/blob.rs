//! Header, structure block and paths.

use alloc::string::ToString;

use super::*;
use crate::firmware::BlobProblem;

/// Offsets of header fields in bytes.
const TOTAL: usize = 4;
const STRUCTURE_AT: usize = 8;
const STRINGS_AT: usize = 12;
const VERSION: usize = 20;
const COMPATIBLE_VERSION: usize = 24;
const STRINGS_BYTES: usize = 32;
const STRUCTURE_BYTES: usize = 36;

fn word(blob: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes(blob[offset..offset + 4].try_into().unwrap())
}

fn set(blob: &mut [u8], offset: usize, value: u32) {
    blob[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
}

/// The offset and problem of a damaged blob.
fn damage(blob: &[u8]) -> (usize, BlobProblem) {
    match DeviceTree::new(blob) {
        Err(FirmwareError::Blob { offset_bytes, problem }) => (offset_bytes, problem),
        other => panic!("not refused as damaged: {other:?}"),
    }
}

/// As [`damage`], after `value` is put into the header at `field`.
fn with_header(field: usize, value: u32) -> (usize, BlobProblem) {
    let mut blob = board().child(smmu0()).blob();
    set(&mut blob, field, value);
    damage(&blob)
}

/// A blob with this structure block and an empty strings block.
fn raw(structure: &[u32]) -> Vec<u8> {
    let structure_bytes = structure.len() as u32 * 4;
    let header = [0xd00d_feed, 40 + structure_bytes, 40, 40, 40, 17, 16, 0, 0, structure_bytes];
    header.iter().chain(structure).flat_map(|word| word.to_be_bytes()).collect()
}

#[test]
fn padding_after_the_blob_is_ignored() {
    let mut blob = board().child(smmu0()).blob();
    blob.resize(0x4000, 0xa5);
    assert_eq!(DeviceTree::new(&blob).unwrap().smmus().count(), 1);
}

#[test]
fn a_short_buffer() {
    let blob = board().blob();
    assert_eq!(damage(&blob[..39]), (0, BlobProblem::Cut { wanted_bytes: 40, found_bytes: 39 }));
    assert_eq!(damage(&[]), (0, BlobProblem::Cut { wanted_bytes: 40, found_bytes: 0 }));
    let expected = BlobProblem::Cut { wanted_bytes: blob.len(), found_bytes: blob.len() - 1 };
    assert_eq!(damage(&blob[..blob.len() - 1]), (TOTAL, expected));
}

#[test]
fn magic_and_version() {
    assert_eq!(with_header(0, 0xedfe_0dd0), (0, BlobProblem::Magic { found: 0xedfe_0dd0 }));
    let old = BlobProblem::Version { version: 16, compatible_version: 16 };
    assert_eq!(with_header(VERSION, 16), (VERSION, old));
    let new = BlobProblem::Version { version: 17, compatible_version: 18 };
    assert_eq!(with_header(COMPATIBLE_VERSION, 18), (VERSION, new));
}

#[test]
fn blocks_outside_the_blob() {
    let total_bytes = word(&board().child(smmu0()).blob(), TOTAL);
    for (field, name, value) in [
        (STRUCTURE_AT, "structure", 0),
        (STRUCTURE_AT, "structure", u32::MAX),
        (STRUCTURE_BYTES, "structure", u32::MAX),
        (STRUCTURE_BYTES, "structure", total_bytes),
        (STRINGS_AT, "strings", u32::MAX),
        (STRINGS_BYTES, "strings", total_bytes),
    ] {
        let (_, problem) = with_header(field, value);
        assert!(matches!(problem, BlobProblem::BlockOutside { name: found, .. } if found == name), "{problem:?}");
    }
    let structure_at = word(&board().blob(), STRUCTURE_AT) + 2;
    let mut blob = board().blob();
    let structure_bytes = word(&blob, STRUCTURE_BYTES) - 2;
    set(&mut blob, STRUCTURE_AT, structure_at);
    set(&mut blob, STRUCTURE_BYTES, structure_bytes);
    assert_eq!(damage(&blob).1, BlobProblem::Misaligned { start: structure_at });
}

#[test]
fn a_smaller_header_length_hides_nothing() {
    let blob = board().child(smmu0()).blob();
    for cut in 1..word(&blob, STRUCTURE_BYTES) {
        let mut blob = blob.clone();
        let structure_bytes = word(&blob, STRUCTURE_BYTES) - cut;
        set(&mut blob, STRUCTURE_BYTES, structure_bytes);
        damage(&blob);
    }
}

#[test]
fn the_structure_block_must_be_well_formed() {
    const NAME: u32 = 0x6100_0000;
    assert!(DeviceTree::new(&raw(&[4, 1, 0, 4, 2, 4, 9])).is_ok());
    let token = |found| BlobProblem::Token { found };
    let cases: &[(&[u32], usize, BlobProblem)] = &[
        (&[], 40, BlobProblem::Cut { wanted_bytes: 4, found_bytes: 0 }),
        (&[9], 40, token(9)),
        (&[2, 9], 40, token(2)),
        (&[1, 0, 9], 48, token(9)),
        (&[1, 0, 2], 52, BlobProblem::Cut { wanted_bytes: 4, found_bytes: 0 }),
        (&[1, 0, 2, 1, 0, 2, 9], 52, token(1)),
        (&[1, 0, 2, 9, 9], 56, BlobProblem::Trailing { bytes: 4 }),
        (&[1, 0, 7, 2, 9], 48, token(7)),
        (&[1, 0, 1, NAME, 2, 3, 0, 0, 2, 9], 60, token(3)),
        (&[1, 0, 1, 0, 2, 2, 9], 52, BlobProblem::Name { max_bytes: 255 }),
        (&[1, 0, 1, 0x612f_6200, 2, 2, 9], 52, BlobProblem::Name { max_bytes: 255 }),
        (&[1, 0, 1, 0xff00_0000, 2, 2, 9], 52, BlobProblem::Name { max_bytes: 255 }),
        (&[1, 0, 1, 0x6161_6161], 52, BlobProblem::Name { max_bytes: 255 }),
        (&[1, 0, 3, 0, 0, 2, 9], 56, BlobProblem::Name { max_bytes: 255 }),
    ];
    for (structure, offset, problem) in cases {
        assert_eq!(damage(&raw(structure)), (*offset, problem.clone()), "{structure:x?}");
    }
}

#[test]
fn a_property_longer_than_the_block() {
    let mut blob = board().blob();
    // The root's first property: token, length, name, after the root's token and empty name.
    let length_at = word(&blob, STRUCTURE_AT) as usize + 12;
    assert_eq!(word(&blob, length_at), 4);
    for length in [0x10_0000, u32::MAX] {
        set(&mut blob, length_at, length);
        let (offset, problem) = damage(&blob);
        assert!(matches!(problem, BlobProblem::Cut { wanted_bytes, .. } if wanted_bytes == length as usize));
        assert_eq!(offset, length_at + 8);
    }
}

/// A board with an SMMU `levels` levels below the root.
fn smmu_below(levels: usize) -> Source {
    let innermost = smmu0();
    let bus = || node("bus").cells("#address-cells", &[2]).cells("#size-cells", &[2]).flag("ranges");
    board().child((1..levels).fold(innermost, |inside, _| bus().child(inside)))
}

#[test]
fn depth_is_bounded_and_nothing_is_lost_below() {
    assert!(smmus(&smmu_below(15))[0].is_ok());
    assert_eq!(damage(&smmu_below(16).blob()).1, BlobProblem::TooDeep { max_levels: 16 });
    let endless: Vec<u32> = [1, 0].into_iter().chain([1, 0x6100_0000].repeat(50_000)).collect();
    assert_eq!(damage(&raw(&endless)).1, BlobProblem::TooDeep { max_levels: 16 });
}

#[test]
fn names_are_bounded() {
    let long = |bytes: usize| -> Vec<u8> {
        let words: Vec<u32> = [1, 0, 1].into_iter().chain([0x6161_6161].repeat(bytes / 4)).collect();
        let rest: &[u32] = if bytes.is_multiple_of(4) { &[0, 2, 2, 9] } else { &[0x6161_6100, 2, 2, 9] };
        raw(&[&words, rest].concat())
    };
    assert!(DeviceTree::new(&long(255)).is_ok());
    assert_eq!(damage(&long(256)).1, BlobProblem::Name { max_bytes: 255 });
}

#[test]
fn paths_are_exact() {
    let soc = node("soc").child(node("dma@1").cells("iommus", &[SMMU0, 1])).child(node("dma@2"));
    let blob = board().child(smmu0()).child(node("dma@2").child(node("soc"))).child(soc).blob();
    let tree = DeviceTree::new(&blob).unwrap();
    assert_eq!(tree.iommus("/soc/dma@1").unwrap().fwspec.entries().len(), 1);
    for known in ["/", "/soc", "/soc/dma@2", "/dma@2/soc"] {
        assert!(tree.iommus(known).unwrap().fwspec.is_empty(), "{known}");
    }
    for unknown in ["", "soc", "/dma@1", "/soc/", "/soc/dma", "/soc/dma@3", "/soc//dma@1", "//"] {
        let error = tree.iommus(unknown).unwrap_err();
        assert_eq!(error, FirmwareError::NoSuchNode { path: unknown.to_string() });
    }
}

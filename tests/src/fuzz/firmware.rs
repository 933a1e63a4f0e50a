//! Device trees: damaged ones are refused or read without a panic, and what is read of `iommus` and `iommu-map` is what
//! the bindings say, counted once more here in the plainest way.

use arbitrary::{Result, Unstructured};
use smmu::addr::StreamId;
use smmu::firmware::{DeviceTree, FirmwareWarning, IommuMap, Oddity, RequesterId};
use smmu::iommu::ReservedRegion;
use smmu::iommu::fwspec::Phandle;
use vm_fdt::FdtWriter;

/// Where raw trees are looked at; the corpus has nodes there.
const PATHS: [&str; 6] = ["/", "/pcie@10000000", "/soc", "/soc/gpu@0", "/iommu@2b400000", "/smmuv3@9050000"];
/// The names that the readers look for.
const NAMES: [&str; 23] = [
    "compatible",
    "reg",
    "phandle",
    "#iommu-cells",
    "#address-cells",
    "#size-cells",
    "#interrupt-cells",
    "interrupts",
    "interrupts-extended",
    "interrupt-names",
    "interrupt-parent",
    "interrupt-controller",
    "ranges",
    "dma-coherent",
    "status",
    "iommus",
    "iommu-map",
    "iommu-map-mask",
    "iommu-addresses",
    "dma-ranges",
    "device_type",
    "pasid-num-bits",
    "dma-can-stall",
];
/// What a node mostly has: nothing, an SMMU's, a host bridge's, a device's.
const USUAL: [&[&str]; 4] =
    [&[], &["compatible", "reg", "phandle", "#iommu-cells"], &["iommu-map", "iommu-map-mask"], &["iommus"]];
const NODES: [&str; 7] =
    ["iommu@2b400000", "iommu@2b500000", "pcie@10000000", "soc", "gpu@0", "intc@8000000", "reserved-memory"];
const LEVELS_MAX: usize = 4;
const CHILDREN_MAX: usize = 5;
const ENTRIES_MAX: usize = 6;

/// A node that was made, and what its properties hold.
struct Made {
    path: String,
    properties: Vec<(&'static str, Vec<u8>)>,
}

/// Takes `data` for a flattened device tree as it is (first byte even), or for what to make one of.
///
/// # Panics
///
/// If something is read that is not there.
pub fn run(data: &[u8]) {
    match data {
        [first, blob @ ..] if first % 2 == 0 => read_everything(blob, &[]),
        [_, rest @ ..] => {
            let mut made = Vec::new();
            // Running out of input is no failure: it makes no tree.
            if let Ok(blob) = make(&mut Unstructured::new(rest), &mut made) {
                read_everything(&blob, &made);
            }
        }
        [] => {}
    }
}

/// Makes a tree and, now and then, damages it.
fn make(input: &mut Unstructured<'_>, made: &mut Vec<Made>) -> Result<Vec<u8>> {
    let mut writer = FdtWriter::new().expect("an empty tree");
    make_node(input, &mut writer, "", "", 0, made)?;
    let mut blob = writer.finish().expect("what was begun was ended");
    if input.ratio(1, 8)? {
        made.clear();
        for _ in 0..input.int_in_range(1..=4)? {
            let position = input.choose_index(blob.len())?;
            blob[position] = input.arbitrary()?;
        }
    }
    Ok(blob)
}

fn make_node(
    input: &mut Unstructured<'_>,
    writer: &mut FdtWriter,
    parent: &str,
    name: &str,
    level: usize,
    made: &mut Vec<Made>,
) -> Result<()> {
    let path = if level == 0 { "/".to_owned() } else { format!("{parent}/{name}") };
    let node = writer.begin_node(name).expect("a name without NUL");
    let mut properties: Vec<(&'static str, Vec<u8>)> = Vec::new();
    let usual = input.choose(&USUAL)?;
    for index in 0..usual.len() + input.int_in_range(0..=4)? {
        let name = match usual.get(index) {
            Some(name) => *name,
            None => *input.choose(&NAMES)?,
        };
        let value = value(input, name)?;
        if properties.iter().all(|(earlier, _)| *earlier != name) {
            writer.property(name, &value).expect("a name without NUL");
            properties.push((name, value));
        }
    }
    made.push(Made { path: path.clone(), properties });
    let mut names = Vec::new();
    for _ in 0..if level < LEVELS_MAX { input.int_in_range(0..=CHILDREN_MAX)? } else { 0 } {
        let name = *input.choose(&NODES)?;
        if !names.contains(&name) {
            names.push(name);
            let above = if level == 0 { "" } else { &path };
            make_node(input, writer, above, name, level + 1, made)?;
        }
    }
    writer.end_node(node).expect("the node that was begun last");
    Ok(())
}

/// A property's value: mostly of the form that its name asks for, so that phandles and counts fit together.
fn value(input: &mut Unstructured<'_>, name: &str) -> Result<Vec<u8>> {
    let text: &[&[u8]] = &[b"okay\0", b"disabled\0", b"arm,smmu-v3\0", b"eventq\0gerror\0", b"combined\0", b""];
    let usual = input.ratio(15, 16)?;
    let cells = match name {
        "compatible" | "status" | "interrupt-names" if usual => return input.choose(text).map(|text| text.to_vec()),
        "iommus" if usual => entries(input, |input| Ok(vec![phandle(input)?, cell(input)?]))?,
        "iommu-map" if usual => {
            entries(input, |input| Ok(vec![cell(input)?, phandle(input)?, cell(input)?, cell(input)?]))?
        }
        "phandle" if usual => vec![phandle(input)?],
        "#iommu-cells" if usual => vec![1],
        "iommu-addresses" if usual => {
            entries(input, |input| Ok(vec![phandle(input)?, cell(input)?, cell(input)?, cell(input)?, cell(input)?]))?
        }
        "device_type" if usual => return Ok(b"pci\0".to_vec()),
        "iommu-map-mask" if usual => vec![*input.choose(&[0xffff, 0xff, u32::MAX])?],
        "dma-coherent" if usual => Vec::new(),
        _ if input.ratio(1, 8)? => return input.arbitrary().map(|bytes: [u8; 7]| bytes.to_vec()),
        _ => entries(input, |input| cell(input).map(|cell| vec![cell]))?,
    };
    Ok(cells.into_iter().flat_map(u32::to_be_bytes).collect())
}

/// The cells of some entries.
fn entries(
    input: &mut Unstructured<'_>,
    mut entry: impl FnMut(&mut Unstructured<'_>) -> Result<Vec<u32>>,
) -> Result<Vec<u32>> {
    let mut cells = Vec::new();
    for _ in 0..input.int_in_range(0..=ENTRIES_MAX)? {
        cells.extend(entry(input)?);
    }
    Ok(cells)
}

/// The phandle of a node, mostly.
fn phandle(input: &mut Unstructured<'_>) -> Result<u32> {
    input.choose(&[1, 1, 1, 2, 2, 3, 4, 0, u32::MAX]).copied()
}

/// A small number, or one near a border.
fn cell(input: &mut Unstructured<'_>) -> Result<u32> {
    let borders = [0, 1, 2, 3, 0x80, 0xffff, 0x1_0000, 0x2_0000, 0x2b40_0000, 0x8000_0000, u32::MAX];
    if input.ratio(7, 8)? { input.choose(&borders).copied() } else { input.arbitrary() }
}

/// Runs every reader over every node that is known, and checks what they say.
fn read_everything(blob: &[u8], made: &[Made]) {
    let tree = match DeviceTree::new(blob) {
        Ok(tree) => tree,
        Err(error) => {
            assert!(made.is_empty(), "a tree without fault: {error}");
            return assert!(!error.to_string().is_empty());
        }
    };
    let smmus: Vec<_> = tree.smmus().collect();
    for smmu in &smmus {
        match smmu {
            Ok(smmu) => {
                assert!(smmu.base.checked_add(smmu.size_bytes - 1).is_some(), "{smmu:?} wraps around");
                smmu.warnings.iter().for_each(|warning| assert!(!warning.to_string().is_empty()));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    PATHS.iter().for_each(|path| read_node(&tree, path, None));
    made.iter().for_each(|node| read_node(&tree, &node.path, Some(node)));
}

fn read_node(tree: &DeviceTree<'_>, path: &str, made: Option<&Made>) {
    match tree.iommus(path) {
        Ok(iommus) => {
            let entries = iommus.fwspec.entries();
            assert!(iommus.pasid_bits <= 20);
            assert_eq!(iommus.fwspec.to_string() == "no IOMMU", entries.is_empty());
            if let Some(made) = made {
                let pairs: Vec<_> = cells(made, "iommus").chunks(2).map(<[u32]>::to_vec).collect();
                let found = entries.iter().map(|entry| vec![entry.iommu.get(), entry.stream_id.get()]);
                assert!(found.into_iter().all(|pair| pairs.contains(&pair)), "{path}: {entries:?} of {pairs:x?}");
                let is_repeated =
                    |warning: &&FirmwareWarning| matches!(warning.oddity, Oddity::RepeatedStreamId { .. });
                let repeated = iommus.warnings.iter().filter(is_repeated).count();
                assert_eq!(entries.len() + repeated, pairs.len(), "{path}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match tree.iommu_map(path) {
        Ok(map) => {
            if let Some(map) = map {
                check_map(&map, made);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let reserved = tree.reserved_memory(path).map(|reserved| reserved.regions);
    for regions in [reserved, tree.unusable_addresses(path)] {
        match regions {
            Ok(regions) => check_regions(&regions),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// Whole pages, not empty, within the address space, and each address in one region at most.
fn check_regions(regions: &[ReservedRegion]) {
    for (position, region) in regions.iter().enumerate() {
        assert!((region.start.get() | region.size_bytes).is_multiple_of(4096) && region.size_bytes != 0, "{region:?}");
        assert!(region.start.checked_add(region.size_bytes - 1).is_some(), "{region:?} wraps around");
        assert!(!regions[..position].iter().any(|other| other.overlaps(region)), "{regions:?}");
    }
}

/// The cells of a property; none if there is no such property.
fn cells(made: &Made, name: &str) -> Vec<u32> {
    let value = made.properties.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_slice());
    value.unwrap_or_default().as_chunks().0.iter().map(|cell| u32::from_be_bytes(*cell)).collect()
}

fn check_map(map: &IommuMap, made: Option<&Made>) {
    map.warnings().iter().for_each(|warning| assert!(!warning.to_string().is_empty()));
    for requester_id in [0, 1, 2, 3, 8, 0x7f, 0x100, 0x8000, 0xffff] {
        let found = map.translate(RequesterId::new(requester_id));
        let fwspec = map.fwspec([RequesterId::new(requester_id)]);
        assert_eq!(fwspec.entries().len(), usize::from(found.is_some()));
        if let Some(made) = made {
            assert_eq!(found, expected_translation(made, requester_id), "{}: {requester_id:#x}", made.path);
        }
        if let Some((iommu, stream)) = found
            && map.check_stream_ids(iommu, 16).is_ok()
        {
            assert!(stream.get() <= 0xffff, "StreamID {stream} was said to fit 16 bits");
        }
    }
}

/// What `iommu-map` and `iommu-map-mask` make of a requester ID: the first tuple (start, IOMMU, StreamID, count) that
/// it lies in.
fn expected_translation(made: &Made, requester_id: u16) -> Option<(Phandle, StreamId)> {
    let masked = u32::from(requester_id) & cells(made, "iommu-map-mask").first().copied().unwrap_or(u32::MAX);
    let map = cells(made, "iommu-map");
    let tuple = map.as_chunks().0.iter().find(|[start, _, _, count]| {
        let end = u64::from(*start) + u64::from(*count);
        (u64::from(*start)..end).contains(&u64::from(masked))
    });
    tuple.map(|[start, iommu, stream, _]| (Phandle::new(*iommu), StreamId::new(stream + (masked - start))))
}

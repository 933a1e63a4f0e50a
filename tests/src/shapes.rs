//! Every shape of page table, for whatever SMMU walks it, and the page of the driver's documentation that says which those are.

use std::collections::BTreeMap;
use std::fmt::Write;

use smmu::addr::{Iova, PhysAddr};
use smmu::arch::attributes::Granule;
use smmu::pgtable::{Access, Half, MemoryType, PageTable, Stage, TableConfig};
use smmu::platform::Platform;

/// The page, from the workspace's root.
pub const PAGE: &str = "smmu/src/pgtable/shapes.md";
/// All granules.
pub const GRANULES: [Granule; 3] = [Granule::K4, Granule::K16, Granule::K64];
/// Sizes of addresses that have a code (CD.IPS, STE.S2PS), which inputs are documented for too.
const BITS: [u8; 7] = [32, 36, 40, 42, 44, 48, 52];
/// The most that QEMU's SMMU has of output bits, and of the input bits of stage 1 (IDR5.OAS and VAX).
const QEMU_OUTPUT_BITS: u8 = 44;
const QEMU_INPUT_BITS: u8 = 48;

/// A page or block that was mapped.
#[derive(Clone, Copy, Debug)]
pub struct MappedLeaf {
    /// Where it starts.
    pub iova: u64,
    /// How far into it the data is.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

/// All shapes, of the lower half.
pub fn all() -> impl Iterator<Item = TableConfig> {
    let kinds = [Stage::Stage1, Stage::Stage2].into_iter().flat_map(|stage| GRANULES.map(|granule| (stage, granule)));
    kinds.flat_map(|(stage, granule)| {
        let most = if granule == Granule::K64 { 52 } else { 48 };
        let sizes = BITS.into_iter().flat_map(|input| BITS.map(|output| (input, output)));
        let sizes = sizes.filter(move |(input, output)| *input.max(output) <= most);
        let sizes = sizes.filter(move |(input, output)| stage == Stage::Stage1 || output >= input);
        sizes.map(move |(input, output)| TableConfig::new(stage, granule, input, output))
    })
}

/// Whether QEMU's SMMU can walk a shape that starts at a level. Of tables side by side it finds the first alone.
#[must_use]
pub fn is_for_qemu(config: &TableConfig, start_level: u8) -> bool {
    let sizes = config.output_bits <= QEMU_OUTPUT_BITS && config.input_bits <= QEMU_INPUT_BITS;
    sizes && concatenated(config, start_level) == 1
}

/// How many tables lie side by side where walks start.
fn concatenated(config: &TableConfig, start_level: u8) -> u64 {
    let page_bits = config.granule.log2_bytes();
    let entries_log2 = u32::from(config.input_bits) - page_bits - (page_bits - 3) * u32::from(3 - start_level);
    1 << entries_log2.saturating_sub(page_bits - 3)
}

/// Pages and blocks of a granule, and the levels that they are at.
#[must_use]
pub fn leaves(granule: Granule, output_bits: u8) -> Vec<(u8, u64)> {
    let (k, m, g) = (1 << 10, 1 << 20, 1 << 30);
    match granule {
        Granule::K4 => vec![(1, g), (2, 2 * m), (3, 4 * k)],
        Granule::K16 => vec![(2, 32 * m), (3, 16 * k)],
        Granule::K64 if output_bits == 52 => vec![(1, 4096 * g), (2, 512 * m), (3, 64 * k)],
        Granule::K64 => vec![(2, 512 * m), (3, 64 * k)],
    }
}

/// Maps one leaf of each size, one below the other from the end of the input addresses on, so that the same data is in each.
/// Below them nothing is mapped.
///
/// # Panics
///
/// If the page table puts them elsewhere.
pub fn map_each_size<P: Platform>(table: &PageTable<P>, data: PhysAddr, access: Access) -> Vec<MappedLeaf> {
    let config = *table.config();
    let first = config.half.first_address(config.input_bits);
    let mut end = 1_u64 << config.input_bits;
    let mut mapped = Vec::new();
    for (level, bytes) in leaves(config.granule, config.output_bits) {
        if level >= table.start_level() && bytes <= end / 2 {
            end -= bytes;
            let (iova, physical) = (Iova::new(first | end), data.get() & !(bytes - 1));
            table.map(iova, PhysAddr::new(physical), bytes, access, MemoryType::WriteBack).unwrap();
            let found = table.walk(iova).unwrap();
            assert_eq!((found.level, found.leaf_bytes()), (level, bytes), "{config:?}");
            mapped.push(MappedLeaf { iova: iova.get(), offset: data.get() - physical, bytes });
        }
    }
    mapped
}

/// Addresses beside those that [`map_each_size`] has mapped: below them, and no input addresses.
#[must_use]
pub fn unmapped(config: &TableConfig, mapped: &[MappedLeaf]) -> [u64; 2] {
    let first = config.half.first_address(config.input_bits);
    let beyond = if config.half == Half::Lower { 1 << config.input_bits } else { first - 1 };
    [mapped.last().map_or(first, |lowest| lowest.iova - 1), beyond]
}

/// What the page has a row for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    stage: u8,
    granule: u64,
    input_bits: u8,
    start_level: u8,
    concatenated: u64,
    sizes: Vec<u64>,
}

/// The page, of shapes that have been tried, as each is made.
#[derive(Debug, Default)]
pub struct Documentation(BTreeMap<Row, Vec<TableConfig>>);

impl Documentation {
    /// Adds a shape with the sizes that were reached through it.
    pub fn add(&mut self, config: &TableConfig, start_level: u8, sizes: Vec<u64>) {
        let TableConfig { stage, granule, input_bits, .. } = *config;
        let concatenated = concatenated(config, start_level);
        let stage = if stage == Stage::Stage1 { 1 } else { 2 };
        let row = Row { stage, granule: granule.bytes(), input_bits, start_level, concatenated, sizes };
        self.0.entry(row).or_default().push(*config);
    }

    /// The text.
    ///
    /// # Panics
    ///
    /// Never: it is written into a string.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from(
            "\
# Shapes

What shapes a page table has, by its stage, granule and sizes of addresses in bits (any input size from 32 bits on goes; those
with a code are shown). Walks start at a level, at stage 2 in as many tables side by side as it takes. In each shape a device
has reached data through a page and a block of every size that is given, at stage 1 by TTB0 and by TTB1: in the model of an
SMMU, and where it says so in QEMU's SMMU too, whose outputs have at most 44 bits. Every two granules were also tried nested
there, one stage on top of the other. What QEMU cannot show: 52 bits, the contiguous bit, updates of descriptors, and tables
side by side, of which it finds the first alone.

| stage | granule | input | output | start level | tables side by side | pages and blocks | where |
|--:|--:|--:|:--|--:|--:|:--|:--|
",
        );
        for (row, configs) in &self.0 {
            let outputs: Vec<_> = configs.iter().map(|config| config.output_bits.to_string()).collect();
            let sizes: Vec<_> = row.sizes.iter().rev().map(|bytes| human(*bytes)).collect();
            let place =
                if configs.iter().any(|config| is_for_qemu(config, row.start_level)) { "model, QEMU" } else { "model" };
            let Row { stage, granule, input_bits, start_level, concatenated, .. } = row;
            let (granule, outputs, sizes) = (human(*granule), outputs.join(" "), sizes.join(" "));
            writeln!(
                text,
                "| {stage} | {granule} | {input_bits} | {outputs} | {start_level} | {concatenated} | {sizes} | {place} |"
            )
            .unwrap();
        }
        text
    }
}

/// A size as people write it.
fn human(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{}K", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{}M", bytes >> 20),
        0x4000_0000..0x100_0000_0000 => format!("{}G", bytes >> 30),
        _ => format!("{}T", bytes >> 40),
    }
}

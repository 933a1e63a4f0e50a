//! Every shape of page table, walked by the model's SMMU for a device: each size of page and block that there is; and the
//! table in the driver's documentation that says which those are.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use smmu::addr::{Asid, Iova, PhysAddr, Vmid};
use smmu::arch::attributes::{AddressSize, Granule, HardwareUpdate, WalkAttributes};
use smmu::arch::context_descriptor::{ContextDescriptor, Stage1Context, UpperHalf};
use smmu::arch::stream_table::{Eats, Shcfg, Stage2Stream, StreamTableEntry};
use smmu::pgtable::{Access, Half, MemoryType, PageTable, Stage, TableConfig};
use tests::model::{Buffer, Config, ModelPlatform};

use super::bench::{Bench, STREAM, put, put_cd, stage1_ste, touch};

/// The table, from the workspace's root.
const TABLE: &str = "smmu/src/pgtable/shapes.md";

const GRANULES: [Granule; 3] = [Granule::K4, Granule::K16, Granule::K64];
/// Sizes of addresses that have a code (CD.IPS, STE.S2PS), which inputs are documented for too.
const BITS: [u8; 7] = [32, 36, 40, 42, 44, 48, 52];

/// Pages and blocks of a granule, and the levels that they are at.
fn leaves(granule: Granule, output_bits: u8) -> Vec<(u8, u64)> {
    let (k, m, g) = (1 << 10, 1 << 20, 1 << 30);
    match granule {
        Granule::K4 => vec![(1, g), (2, 2 * m), (3, 4 * k)],
        Granule::K16 => vec![(2, 32 * m), (3, 16 * k)],
        Granule::K64 if output_bits == 52 => vec![(1, 4096 * g), (2, 512 * m), (3, 64 * k)],
        Granule::K64 => vec![(2, 512 * m), (3, 64 * k)],
    }
}

/// A page table in front of a device.
struct Shape {
    bench: Bench,
    contexts: Buffer,
    data: Buffer,
}

impl Shape {
    fn new() -> Self {
        let bench = Bench::new(Config { oas: 6, vax: 1, ..Config::full() });
        let (contexts, data) = (bench.buffer(4096), bench.buffer(65536));
        (0..data.words().len() as u64).for_each(|index| put(&data, index, index + 1));
        Self { bench, contexts, data }
    }

    /// Lets the device's stream go by a table.
    fn attach(&mut self, table: &PageTable<ModelPlatform>) {
        let TableConfig { stage, granule, half, output_bits, .. } = *table.config();
        let output_size = AddressSize::holding(output_bits).unwrap();
        let walk = WalkAttributes::COHERENT;
        let words = match stage {
            Stage::Stage2 => StreamTableEntry::stage2(&Stage2Stream {
                vmid: Vmid::new(9),
                table: table.root(),
                t0sz: table.t0sz(),
                sl0: table.sl0(),
                granule,
                output_size,
                walk,
                hardware_update: HardwareUpdate::None,
                access_flag_fault_disabled: false,
                protected_walk: false,
                record_faults: true,
                stall: false,
                force_write_back: false,
                ats: Eats::Off,
                shareability: Shcfg::UseIncoming,
                merge_events: false,
            })
            .words(),
            Stage::Stage1 => {
                let context = ContextDescriptor::new(&Stage1Context {
                    asid: Asid::new(7),
                    granule,
                    t0sz: table.t0sz(),
                    table: table.root(),
                    output_size,
                    walk,
                    mair: PageTable::<ModelPlatform>::MAIR,
                    hardware_update: HardwareUpdate::None,
                    access_flag_fault_disabled: false,
                    stall: false,
                });
                let upper = UpperHalf { granule, t1sz: table.t0sz(), table: table.root(), walk };
                let context = match half {
                    Half::Lower => context,
                    Half::Upper => context.without_walks().with_upper_half(&upper),
                };
                put_cd(&self.contexts, 0, &context.words());
                let [first, second, ..] = stage1_ste(&self.contexts);
                [first, second, 0, 0, 0, 0, 0, 0]
            }
        };
        self.bench.set_ste(STREAM, &words);
    }

    /// Takes the stream off, and forgets.
    fn detach(&mut self) {
        self.bench.set_ste(STREAM, &[0]);
        self.bench.run(&[[0x30, 0]]);
    }

    /// Maps one leaf of each size, one below the other from the end of the input addresses on, and reads through all of them:
    /// each shows the data as far into it as that is in memory. Returns the sizes.
    fn prove(&mut self, config: &TableConfig) -> Vec<u64> {
        let table = PageTable::new(self.bench.model.platform(), config).unwrap();
        let (first, data) = (config.half.first_address(config.input_bits), self.data.physical().get());
        let mut end = 1_u64 << config.input_bits;
        let mut mapped = Vec::new();
        for (level, bytes) in leaves(config.granule, config.output_bits) {
            if level >= table.start_level() && bytes <= end / 2 {
                end -= bytes;
                let (iova, physical) = (Iova::new(first | end), data & !(bytes - 1));
                table.map(iova, PhysAddr::new(physical), bytes, Access::Read, MemoryType::WriteBack).unwrap();
                let found = table.walk(iova).unwrap();
                assert_eq!((found.level, found.leaf_bytes()), (level, bytes), "{config:?}");
                mapped.push((iova.get(), data - physical, bytes));
            }
        }
        self.attach(&table);
        let device = self.bench.device();
        for &(iova, offset, bytes) in &mapped {
            for index in [0, 1, 4096 / 8 - 1] {
                assert_eq!(touch(&device, iova + offset + 8 * index), Ok((index + 1) as u8), "{config:?}: {bytes:#x}");
            }
        }
        assert!(touch(&device, (first | end) - 1).is_err(), "{config:?}: below the last one is nothing");
        let beyond = if config.half == Half::Lower { 1 << config.input_bits } else { first - 1 };
        assert!(touch(&device, beyond).is_err(), "{config:?}: nor out of range");
        self.detach();
        mapped.into_iter().map(|(.., bytes)| bytes).collect()
    }
}

/// What the table of shapes has a row for.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    stage: u8,
    granule: u64,
    input_bits: u8,
    start_level: u8,
    concatenated: u64,
    sizes: Vec<u64>,
}

/// All shapes there are, proven, with the output sizes for which they are so.
fn prove_all(shape: &mut Shape) -> BTreeMap<Row, Vec<u8>> {
    let mut rows = BTreeMap::<Row, Vec<u8>>::new();
    for stage in [Stage::Stage1, Stage::Stage2] {
        for granule in GRANULES {
            let most = if granule == Granule::K64 { 52 } else { 48 };
            for input_bits in BITS.into_iter().filter(|bits| *bits <= most) {
                let fits = |bits: &u8| *bits <= most && (stage == Stage::Stage1 || *bits >= input_bits);
                for output_bits in BITS.into_iter().filter(fits) {
                    let config = TableConfig::new(stage, granule, input_bits, output_bits);
                    let sizes = shape.prove(&config);
                    if stage == Stage::Stage1 {
                        assert_eq!(shape.prove(&TableConfig { half: Half::Upper, ..config }), sizes);
                    }
                    let table = PageTable::new(shape.bench.model.platform(), &config).unwrap();
                    let start_level = table.start_level();
                    let page_bits = granule.log2_bytes();
                    let entries_log2 = u32::from(input_bits) - page_bits - (page_bits - 3) * u32::from(3 - start_level);
                    let concatenated = 1 << entries_log2.saturating_sub(page_bits - 3);
                    let stage = if stage == Stage::Stage1 { 1 } else { 2 };
                    let row = Row { stage, granule: granule.bytes(), input_bits, start_level, concatenated, sizes };
                    rows.entry(row).or_default().push(output_bits);
                }
            }
        }
    }
    rows
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

fn documentation(rows: &BTreeMap<Row, Vec<u8>>) -> String {
    let mut text = String::from(
        "\
# Shapes

What shapes a page table has, by its stage, granule and sizes of addresses in bits (any input size from 32 bits on goes; those
with a code are shown). Walks start at a level, at stage 2 in as many tables side by side as it takes. In each shape a device
has read through a page and a block of every size that is given, in the model of an SMMU; at stage 1 by TTB0 and by TTB1.

| stage | granule | input | output | start level | tables side by side | pages and blocks |
|--:|--:|--:|:--|--:|--:|:--|
",
    );
    for (row, outputs) in rows {
        let outputs: Vec<_> = outputs.iter().map(u8::to_string).collect();
        let sizes: Vec<_> = row.sizes.iter().rev().map(|bytes| human(*bytes)).collect();
        let Row { stage, granule, input_bits, start_level, concatenated, .. } = row;
        let (granule, outputs, sizes) = (human(*granule), outputs.join(" "), sizes.join(" "));
        writeln!(text, "| {stage} | {granule} | {input_bits} | {outputs} | {start_level} | {concatenated} | {sizes} |")
            .unwrap();
    }
    text
}

#[test]
fn r25_every_shape_is_walked_as_it_should_be_and_documented() {
    let text = documentation(&prove_all(&mut Shape::new()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(TABLE);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{TABLE} is out of date; UPDATE_DOCS=1 writes this:\n{text}");
}

/// Everything is above 2^48: the root, in CD.TTB0, CD.TTB1 and STE.S2TTB; the tables below it; the data.
#[test]
fn r26_roots_and_tables_above_48_bits_are_found() {
    for (stage, half) in [(Stage::Stage1, Half::Lower), (Stage::Stage1, Half::Upper), (Stage::Stage2, Half::Lower)] {
        let mut shape = Shape::new();
        shape.bench.model.platform().continue_at(0x000d_0000_0000_0000);
        let data = shape.bench.buffer(65536);
        data.words().iter().zip(1..).for_each(|(word, value)| word.store(value, std::sync::atomic::Ordering::SeqCst));
        shape.data = data;
        assert!(shape.data.physical().get() >> 48 == 0xd);
        for input_bits in [36, 48, 52] {
            shape.prove(&TableConfig { half, ..TableConfig::new(stage, Granule::K64, input_bits, 52) });
        }
    }
}

//! Every shape of page table, walked by the model's SMMU for a device: each size of page and block that there is; and the
//! table in the driver's documentation that says which those are.

use std::path::Path;
use std::{env, fs};

use smmu::addr::{Asid, Vmid};
use smmu::arch::attributes::{AddressSize, Granule, HardwareUpdate, WalkAttributes};
use smmu::arch::context_descriptor::{ContextDescriptor, Stage1Context, UpperHalf};
use smmu::arch::stream_table::{Eats, Shcfg, Stage2Stream, StreamTableEntry};
use smmu::pgtable::{Access, Half, PageTable, Stage, TableConfig};
use tests::model::{Buffer, Config, ModelPlatform};
use tests::shapes::{self, Documentation, MappedLeaf};

use super::bench::{Bench, STREAM, put, put_cd, stage1_ste, touch};

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

    /// Reads through a leaf of each size: each shows the data as far into it as that is in memory. Returns the sizes.
    fn prove(&mut self, config: &TableConfig) -> Vec<u64> {
        let table = PageTable::new(self.bench.model.platform(), config).unwrap();
        let mapped = shapes::map_each_size(&table, self.data.physical(), Access::Read);
        self.attach(&table);
        let device = self.bench.device();
        for &MappedLeaf { iova, offset, bytes } in &mapped {
            for index in [0, 1, 4096 / 8 - 1] {
                assert_eq!(touch(&device, iova + offset + 8 * index), Ok((index + 1) as u8), "{config:?}: {bytes:#x}");
            }
        }
        for address in shapes::unmapped(config, &mapped) {
            assert!(touch(&device, address).is_err(), "{config:?}: {address:#x}");
        }
        self.detach();
        mapped.into_iter().map(|leaf| leaf.bytes).collect()
    }
}

/// All shapes there are, proven.
fn prove_all(shape: &mut Shape) -> Documentation {
    let mut documentation = Documentation::default();
    for config in shapes::all() {
        let sizes = shape.prove(&config);
        if config.stage == Stage::Stage1 {
            assert_eq!(shape.prove(&TableConfig { half: Half::Upper, ..config }), sizes);
        }
        let table = PageTable::new(shape.bench.model.platform(), &config).unwrap();
        documentation.add(&config, table.start_level(), sizes);
    }
    documentation
}

#[test]
fn r25_every_shape_is_walked_as_it_should_be_and_documented() {
    let text = prove_all(&mut Shape::new()).text();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(shapes::PAGE);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{} is out of date; UPDATE_DOCS=1 writes this:\n{text}", shapes::PAGE);
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

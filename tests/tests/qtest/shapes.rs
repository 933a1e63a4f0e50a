//! Every shape of page table that QEMU's SMMU can walk, and every two granules one on top of the other: a device writes through
//! a leaf of each size, and the data is found where it belongs.

use std::sync::atomic::Ordering;

use qemu::machine::{Iommu, Stage as Stages};
use smmu::addr::{Asid, Iova, PhysAddr, StreamId, Vmid};
use smmu::arch::attributes::{AddressSize, Granule, HardwareUpdate};
use smmu::arch::context_descriptor::{ContextDescriptor, Stage1Context, UpperHalf};
use smmu::arch::stream_table::{Stage1Stream, Stage2Stream, StreamTableEntry};
use smmu::device::{ContextTable, TranslationTag};
use smmu::memory::DmaMemory;
use smmu::pgtable::{Access, Half, MemoryType, PageTable, Stage, TableConfig};
use tests::qtest::{PATTERN, QtestPlatform, WriteOutcome};
use tests::shapes::{self, GRANULES, MappedLeaf};

use crate::setup::Setup;

type Table = PageTable<QtestPlatform>;

/// An SMMU with both stages, a device, and what it is to find.
struct Shape {
    setup: Setup,
    stream: StreamId,
    asid: Asid,
    vmid: Vmid,
    data: DmaMemory<QtestPlatform>,
}

impl Shape {
    fn new() -> Self {
        let setup = Setup::with(Iommu::SmmuV3Stage(Stages::Nested));
        let (stream, smmu) = (setup.machine.testdev().stream(), &setup.smmu);
        let (asid, vmid) = (smmu.take_asid().unwrap(), smmu.take_vmid().unwrap());
        smmu.attach(stream, &StreamTableEntry::abort()).unwrap();
        let data = DmaMemory::allocate(setup.machine.platform(), 0x1_0000, 0x1_0000).unwrap();
        Self { setup, stream, asid, vmid, data }
    }

    fn table(&self, config: &TableConfig) -> Table {
        PageTable::new(self.setup.machine.platform(), config).unwrap()
    }

    fn stage2(&self, table: &Table) -> Stage2Stream {
        self.setup.smmu.stage2_stream(self.vmid, table).unwrap()
    }

    /// Stage 1 by a table, and the context that goes with it.
    fn stage1(&self, table: &Table, vmid: Vmid) -> (Stage1Stream, ContextTable<QtestPlatform>) {
        let (smmu, config) = (&self.setup.smmu, table.config());
        let walk = smmu.features().walk_attributes();
        let context = ContextDescriptor::new(&Stage1Context {
            asid: self.asid,
            granule: config.granule,
            t0sz: table.t0sz(),
            table: table.root(),
            output_size: AddressSize::holding(config.output_bits).unwrap(),
            walk,
            mair: Table::MAIR,
            hardware_update: HardwareUpdate::None,
            access_flag_fault_disabled: false,
            stall: false,
        });
        let upper = UpperHalf { granule: config.granule, t1sz: table.t0sz(), table: table.root(), walk };
        let context = match config.half {
            Half::Lower => context,
            Half::Upper => context.without_walks().with_upper_half(&upper),
        };
        let contexts = ContextTable::new(smmu, &context).unwrap();
        (Stage1Stream { vmid, ..contexts.stage1_stream(walk) }, contexts)
    }

    /// Has the device write into the data through each leaf, and beside them.
    fn prove(&self, what: &str, entry: &StreamTableEntry, mapped: &[MappedLeaf], beside: &[u64]) {
        let (smmu, testdev) = (&self.setup.smmu, self.setup.machine.testdev());
        smmu.replace(self.stream, entry).unwrap();
        let write = |iova, offset| {
            let word = &self.data.words()[offset as usize / 8];
            word.store(0, Ordering::Relaxed);
            let outcome = testdev.write(Iova::new(iova), 4, self.data.physical().checked_add(offset).unwrap());
            (outcome.unwrap(), word.load(Ordering::Relaxed).to_le() as u32)
        };
        for leaf in mapped {
            for offset in [0, 0xff8] {
                let found = write(leaf.iova + leaf.offset + offset, offset);
                assert_eq!(
                    found,
                    (WriteOutcome::Written, PATTERN),
                    "{what}: {:#x} bytes, {:?}",
                    leaf.bytes,
                    self.setup.events()
                );
            }
        }
        self.setup.assert_no_event();
        for address in beside {
            assert_eq!(write(address & !7, 0), (WriteOutcome::Stopped, 0), "{what}: {address:#x}");
        }
        // Beyond the input addresses of stage 2 QEMU may record nothing.
        assert!((1..=beside.len()).contains(&self.setup.events().len()), "{what}");
        smmu.replace(self.stream, &StreamTableEntry::abort()).unwrap();
        smmu.invalidate_all(TranslationTag::Stage1 { asid: self.asid, vmid: Vmid::new(0) }).unwrap();
        smmu.invalidate_all(TranslationTag::Stage2 { vmid: self.vmid }).unwrap();
    }

    fn prove_alone(&self, config: &TableConfig) {
        let table = self.table(config);
        let mapped = shapes::map_each_size(&table, self.data.physical(), Access::ReadWrite);
        let beside = shapes::unmapped(config, &mapped);
        let contexts;
        let entry = if config.stage == Stage::Stage1 {
            let (stream, context) = self.stage1(&table, Vmid::new(0));
            contexts = Some(context);
            StreamTableEntry::stage1(&stream)
        } else {
            contexts = None;
            StreamTableEntry::stage2(&self.stage2(&table))
        };
        self.prove(&format!("{config:?}"), &entry, &mapped, &beside);
        drop(contexts);
    }

    /// Stage 1 of one granule on stage 2 of another, by leaves of one size there: the contexts, tables and data are all in the
    /// first gibibyte of memory, which has the same addresses to the guest.
    fn prove_nested(&self, stage1: Granule, stage2: Granule, leaf_bytes: u64) {
        let parent = self.table(&TableConfig::new(Stage::Stage2, stage2, 40, 44));
        let ram = self.data.physical().get() & !((1 << 30) - 1);
        let bytes = leaf_bytes.max(self.setup.machine.memory_bytes()).next_multiple_of(leaf_bytes);
        for start in (ram..ram + bytes).step_by(leaf_bytes as usize) {
            let (iova, physical) = (Iova::new(start), PhysAddr::new(start));
            parent.map(iova, physical, leaf_bytes, Access::ReadWrite, MemoryType::WriteBack).unwrap();
        }
        let config = TableConfig::new(Stage::Stage1, stage1, 48, 40);
        let table = self.table(&config);
        let mapped = shapes::map_each_size(&table, self.data.physical(), Access::ReadWrite);
        let (stream, contexts) = self.stage1(&table, self.vmid);
        let entry = StreamTableEntry::nested(&stream, &self.stage2(&parent));
        let beside = shapes::unmapped(&config, &mapped);
        self.prove(&format!("{stage1} on {leaf_bytes:#x} bytes of {stage2}"), &entry, &mapped, &beside);
        drop(contexts);
    }
}

#[test]
fn r25_qemu_walks_every_shape_that_the_page_says() {
    let shape = Shape::new();
    let features = shape.setup.smmu.features();
    for config in shapes::all() {
        let walkable = features.output_size().bits() >= config.output_bits
            && features.virtual_address_bits() >= config.input_bits
            && features.granule(config.granule);
        let is_for_qemu = shapes::is_for_qemu(&config, shape.table(&config).start_level());
        assert!(walkable || !is_for_qemu, "{config:?}");
        if is_for_qemu {
            shape.prove_alone(&config);
            if config.stage == Stage::Stage1 {
                shape.prove_alone(&TableConfig { half: Half::Upper, ..config });
            }
        }
    }
}

#[test]
fn r25_qemu_walks_every_two_granules_nested() {
    let shape = Shape::new();
    for (stage1, stage2) in GRANULES.into_iter().flat_map(|one| GRANULES.map(|two| (one, two))) {
        for (_, leaf_bytes) in shapes::leaves(stage2, 44) {
            shape.prove_nested(stage1, stage2, leaf_bytes);
        }
    }
}

//! What a dump says of an entry's tables.

use alloc::format;
use alloc::string::{String, ToString};

use super::*;
use crate::addr::{Asid, Iova, PhysAddr, StreamId, SubstreamId, Vmid};
use crate::arch::attributes::{AddressSize, Granule, HardwareUpdate, WalkAttributes};
use crate::arch::context_descriptor::{ContextDescriptor, Stage1Context};
use crate::arch::stream_table::{Eats, Shcfg, Stage1Stream, Stage2Stream, StreamTableEntry};
use crate::device::{ContextTable, Dump};
use crate::pgtable::{Access, MemoryType, PageTable, Stage, TableConfig};

const STREAM: StreamId = StreamId::new(5);
const SUBSTREAM: SubstreamId = SubstreamId::new(0x41);
const IOVA: Iova = Iova::new(0x4000_0123);

/// An SMMU with substreams and tables of both stages, each with a page at 0x4000_0000.
struct Tables {
    smmu: Smmu<TestPlatform>,
    contexts: ContextTable<TestPlatform>,
    stage1: PageTable<TestPlatform>,
    stage2: PageTable<TestPlatform>,
}

impl Tables {
    fn new() -> Self {
        Self::on(TestPlatform::leaked())
    }

    fn on(platform: &'static TestPlatform) -> Self {
        let fake = FakeSmmu::new(platform, "A");
        fake.set(IDR0, 0x0d44_101b | 1 << 19);
        fake.set(IDR1, 0x0273_0010 | 20 << 6);
        let smmu = bring_up(platform, &fake).unwrap();
        let table = |stage| {
            let table = PageTable::new(platform, &TableConfig::new(stage, Granule::K4, 39, 44)).unwrap();
            let (page, physical) = (Iova::new(0x4000_0000), PhysAddr::new(0x9000_1000));
            table.map(page, physical, 0x1000, Access::Read, MemoryType::WriteBack).unwrap();
            table
        };
        let contexts = ContextTable::with_substreams(&smmu, 8).unwrap();
        Self { smmu, contexts, stage1: table(Stage::Stage1), stage2: table(Stage::Stage2) }
    }

    /// Gives [`SUBSTREAM`] the stage-1 table, and the stream its contexts.
    fn attach(&self, entry: impl FnOnce(&Stage1Stream) -> StreamTableEntry) {
        let context = ContextDescriptor::new(&Stage1Context {
            asid: Asid::new(7),
            granule: Granule::K4,
            t0sz: self.stage1.t0sz(),
            table: self.stage1.root(),
            output_size: AddressSize::Bits44,
            walk: WalkAttributes::COHERENT,
            mair: PageTable::<TestPlatform>::MAIR,
            hardware_update: HardwareUpdate::None,
            access_flag_fault_disabled: false,
            stall: false,
        });
        self.smmu.set_context(&self.contexts, &[], SUBSTREAM, &context).unwrap();
        let entry = entry(&self.contexts.stage1_stream(WalkAttributes::COHERENT));
        self.smmu.attach(STREAM, &entry).unwrap();
    }

    fn nested(&self, stage1: &Stage1Stream) -> StreamTableEntry {
        StreamTableEntry::nested(stage1, &self.stage2_stream())
    }

    fn stage2_stream(&self) -> Stage2Stream {
        Stage2Stream {
            vmid: Vmid::new(3),
            table: self.stage2.root(),
            t0sz: self.stage2.t0sz(),
            sl0: self.stage2.sl0(),
            granule: Granule::K4,
            output_size: AddressSize::Bits44,
            walk: WalkAttributes::COHERENT,
            hardware_update: HardwareUpdate::None,
            access_flag_fault_disabled: false,
            protected_walk: true,
            record_faults: true,
            stall: false,
            force_write_back: false,
            ats: Eats::Off,
            shareability: Shcfg::NonShareable,
            merge_events: false,
        }
    }

    fn dump(&self) -> Dump<'_, TestPlatform> {
        self.smmu.dump(STREAM)
    }
}

/// What a dump says after the entry, without the words of it.
fn behind_the_entry(dump: &Dump<'_, TestPlatform>) -> String {
    let dump = dump.to_string();
    let (_, entry) = dump.split_once("StreamID 0x5: ").unwrap();
    entry.lines().skip(1).filter(|line| !line.starts_with("  word")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_context_of_any_substream_is_shown_with_its_walk() {
    let tables = Tables::new();
    tables.attach(StreamTableEntry::stage1);
    let Tables { contexts, stage1, .. } = &tables;
    assert_eq!(behind_the_entry(&tables.dump()), "");
    let root = stage1.root();
    let context = format!("context descriptor of SubstreamID 0x41: 39-bit addresses by table {root}, ASID 7\n");
    let dump = tables.dump().context(contexts, SUBSTREAM);
    assert_eq!(behind_the_entry(&dump), context);
    assert!(dump.to_string().contains("\n  word 3 0x"), "the context, word by word");
    let walk = format!("{}\n", stage1.trace(IOVA));
    assert!(walk.contains("0x90001123"), "{walk}");
    assert_eq!(behind_the_entry(&dump.walk(stage1, IOVA)), context + &walk);
    let dump = tables.dump().context(contexts, SubstreamId::new(0x42));
    assert_eq!(behind_the_entry(&dump), "context descriptor of SubstreamID 0x42: invalid\n");
    let dump = tables.dump().context(contexts, SubstreamId::new(0x100)).to_string();
    assert!(dump.ends_with("SubstreamID 0x100 does not fit a table of 2^8 contexts"), "{dump}");
}

#[test]
fn both_stages_are_walked() {
    let tables = Tables::new();
    tables.attach(|stage1| tables.nested(stage1));
    let Tables { contexts, stage1, stage2, .. } = &tables;
    let dump = tables.dump().walk(stage2, IOVA).context(contexts, SUBSTREAM).walk(stage1, Iova::new(0));
    let found = behind_the_entry(&dump);
    let walks = format!("{}\n{}\n", stage1.trace(Iova::new(0)), stage2.trace(IOVA));
    assert!(found.ends_with(&format!("ASID 7\n{walks}")), "{found}");
    // Stage 2 alone needs no context.
    tables.smmu.detach(STREAM).unwrap();
    tables.smmu.attach(STREAM, &StreamTableEntry::stage2(&tables.stage2_stream())).unwrap();
    assert_eq!(behind_the_entry(&tables.dump().walk(stage2, IOVA)), format!("{}\n", stage2.trace(IOVA)));
}

#[test]
fn tables_of_others_are_told_apart() {
    let platform = TestPlatform::leaked();
    let (tables, others) = (Tables::on(platform), Tables::on(platform));
    tables.attach(|stage1| tables.nested(stage1));
    others.attach(|stage1| others.nested(stage1));
    let found = behind_the_entry(&tables.dump().context(&others.contexts, SUBSTREAM));
    let table = others.contexts.physical();
    let refused = "not looked at, the entry does not lead to the table at";
    assert_eq!(found, format!("context descriptor of SubstreamID 0x41: {refused} {table}\n"));
    let dump = tables.dump().context(&tables.contexts, SUBSTREAM);
    let found = behind_the_entry(&dump.walk(&others.stage1, IOVA).walk(&others.stage2, IOVA));
    assert_eq!(found.matches("\nnot of this stream, as far as is known:\n").count(), 2, "{found}");
    tables.smmu.detach(STREAM).unwrap();
    let found = behind_the_entry(&tables.dump().context(&tables.contexts, SUBSTREAM).walk(&tables.stage2, IOVA));
    assert!(found.contains(refused) && found.contains("\nnot of this stream"), "{found}");
}

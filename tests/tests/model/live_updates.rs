//! Entries replaced by the real driver while their device goes on: after every register access it reads a byte, and what it
//! gets says by which entry it was translated.

use std::collections::BTreeSet;

use smmu::addr::{Asid, Iova, PhysAddr, StreamId, SubstreamId, Vmid};
use smmu::arch::attributes::{AddressSize, Granule, HardwareUpdate, WalkAttributes};
use smmu::arch::context_descriptor::{ContextDescriptor, Stage1Context};
use smmu::arch::entry_update::EntryUpdate;
use smmu::arch::stream_table::{Eats, S1Dss, Shcfg, Stage1Stream, Stage2Stream, StreamTableEntry};
use smmu::device::{ContextTable, DeviceError, Smmu, TranslationTag};
use smmu::pgtable::{Access, MemoryType, PageTable, Stage, TableConfig};
use tests::model::{Buffer, Caching, Config, Model, ModelPlatform, Opcode, Pace};

use super::bench::put;
use super::system::bring_up;
use super::watch::{Outcome, during, read};

const STREAM: StreamId = StreamId::new(7);

/// Address spaces in which the same address leads to different bytes.
struct World {
    /// In the order in which they are to go: entries, contexts, tables, memory.
    spaces: Vec<(TranslationTag, PageTable<ModelPlatform>)>,
    contexts: Vec<ContextTable<ModelPlatform>>,
    buffers: Vec<Buffer>,
    /// The address: also where the byte 0xff is, for who passes untranslated.
    target: Iova,
    smmu: Smmu<ModelPlatform>,
}

impl World {
    fn new(model: &Model) -> Self {
        let page = model.platform().buffer(4096);
        put(&page, 0, 0xff);
        let (smmu, target) = (bring_up(model).unwrap(), Iova::new(page.physical().get()));
        Self { spaces: Vec::new(), contexts: Vec::new(), buffers: vec![page], target, smmu }
    }

    /// A page with a byte in it.
    fn page(&mut self, model: &Model, byte: u8) -> PhysAddr {
        let page = model.platform().buffer(4096);
        put(&page, 0, byte.into());
        let physical = page.physical();
        self.buffers.push(page);
        physical
    }

    /// A page table that leads from the target to a byte.
    fn table(&mut self, model: &Model, stage: Stage, byte: u8) -> PageTable<ModelPlatform> {
        let coherent = self.smmu.features().coherent();
        let config = TableConfig { coherent, ..TableConfig::new(stage, Granule::K4, 39, 40) };
        let table = PageTable::new(model.platform(), &config).unwrap();
        let page = self.page(model, byte);
        table.map(self.target, page, 4096, Access::ReadWrite, MemoryType::WriteBack).unwrap();
        table
    }

    /// A stage-1 address space in which the target leads to a byte.
    fn context(&mut self, model: &Model, vmid: Vmid, byte: u8) -> ContextDescriptor {
        let table = self.table(model, Stage::Stage1, byte);
        let asid = self.smmu.take_asid().unwrap();
        let context = describe(&table, asid, self.walk());
        self.spaces.push((TranslationTag::Stage1 { asid, vmid }, table));
        context
    }

    /// A stage-1 entry with one context, in which the target leads to a byte.
    fn stage1(&mut self, model: &Model, byte: u8) -> Stage1Stream {
        let context = self.context(model, Vmid::new(0), byte);
        self.stage1_of(&context)
    }

    fn stage1_of(&mut self, context: &ContextDescriptor) -> Stage1Stream {
        let table = ContextTable::new(&self.smmu, context).unwrap();
        let stream = table.stage1_stream(self.walk());
        self.contexts.push(table);
        stream
    }

    /// A stage-2 address space in which the target leads to a byte, and all of memory but for that page to itself.
    fn stage2(&mut self, model: &Model, byte: u8, identity: bool) -> Stage2Stream {
        let table = self.table(model, Stage::Stage2, byte);
        if identity {
            let (start, page) = (0x8000_0000, self.target.get());
            for (from, to) in
                [(start, page), (page + 4096, start + 0x1000_0000)].into_iter().filter(|(from, to)| from < to)
            {
                let physical = PhysAddr::new(from);
                table.map(Iova::new(from), physical, to - from, Access::ReadWrite, MemoryType::WriteBack).unwrap();
            }
        }
        let vmid = self.smmu.take_vmid().unwrap();
        let stream = Stage2Stream {
            vmid,
            table: table.root(),
            t0sz: table.t0sz(),
            sl0: table.sl0(),
            granule: Granule::K4,
            output_size: AddressSize::Bits40,
            walk: self.walk(),
            hardware_update: HardwareUpdate::None,
            access_flag_fault_disabled: false,
            protected_walk: true,
            record_faults: true,
            stall: false,
            force_write_back: false,
            ats: Eats::Off,
            shareability: Shcfg::UseIncoming,
            merge_events: false,
        };
        self.spaces.push((TranslationTag::Stage2 { vmid }, table));
        stream
    }

    fn walk(&self) -> WalkAttributes {
        self.smmu.features().walk_attributes()
    }

    /// Entries of every kind, by what they make of the target.
    fn entries(&mut self, model: &Model) -> Vec<(&'static str, Outcome, StreamTableEntry)> {
        let (one, two) = (self.stage1(model, 1), self.stage1(model, 2));
        let many = ContextTable::with_substreams(&self.smmu, 4).unwrap();
        let context = self.context(model, Vmid::new(0), 3);
        self.smmu.set_context(&many, &[], SubstreamId::new(0), &context).unwrap();
        let many_stream = many.stage1_stream(self.walk());
        self.contexts.push(many);
        let with = |default_substream| StreamTableEntry::stage1(&Stage1Stream { default_substream, ..many_stream });
        let (vm, other_vm) = (self.stage2(model, 4, false), self.stage2(model, 5, false));
        let host = self.stage2(model, 6, true);
        let inner = self.context(model, host.vmid, 7);
        let guest = self.stage1_of(&inner);
        vec![
            ("abort", None, StreamTableEntry::abort()),
            ("bypass", Some(0xff), StreamTableEntry::bypass(Shcfg::UseIncoming)),
            ("stage 1", Some(1), StreamTableEntry::stage1(&one)),
            ("stage 1, other contexts", Some(2), StreamTableEntry::stage1(&two)),
            ("16 contexts, S1DSS abort", None, with(S1Dss::Abort)),
            ("16 contexts, S1DSS bypass", Some(0xff), with(S1Dss::Bypass)),
            ("16 contexts, S1DSS 0", Some(3), with(S1Dss::Substream0)),
            ("stage 2", Some(4), StreamTableEntry::stage2(&vm)),
            ("stage 2, other VMID", Some(5), StreamTableEntry::stage2(&other_vm)),
            ("nested, its stage 2 alone", Some(6), StreamTableEntry::stage2(&host)),
            ("nested", Some(7), StreamTableEntry::nested(&guest, &host)),
        ]
    }

    /// Forgets all translations: whoever tags a new meaning like an old one does that.
    fn retag(&self) {
        self.spaces.iter().for_each(|(tag, _)| self.smmu.invalidate_all(*tag).unwrap());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.smmu.detach(STREAM).unwrap();
            self.retag();
        }
    }
}

fn describe(table: &PageTable<ModelPlatform>, asid: Asid, walk: WalkAttributes) -> ContextDescriptor {
    ContextDescriptor::new(&Stage1Context {
        asid,
        granule: Granule::K4,
        t0sz: table.t0sz(),
        table: table.root(),
        output_size: AddressSize::Bits40,
        walk,
        mair: PageTable::<ModelPlatform>::MAIR,
        hardware_update: HardwareUpdate::None,
        access_flag_fault_disabled: false,
        stall: false,
    })
}

/// Substreams, two stages, ATS; caches that keep all and caches that keep nothing; at once and late.
fn configurations() -> impl Iterator<Item = Config> {
    let paces = [Pace::Immediate, Pace::After(2)];
    let cachings = [Caching::Greedy, Caching::Dropping { percent: 50 }, Caching::Nothing];
    let behaviours = paces.into_iter().flat_map(move |pace| cachings.map(|caching| (pace, caching)));
    behaviours.zip([true, false].into_iter().cycle()).map(|((pace, caching), cohacc)| Config {
        pace,
        caching,
        cohacc,
        stall_model: 1,
        term_model: true,
        ..Config::full()
    })
}

#[test]
fn r14_dma_meets_the_old_entry_or_the_new_one() {
    for config in configurations() {
        let model = Model::new(config);
        let mut world = World::new(&model);
        let (device, entries) = (model.device(STREAM), world.entries(&model));
        world.smmu.attach(STREAM, &StreamTableEntry::abort()).unwrap();
        for (old_name, old, from) in &entries {
            for (new_name, new, to) in &entries {
                world.smmu.replace(STREAM, from).unwrap();
                world.retag();
                let update = EntryUpdate::new(from, to);
                let mark = model.mark();
                let (seen, after) = during(&model, &device, world.target, || world.smmu.replace(STREAM, to).unwrap());
                let syncs = model.log_since(mark).commands().iter().filter(|opcode| **opcode == Opcode::Sync).count();
                assert_eq!((after, syncs), (*new, update.syncs()), "from {old_name} to {new_name}");
                let strange: Vec<_> = seen
                    .iter()
                    .filter(|outcome| **outcome != *old && **outcome != *new)
                    .filter(|outcome| outcome.is_some() || update.is_hitless())
                    .collect();
                assert!(strange.is_empty(), "from {old_name} to {new_name}: {seen:?}");
                assert!(update.is_hitless() || seen.contains(&None), "somebody looked in between");
            }
        }
        model.clear_log();
    }
}

/// A linear table, one of small leaves, one of large leaves, and as large a linear one as there is without CD2L.
const SHAPES: [(u8, bool, u8); 4] = [(4, true, 4), (10, true, 10), (20, true, 20), (20, false, 10)];

#[test]
fn r15_contexts_of_substreams_come_and_go_while_others_go_on() {
    for (config, (wanted, cd2l, log2_contexts)) in configurations().zip(SHAPES.into_iter().cycle()) {
        let model = Model::new(Config { cd2l, ..config });
        let mut world = World::new(&model);
        let table = ContextTable::with_substreams(&world.smmu, wanted).unwrap();
        assert_eq!(table.log2_contexts(), log2_contexts);
        let stream = Stage1Stream { default_substream: S1Dss::Abort, ..table.stage1_stream(world.walk()) };
        let contexts = [1, 2, 3].map(|byte| world.context(&model, Vmid::new(0), byte));
        world.smmu.attach(STREAM, &StreamTableEntry::stage1(&stream)).unwrap();
        let (device, target, last) = (model.device(STREAM), world.target, (1 << log2_contexts) - 1);
        let set = |substream: u32, context: &ContextDescriptor| {
            world.smmu.set_context(&table, &[STREAM], SubstreamId::new(substream), context).unwrap();
        };
        assert_eq!(read(&device, target), None, "S1DSS");
        // In the same leaf table as what comes and goes, and in another.
        set(5, &contexts[0]);
        set(last, &contexts[1]);
        for substream in [6, last / 2, last - 1] {
            let comer = device.substream(substream);
            assert_eq!(read(&comer, target), None, "C_BAD_SUBSTREAMID or C_BAD_CD");
            let quiet = contexts[2].without_walks();
            let steps = [&contexts[2], &quiet, &contexts[1], &contexts[2], &ContextDescriptor::INVALID];
            let bytes = [Some(3), None, Some(2), Some(3), None];
            let mut before = None;
            for (step, byte) in steps.into_iter().zip(bytes) {
                let (seen, after) = during(&model, &comer, target, || {
                    set(substream, step);
                    // Without walks the TLB still answers, until it has forgotten.
                    world.retag();
                });
                assert_eq!(after, byte);
                assert!(
                    seen.iter().all(|seen| [before, byte, None].contains(seen)),
                    "{seen:?} from {before:?} to {byte:?}"
                );
                before = byte;
            }
            for (neighbour, byte) in [(5, 1), (last, 2)] {
                let (seen, _) = during(&model, &device.substream(neighbour), target, || {
                    set(substream, &contexts[2]);
                    set(substream, &contexts[0]);
                    set(substream, &ContextDescriptor::INVALID);
                });
                assert_eq!(seen, BTreeSet::from([Some(byte)]));
            }
        }
        let beyond = SubstreamId::new(last + 1);
        assert!(world.smmu.set_context(&table, &[STREAM], beyond, &contexts[0]).is_err());
        world.contexts.push(table);
    }
}

#[test]
fn streams_with_wide_stream_ids_cost_no_more_than_they_use() {
    // IDR1.SIDSIZE, IDR0.ST_LEVEL; streams to attach and the first one beyond; bytes of the top and of what each adds.
    for (sidsize, st_level, streams, beyond, top, second) in [
        (16, 1, [0, 0xffff], 0x1_0000, 0x800, 0x4000),
        (24, 1, [0, 0xff_ffff], 0x100_0000, 0x2_0000, 0x1_0000),
        (32, 1, [0x400, 0xff_ffff], 0x100_0000, 0x2_0000, 0x1_0000),
        (6, 0, [1, 63], 64, 0x1000, 0),
    ] {
        let model = Model::new(Config { sidsize, st_level, ..Config::full() });
        let mut world = World::new(&model);
        let bytes = world.smmu.statistics().dma_bytes;
        assert!(bytes < top + 0x8_0000);
        let entry = StreamTableEntry::stage1(&world.stage1(&model, 1));
        for stream in streams.map(StreamId::new) {
            world.smmu.attach(stream, &entry).unwrap();
            assert_eq!(read(&model.device(stream), world.target), Some(1));
        }
        assert_eq!(world.smmu.statistics().dma_bytes, bytes + 2 * second);
        let stranger = StreamId::new(beyond);
        assert!(matches!(world.smmu.attach(stranger, &entry), Err(DeviceError::StreamOutOfRange { .. })));
        assert_eq!(read(&model.device(stranger), world.target), None);
        streams.iter().for_each(|stream| world.smmu.detach(StreamId::new(*stream)).unwrap());
        world.smmu.attach(STREAM, &entry).unwrap();
    }
}

#[test]
fn r23_streams_that_share_contexts_all_see_the_change() {
    for config in configurations() {
        let model = Model::new(config);
        let mut world = World::new(&model);
        let [first, second] = [1, 2].map(|byte| world.context(&model, Vmid::new(0), byte));
        let stream = world.stage1_of(&first);
        let streams = [STREAM, StreamId::new(8), StreamId::new(900)];
        let devices = streams.map(|stream| model.device(stream));
        streams.iter().for_each(|id| world.smmu.attach(*id, &StreamTableEntry::stage1(&stream)).unwrap());
        let bytes = || devices.each_ref().map(|device| read(device, world.target));
        assert_eq!(bytes(), [Some(1); 3]);
        let set = |context| world.smmu.set_context(&world.contexts[0], &streams, SubstreamId::new(0), context).unwrap();
        set(&second);
        assert_eq!(bytes(), [Some(2); 3]);
        set(&ContextDescriptor::INVALID);
        assert_eq!(bytes(), [None; 3]);
        streams[1..].iter().for_each(|id| world.smmu.detach(*id).unwrap());
    }
}

#[test]
fn an_aborted_stream_reaches_nothing_and_its_siblings_go_on() {
    for config in configurations() {
        let model = Model::new(config);
        let mut world = World::new(&model);
        let entry = StreamTableEntry::stage1(&world.stage1(&model, 1));
        let sibling = StreamId::new(8);
        [STREAM, sibling].iter().for_each(|stream| world.smmu.attach(*stream, &entry).unwrap());
        let (device, other, target) = (model.device(STREAM), model.device(sibling), world.target);
        let events = model.log().events().len();
        let (seen, after) = during(&model, &other, target, || world.smmu.abort(STREAM).unwrap());
        assert_eq!((read(&device, target), seen, after), (None, BTreeSet::from([Some(1)]), Some(1)));
        assert_eq!(model.log().events().len(), events, "silently");
        assert_eq!(world.smmu.attach(STREAM, &entry), Err(DeviceError::StreamInUse { stream: STREAM }));
        world.smmu.replace(STREAM, &entry).unwrap();
        assert_eq!(read(&device, target), Some(1));
        world.smmu.detach(sibling).unwrap();
    }
}

//! A guest behind the real driver: memory of its own behind stage 2, tables and contexts that it writes by literal numbers, and
//! a hypervisor that carries out what it asks for.

use std::sync::Arc;

use smmu::addr::{Iova, StreamId, Vmid};
use smmu::arch::attributes::Granule;
use smmu::arch::command::Completion;
use smmu::arch::event::Event;
use smmu::arch::stream_table::{Eats, StreamTableEntry};
use smmu::device::{DeviceError, Guest, GuestStream, NestedParent, RefusedCommand, Smmu, TranslationTag};
use smmu::pgtable::{Access, MemoryType, PageTable, Stage, TableConfig};
use tests::model::{Buffer, Config, Device, Model, ModelPlatform};

use super::bench::{CD0, put, put_cd};
use super::system::bring_up;

/// Where the guest's memory is, by its addresses.
pub(crate) const RAM: u64 = 0x4000_0000;
/// The pages of its memory: contexts; two sets of tables; data, which start with what they are called.
pub(crate) const CONTEXTS: u64 = 0;
pub(crate) const LAST: [u64; 2] = [2, 4];
pub(crate) const DATA: [u64; 2] = [5, 6];
const TABLES: [u64; 2] = [1, 3];
const PAGES: u64 = 8;
/// The guest's only stream, by its number.
pub(crate) const GUEST_STREAM: u32 = 1;
/// A page for reading and writing, of one ASID.
pub(crate) const PAGE: u64 = 0xf47;

/// A page of the guest's memory, by its addresses.
pub(crate) const fn page(number: u64) -> u64 {
    RAM + number * 4096
}

/// An SMMU that is up.
pub(crate) fn smmu(model: &Model) -> Arc<Smmu<ModelPlatform>> {
    Arc::new(bring_up(model).unwrap())
}

/// A guest. Its first context maps page 0 to the first data, its second one to the second.
pub(crate) struct Vm {
    pub(crate) smmu: Arc<Smmu<ModelPlatform>>,
    pub(crate) vmid: Vmid,
    pub(crate) parent: NestedParent,
    pub(crate) stream: StreamId,
    pub(crate) device: Device,
    /// What the guest's stream table says.
    pub(crate) entry: [u64; 8],
    pub(crate) syncs: usize,
    pub(crate) stage2: PageTable<ModelPlatform>,
    pub(crate) ram: Buffer,
}

/// How stage 2 is made.
pub(crate) fn stage2_config() -> TableConfig {
    TableConfig::new(Stage::Stage2, Granule::K4, 40, 44)
}

impl Vm {
    /// With data that say which guest it is. Its entry aborts at first.
    pub(crate) fn new(model: &Model, smmu: &Arc<Smmu<ModelPlatform>>, stream: u32, number: u8) -> Self {
        Self::with(model, smmu, stream, number, &stage2_config())
    }

    pub(crate) fn with(
        model: &Model,
        smmu: &Arc<Smmu<ModelPlatform>>,
        stream: u32,
        number: u8,
        config: &TableConfig,
    ) -> Self {
        let ram = model.platform().buffer((PAGES * 4096) as usize);
        let stage2 = PageTable::new(model.platform(), config).unwrap();
        stage2.map(Iova::new(RAM), ram.physical(), PAGES * 4096, Access::ReadWrite, MemoryType::WriteBack).unwrap();
        for index in 0..2 {
            put(&ram, TABLES[index] * 512, page(LAST[index]) | 3);
            put(&ram, LAST[index] * 512, page(DATA[index]) | PAGE);
            put(&ram, DATA[index] * 512, (0xa0 + 0x10 * index as u64) + u64::from(number));
            // ASIDs 7 and 8.
            let word0 = CD0 + ((index as u64) << 48) | 39 | 4 << 32;
            put_cd(&ram, CONTEXTS * 512 / 8 + index as u64, &[word0, page(TABLES[index]), 0, 0xff44]);
        }
        let vmid = smmu.take_vmid().unwrap();
        let stage2_stream = smmu.stage2_stream(vmid, &stage2).unwrap();
        let parent =
            NestedParent { substream_id_bits: 20, ats: Eats::Full, stalls: true, ..NestedParent::new(stage2_stream) };
        let (smmu, stream) = (Arc::clone(smmu), StreamId::new(stream));
        smmu.attach(stream, &StreamTableEntry::abort()).unwrap();
        let device = model.device(stream);
        Self { smmu, vmid, parent, stream, device, entry: [0; 8], syncs: 0, stage2, ram }
    }

    /// The guest writes an entry of stage 1, with more in words 0 and 1, and says so.
    pub(crate) fn write_entry(&mut self, word0: u64, word1: u64) {
        self.entry = [page(CONTEXTS) | 0b1011 | word0, 1 << 2 | 1 << 4 | 3 << 6 | word1, 0, 0, 0, 0, 0, 0];
        self.tell(&[[0x03 | u64::from(GUEST_STREAM) << 32, 1]]);
    }

    /// The guest's commands, and a CMD_SYNC.
    pub(crate) fn tell(&mut self, commands: &[[u64; 2]]) {
        let commands: Vec<_> = commands.iter().copied().chain([[0x46, 0]]).collect();
        assert_eq!(self.forward(&commands), Ok(()));
    }

    pub(crate) fn forward(&mut self, commands: &[[u64; 2]]) -> Result<(), RefusedCommand> {
        let (smmu, vmid) = (Arc::clone(&self.smmu), self.vmid);
        smmu.forward(self, vmid, commands)
    }

    /// What tags everything that is cached of the guest.
    pub(crate) fn tag(&self) -> TranslationTag {
        TranslationTag::Nested { vmid: self.vmid }
    }

    /// The events since the last look.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.smmu.drain_events(|event| events.push(event));
        events
    }
}

impl Guest for Vm {
    fn stream_from(&self, first: StreamId) -> Option<GuestStream> {
        let guest = StreamId::new(GUEST_STREAM);
        (first <= guest).then_some(GuestStream { guest, physical: self.stream })
    }

    fn reload(&mut self, stream: GuestStream) -> Result<(), DeviceError> {
        let entry = self.parent.entry(self.smmu.features(), self.entry).unwrap_or(StreamTableEntry::INVALID);
        self.smmu.replace_nested(stream.physical, &entry)
    }

    fn synced(&mut self, _: Completion) {
        self.syncs += 1;
    }

    fn quarantined(&mut self, stream: StreamId) {
        panic!("{stream} was quarantined");
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.smmu.detach(self.stream).unwrap();
            self.smmu.retire(self.tag()).unwrap();
        }
    }
}

/// An SMMU with everything, but for 44-bit addresses.
pub(crate) fn full() -> Config {
    Config { oas: 4, ..Config::full() }
}

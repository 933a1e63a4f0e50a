//! A guest behind the real driver: memory of its own behind stage 2, tables and contexts that it writes by literal numbers, and
//! a hypervisor that carries out what it asks for.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use smmu::addr::{Iova, StreamId, Vmid};
use smmu::arch::attributes::Granule;
use smmu::arch::command::Completion;
use smmu::arch::event::Event;
use smmu::arch::stream_table::{Eats, StreamTableEntry};
use smmu::device::{DeviceError, Guest, GuestStream, NestedParent, RefusedCommand, Smmu, TranslationTag};
use smmu::memory::DmaMemory;
use smmu::pgtable::{Access, MemoryType, PageTable, Stage, TableConfig};
use smmu::platform::Platform;

/// Where the guest's memory is, by its addresses.
pub const RAM: u64 = 0x4000_0000;
/// The page of its memory with the contexts.
pub const CONTEXTS: u64 = 0;
/// The pages with the last-level tables of both contexts.
pub const LAST: [u64; 2] = [2, 4];
/// The pages with data, which start with 0xa0 and 0xb0 plus the guest's number.
pub const DATA: [u64; 2] = [5, 6];
/// The pages with the first tables.
const TABLES: [u64; 2] = [1, 3];
/// Size of its memory in pages.
pub const PAGES: u64 = 8;
/// The guest's only stream, by its number.
pub const GUEST_STREAM: u32 = 1;
/// Stage-1 descriptor of a page for reading and writing, of one ASID, without its address.
pub const PAGE: u64 = 0xf47;
/// Word 0 of a CD: T0SZ 39, cacheable walks, EPD1, V, IPS of 44 bits, AA64, R, A, ASET and an ASID of 7.
const CD0: u64 =
    39 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 30 | 1 << 31 | 4 << 32 | 1 << 41 | 1 << 45 | 1 << 46 | 1 << 47 | 7 << 48;

/// A page of the guest's memory, by its addresses.
#[must_use]
pub const fn page(number: u64) -> u64 {
    RAM + number * 4096
}

/// Stage 2 as most guests have it: 40 bits in, 44 bits out.
#[must_use]
pub const fn stage2_config() -> TableConfig {
    TableConfig::new(Stage::Stage2, Granule::K4, 40, 44)
}

/// A guest with one device. Its first context maps page 0 to the first data, its second one to the second.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Vm<P: Platform, D> {
    pub smmu: Arc<Smmu<P>>,
    pub vmid: Vmid,
    pub parent: NestedParent,
    pub stream: StreamId,
    pub device: D,
    /// What the guest's stream table says.
    pub entry: [u64; 8],
    /// How many of its CMD_SYNCs are complete.
    pub syncs: usize,
    pub stage2: PageTable<P>,
    pub ram: DmaMemory<P>,
}

impl<P: Platform, D> Vm<P, D> {
    /// A guest whose data say which one it is. Its entry aborts at first.
    ///
    /// # Panics
    ///
    /// If the SMMU does not do as it is told.
    #[must_use]
    pub fn new(
        platform: &'static P,
        smmu: &Arc<Smmu<P>>,
        stream: StreamId,
        device: D,
        number: u8,
        config: &TableConfig,
    ) -> Self {
        let bytes = (PAGES * 4096) as usize;
        let ram = DmaMemory::allocate(platform, bytes, 4096).unwrap();
        let stage2 = PageTable::new(platform, config).unwrap();
        stage2.map(Iova::new(RAM), ram.physical(), PAGES * 4096, Access::ReadWrite, MemoryType::WriteBack).unwrap();
        let vmid = smmu.take_vmid().unwrap();
        let stage2_stream = smmu.stage2_stream(vmid, &stage2).unwrap();
        let parent =
            NestedParent { substream_id_bits: 20, ats: Eats::Full, stalls: true, ..NestedParent::new(stage2_stream) };
        smmu.attach(stream, &StreamTableEntry::abort()).unwrap();
        let vm = Self { smmu: Arc::clone(smmu), vmid, parent, stream, device, entry: [0; 8], syncs: 0, stage2, ram };
        for index in 0..2 {
            vm.put(TABLES[index], 0, page(LAST[index]) | 3);
            vm.put(LAST[index], 0, page(DATA[index]) | PAGE);
            vm.put(DATA[index], 0, 0xa0 + 0x10 * index as u64 + u64::from(number));
            // ASIDs 7 and 8.
            let context = [CD0 + ((index as u64) << 48), page(TABLES[index]), 0, 0xff44, 0, 0, 0, 0];
            vm.put_context(index, &context);
        }
        vm
    }

    /// Stores a word of a page of the guest's memory.
    ///
    /// # Panics
    ///
    /// If it has no such page or word.
    pub fn put(&self, page: u64, index: usize, value: u64) {
        self.ram.words()[page as usize * 512 + index].store(value, SeqCst);
    }

    /// A word of a page of the guest's memory.
    ///
    /// # Panics
    ///
    /// If it has no such page or word.
    #[must_use]
    pub fn word(&self, page: u64, index: usize) -> u64 {
        self.ram.words()[page as usize * 512 + index].load(SeqCst)
    }

    /// Fills a context in.
    pub fn put_context(&self, index: usize, words: &[u64; 8]) {
        words.iter().enumerate().for_each(|(at, word)| self.put(CONTEXTS, index * 8 + at, *word));
    }

    /// The words of a context.
    #[must_use]
    pub fn context(&self, index: usize) -> [u64; 8] {
        std::array::from_fn(|at| self.word(CONTEXTS, index * 8 + at))
    }

    /// The guest writes an entry of stage 1, with more in words 0 and 1, and says so.
    pub fn write_entry(&mut self, word0: u64, word1: u64) {
        self.entry = [page(CONTEXTS) | 0b1011 | word0, 1 << 2 | 1 << 4 | 3 << 6 | word1, 0, 0, 0, 0, 0, 0];
        self.tell(&[[0x03 | u64::from(GUEST_STREAM) << 32, 1]]);
    }

    /// The guest's commands, and a CMD_SYNC.
    ///
    /// # Panics
    ///
    /// If one is refused.
    pub fn tell(&mut self, commands: &[[u64; 2]]) {
        let commands: Vec<_> = commands.iter().copied().chain([[0x46, 0]]).collect();
        assert_eq!(self.forward(&commands), Ok(()));
    }

    /// The guest's commands as they are.
    ///
    /// # Errors
    ///
    /// [`RefusedCommand`].
    pub fn forward(&mut self, commands: &[[u64; 2]]) -> Result<(), RefusedCommand> {
        let (smmu, vmid) = (Arc::clone(&self.smmu), self.vmid);
        smmu.forward(self, vmid, commands)
    }

    /// What tags everything that is cached of the guest.
    #[must_use]
    pub fn tag(&self) -> TranslationTag {
        TranslationTag::Nested { vmid: self.vmid }
    }

    /// The events since the last look.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.smmu.drain_events(|event| events.push(event));
        events
    }
}

impl<P: Platform, D> Guest for Vm<P, D> {
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

impl<P: Platform, D> Drop for Vm<P, D> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.smmu.detach(self.stream).unwrap();
            self.smmu.retire(self.tag()).unwrap();
        }
    }
}

//! Stream table entries, context descriptors and translation tables that are right but for one thing.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use smmu::addr::{Asid, Iova, PhysAddr, Vmid};
use smmu::arch::attributes::{AddressSize, Granule, HardwareUpdate, WalkAttributes};
use smmu::arch::context_descriptor::{ContextDescriptor, Stage1Context};
use smmu::arch::descriptor::{Access, Format, LeafAttributes, MemoryType, Stage};
use smmu::arch::stream_table::{Eats, Shcfg, Stage1Stream, Stage2Stream, StreamTableEntry};
use smmu::device::{Smmu, TranslationTag};
use smmu::dma::PAGE_BYTES;
use smmu::memory::DmaMemory;

use crate::platform::{Kernel, PLATFORM};

/// An address at which no machine of less than 190 GiB has memory, and `virt` no registers either.
pub(super) const NOT_MEMORY: PhysAddr = PhysAddr::new(0x30_0000_0000);

/// What one descriptor at the first level maps.
const GIB: u64 = 1 << 30;
/// The tables translate addresses of 39 bits, so that they are one page of descriptors at level 1.
const T0SZ: u8 = 64 - 39;
const FIRST_LEVEL: u8 = 1;
/// STE.S2SL0 for a walk that starts at level 1 (Arm ARM, D8.2.8).
const SL0_LEVEL_1: u8 = 1;
/// A block without the Access flag, ...
const NOT_ACCESSED: Iova = Iova::new(GIB);
/// ... one that can only be read, ...
const READ_ONLY: Iova = Iova::new(2 * GIB);
/// ... one that leads beyond [`OUTPUT_SIZE`], ...
const TOO_LARGE: Iova = Iova::new(3 * GIB);
/// ... and an address without a block.
pub(super) const UNMAPPED: Iova = Iova::new(4 * GIB);
/// What entries and context descriptors say is the largest address; no more than QEMU's SMMU has.
const OUTPUT_SIZE: AddressSize = AddressSize::Bits44;
/// AF in the descriptor of a block (Arm ARM, D8.3).
const AF: u64 = 1 << 10;

/// An entry, and where an access meets what is wrong with it.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) entry: StreamTableEntry,
    pub(super) iova: Iova,
}

/// The structures in memory.
pub(super) struct Structures {
    asid: Asid,
    /// Tags what comes of `stage2_table`.
    vmid: Vmid,
    /// Tags what comes of `identity`.
    identity_vmid: Vmid,
    walk: WalkAttributes,
    has_stage1: bool,
    has_stage2: bool,
    stage1_table: DmaMemory<Kernel>,
    stage2_table: DmaMemory<Kernel>,
    /// Maps the first 4 GiB to themselves.
    identity: DmaMemory<Kernel>,
    /// One after the other: invalid, with `stage1_table`, with a table at [`NOT_MEMORY`], with one at [`UNMAPPED`].
    contexts: DmaMemory<Kernel>,
}

impl Structures {
    /// Makes them all for an SMMU.
    pub(super) fn new(smmu: &Smmu<Kernel>) -> Result<Self, String> {
        let features = smmu.features();
        let walk = features.walk_attributes();
        let asid = smmu.take_asid().map_err(|error| error.to_string())?;
        let vmid = smmu.take_vmid().map_err(|error| error.to_string())?;
        let identity_vmid = smmu.take_vmid().map_err(|error| error.to_string())?;
        let stage1_table = page(&faulty_blocks(Stage::Stage1))?;
        let stage2_table = page(&faulty_blocks(Stage::Stage2))?;
        let context = |table| {
            ContextDescriptor::new(&Stage1Context {
                asid,
                granule: Granule::K4,
                t0sz: T0SZ,
                table,
                output_size: OUTPUT_SIZE,
                walk,
                mair: MemoryType::MAIR,
                hardware_update: HardwareUpdate::None,
                access_flag_fault_disabled: false,
                stall: false,
            })
        };
        let unmapped = context(PhysAddr::new(UNMAPPED.get()));
        let contexts = [ContextDescriptor::INVALID, context(stage1_table.physical()), context(NOT_MEMORY), unmapped];
        let contexts: Vec<u64> = contexts.iter().flat_map(ContextDescriptor::words).collect();
        Ok(Self {
            asid,
            vmid,
            identity_vmid,
            walk,
            has_stage1: features.stage1(),
            has_stage2: features.stage2(),
            stage1_table,
            stage2_table,
            identity: page(&[0, 1, 2, 3].map(|gib| block(Stage::Stage2, gib * GIB, Access::ReadWrite)))?,
            contexts: page(&contexts)?,
        })
    }

    /// All that can be wrong on this SMMU. The last is a mere lack of a mapping.
    pub(super) fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        if self.has_stage1 {
            let outside = self.stage1(NOT_MEMORY);
            cases.push(Case { name: "context descriptor outside memory", entry: outside, iova: UNMAPPED });
            let invalid = self.stage1(self.context(0));
            cases.push(Case { name: "invalid context descriptor", entry: invalid, iova: UNMAPPED });
            let without_table = self.stage1(self.context(2));
            cases.push(Case { name: "table outside memory", entry: without_table, iova: UNMAPPED });
        }
        if self.has_stage1 && self.has_stage2 {
            let context_unmapped = self.nested(PhysAddr::new(UNMAPPED.get()));
            cases.push(Case { name: "stage 2 maps no context descriptor", entry: context_unmapped, iova: UNMAPPED });
            let table_unmapped = self.nested(self.context(3));
            cases.push(Case { name: "stage 2 maps no stage-1 table", entry: table_unmapped, iova: UNMAPPED });
        }
        let stage2 =
            self.has_stage2.then(|| StreamTableEntry::stage2(&self.stage2_half(self.vmid, &self.stage2_table)));
        let stage1 = self.has_stage1.then(|| self.stage1(self.context(1)));
        for entry in stage2.into_iter().chain(stage1) {
            cases.extend([
                Case { name: "address too large", entry, iova: TOO_LARGE },
                Case { name: "no Access flag", entry, iova: NOT_ACCESSED },
                Case { name: "read-only", entry, iova: READ_ONLY },
                Case { name: "no mapping", entry, iova: UNMAPPED },
            ]);
        }
        cases
    }

    /// Where the context descriptor with this number is.
    fn context(&self, index: u64) -> PhysAddr {
        PhysAddr::new(self.contexts.physical().get() + index * ContextDescriptor::BYTES as u64)
    }

    fn stage1(&self, context: PhysAddr) -> StreamTableEntry {
        StreamTableEntry::stage1(&Stage1Stream::with_one_context(context, self.walk))
    }

    fn nested(&self, context: PhysAddr) -> StreamTableEntry {
        let stage1 = Stage1Stream::with_one_context(context, self.walk);
        StreamTableEntry::nested(&stage1, &self.stage2_half(self.identity_vmid, &self.identity))
    }

    fn stage2_half(&self, vmid: Vmid, table: &DmaMemory<Kernel>) -> Stage2Stream {
        Stage2Stream {
            vmid,
            table: table.physical(),
            t0sz: T0SZ,
            sl0: SL0_LEVEL_1,
            granule: Granule::K4,
            output_size: OUTPUT_SIZE,
            walk: self.walk,
            hardware_update: HardwareUpdate::None,
            access_flag_fault_disabled: false,
            protected_walk: false,
            record_faults: true,
            stall: false,
            force_write_back: false,
            ats: Eats::Off,
            shareability: Shcfg::UseIncoming,
            merge_events: false,
        }
    }

    /// Has the SMMU forget all of it, once no entry leads here any more.
    pub(super) fn retire(&self, smmu: &Smmu<Kernel>) -> Result<(), String> {
        let stage1 = TranslationTag::Stage1 { asid: self.asid, vmid: Vmid::new(0) };
        let stage2 = [self.vmid, self.identity_vmid].map(|vmid| TranslationTag::Stage2 { vmid });
        let stage1 = self.has_stage1.then_some(stage1);
        let stage2 = stage2.into_iter().filter(|_| self.has_stage2);
        let retired = stage1.into_iter().chain(stage2).try_for_each(|tag| smmu.retire(tag));
        retired.inspect_err(|_| self.keep()).map_err(|error| error.to_string())
    }

    /// Never gives the memory back: for an SMMU that does not confirm that it let go.
    pub(super) fn keep(&self) {
        [&self.stage1_table, &self.stage2_table, &self.identity, &self.contexts].into_iter().for_each(DmaMemory::keep);
    }
}

/// A page that begins with `words`.
fn page(words: &[u64]) -> Result<DmaMemory<Kernel>, String> {
    let page = DmaMemory::allocate(&PLATFORM, PAGE_BYTES, PAGE_BYTES).map_err(|error| error.to_string())?;
    for (word, value) in page.words().iter().zip(words) {
        word.store(value.to_le(), Ordering::Relaxed);
    }
    page.clean(0, page.words().len());
    Ok(page)
}

/// The blocks at [`NOT_ACCESSED`], [`READ_ONLY`] and [`TOO_LARGE`], after none at 0.
fn faulty_blocks(stage: Stage) -> [u64; 4] {
    let block = |physical, access| block(stage, physical, access);
    let (outside, beyond) = (NOT_MEMORY.get(), 1 << OUTPUT_SIZE.bits());
    [0, block(outside, Access::ReadWrite) & !AF, block(outside, Access::Read), block(beyond, Access::ReadWrite)]
}

fn block(stage: Stage, physical: u64, access: Access) -> u64 {
    let attributes = LeafAttributes::new(stage, access.into(), MemoryType::WriteBack);
    Format::new(stage, Granule::K4).leaf(FIRST_LEVEL, PhysAddr::new(physical), attributes)
}

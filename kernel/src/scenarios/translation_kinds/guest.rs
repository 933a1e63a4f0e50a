//! The kernel plays both a hypervisor and its guest: the guest has a stage 1 of its own, in memory that has the same addresses
//! to it.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use smmu::addr::{Asid, Iova, StreamId};
use smmu::arch::attributes::{AddressSize, Granule, HardwareUpdate};
use smmu::arch::context_descriptor::{ContextDescriptor, Stage1Context};
use smmu::arch::stream_table::{Shcfg, StreamTableEntry};
use smmu::device::ContextTable;
use smmu::iommu::fwspec::Phandle;
use smmu::iommu::smmuv3::{GuestRights, SmmuDomain, SmmuNestedDomain, VirtualSmmu};
use smmu::iommu::{Domain, DomainConfig, NestedDomain, PagingDomain};
use smmu::pgtable::{Access, MemoryType, PageTable, Stage, TableConfig};

use super::trial::Trial;
use crate::platform::{Kernel, PLATFORM};
use crate::record;

/// What the guest calls the device's stream.
const STREAM: StreamId = StreamId::new(1);
/// Its commands: its entry has changed, all its translations have, and a CMD_SYNC.
const COMMANDS: [[u64; 2]; 3] = [[0x03 | 1 << 32, 1], [0x10, 0], [0x46, 0]];
/// The guest's memory: what the block of 1 GiB that the kernel is in has.
const MEMORY_BYTES: u64 = 1 << 30;

/// A guest that has one device.
pub(super) struct Guest {
    domain: Arc<SmmuNestedDomain<Kernel>>,
    has_stage1: Arc<AtomicBool>,
    // After the domain, which leads the SMMU to them.
    _contexts: ContextTable<Kernel>,
    _table: PageTable<Kernel>,
}

/// The guest's stream table, of one entry.
struct StreamTable {
    has_stage1: Arc<AtomicBool>,
    stage1: StreamTableEntry,
}

impl VirtualSmmu for StreamTable {
    fn guest_stream(&self, _: Phandle, _: StreamId) -> Option<StreamId> {
        Some(STREAM)
    }

    fn entry(&self, _: Phandle, _: StreamId) -> [u64; 8] {
        let bypass = StreamTableEntry::bypass(Shcfg::UseIncoming);
        if self.has_stage1.load(Ordering::Acquire) { self.stage1.words() } else { bypass.words() }
    }
}

impl Guest {
    /// A guest whose stage 1 has the leaves of the trial, and is not switched on yet. Its memory is in the largest blocks of the
    /// granule.
    pub(super) fn new(trial: &Trial, granule: Granule) -> Result<Self, String> {
        let smmu = trial.smmu();
        let features = smmu.features();
        let config = DomainConfig { granule: Some(granule), ..DomainConfig::stage2() };
        let memory = SmmuDomain::new(&PLATFORM, features, &config).map_err(|error| error.to_string())?;
        let start = trial.page().align_down(MEMORY_BYTES);
        let (iova, access) = (Iova::new(start.get()), Access::ReadWrite);
        memory.map(iova, start, MEMORY_BYTES, access, MemoryType::WriteBack).map_err(|error| error.to_string())?;
        // Without a stage 1 of its own the device uses the guest's addresses: it goes on where it was.
        let page = trial.leaves(granule).next().ok_or("no leaf")?;
        let mapped = memory.map(page.iova, page.physical, page.bytes, access, MemoryType::WriteBack);
        mapped.map_err(|error| error.to_string())?;
        let config = TableConfig { coherent: features.coherent(), ..TableConfig::new(Stage::Stage1, granule, 40, 40) };
        let table = PageTable::new(&PLATFORM, &config).map_err(|error| error.to_string())?;
        for leaf in trial.leaves(granule) {
            let mapped = table.map(leaf.iova, leaf.physical, leaf.bytes, access, MemoryType::WriteBack);
            mapped.map_err(|error| error.to_string())?;
        }
        let walk = features.walk_attributes();
        let context = ContextDescriptor::new(&Stage1Context {
            asid: Asid::new(1),
            granule,
            t0sz: table.t0sz(),
            table: table.root(),
            output_size: AddressSize::Bits40,
            walk,
            mair: PageTable::<Kernel>::MAIR,
            hardware_update: HardwareUpdate::None,
            access_flag_fault_disabled: false,
            stall: false,
        });
        let contexts = ContextTable::new(smmu, &context).map_err(|error| error.to_string())?;
        let has_stage1 = Arc::new(AtomicBool::new(false));
        let stage1 = StreamTableEntry::stage1(&contexts.stage1_stream(walk));
        let stream_table = Box::new(StreamTable { has_stage1: Arc::clone(&has_stage1), stage1 });
        let domain = Arc::new(SmmuNestedDomain::new(Arc::new(memory), GuestRights::default(), stream_table));
        Ok(Self { domain, has_stage1, _contexts: contexts, _table: table })
    }

    pub(super) fn domain(&self) -> Domain<Kernel> {
        Domain::Nested(Arc::clone(&self.domain) as Arc<dyn NestedDomain<Kernel>>)
    }

    /// The guest writes its entry, and tells its SMMU.
    pub(super) fn switch_stage1_on(&self, trial: &Trial) -> Result<(), String> {
        self.has_stage1.store(true, Ordering::Release);
        let mut syncs = 0;
        let forwarded = self.domain.forward(trial.smmu(), &COMMANDS, |_| syncs += 1);
        forwarded.map_err(|error| error.to_string())?;
        record!("guest", "commands" => COMMANDS.len(), "syncs" => syncs);
        Ok(())
    }
}

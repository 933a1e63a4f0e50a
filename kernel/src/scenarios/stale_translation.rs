//! An invalidation left out on purpose: the device goes on writing to a page that is no longer mapped, until the SMMU is
//! told to forget it.
//!
//! The IOMMU core cannot be talked into this, so the layers below it are used by hand, as an integrator would who brings
//! page tables of their own.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use smmu::addr::{Iova, Vmid};
use smmu::arch::attributes::{AddressSize, Granule, HardwareUpdate};
use smmu::arch::context_descriptor::{ContextDescriptor, Stage1Context};
use smmu::arch::stream_table::{Stage1Stream, StreamTableEntry};
use smmu::device::{ContextTable, Smmu, StaleRange, TranslationTag};
use smmu::dma::PAGE_BYTES;
use smmu::memory::DmaMemory;
use smmu::pgtable::{Access, MemoryType, PageTable, Stage, TableConfig};

use super::Context;
use super::system::System;
use crate::drivers::DriverKind;
use crate::drivers::edu::{BUFFER_BYTES, Edu};
use crate::platform::{Kernel, PLATFORM};
use crate::power::ExitCode;
use crate::{println, record};

/// Where the device sees the page.
const IOVA: Iova = Iova::new(0x10_0000);
/// What the device writes.
const WRITTEN: u64 = 0x5757_5757_5757_5757;
/// What is in the page before.
const BLANK: u64 = 0;

pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(show(context))
}

fn show(context: &Context) -> Result<(), String> {
    let mut system = System::discover(context)?;
    let smmu = system.smmus.first().map(|instance| Arc::clone(&instance.smmu)).ok_or("no SMMU")?;
    let endpoint = system.endpoint(DriverKind::Edu)?;
    let stream = endpoint.stream()?;
    let mut edu = Edu::new(&mut endpoint.function).map_err(|error| error.to_string())?;
    let space = Space::new(&smmu)?;
    smmu.attach(stream, &space.entry).map_err(|error| error.to_string())?;
    endpoint.function.bus_master().set(true);
    let found = experiment(&smmu, &space, &mut edu);
    endpoint.function.bus_master().set(false);
    if let Err(error) = smmu.detach(stream).and_then(|()| smmu.retire(space.tag)) {
        space.keep();
        return Err(error.to_string());
    }
    let Found { mapped, stale, invalidated } = found?;
    record!(
        "stale-translation",
        "seen_without_invalidation" => stale,
        "stopped_after_invalidation" => !invalidated,
    );
    match (mapped, stale, invalidated) {
        (true, true, false) => Ok(()),
        (true, false, false) => Err("this SMMU caches nothing, so a missing invalidation does not show".into()),
        _ => Err("the device's writes do not follow the page table".into()),
    }
}

/// Whether the device's write arrives in the page.
struct Found {
    /// While it is mapped.
    mapped: bool,
    /// Once it is unmapped, before the SMMU was told.
    stale: bool,
    /// After the SMMU was told.
    invalidated: bool,
}

fn experiment(smmu: &Smmu<Kernel>, space: &Space, edu: &mut Edu) -> Result<Found, String> {
    let (page, size_bytes) = (&space.page, PAGE_BYTES as u64);
    let mapped = space.table.map(IOVA, page.physical(), size_bytes, Access::ReadWrite, MemoryType::WriteBack);
    mapped.map_err(|error| error.to_string())?;
    fill(page, WRITTEN);
    edu.copy_from_memory(IOVA, 0, BUFFER_BYTES).map_err(|error| error.to_string())?;
    let mut write_arrives = || -> Result<bool, String> {
        fill(page, BLANK);
        edu.copy_to_memory(IOVA, 0, BUFFER_BYTES).map_err(|error| error.to_string())?;
        Ok(page.words().iter().any(|word| word.load(Ordering::Relaxed) != BLANK))
    };
    let mapped = write_arrives()?;
    println!("\nmapped: the device's write {}", in_words(mapped));
    let unmapped = space.table.unmap(IOVA, size_bytes).map_err(|error| error.to_string())?;
    let stale = write_arrives()?;
    println!("unmapped, but nothing invalidated: the device's write {}", in_words(stale));
    let range = StaleRange { start: IOVA, size_bytes, granule: unmapped.granule(), stale: unmapped.stale() };
    smmu.invalidate(space.tag, &range).map_err(|error| error.to_string())?;
    space.table.free(unmapped);
    let invalidated = write_arrives()?;
    println!("invalidated: the device's write {}", in_words(invalidated));
    Ok(Found { mapped, stale, invalidated })
}

fn in_words(arrives: bool) -> &'static str {
    if arrives { "arrives" } else { "is stopped" }
}

fn fill(page: &DmaMemory<Kernel>, value: u64) {
    page.words().iter().for_each(|word| word.store(value, Ordering::Relaxed));
}

/// A stage-1 address space made by hand, and the page in it. All of it outlives the attachment.
struct Space {
    page: DmaMemory<Kernel>,
    table: PageTable<Kernel>,
    tag: TranslationTag,
    entry: StreamTableEntry,
    context: ContextTable<Kernel>,
}

impl Space {
    fn new(smmu: &Smmu<Kernel>) -> Result<Self, String> {
        let features = smmu.features();
        if !features.stage1() {
            return Err("this SMMU has no stage 1".into());
        }
        let walk = features.walk_attributes();
        let config =
            TableConfig { coherent: features.coherent(), ..TableConfig::new(Stage::Stage1, Granule::K4, 39, 44) };
        let table = PageTable::new(&PLATFORM, &config).map_err(|error| error.to_string())?;
        let asid = smmu.take_asid().map_err(|error| error.to_string())?;
        let vmid = Vmid::new(0);
        let descriptor = ContextDescriptor::new(&Stage1Context {
            asid,
            granule: config.granule,
            t0sz: table.t0sz(),
            table: table.root(),
            output_size: AddressSize::Bits44,
            walk,
            mair: PageTable::<Kernel>::MAIR,
            hardware_update: HardwareUpdate::None,
            access_flag_fault_disabled: false,
            stall: false,
        });
        let context = ContextTable::new(smmu, &descriptor).map_err(|error| error.to_string())?;
        let entry = StreamTableEntry::stage1(&Stage1Stream {
            stall_disabled: features.stall_optional(),
            vmid,
            ..Stage1Stream::with_one_context(context.physical(), walk)
        });
        let page = DmaMemory::allocate(&PLATFORM, PAGE_BYTES, PAGE_BYTES).map_err(|error| error.to_string())?;
        Ok(Self { page, table, tag: TranslationTag::Stage1 { asid, vmid }, entry, context })
    }

    /// Never gives the memory back: for an SMMU that does not confirm that it let go.
    fn keep(&self) {
        self.page.keep();
        self.table.keep();
        self.context.keep();
    }
}

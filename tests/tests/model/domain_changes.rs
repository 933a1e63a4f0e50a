//! A device that goes on while its group is moved from one domain to another, of every kind: after every register access it
//! reads a byte, and what it gets says by which domain.

use std::sync::{Arc, Mutex};

use smmu::addr::{Asid, Iova, PhysAddr, StreamId};
use smmu::arch::attributes::{AddressSize, Granule, HardwareUpdate};
use smmu::arch::context_descriptor::{ContextDescriptor, Stage1Context};
use smmu::arch::entry_update::EntryUpdate;
use smmu::arch::stream_table::StreamTableEntry;
use smmu::device::{ContextTable, Smmu, TranslationTag};
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::smmuv3::{GuestRights, SmmuDomain, SmmuNestedDomain, VirtualSmmu};
use smmu::iommu::{DeviceDescription, Domain, DomainConfig, GroupOwnership, PagingDomain};
use smmu::pgtable::{Access, MemoryType, PageTable, Stage, TableConfig};
use tests::model::{Buffer, Caching, Config, Model, ModelPlatform, Pace};

use super::bench::put;
use super::system::System;
use super::watch::{Outcome, during, read};

const IOMMU: Phandle = Phandle::new(1);
const STREAM: StreamId = StreamId::new(7);
/// The number by which the guest knows it, and its command that says that the entry has changed.
const GUEST_STREAM: u64 = 3;
const CFGI_STE: [u64; 2] = [0x03 | GUEST_STREAM << 32, 1];
/// The model's memory.
const RAM: u64 = 0x8000_0000;
const RAM_BYTES: u64 = 0x1000_0000;

type Platform = ModelPlatform;

/// What a guest's stream table says about its only stream.
#[derive(Clone)]
struct Table(Arc<Mutex<[u64; 8]>>);

impl VirtualSmmu for Table {
    fn guest_stream(&self, iommu: Phandle, stream: StreamId) -> Option<StreamId> {
        ((iommu, stream) == (IOMMU, STREAM)).then_some(StreamId::new(GUEST_STREAM as u32))
    }

    fn entry(&self, _: Phandle, _: StreamId) -> [u64; 8] {
        *self.0.lock().unwrap()
    }
}

/// A guest: its memory is the machine's, but for the page of the target.
struct Guest {
    domain: Arc<SmmuNestedDomain<Platform>>,
    memory: Arc<SmmuDomain<Platform>>,
    table: Table,
    stage1: [u64; 8],
    /// Where its stage 1 leads the target, by its addresses.
    data: Iova,
    /// In the order in which they are to go.
    _contexts: ContextTable<Platform>,
    _tables: PageTable<Platform>,
}

/// Domains in which the same address leads to different bytes.
struct World {
    ownership: Option<GroupOwnership<Platform>>,
    domains: Vec<(&'static str, Outcome, Domain<Platform>)>,
    guest: Guest,
    target: Iova,
    system: System,
    _pages: Vec<Buffer>,
}

fn page(model: &Model, pages: &mut Vec<Buffer>, byte: u8) -> PhysAddr {
    let page = model.platform().buffer(4096);
    put(&page, 0, byte.into());
    let physical = page.physical();
    pages.push(page);
    physical
}

/// An address space in which the target leads to a byte.
fn paging(
    model: &Model,
    smmu: &Smmu<Platform>,
    config: &DomainConfig,
    target: Iova,
    to: PhysAddr,
) -> Arc<SmmuDomain<Platform>> {
    let domain = SmmuDomain::new(model.platform(), smmu.features(), config).unwrap();
    domain.map(target, to, 4096, Access::ReadWrite, MemoryType::WriteBack).unwrap();
    Arc::new(domain)
}

impl Guest {
    fn new(model: &Model, smmu: &Smmu<Platform>, pages: &mut Vec<Buffer>, target: Iova) -> Self {
        let memory = paging(model, smmu, &DomainConfig::stage2(), target, page(model, pages, 6));
        for (start, bytes) in around(target) {
            let (iova, physical) = (Iova::new(start), PhysAddr::new(start));
            memory.map(iova, physical, bytes, Access::ReadWrite, MemoryType::WriteBack).unwrap();
        }
        let coherent = smmu.features().coherent();
        let config = TableConfig { coherent, ..TableConfig::new(Stage::Stage1, Granule::K4, 39, 40) };
        let tables = PageTable::new(model.platform(), &config).unwrap();
        let data = page(model, pages, 7);
        tables.map(target, data, 4096, Access::ReadWrite, MemoryType::WriteBack).unwrap();
        let data = Iova::new(data.get());
        let walk = smmu.features().walk_attributes();
        let context = ContextDescriptor::new(&Stage1Context {
            asid: Asid::new(7),
            granule: Granule::K4,
            t0sz: tables.t0sz(),
            table: tables.root(),
            output_size: AddressSize::Bits40,
            walk,
            mair: PageTable::<Platform>::MAIR,
            hardware_update: HardwareUpdate::None,
            access_flag_fault_disabled: false,
            stall: false,
        });
        let contexts = ContextTable::new(smmu, &context).unwrap();
        let stage1 = StreamTableEntry::stage1(&contexts.stage1_stream(walk)).words();
        let table = Table(Arc::new(Mutex::new(stage1)));
        let domain = SmmuNestedDomain::new(Arc::clone(&memory), GuestRights::default(), Box::new(table.clone()));
        Self { domain: Arc::new(domain), memory, table, stage1, data, _contexts: contexts, _tables: tables }
    }

    /// It had all of memory, and may have cached anything of it.
    fn take_memory(&self, target: Iova) {
        around(target).for_each(|(start, bytes)| self.memory.unmap(Iova::new(start), bytes).unwrap());
    }
}

/// All of memory but the page of the target.
fn around(target: Iova) -> impl Iterator<Item = (u64, u64)> {
    let runs = [(RAM, target.get()), (target.get() + 4096, RAM + RAM_BYTES)];
    runs.into_iter().filter(|(start, end)| start < end).map(|(start, end)| (start, end - start))
}

impl World {
    fn new(model: &Model) -> Self {
        let (system, mut pages) = (System::new(model), Vec::new());
        let target = Iova::new(page(model, &mut pages, 0xff).get());
        let smmu = &system.smmu;
        let mut space = |config: &DomainConfig, byte| {
            let to = page(model, &mut pages, byte);
            Domain::Paging(paging(model, smmu, config, target, to))
        };
        let (stage1, stage2) = (DomainConfig::default(), DomainConfig::stage2());
        let mut domains = vec![
            ("blocked", None, Domain::Blocked),
            ("identity", Some(0xff), Domain::Identity),
            ("stage 1", Some(1), space(&stage1, 1)),
            ("another stage 1", Some(2), space(&stage1, 2)),
            ("stage 2", Some(4), space(&stage2, 4)),
            ("another stage 2", Some(5), space(&stage2, 5)),
        ];
        let guest = Guest::new(model, smmu, &mut pages, target);
        let nested = Domain::Nested(Arc::clone(&guest.domain) as Arc<_>);
        let again =
            SmmuNestedDomain::new(Arc::clone(&guest.memory), GuestRights::default(), Box::new(guest.table.clone()));
        domains.extend([
            ("a guest's memory", Some(6), Domain::Paging(Arc::clone(&guest.memory) as Arc<_>)),
            ("a guest", Some(7), nested),
            ("the guest once more", Some(7), Domain::Nested(Arc::new(again))),
        ]);
        let mut fwspec = Fwspec::new();
        fwspec.push(IOMMU, STREAM);
        let device = system.iommus.add_device(DeviceDescription::new("device", fwspec)).unwrap();
        let ownership = Some(system.iommus.own_group(&device, Domain::Blocked).unwrap());
        Self { ownership, domains, guest, target, system, _pages: pages }
    }

    fn go_to(&mut self, domain: &Domain<Platform>) {
        self.ownership.as_mut().unwrap().replace(domain.clone()).unwrap();
    }

    /// The next ASID and VMID.
    fn next_ids(&self) -> (u16, u16) {
        let smmu = &self.system.smmu;
        let (asid, vmid) = (smmu.take_asid().unwrap(), smmu.take_vmid().unwrap());
        smmu.retire(TranslationTag::Stage1 { asid, vmid: smmu::addr::Vmid::new(0) }).unwrap();
        smmu.retire(TranslationTag::Stage2 { vmid }).unwrap();
        (asid.get(), vmid.get())
    }
}

fn configurations() -> impl Iterator<Item = Config> {
    let cachings = [Caching::Greedy, Caching::Dropping { percent: 50 }, Caching::Nothing];
    cachings.into_iter().zip([Pace::After(2), Pace::Immediate, Pace::After(2)]).map(|(caching, pace)| Config {
        pace,
        caching,
        stall_model: 1,
        term_model: true,
        ..Config::full()
    })
}

#[test]
fn r14_a_group_moves_between_domains_of_all_kinds_under_dma() {
    for config in configurations() {
        let model = Model::new(config);
        let mut world = World::new(&model);
        let (device, target, domains) = (model.device(STREAM), world.target, world.domains.clone());
        for (old_name, old, from) in &domains {
            for (new_name, new, to) in &domains {
                world.go_to(from);
                assert_eq!(read(&device, target), *old, "{old_name}");
                let before = world.system.smmu.stream_table_entry(STREAM).unwrap();
                let (seen, after) = during(&model, &device, target, || world.go_to(to));
                let update = EntryUpdate::new(&before, &world.system.smmu.stream_table_entry(STREAM).unwrap());
                assert_eq!(after, *new, "from {old_name} to {new_name}");
                // Where there is a way without a gap there is none: neither to or from nothing.
                let may_abort = !update.is_hitless() || old.is_none() || new.is_none();
                let strange = seen.iter().any(|seen| seen != old && seen != new && (seen.is_some() || !may_abort));
                assert!(!strange, "from {old_name} to {new_name}: {seen:?}");
            }
        }
        // Nothing that is cached leads anywhere any more, and all identifiers are back.
        world.go_to(&Domain::Blocked);
        drop(world.ownership.take());
        world.guest.take_memory(target);
        world.domains.clear();
        drop(domains);
        assert_eq!(world.next_ids(), (1, 1), "all but that of the guest's memory");
        model.clear_log();
    }
}

#[test]
fn r26_a_guest_changes_its_entry_and_loses_memory_under_dma() {
    for config in configurations() {
        let model = Model::new(config);
        let mut world = World::new(&model);
        let (device, target) = (model.device(STREAM), world.target);
        let nested = Domain::Nested(Arc::clone(&world.guest.domain) as Arc<_>);
        world.go_to(&nested);
        let says = |entry: [u64; 8]| *world.guest.table.0.lock().unwrap() = entry;
        let smmu = &world.system.smmu;
        let mut old = Some(7);
        // Bypass, abort, stage 1, nothing, stage 1.
        let entries =
            [[9, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], world.guest.stage1, [0; 8], world.guest.stage1];
        for (entry, new) in entries.into_iter().zip([Some(6), None, Some(7), None, Some(7)]) {
            let mut syncs = 0;
            says(entry);
            let (seen, after) = during(&model, &device, target, || {
                world.guest.domain.forward(smmu, &[CFGI_STE, [0x46, 0]], |_| syncs += 1).unwrap();
                // As a guest does whose stage 1 went or came.
                world.guest.domain.forward(smmu, &[[0x10, 0], [0x46, 0]], |_| syncs += 1).unwrap();
            });
            assert_eq!((after, syncs), (new, 2));
            assert!(seen.iter().all(|seen| [old, new, None].contains(seen)), "{seen:?}");
            old = new;
        }
        // The page with the byte is taken from the guest, whatever it calls it: with stage 1, and without.
        let (memory, data) = (&world.guest.memory, world.guest.data);
        let (seen, after) = during(&model, &device, target, || memory.unmap(data, 4096).unwrap());
        assert!(seen.is_subset(&[Some(7), None].into()), "{seen:?}");
        assert_eq!(after, None);
        memory.map(data, PhysAddr::new(data.get()), 4096, Access::ReadWrite, MemoryType::WriteBack).unwrap();
        assert_eq!(read(&device, target), Some(7));
        says([9, 0, 0, 0, 0, 0, 0, 0]);
        world.guest.domain.forward(smmu, &[CFGI_STE, [0x46, 0]], |_| ()).unwrap();
        assert_eq!(read(&device, target), Some(6));
        let (seen, after) = during(&model, &device, target, || memory.unmap(target, 4096).unwrap());
        assert!(seen.is_subset(&[Some(6), None].into()), "{seen:?}");
        assert_eq!(after, None);
        // What it commands when its stream has gone elsewhere changes nothing.
        world.go_to(&Domain::Identity);
        let says = |entry: [u64; 8]| *world.guest.table.0.lock().unwrap() = entry;
        says(world.guest.stage1);
        world.guest.domain.forward(&world.system.smmu, &[CFGI_STE, [0x46, 0]], |_| ()).unwrap();
        assert_eq!(read(&device, target), Some(0xff));
        drop(world.ownership.take());
        world.guest.take_memory(target);
        drop(nested);
        model.clear_log();
    }
}

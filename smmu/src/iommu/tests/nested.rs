//! Guests' domains: on whose memory they stand, what is forgotten with it, and whose commands reach what.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use std::sync::Mutex;

use super::*;
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::arch::range::Stale;
use crate::arch::stream_table::Eats;
use crate::device::tests::{
    CMD_ATC_INV, CMD_CFGI_STE, CMD_SYNC, CMD_TLBI_NH_ASID, CMD_TLBI_S2_IPA, CMD_TLBI_S12_VMALL, IDR0, Outcome,
    commands, opcodes,
};
use crate::device::{CommandRefusal, StaleRange, TranslationTag};
use crate::iommu::smmuv3::{GuestRights, SmmuDomain, SmmuNestedDomain, VirtualSmmu};
use crate::iommu::{AtsPolicy, Domain, DomainConfig, GroupOwnership, NestedDomain, PagingDomain, UnmapError};
use crate::pgtable::{Access, MapError, MemoryType, RangeError, SharedConfig, SharedTable};

const RAM: Iova = Iova::new(0x4000_0000);
/// A guest's entry with contexts at 0x40001000, and its bypass.
const STAGE1: [u64; 8] = [0x4000_1000 | 0b1011, 0, 0, 0, 0, 0, 0, 0];
const BYPASS: [u64; 8] = [0b1001, 0, 0, 0, 0, 0, 0, 0];

/// A guest that has the same entry for all of its streams, whose numbers are those of the SMMU and 0x100 more.
#[derive(Clone)]
struct Guest(Arc<Mutex<[u64; 8]>>);

impl Guest {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(STAGE1)))
    }

    fn says(&self, entry: [u64; 8]) {
        *self.0.lock().unwrap() = entry;
    }
}

impl VirtualSmmu for Guest {
    fn guest_stream(&self, _: Phandle, stream: StreamId) -> Option<StreamId> {
        (stream.get() != 0x99).then(|| StreamId::new(stream.get() + 0x100))
    }

    fn entry(&self, _: Phandle, _: StreamId) -> [u64; 8] {
        *self.0.lock().unwrap()
    }
}

type Parent = SmmuDomain<TestPlatform>;
type Nested = SmmuNestedDomain<TestPlatform>;

/// A guest's memory: stage 2 with a page.
fn parent(system: &System) -> Arc<Parent> {
    let parent = Parent::new(system.platform, system.a.smmu.features(), &DomainConfig::stage2()).unwrap();
    parent.map(RAM, PhysAddr::new(0x9000_0000), 0x2000, Access::ReadWrite, MemoryType::WriteBack).unwrap();
    Arc::new(parent)
}

fn nested(parent: &Arc<Parent>, rights: GuestRights, guest: &Guest) -> Arc<Nested> {
    Arc::new(Nested::new(Arc::clone(parent), rights, Box::new(guest.clone())))
}

fn on(nested: &Arc<Nested>) -> Domain<TestPlatform> {
    Domain::Nested(Arc::clone(nested) as Arc<dyn NestedDomain<_>>)
}

fn owned(system: &System, device: &Arc<Device>, domain: Domain<TestPlatform>) -> GroupOwnership<TestPlatform> {
    system.iommus.own_group(device, domain).unwrap()
}

/// Config and S2VMID of a stream's entry.
fn config_and_vmid(instance: &Instance, stream: u32) -> (u64, u64) {
    let words = instance.smmu.stream_table_entry(StreamId::new(stream)).unwrap().words();
    (words[0] >> 1 & 7, words[2] & 0xffff)
}

/// The VMIDs that are next at A and B.
fn next_vmids(system: &System) -> [u16; 2] {
    [&system.a, &system.b].map(|instance| {
        let vmid = instance.smmu.take_vmid().unwrap();
        instance.smmu.retire(TranslationTag::Stage2 { vmid }).unwrap();
        vmid.get()
    })
}

#[test]
fn r27_a_guest_and_its_memory_share_one_vmid_in_each_smmu_until_the_last_goes() {
    let system = System::new().registered();
    // So that they differ.
    system.b.smmu.take_vmid().unwrap();
    let before = next_vmids(&system);
    assert_eq!(before, [1, 2]);
    let (device, other) = (system.device(), system.add("other", &[(A, 0x33), (B, 0x44)]).unwrap());
    let (memory, guest) = (parent(&system), Guest::new());
    let domain = nested(&memory, GuestRights::default(), &guest);
    let first = owned(&system, &device, on(&domain));
    let second = owned(&system, &other, Domain::Paging(Arc::clone(&memory) as Arc<dyn PagingDomain<_>>));
    assert_eq!([config_and_vmid(&system.a, 0x11), config_and_vmid(&system.b, 0x22)], [(7, 1), (7, 2)]);
    assert_eq!([config_and_vmid(&system.a, 0x33), config_and_vmid(&system.b, 0x44)], [(6, 1), (6, 2)]);
    drop((first, domain));
    assert_eq!(next_vmids(&system), [2, 3], "the memory is still in use");
    drop((second, memory));
    assert_eq!(next_vmids(&system), before);
}

#[test]
fn r27_a_guests_domain_that_fails_half_way_leaks_nothing() {
    let system = System::new().registered();
    let device = system.device();
    let before = next_vmids(&system);
    for refused in [CMD_CFGI_STE, CMD_TLBI_S12_VMALL] {
        let memory = parent(&system);
        let domain = nested(&memory, GuestRights::default(), &Guest::new());
        let refuse =
            move |[word, _]: [u64; 2]| if word & 0xff == refused { Outcome::Refused(1) } else { Outcome::Done };
        let fake = &system.b.fake;
        fake.on_command(refuse);
        let error = system.iommus.own_group(&device, on(&domain)).unwrap_err();
        assert!(matches!(error, IommuError::Device { iommu: B, .. }), "{error}");
        fake.on_command(|_| Outcome::Done);
        assert_eq!((system.a.word0(0x11), domain.guest_stream(A, StreamId::new(0x11))), (0, None));
        assert!(!device.is_attached());
        drop((domain, memory));
        assert_eq!(next_vmids(&system)[0], before[0]);
    }
}

#[test]
fn r26_what_is_taken_from_a_guests_memory_is_forgotten_whatever_it_calls_it() {
    let system = System::with(|fake| fake.set(IDR0, 0x0d44_101b | 1 << 10), |_| ()).registered();
    let device = system.device();
    device.set_ats_policy(AtsPolicy::WhereSupported);
    let (memory, guest) = (parent(&system), Guest::new());
    let mut ownership = owned(&system, &device, Domain::Paging(Arc::clone(&memory) as Arc<dyn PagingDomain<_>>));
    system.platform.journal();
    memory.unmap(RAM, 0x1000).unwrap();
    let at_b = [CMD_TLBI_S2_IPA, CMD_SYNC];
    let at_a = [CMD_TLBI_S2_IPA, CMD_SYNC, CMD_ATC_INV, CMD_SYNC];
    assert_eq!(opcodes(&system.platform.journal()), [&at_a[..], &at_b].concat());
    // Its guest has not switched ATS on, but may at any moment.
    let domain = nested(&memory, GuestRights { ats: Eats::Full, ..GuestRights::default() }, &guest);
    ownership.replace(on(&domain)).unwrap();
    system.platform.journal();
    memory.unmap(Iova::new(RAM.get() + 0x1000), 0x1000).unwrap();
    let told = commands(&system.platform.journal());
    let [vmall, all] = [[CMD_TLBI_S12_VMALL | 1 << 32, 0], [CMD_ATC_INV | 0x11 << 32, 52]];
    assert_eq!(told, [vmall, [CMD_SYNC, 0], all, [CMD_SYNC, 0], vmall, [CMD_SYNC, 0]]);
    // And back: once, and only once.
    ownership.replace(Domain::Paging(Arc::clone(&memory) as Arc<dyn PagingDomain<_>>)).unwrap();
    memory.map(RAM, PhysAddr::new(0x9000_0000), 0x1000, Access::Read, MemoryType::WriteBack).unwrap();
    system.platform.journal();
    memory.unmap(RAM, 0x1000).unwrap();
    assert_eq!(opcodes(&system.platform.journal()).iter().filter(|opcode| **opcode == CMD_ATC_INV).count(), 1);
    ownership.replace(Domain::Identity).unwrap();
    memory.map(RAM, PhysAddr::new(0x9000_0000), 0x1000, Access::Read, MemoryType::WriteBack).unwrap();
    system.platform.journal();
    memory.unmap(RAM, 0x1000).unwrap();
    assert!(!opcodes(&system.platform.journal()).contains(&CMD_ATC_INV));
}

#[test]
fn a_guests_commands_reach_its_own_streams_by_its_own_numbers() {
    let system = System::new().registered();
    let (device, other) = (system.device(), system.add("other", &[(A, 0x33)]).unwrap());
    let (memory, guest) = (parent(&system), Guest::new());
    let domain = nested(&memory, GuestRights::default(), &guest);
    let mut ownership = owned(&system, &device, on(&domain));
    let _other = owned(&system, &other, Domain::Identity);
    assert_eq!(domain.guest_stream(A, StreamId::new(0x11)), Some(StreamId::new(0x111)));
    assert_eq!(domain.guest_stream(B, StreamId::new(0x11)), None);
    guest.says(BYPASS);
    let mut syncs = 0;
    let sent = [
        [CMD_CFGI_STE | 0x111 << 32, 1],
        [CMD_CFGI_STE | 0x133 << 32, 1],
        [CMD_TLBI_NH_ASID | 7 << 48, 0],
        [CMD_SYNC, 0],
    ];
    system.platform.journal();
    domain.forward(&system.a.smmu, &sent, |_| syncs += 1).unwrap();
    let told = commands(&system.platform.journal());
    assert!(told.contains(&[CMD_TLBI_NH_ASID | 7 << 48 | 1 << 32, 0]), "{told:#x?}");
    assert!(told.iter().all(|[word, _]| word & 0xff != CMD_CFGI_STE || word >> 32 == 0x11), "{told:#x?}");
    assert_eq!(syncs, 1);
    assert_eq!(
        [config_and_vmid(&system.a, 0x11), config_and_vmid(&system.b, 0x22)],
        [(6, 1), (7, 1)],
        "B's was not told"
    );
    assert_eq!(config_and_vmid(&system.a, 0x33).0, 4);
    // What is refused is illegal to the guest, and what it may not command stops its queue.
    guest.says([0b1101, 0, 0, 0, 0, 0, 0, 0]);
    let refused = domain.forward(&system.a.smmu, &[[CMD_CFGI_STE | 0x111 << 32, 1], [CMD_TLBI_S12_VMALL, 0]], |_| ());
    assert_eq!(
        refused.map_err(|refused| (refused.index, matches!(refused.reason, CommandRefusal::Forbidden { .. }))),
        Err((1, true))
    );
    assert_eq!(system.a.word0(0x11), 0);
    // A stream that has left is none of its business; one that it does not know aborts.
    ownership.replace(Domain::Identity).unwrap();
    guest.says(STAGE1);
    domain.forward(&system.a.smmu, &sent, |_| ()).unwrap();
    assert_eq!([config_and_vmid(&system.a, 0x11).0, config_and_vmid(&system.b, 0x22).0], [4, 4]);
    let unknown = owned(&system, &system.add("unknown", &[(A, 0x99)]).unwrap(), on(&domain));
    assert_eq!(
        (config_and_vmid(&system.a, 0x99).0, unknown.domain().to_string()),
        (0, "a guest's, on 44 bits of its memory".into())
    );
}

#[test]
fn r35_guests_stand_on_stage_2_of_this_driver_alone() {
    let system = System::with(|_| (), |fake| fake.set(IDR0, 0x0d44_1019)).registered();
    let (device, guest) = (system.device(), Guest::new());
    let mut ownership = owned(&system, &device, Domain::Blocked);
    let refused = ownership.replace(on(&nested(&parent(&system), GuestRights::default(), &guest))).unwrap_err();
    assert!(matches!(refused, IommuError::Incompatible { iommu: B, .. }), "{refused}");
    let stage1 = Parent::new(system.platform, system.a.smmu.features(), &DomainConfig::default()).unwrap();
    let refused = ownership.replace(on(&nested(&Arc::new(stage1), GuestRights::default(), &guest))).unwrap_err();
    assert!(matches!(refused, IommuError::Incompatible { iommu: A, .. }), "{refused}");
    assert!(ownership.domain().is_blocked());
}

#[test]
fn r26_a_hypervisors_own_table_is_a_domain_that_it_changes_itself() {
    let system = System::new().registered();
    let root = PhysAddr::new(0xa000_0000);
    let config = SharedConfig { root, granule: Granule::K4, input_bits: 40, output_bits: 44, start_level: 0 };
    let table = SharedTable::new(&config).unwrap();
    // One block of 1 GiB by way of a table of level 1.
    let read = move |at: PhysAddr| Some(if at.get() < 0xa000_1000 { 0xa000_1003 } else { 0x4000_0000 | 0x7fd });
    let memory = Arc::new(Parent::over(table, Box::new(read)));
    let found = memory.lookup(Iova::new(0x1234)).unwrap();
    assert_eq!((found.physical, found.level), (PhysAddr::new(0x4000_1234), 1));
    let refused = memory.map(RAM, root, 0x1000, Access::Read, MemoryType::WriteBack);
    assert_eq!(refused, Err(MapError::NotOwned { iova: RAM }));
    assert_eq!(memory.unmap(RAM, 0x1000), Err(UnmapError::Table(RangeError::NotOwned { iova: RAM })));
    let (device, guest) = (system.device(), Guest::new());
    let mut ownership = owned(&system, &device, Domain::Paging(Arc::clone(&memory) as Arc<dyn PagingDomain<_>>));
    let words = system.a.smmu.stream_table_entry(StreamId::new(0x11)).unwrap().words();
    assert_eq!((words[0] >> 1 & 7, words[3]), (6, root.get()));
    let (granule, stale) = (Granule::K4, Stale::TablesAndLeaves);
    let range = StaleRange { start: RAM, size_bytes: 0x1000, granule, stale };
    for (is_nested, opcode) in [(false, CMD_TLBI_S2_IPA), (true, CMD_TLBI_S12_VMALL)] {
        if is_nested {
            ownership.replace(on(&nested(&memory, GuestRights::default(), &guest))).unwrap();
        }
        system.platform.journal();
        memory.forget(&range).unwrap();
        assert_eq!(opcodes(&system.platform.journal()), vec![opcode, CMD_SYNC, opcode, CMD_SYNC]);
    }
    let walks: Vec<_> = [0x1000].into_iter().map(|at| memory.lookup(Iova::new(at)).is_some()).collect();
    assert_eq!(walks, [true]);
    drop((ownership, memory));
    assert_eq!(next_vmids(&system), [1, 1]);
}

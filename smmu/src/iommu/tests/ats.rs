//! Devices with translation caches: what they and the SMMU are told, and when.

use super::*;
use crate::addr::{Iova, PhysAddr};
use crate::device::DeviceError;
use crate::device::tests::{CMD_CFGI_STE, CMD_SYNC, CMD_TLBI_NH_VA, CR0, IDR0, Outcome, commands, opcodes};
use crate::iommu::AtsPolicy;
use crate::pgtable::{Access, MemoryType};

const CMD_ATC_INV: u64 = 0x40;

/// A system whose SMMU A has ATS.
fn system() -> System {
    System::with(|fake| fake.set(IDR0, 0x0d44_101b | 1 << 10), |_| ()).registered()
}

/// The device with stream 0x11 at A and 0x22 at B, which may use ATS.
fn caching_device(system: &System) -> Arc<Device> {
    let device = system.device();
    device.set_ats_policy(AtsPolicy::WhereSupported);
    device
}

/// Maps one page, and says where.
fn map_one_page(attachment: &Attachment<TestPlatform>) -> Iova {
    let iova = Iova::new(0x4000_0000);
    let physical = PhysAddr::new(0x9000_1000);
    attachment.paging().unwrap().map(iova, physical, 0x1000, Access::ReadWrite, MemoryType::WriteBack).unwrap();
    iova
}

#[test]
fn r19_caches_are_emptied_before_an_entry_comes_and_before_it_goes() {
    let system = system();
    let device = caching_device(&system);
    let flush = [[CMD_ATC_INV | 0x11 << 32, 52], [CMD_SYNC, 0]];
    system.platform.journal();
    let attachment = system.configured(&device);
    let told = commands(&system.platform.journal());
    assert_eq!(told[..2], flush);
    // Two more pairs for the entry at A and two for the one at B, which has no ATS.
    assert_eq!(told[2..].iter().map(|[word, _]| word & 0xff).collect::<Vec<_>>(), [CMD_CFGI_STE, CMD_SYNC].repeat(4));
    let eats = |instance: &Instance, stream| {
        let entry = instance.smmu.stream_table_entry(StreamId::new(stream)).unwrap();
        entry.words()[1] >> 28 & 3
    };
    assert_eq!((eats(&system.a, 0x11), eats(&system.b, 0x22)), (1, 0));
    assert!(!attachment.uses_ats(), "not everywhere");
    drop(attachment);
    let told = commands(&system.platform.journal());
    assert_eq!(told[..4], [[CMD_CFGI_STE | 0x22 << 32, 1], flush[1], flush[0], flush[1]]);
    assert_eq!(system.a.word0(0x11), 0);
}

#[test]
fn r19_a_device_that_may_not_use_ats_does_not() {
    let system = system();
    let device = system.device();
    assert_eq!(device.ats_policy(), AtsPolicy::Never);
    system.platform.journal();
    drop(system.configured(&device));
    assert!(!opcodes(&system.platform.journal()).contains(&CMD_ATC_INV));
}

#[test]
fn r31_instances_with_and_without_ats_each_get_their_own() {
    let system = system();
    let attachment = system.configured(&caching_device(&system));
    let iova = map_one_page(&attachment);
    system.platform.journal();
    attachment.paging().unwrap().unmap(iova, 0x1000).unwrap();
    let at_a = [CMD_TLBI_NH_VA, CMD_SYNC, CMD_ATC_INV, CMD_SYNC];
    assert_eq!(opcodes(&system.platform.journal()), [&at_a[..], &[CMD_TLBI_NH_VA, CMD_SYNC]].concat());
}

#[test]
fn an_attachment_that_fails_leaves_nobody_to_tell() {
    let system = system();
    let device = caching_device(&system);
    // B refuses; what was done at A is undone.
    system.b.fake.on_command(|[word, _]| if word & 0xff == CMD_CFGI_STE { Outcome::Refused(1) } else { Outcome::Done });
    assert!(matches!(system.refused(&device), IommuError::Device { iommu: B, .. }));
    assert_eq!(system.a.word0(0x11), 0);
    assert!(!device.is_quarantined());
}

#[test]
fn r27_nothing_that_fails_leaks_an_identifier() {
    let system = System::new().registered();
    let device = system.device();
    // However far it gets, the next attempt finds both instances as they were.
    let taken = (0..).find_map(|allocations| {
        system.platform.allow_allocations(allocations);
        let attachment = system.iommus.configure(&device).ok();
        system.platform.allow_allocations(usize::MAX);
        let Some(Configuration::Configured(attachment)) = attachment else { return None };
        assert!(allocations > 2, "it does allocate");
        let ids = [&system.a, &system.b].map(|instance| instance.smmu.take_asid().unwrap().get());
        drop(attachment);
        Some(ids)
    });
    assert_eq!(taken, Some([2, 2]), "the one in use is number 1");
    // Refused at B: A's was taken already.
    for opcode in [CMD_CFGI_STE, CMD_SYNC] {
        system
            .b
            .fake
            .on_command(move |[word, _]| if word & 0xff == opcode { Outcome::Refused(1) } else { Outcome::Done });
        system.refused(&device);
        system.b.fake.on_command(|_| Outcome::Done);
    }
    assert_eq!([&system.a, &system.b].map(|instance| instance.smmu.take_asid().unwrap().get())[0], 1);
}

#[test]
fn a_smmu_that_does_not_answer_at_all_is_closed() {
    let system = system();
    let attachment = system.configured(&caching_device(&system));
    let iova = map_one_page(&attachment);
    system.a.fake.on_command(|[word, _]| if word & 0xff == CMD_ATC_INV { Outcome::Stuck } else { Outcome::Done });
    let error = attachment.paging().unwrap().unmap(iova, 0x1000).unwrap_err();
    assert!(
        matches!(error, crate::iommu::UnmapError::Invalidation(DriverError::Smmu(DeviceError::Timeout { .. }))),
        "{error}"
    );
    assert_eq!((system.a.fake.get(CR0), system.b.is_on()), (0, true));
    assert!(!attachment.device().is_quarantined(), "it is the SMMU that failed");
}

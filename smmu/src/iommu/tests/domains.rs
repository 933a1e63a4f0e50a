//! Which address spaces can be had, and what an instance makes of those that it cannot serve.

use super::*;
use crate::arch::attributes::Granule;
use crate::device::Features;
use crate::device::tests::{IDR0, IDR3, IDR5};
use crate::iommu::smmuv3::SmmuDomain;
use crate::iommu::{Domain, DomainConfig, PagingDomain};
use crate::pgtable::{Stage, TableError, Tracking};

/// A system whose SMMUs have the same IDR0 and IDR5.
fn system(idr0: u32, idr5: u32) -> System {
    let prepare = |fake: &FakeSmmu| {
        fake.set(IDR0, idr0);
        fake.set(IDR5, idr5);
    };
    System::with(prepare, prepare).registered()
}

fn domain(system: &System, config: &DomainConfig) -> Result<Arc<dyn PagingDomain<TestPlatform>>, IommuError> {
    system.iommus.allocate_domain(&system.device(), config)
}

const BOTH_STAGES: u32 = 0x0d44_101b;

#[test]
fn what_is_not_asked_for_is_the_best_that_there_is() {
    for (idr0, idr5, expected) in [
        (BOTH_STAGES, 0x74, (Stage::Stage1, Granule::K4, 48)),
        (BOTH_STAGES, 0x64, (Stage::Stage1, Granule::K16, 48)),
        (BOTH_STAGES, 0x44, (Stage::Stage1, Granule::K64, 48)),
        // OAS of 52 bits is of use to 64 KiB alone.
        (BOTH_STAGES, 0x76, (Stage::Stage1, Granule::K4, 48)),
        (BOTH_STAGES, 0x46, (Stage::Stage1, Granule::K64, 48)),
        (0x0d44_1019, 0x74, (Stage::Stage2, Granule::K4, 44)),
        (0x0d44_1019, 0x46, (Stage::Stage2, Granule::K64, 48)),
    ] {
        let system = system(idr0, idr5);
        let domain = domain(&system, &DomainConfig::default()).unwrap();
        assert_eq!((domain.stage(), domain.granule(), domain.input_bits()), expected, "{idr0:#x} {idr5:#x}");
        let top = if idr5 & 0x70 == 0x40 && idr5 & 7 == 6 { 1 << 51 } else { 1 << 43 };
        let (access, memory) = (crate::pgtable::Access::ReadWrite, crate::pgtable::MemoryType::WriteBack);
        let (iova, top) = (crate::addr::Iova::new(0x10_0000), crate::addr::PhysAddr::new(top));
        domain.map(iova, top, 0x1_0000, access, memory).unwrap();
        assert_eq!(domain.lookup(iova).unwrap().physical, top);
    }
}

#[test]
fn what_is_asked_for_is_had_or_refused_with_a_reason() {
    let system = system(BOTH_STAGES, 0x34);
    let config = DomainConfig { granule: Some(Granule::K16), input_bits: Some(36), ..DomainConfig::stage2() };
    let made = domain(&system, &config).unwrap();
    assert_eq!((made.stage(), made.granule(), made.input_bits()), (Stage::Stage2, Granule::K16, 36));
    let default = DomainConfig::default();
    for (config, lacks) in [
        (DomainConfig { granule: Some(Granule::K64), ..default }, "the granule"),
        (DomainConfig { output_bits: Some(48), ..default }, "the output address size"),
        (DomainConfig { tracking: Tracking::HardwareAccess, ..default }, "updates of the Access flag and dirty state"),
        (DomainConfig { force_write_back: true, ..DomainConfig::stage2() }, "forced write-back at stage 2"),
    ] {
        let error = domain(&system, &config).err().unwrap();
        assert!(
            matches!(&error, IommuError::Device { error: DriverError::Lacks(what), .. } if *what == lacks),
            "{error}"
        );
    }
    let error = domain(&system, &DomainConfig { input_bits: Some(20), ..default }).err().unwrap();
    assert!(
        matches!(&error, IommuError::Device { error: DriverError::Table(TableError::InputBits { .. }), .. }),
        "{error}"
    );
}

#[test]
fn r35_an_instance_refuses_what_another_can_serve() {
    // B has neither 16 KiB nor updates of descriptors, nor forced write-back; A has all.
    let system = System::with(
        |fake| {
            fake.set(IDR0, BOTH_STAGES | 2 << 6);
            fake.set(IDR3, 0x1414 | 1 << 8);
        },
        |fake| fake.set(IDR5, 0x54),
    )
    .registered();
    let device = system.device();
    let features: &Features = system.a.smmu.features();
    let mut ownership = system.iommus.own_group(&device, Domain::Blocked).unwrap();
    let default = DomainConfig::default();
    for config in [
        DomainConfig { granule: Some(Granule::K16), ..default },
        DomainConfig { tracking: Tracking::HardwareAccessAndDirty, ..default },
        DomainConfig { force_write_back: true, ..DomainConfig::stage2() },
    ] {
        let domain = SmmuDomain::new(system.platform, features, &config).unwrap();
        assert_eq!(domain.lacks(features), None, "{config:?}");
        let refused = ownership.replace(Domain::Paging(Arc::new(domain))).unwrap_err();
        assert!(matches!(refused, IommuError::Incompatible { iommu: B, .. }), "{refused}");
        assert!(ownership.domain().is_blocked());
    }
    ownership.replace(Domain::Paging(domain(&system, &default).unwrap())).unwrap();
}

#[test]
fn r29_contexts_and_entries_say_what_the_table_counts_on() {
    let system = System::with(
        |fake| {
            fake.set(IDR0, BOTH_STAGES | 2 << 6);
            fake.set(IDR3, 0x1414 | 1 << 8);
        },
        |_| (),
    );
    system.register(A);
    let device = system.add("one", &[(A, 0x11)]).unwrap();
    let tracked =
        DomainConfig { tracking: Tracking::HardwareAccessAndDirty, force_write_back: true, ..DomainConfig::stage2() };
    let made = system.iommus.allocate_domain(&device, &tracked).unwrap();
    let ownership = system.iommus.own_group(&device, Domain::Paging(made)).unwrap();
    let words = system.a.smmu.stream_table_entry(StreamId::new(0x11)).unwrap().words();
    assert_eq!((words[1] >> 25 & 1, words[2] >> 55 & 3), (1, 3), "S2FWB, S2HD and S2HA");
    drop(ownership);
    let tracked = DomainConfig { stage: Some(Stage::Stage1), force_write_back: false, ..tracked };
    let made = system.iommus.allocate_domain(&device, &tracked).unwrap();
    let _ownership = system.iommus.own_group(&device, Domain::Paging(made)).unwrap();
    let words = system.a.smmu.stream_table_entry(StreamId::new(0x11)).unwrap().words();
    let context = system.platform.snooped_word(crate::addr::PhysAddr::new(words[0] & 0xf_ffff_ffff_ffc0));
    assert_eq!(context >> 42 & 3, 3, "HD and HA");
}

//! Two drivers in one system, and what is whose.

use super::*;
use crate::iommu::{Domain, PagingDomain};
use other::{OTHER, OtherDomain};

const C: Phandle = Phandle::new(0x8006);

/// Behind A an SMMU, behind C an instance of the other driver.
fn system() -> (System, Arc<Script>, Arc<Other<TestPlatform>>) {
    let system = System::new();
    system.register(A);
    let script = Arc::default();
    let c = Other::new("C", system.platform, &script);
    system.iommus.register(C, Arc::clone(&c)).unwrap();
    (system, script, c)
}

#[test]
fn r35_a_domain_is_made_by_the_devices_own_driver() {
    let (system, _, c) = system();
    let [at_a, at_c] = [(A, 1), (C, 1)].map(|stream| system.add("device", &[stream]).unwrap());
    let [one, two] = [&at_a, &at_c].map(|device| system.configured(device));
    let driver = |attachment: &Attachment<TestPlatform>| attachment.paging().unwrap().driver();
    assert_eq!([driver(&one), driver(&two)], ["arm-smmu-v3", OTHER]);
    assert_eq!((system.a.word0(1) & 0xf, c.place(1).as_str()), (0xb, "0"));
    assert_eq!(system.iommus.allocate_domain(&at_c, &DomainConfig::default()).unwrap().driver(), OTHER);
}

#[test]
fn r35_a_device_behind_two_drivers_is_refused_by_both() {
    for streams in [[(A, 1), (C, 2)], [(C, 2), (A, 1)]] {
        let (system, script, c) = system();
        let device = system.add("both", &streams).unwrap();
        let blocks = system.platform.blocks();
        script.journal();
        let error = system.refused(&device);
        assert!(matches!(error, IommuError::ForeignDomain { iommu, .. } if iommu == streams[1].0), "{error}");
        assert_eq!((system.a.word0(1), c.place(2).as_str(), system.platform.blocks()), (0, "blocked", blocks));
        assert!(!script.journal().iter().any(|line| line.contains("->")));
    }
}

#[test]
fn r35_a_foreign_domain_is_refused_and_the_device_keeps_what_it_had() {
    let (system, script, c) = system();
    let [at_a, at_c] = [(A, 1), (C, 1)].map(|stream| system.add("device", &[stream]).unwrap());
    let foreign: Arc<dyn PagingDomain<_>> = OtherDomain::make(OTHER, &script);
    let of_a = system.iommus.allocate_domain(&at_a, &DomainConfig::default()).unwrap();
    let [mut one, mut two] = [&at_a, &at_c].map(|device| system.configured(device));
    let had = [one.domain().clone(), two.domain().clone()];
    let entry = system.a.word0(1);
    let error = one.replace(Domain::Paging(foreign)).unwrap_err();
    assert_eq!(error, IommuError::ForeignDomain { iommu: A, driver: "arm-smmu-v3", made_by: OTHER });
    let error = two.replace(Domain::Paging(Arc::clone(&of_a))).unwrap_err();
    assert_eq!(error, IommuError::ForeignDomain { iommu: C, driver: OTHER, made_by: "arm-smmu-v3" });
    assert_eq!([one.domain(), two.domain()], [&had[0], &had[1]]);
    assert_eq!((system.a.word0(1), c.place(1).as_str()), (entry, "1"));
    drop(two);
    let error = system.iommus.own_group(&at_c, Domain::Paging(of_a)).unwrap_err();
    assert!(matches!(error, IommuError::ForeignDomain { iommu: C, .. }), "{error}");
    assert!(!at_c.is_attached());
}

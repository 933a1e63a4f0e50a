//! Addresses that mean something already.

use super::*;
use crate::addr::Iova;
use crate::iommu::{Domain, ReservedKind, ReservedRegion};
use crate::pgtable::MapError;
use other::own;

const PAGE: u64 = 0x1000;

fn direct(start: u64, pages: u64) -> ReservedRegion {
    ReservedRegion { start: Iova::new(start), size_bytes: pages * PAGE, kind: ReservedKind::Direct }
}

fn hole(start: u64, pages: u64) -> ReservedRegion {
    ReservedRegion { kind: ReservedKind::Hole, ..direct(start, pages) }
}

fn with(reserved: &[ReservedRegion]) -> impl FnOnce(&mut DeviceDescription) + use<> {
    let reserved = reserved.to_vec();
    move |description| description.reserved = reserved
}

fn mapped(domain: &Domain<TestPlatform>) -> usize {
    own(domain).unwrap().pages()
}

#[test]
fn r39_what_a_device_uses_from_the_start_is_mapped_before_it_is_translated() {
    let others = Others::registered();
    let display = others.add_with("display", &[(A, 1)], with(&[direct(0x4000, 2), hole(0x8000, 1)]));
    others.script.journal();
    let mut attachment = others.configured(&display);
    assert_eq!(others.script.journal(), ["A: allocate", "A: accepts", "map 0x4000", "A: 0x1 blocked -> 0"]);
    let paging = attachment.paging().unwrap();
    assert_eq!(paging.lookup(Iova::new(0x5010)).unwrap().physical.get(), 0x5010);
    assert_eq!(paging.lookup(Iova::new(0x8000)), None);
    let next = Domain::Paging(others.iommus.allocate_domain(&display, &DomainConfig::default()).unwrap());
    others.script.journal();
    attachment.replace(next.clone()).unwrap();
    assert_eq!(others.script.journal(), ["A: accepts", "map 0x4000", "A: 0x1 0 -> 1"]);
    // Back to a domain that has it already.
    attachment.replace(Domain::Identity).unwrap();
    attachment.replace(next).unwrap();
    assert_eq!(mapped(attachment.domain()), 2);
}

#[test]
fn r39_what_cannot_be_mapped_is_an_error_and_nothing_of_it_is_left() {
    let others = Others::registered();
    let display = others.add_with("display", &[(A, 1)], with(&[direct(0x4000, 2)]));
    let overlapping = others.add_with("other", &[(A, 1)], with(&[direct(0x1000, 1), direct(0x5000, 2)]));
    let same = others.add_with("same", &[(A, 1)], with(&[direct(0x1000, 1), direct(0x5000, 1)]));
    let attachment = others.configured(&display);
    let error = others.iommus.configure(&overlapping).unwrap_err();
    let expected = MapError::Overlap { iova: Iova::new(0x5000) };
    assert_eq!(error, IommuError::ReservedRegion { device: "other".into(), error: expected });
    assert_eq!(mapped(attachment.domain()), 2);
    let _shared = others.configured(&same);
    assert_eq!(mapped(attachment.domain()), 3);
}

#[test]
fn r39_a_domain_that_is_refused_gets_no_mappings() {
    let (others, stranger) = (Others::registered(), System::new().registered());
    let display = others.add_with("display", &[(A, 1)], with(&[direct(0x4000, 2)]));
    let foreign = stranger.iommus.allocate_domain(&stranger.device(), &DomainConfig::default()).unwrap();
    let mut attachment = others.configured(&display);
    assert!(attachment.replace(Domain::Paging(Arc::clone(&foreign))).is_err());
    drop(attachment);
    assert!(others.iommus.own_group(&display, Domain::Paging(Arc::clone(&foreign))).is_err());
    assert_eq!(foreign.lookup(Iova::new(0x4000)), None);
}

//! What the model has no occasion for, raised by hand: the real driver copes with it.

use smmu::addr::{Iova, PhysAddr, StreamId, SubstreamId};
use smmu::arch::command::PriResponse;
use smmu::arch::event::{EventKind, FetchKind};
use smmu::device::PageRequestDrain;
use tests::model::{Config, Model, PageRequest};

use super::system::bring_up;

/// SSV, SubstreamID 9, StreamID 5.
const SOURCE: u64 = 1 << 11 | 9 << 12 | 5 << 32;
/// RnW.
const READ: u64 = 1 << 35;

#[test]
fn events_without_an_occasion_arrive_as_they_are() {
    let model = Model::new(Config::full());
    let smmu = bring_up(&model).unwrap();
    let address = 0x1234_5678;
    for words in [
        [0x01 | SOURCE, 0xabcd | READ, address, 0],
        [0x20 | SOURCE, 0x8000_0001 | READ, address, 0],
        [0x21 | SOURCE, 0x8000_0001, 0, 0],
        [0x24 | SOURCE, READ | 3 << 44, address, 0],
        [0x25 | SOURCE, 0xabcd, 0, address],
        [0xe3 | SOURCE, 1, 2, 3],
    ] {
        model.raise_event(words);
    }
    let mut kinds = Vec::new();
    let drained = smmu.drain_events(|event| {
        assert_eq!((event.source.stream, event.source.substream), (StreamId::new(5), Some(SubstreamId::new(9))));
        kinds.push(event.kind);
    });
    assert!(!drained.overflowed && !drained.inconsistent);
    let [uut, tlb, configuration, hint, fetch, unknown] = &kinds[..] else { panic!("{kinds:?}") };
    let input = Iova::new(address);
    assert!(matches!(uut, EventKind::Uut { reason: 0xabcd, input: found, .. } if *found == input));
    assert!(
        matches!(tlb, EventKind::TlbConflict { reason: 0x8000_0001, input: found, ipa: None, .. } if *found == input)
    );
    assert!(matches!(configuration, EventKind::CfgConflict { reason: 0x8000_0001 }));
    let page = Iova::new(address & !0xfff);
    assert!(matches!(hint, EventKind::PageRequest { span: 3, input: found, .. } if *found == page));
    let EventKind::Fetch(fault) = fetch else { panic!("{fetch:?}") };
    assert_eq!((fault.kind, fault.reason, fault.address), (FetchKind::Vms, 0xabcd, PhysAddr::new(address)));
    assert!(matches!(unknown, EventKind::Unknown { number: 0xe3, .. }));
    // None of it stops anything.
    assert_eq!(smmu.drain_events(|event| panic!("{event:?}")).events, 0);
    assert!(smmu.handle_global_errors().is_empty());
}

fn request(group: u16, last: bool) -> PageRequest {
    PageRequest { address: 0x5000, read: true, write: false, execute: true, last, group }
}

#[test]
fn a_queue_that_claims_to_be_full_is_acknowledged_empty() {
    let model = Model::new(Config::full());
    let smmu = bring_up(&model).unwrap();
    smmu.enable_page_requests().unwrap();
    let device = model.device(StreamId::new(5));
    model.inject(|faults| faults.page_request_queue_full = true);
    assert!(!device.request_page(&request(1, true)));
    model.inject(|faults| faults.page_request_queue_full = false);
    assert!(!device.request_page(&request(2, true)), "until the overflow is acknowledged");
    let answered: Vec<_> = device.page_responses().iter().map(|answer| (answer.group, answer.automatic)).collect();
    assert_eq!(answered, [(1, true), (2, true)]);
    let drained = smmu.drain_page_requests(|request| panic!("{request:?}"));
    assert_eq!(drained, PageRequestDrain { requests: 0, overflowed: true, inconsistent: false });
    assert!(device.request_page(&request(3, true)));
    assert_eq!(smmu.drain_page_requests(|request| assert_eq!(request.group, 3)).requests, 1);
}

#[test]
fn page_requests_say_who_wants_what_and_stop_markers_want_no_answer() {
    let model = Model::new(Config::full());
    let smmu = bring_up(&model).unwrap();
    let device = model.device(StreamId::new(5)).substream(9).privileged();
    let marker = PageRequest { read: false, execute: false, ..request(4, true) };
    // Nobody looks: what wants an answer gets one.
    assert!(!device.request_page(&marker));
    assert!(device.page_responses().is_empty());
    assert!(!device.request_page(&request(4, true)));
    assert_eq!(device.page_responses().len(), 1);
    smmu.enable_page_requests().unwrap();
    for asked in [request(1, false), marker] {
        assert!(device.request_page(&asked));
    }
    let plain = model.device(StreamId::new(5)).privileged();
    assert!(plain.request_page(&request(2, true)));
    let mut found = Vec::new();
    smmu.drain_page_requests(|request| found.push(request));
    let [first, stop, without] = &found[..] else { panic!("{found:?}") };
    assert!(first.privileged && first.access.execute && first.access.read && !first.is_stop_marker());
    assert!(stop.is_stop_marker());
    assert!(!without.privileged && !without.access.execute, "both come with a SubstreamID");
    smmu.answer_page_requests(without, PriResponse::Success).unwrap();
    assert_eq!(plain.page_responses().len(), 1);
}

//! Devices that ask for pages, and transactions that wait.

use smmu::addr::{Iova, StreamId, SubstreamId};
use smmu::arch::command::{PriResponse, ResumeAction};
use smmu::arch::event::{EventKind, Stag};
use smmu::arch::page_request::PageRequest as Request;
use smmu::arch::stream_table::StreamTableEntry;
use smmu::device::{DeviceError, PageRequestDrain, Smmu};
use smmu::platform::Registers;
use tests::model::{Config, GlobalError, Model, ModelPlatform, PageRequest, PageResponse, Refused};

use super::bench::{CD0, put, put_cd, stage1_ste, touch};
use super::system::bring_up;

/// PRIQ_PROD and PRIQ_CONS.
const PRIQ: [usize; 2] = [0x100c8, 0x100cc];

fn small() -> Config {
    Config { priqs: 2, ..Config::full() }
}

fn request(group: u16, last: bool) -> PageRequest {
    PageRequest { address: 0x5123, read: true, write: true, execute: false, last, group }
}

fn answer(group: u16, code: u8, automatic: bool) -> PageResponse {
    PageResponse { substream: None, group, code, automatic }
}

fn drain(smmu: &Smmu<ModelPlatform>) -> (Vec<Request>, PageRequestDrain) {
    let mut requests = Vec::new();
    let drained = smmu.drain_page_requests(|request| requests.push(request));
    assert_eq!(drained.requests as usize, requests.len());
    (requests, drained)
}

#[test]
fn nobody_waits_for_an_answer_from_somebody_who_does_not_look() {
    let model = Model::new(Config::full());
    let smmu = bring_up(&model).unwrap();
    let device = model.device(StreamId::new(5));
    assert!(!device.request_page(&request(1, true)));
    assert_eq!(device.page_responses(), [answer(1, 0, true)]);
    assert!(drain(&smmu).0.is_empty());
    smmu.enable_page_requests().unwrap();
    smmu.enable_page_requests().unwrap();
    assert!(device.request_page(&request(1, true)));
    assert_eq!(drain(&smmu).0.len(), 1);
}

#[test]
fn requests_are_handed_out_and_answered() {
    let model = Model::new(small());
    let smmu = bring_up(&model).unwrap();
    smmu.enable_page_requests().unwrap();
    let device = model.device(StreamId::new(5));
    // Several laps.
    for group in 0..20 {
        assert!(device.request_page(&request(group, false)));
        assert!(device.substream(9).request_page(&request(group, true)));
        let (requests, drained) = drain(&smmu);
        assert!(!drained.overflowed && !drained.inconsistent);
        let [first, last] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!((first.stream, first.substream, first.group, first.last), (StreamId::new(5), None, group, false));
        assert_eq!((last.substream, last.last), (Some(SubstreamId::new(9)), true));
        assert_eq!(first.address, Iova::new(0x5000));
        smmu.answer_page_requests(last, PriResponse::Invalid).unwrap();
        let with_substream = PageResponse { substream: Some(9), ..answer(group, 1, false) };
        assert_eq!(device.page_responses(), [with_substream]);
    }
    let [producer, consumer] = PRIQ.map(|register| model.registers().read32(register));
    assert_eq!(producer, consumer);
}

#[test]
fn an_overflow_is_acknowledged_when_all_that_came_before_is_taken() {
    let model = Model::new(small());
    let smmu = bring_up(&model).unwrap();
    smmu.enable_page_requests().unwrap();
    let device = model.device(StreamId::new(5));
    for round in 0..3 {
        (0..6).for_each(|group| assert_eq!(device.request_page(&request(group, true)), group < 4));
        assert_eq!(device.page_responses(), [answer(4, 2, true), answer(5, 2, true)], "answered by the SMMU");
        let mut seen = 0;
        let drained = smmu.drain_page_requests(|_| {
            seen += 1;
            // Only the last one makes room: between the others nothing new may come.
            assert_eq!(device.request_page(&request(7, false)), seen == 4, "round {round}, {seen} taken");
        });
        assert_eq!(drained, PageRequestDrain { requests: 4, overflowed: true, inconsistent: false });
        let (rest, drained) = drain(&smmu);
        assert_eq!((rest.len(), drained.overflowed), (1, false), "acknowledged");
    }
}

#[test]
fn a_queue_that_cannot_be_written_is_set_up_again() {
    let model = Model::new(small());
    let smmu = bring_up(&model).unwrap();
    smmu.enable_page_requests().unwrap();
    let device = model.device(StreamId::new(5));
    let base = model.registers().read64(0xc0) & 0xf_ffff_ffe0;
    assert!(device.request_page(&request(0, false)));
    model.platform().abort_at(base..base + 64);
    assert!(!device.request_page(&request(1, true)));
    model.platform().abort_nowhere();
    assert!(!device.request_page(&request(2, true)), "until it is dealt with");
    assert_eq!(smmu.handle_global_errors().to_string(), "PRIQ_ABT_ERR: page requests were lost");
    assert!(device.request_page(&request(3, true)));
    assert_eq!(drain(&smmu).0.iter().map(|request| request.group).collect::<Vec<_>>(), [3]);
    // Where nobody looks the error is dealt with too, and the queue stays off.
    let model = Model::new(small());
    let smmu = bring_up(&model).unwrap();
    model.raise(GlobalError::PriqAbt);
    assert!(!smmu.handle_global_errors().is_empty());
    assert!(!model.device(StreamId::new(5)).request_page(&request(3, true)));
}

#[test]
fn requests_go_on_after_a_sleep() {
    let model = Model::new(small());
    let smmu = bring_up(&model).unwrap();
    smmu.enable_page_requests().unwrap();
    let device = model.device(StreamId::new(5));
    assert!(device.request_page(&request(1, true)));
    smmu.suspend().unwrap();
    model.power_off();
    assert!(matches!(smmu.enable_page_requests(), Err(DeviceError::Suspended)));
    model.power_on();
    smmu.resume().unwrap();
    assert!(device.request_page(&request(2, true)));
    let groups: Vec<_> = drain(&smmu).0.iter().map(|request| request.group).collect();
    assert_eq!(groups, [1, 2]);
}

#[test]
fn an_smmu_without_page_requests_says_so() {
    let model = Model::new(Config::qemu());
    let smmu = bring_up(&model).unwrap();
    let unsupported = |result| assert!(matches!(result, Err(DeviceError::Unsupported { register: "IDR0", .. })));
    unsupported(smmu.enable_page_requests());
    assert_eq!(drain(&smmu).1, PageRequestDrain::default());
    unsupported(smmu.answer_page_requests(&Request::decode([0; 2]), PriResponse::Success));
    // STALL_MODEL is 1.
    unsupported(smmu.resume_stalled(StreamId::new(5), Stag::new(0), ResumeAction::Retry));
    unsupported(smmu.terminate_stalled(StreamId::new(5)));
}

#[test]
fn a_stalled_transaction_is_retried_aborted_or_ended_with_the_others() {
    let model = Model::new(Config::full());
    let [contexts, table, last, data] = [(); 4].map(|()| model.platform().buffer(4096));
    let smmu = bring_up(&model).unwrap();
    put(&table, 0, last.physical().get() | 3);
    put_cd(&contexts, 0, &[(CD0 | 39 | 5 << 32) | 1 << 44, table.physical().get(), 0, 0xff44]);
    let [first, second, ..] = stage1_ste(&contexts);
    let stream = StreamId::new(5);
    smmu.attach(stream, &StreamTableEntry::from_words([first, second, 0, 0, 0, 0, 0, 0])).unwrap();
    let device = model.device(stream);
    let stalls: Vec<_> = (0..4u64)
        .map(|page| match touch(&device, page << 12) {
            Err(Refused::Stalled(stall)) => stall,
            other => panic!("{other:?}"),
        })
        .collect();
    let mut tags = Vec::new();
    smmu.drain_events(|event| match event.kind {
        EventKind::Translation(fault) => tags.push(fault.stall.unwrap()),
        other => panic!("{other:?}"),
    });
    assert_eq!(tags.len(), 4);
    put(&last, 0, data.physical().get() | 0xf47);
    smmu.resume_stalled(stream, tags[0], ResumeAction::Retry).unwrap();
    assert_eq!(device.outcome(stalls[0]), Some(Ok(vec![0])));
    smmu.resume_stalled(stream, tags[1], ResumeAction::Abort).unwrap();
    assert_eq!(device.outcome(stalls[1]), Some(Err(Refused::Aborted)));
    assert_eq!((device.outcome(stalls[2]), device.outcome(stalls[3])), (None, None));
    smmu.terminate_stalled(stream).unwrap();
    assert_eq!(device.outcome(stalls[2]), Some(Err(Refused::Aborted)));
    // Whatever still waits ends when the SMMU sleeps.
    assert!(matches!(touch(&device, 0x9000), Err(Refused::Stalled(_))));
    smmu.suspend().unwrap();
    smmu.resume().unwrap();
    drop(smmu);
}

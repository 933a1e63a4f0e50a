//! Events, stalls, ATS and page requests.

use std::ops::Range;

use smmu::addr::Iova;
use smmu::platform::Registers;
use tests::model::{Config, Entry, Interrupt, PageRequest, PageResponse, Refused};

use super::bench::{Bench, CD0, EVENTQ_CONS, EVENTQ_PROD, GERROR, STREAM, dirty, put, put_cd, stage1_ste, touch, word};

const SID: u64 = (STREAM as u64) << 32;

#[test]
fn a_full_event_queue_toggles_its_overflow_flag() {
    let bench = Bench::new(Config::qemu());
    let device = bench.device();
    bench.registers.write32(0x50, 4);
    let fault = |range: Range<u32>| range.for_each(|_| assert!(touch(&device, 0x1000).is_err()));
    fault(0..32);
    assert_eq!(bench.registers.read32(EVENTQ_PROD), 32);
    fault(0..2);
    assert_eq!(bench.registers.read32(EVENTQ_PROD), 32 | 1 << 31, "two lost, one overflow");
    assert_eq!(bench.model.log().interrupts(), [Interrupt::Eventq], "empty to non-empty, once");
    // Space again, although nothing was acknowledged; then the acknowledgement.
    bench.consume(EVENTQ_CONS, 1);
    fault(0..1);
    assert_eq!(bench.registers.read32(EVENTQ_PROD), 33 | 1 << 31);
    bench.consume(EVENTQ_CONS, 33 | 1 << 31);
    assert_eq!(bench.model.log().events().len(), 33);
    assert_eq!(word(&bench.events, 0) & 0xff, 0x04);
}

#[test]
fn junk_stays_out_of_what_means_something() {
    let bench = Bench::new(Config { junk: true, ..Config::qemu() });
    assert!(touch(&bench.device(), 0x1000).is_err());
    let record = bench.event();
    assert_eq!(record.0[0] & !0x700, 0x04 | SID, "C_BAD_STE names the stream");
    assert_ne!(record.0[2], 0);
}

#[test]
fn an_event_queue_that_cannot_be_written_is_a_global_error() {
    let bench = Bench::new(Config::qemu());
    let start = bench.events.physical().get();
    bench.model.platform().abort_at(start..start + 4096);
    assert!(touch(&bench.device(), 0x1000).is_err());
    assert_eq!(bench.registers.read32(GERROR), 4);
}

/// A stage 1 stream with room for one page, and with `cd` and `ste` bits more in words 0 and 1.
fn with_a_context(cd: u64, ste: u64) -> (Vec<tests::model::Buffer>, Bench) {
    let mut bench = Bench::new(Config::full());
    let buffers: Vec<_> = (0..4).map(|_| bench.buffer(4096)).collect();
    let [contexts, table, last, data] = &buffers[..] else { panic!("four") };
    put(table, 0, last.physical().get() | 3);
    put(last, 0, data.physical().get() | 0xf47);
    put_cd(contexts, 0, &[(CD0 | 39 | 5 << 32) ^ cd, table.physical().get(), 0, 0xff44]);
    let [first, second, ..] = stage1_ste(contexts);
    bench.set_ste(STREAM, &[first, second | ste, 0, 0]);
    (buffers, bench)
}

fn take_down(buffers: Vec<tests::model::Buffer>, mut bench: Bench) {
    bench.set_ste(STREAM, &[0]);
    bench.run(&[[0x30, 0], [0x40 | SID, 52]]);
    drop(buffers);
}

#[test]
fn what_a_fault_does_is_up_to_the_context() {
    // A and R as set, then A cleared, then both.
    for (cleared, result, events) in
        [(0, Err(Refused::Aborted), 1), (1 << 46, Ok(0), 1), (3 << 45, Ok(0), 0), (1 << 45, Err(Refused::Aborted), 0)]
    {
        let (buffers, bench) = with_a_context(cleared, 0);
        assert_eq!(touch(&bench.device(), 0x1000), result);
        assert_eq!(bench.model.log().events().len(), events);
        take_down(buffers, bench);
    }
}

#[test]
fn a_stalled_transaction_waits_for_its_resume() {
    let (buffers, mut bench) = with_a_context(1 << 44, 0);
    let device = bench.device();
    let stall = |address| match dirty(&device, address) {
        Err(Refused::Stalled(stall)) => stall,
        other => panic!("{other:?}"),
    };
    let (first, second, third) = (stall(0x1000), stall(0x2000), stall(0x3000));
    let tags: Vec<_> = bench.model.log().events().iter().map(|record| record.stall().unwrap()).collect();
    assert_eq!(tags, [first.tag, second.tag, third.tag]);
    assert_eq!(device.outcome(first), None);
    let (other, resume) = (bench.buffer(4096), |tag: u16, bits: u64| [0x44 | SID | bits << 12, tag.into()]);
    put(&buffers[2], 1, other.physical().get() | 0xf47);
    bench.run(&[resume(first.tag, 1), resume(second.tag, 2), resume(77, 1)]);
    assert_eq!(device.outcome(first), Some(Ok(vec![0x5a])));
    assert_eq!(word(&other, 0), 0x5a, "retried once the page was there");
    assert_eq!(device.outcome(second), Some(Err(Refused::Aborted)));
    assert_eq!(device.outcome(third), None);
    bench.run(&[[0x45 | SID, 0]]);
    assert_eq!(device.outcome(third), Some(Err(Refused::Aborted)));
    take_down(buffers, bench);
}

#[test]
fn ats_goes_by_the_devices_own_cache() {
    let (buffers, mut bench) = with_a_context(0, 1 << 28);
    bench.registers.write32(0x20, bench.registers.read32(0x20) | 0x10);
    let device = bench.device();
    let answer = device.request_translation(Iova::new(0), true).unwrap();
    assert_eq!((answer.physical, answer.read, answer.write), (buffers[3].physical().get(), true, true));
    let nothing = device.request_translation(Iova::new(0x1000), true).unwrap();
    assert!(!nothing.read && !nothing.write, "no translation is an answer, not an event");
    assert!(bench.model.log().events().is_empty());
    // Unmapped and invalidated in the SMMU, the device still has it.
    put(&buffers[2], 0, 0);
    bench.run(&[[0x30, 0]]);
    assert_eq!(device.write_translated(Iova::new(0), &[1]), Ok(()));
    bench.run(&[[0x40 | SID, 52]]);
    assert_eq!(device.write_translated(Iova::new(0), &[1]), Err(Refused::Aborted));
    take_down(buffers, bench);

    let (buffers, bench) = with_a_context(0, 0);
    assert!(bench.device().request_translation(Iova::new(0), true).is_err(), "EATS is 0");
    assert_eq!(bench.event().number(), 0x05);
    take_down(buffers, bench);
}

#[test]
fn page_requests_are_queued_and_answered() {
    let mut bench = Bench::new(Config::full());
    let device = bench.device();
    let request = PageRequest { address: 0x5123, read: true, write: true, execute: false, last: true, group: 9 };
    assert!(device.request_page(&request));
    let words = [word(&bench.requests, 0), word(&bench.requests, 1)];
    assert_eq!(words, [u64::from(STREAM) | 7 << 60, 0x5009]);
    bench.run(&[[0x41 | SID, 9 | 2 << 12]]);
    let answer = |group, code, automatic| PageResponse { substream: None, group, code, automatic };
    assert_eq!(device.page_responses(), [answer(9, 2, false)]);
    // Full: the overflow blocks, and the SMMU answers for itself.
    for _ in 1..32 {
        assert!(device.request_page(&request));
    }
    assert!(!device.request_page(&request));
    assert!(!device.request_page(&PageRequest { last: false, ..request }));
    assert_eq!(device.page_responses(), [answer(9, 2, true)]);
    assert_eq!(bench.registers.read32(0x100c8), 32 | 1 << 31);
    bench.consume(0x100cc, 32 | 1 << 31);
    assert!(device.request_page(&request));
    let queued = |entry: &&Entry| matches!(entry, Entry::PageRequest(_));
    assert_eq!(bench.model.log().entries().iter().filter(queued).count(), 33);
}

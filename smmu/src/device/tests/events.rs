//! Events out: every record once, whatever the SMMU writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::addr::StreamId;
use crate::device::EventDrain;
use crate::testing::tries;

/// C_BAD_STREAMID.
fn event(stream: u32) -> [u64; 4] {
    [2 | u64::from(stream) << 32, 0, 0, 0]
}

/// An SMMU whose event queue has 8 slots.
fn running_small(coherent: bool) -> (Arc<FakeSmmu>, Smmu<TestPlatform>) {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR1, 8 << 21 | 3 << 16 | 16);
    let smmu = Smmu::bring_up(platform, Arc::clone(&fake), coherent, BootPolicy::Abort).unwrap();
    (fake, smmu)
}

/// Drains the queue: the streams of the events, and what was said about the queue.
fn drain(smmu: &Smmu<TestPlatform>) -> (Vec<u32>, EventDrain) {
    let mut streams = Vec::new();
    let drain = smmu.drain_events(|event| streams.push(event.source.stream.get()));
    assert_eq!(drain.events as usize, streams.len());
    (streams, drain)
}

#[test]
fn r01_the_queue_goes_round_and_round() {
    for coherent in [true, false] {
        let (fake, smmu) = running_small(coherent);
        let mut next = 0;
        for count in (0..=8).cycle().take(90) {
            let recorded: Vec<u32> = (next..next + count).collect();
            recorded.iter().for_each(|stream| fake.record(event(*stream)));
            next += count;
            let (drained, told) = drain(&smmu);
            assert_eq!((drained, told.overflowed, told.inconsistent), (recorded, false, false));
            assert_eq!(fake.get(EVENTQ_CONS), fake.get(EVENTQ_PROD));
        }
    }
}

#[test]
fn r01_an_overflow_is_acknowledged_and_reported_once() {
    let (fake, smmu) = running_small(true);
    for _ in 0..3 {
        (0..10).for_each(|stream| fake.record(event(stream)));
        assert_ne!((fake.get(EVENTQ_PROD) ^ fake.get(EVENTQ_CONS)) >> 31, 0);
        let (streams, told) = drain(&smmu);
        assert_eq!((streams, told.overflowed), ((0..8).collect(), true));
        assert_eq!((fake.get(EVENTQ_PROD) ^ fake.get(EVENTQ_CONS)) >> 31, 0);
        assert_eq!(drain(&smmu), (Vec::new(), EventDrain::default()));
    }
}

#[test]
fn an_impossible_producer_empties_the_queue() {
    let (fake, smmu) = running_small(true);
    let producer = fake.get(EVENTQ_PROD);
    fake.set(EVENTQ_PROD, (producer + 9) & 0xf);
    let (streams, told) = drain(&smmu);
    assert_eq!((streams.len(), told.inconsistent), (0, true));
    fake.record(event(5));
    assert_eq!(drain(&smmu).0, [5]);
}

#[test]
fn a_drain_ends_even_if_events_keep_coming() {
    let (fake, smmu) = running_small(true);
    fake.record(event(0));
    assert_eq!(smmu.drain_events(|_| fake.record(event(0))).events, 8);
}

#[test]
fn a_handler_may_use_the_smmu() {
    let (fake, smmu) = running_small(true);
    (0..3).for_each(|stream| fake.record(event(stream)));
    let mut inner = Vec::new();
    let outer = smmu.drain_events(|event| {
        inner.extend(drain(&smmu).0);
        smmu.attach(event.source.stream, &super::streams::entry()).unwrap();
        smmu.detach(event.source.stream).unwrap();
        smmu.handle_global_errors();
    });
    assert_eq!((outer.events, inner), (1, Vec::from([1, 2])));
}

#[test]
fn records_reach_whoever_drains_and_nobody_twice() {
    const EVENTS: u32 = 500;
    let (fake, smmu) = running_small(true);
    let recorded = AtomicBool::new(false);
    let drain_until_recorded = || {
        let mut streams = Vec::new();
        loop {
            let is_last = recorded.load(Ordering::SeqCst);
            streams.extend(drain(&smmu).0);
            if is_last {
                return streams;
            }
        }
    };
    let mut all: Vec<u32> = thread::scope(|scope| {
        let drainers = [(); 2].map(|()| scope.spawn(drain_until_recorded));
        let end = OnDrop(|| recorded.store(true, Ordering::SeqCst));
        for stream in 0..EVENTS {
            while fake.get(EVENTQ_PROD).wrapping_sub(fake.get(EVENTQ_CONS)) & 0xf == 8 {
                thread::yield_now();
            }
            fake.record(event(stream));
        }
        drop(end);
        drainers.into_iter().flat_map(|drainer| drainer.join().unwrap()).collect()
    });
    all.sort_unstable();
    assert_eq!(all, (0..EVENTS).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(tries(256))]

    #[test]
    fn junk_is_survived(record: [u64; 4], producer: u32) {
        let (fake, smmu) = running_small(true);
        fake.record(record);
        let mut seen = None;
        smmu.drain_events(|event| seen = Some(event.source.stream));
        prop_assert_eq!(seen, Some(StreamId::new((record[0] >> 32) as u32)));
        fake.set(EVENTQ_PROD, producer);
        prop_assert!(smmu.drain_events(|_| ()).events <= 8);
        prop_assert_eq!(smmu.drain_events(|_| ()).events, 0);
    }
}

//! Commands in, one CMD_SYNC behind each request, and what becomes of those that are refused.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{thread, vec};

use super::*;
use crate::addr::StreamId;
use crate::arch::command::{Command, CommandError};

/// Queues of 2^3 commands and 2^3 events.
const SMALL: u32 = 3 << 21 | 3 << 16 | 16;

/// An SMMU whose command queue has `2^log2_commands` slots.
fn with_slots(log2_commands: u32) -> (&'static TestPlatform, Arc<FakeSmmu>, Smmu<TestPlatform>) {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR1, SMALL & !(0x1f << 21) | log2_commands << 21);
    let smmu = bring_up(platform, &fake).unwrap();
    platform.journal();
    (platform, fake, smmu)
}

/// A command that can be told from others: CMD_CFGI_STE of a stream.
fn command(number: usize) -> Command {
    Command::CfgiSte { stream: StreamId::new(number as u32), leaf: true }
}

fn encoded(number: usize) -> [u64; 2] {
    [CMD_CFGI_STE | (number as u64) << 32, 1]
}

const SYNC: [u64; 2] = [CMD_SYNC, 0];

/// Refuses the commands of the streams for which `refused` says so.
fn refuse(fake: &FakeSmmu, code: u32, refused: impl Fn(u64) -> bool + Send + 'static) {
    fake.on_command(move |[word, _]| {
        let is_refused = word & 0xff == CMD_CFGI_STE && refused(word >> 32);
        if is_refused { Outcome::Refused(code) } else { Outcome::Done }
    });
}

#[test]
fn r04_the_queue_goes_round_and_round() {
    for log2_commands in [0, 1, 3] {
        let (platform, _, smmu) = with_slots(log2_commands);
        for number in 0..100 {
            smmu.run([command(number)]).unwrap();
        }
        let expected: Vec<_> = (0..100).flat_map(|number| [encoded(number), SYNC]).collect();
        assert_eq!(commands(&platform.journal()), expected, "2^{log2_commands} slots");
    }
}

#[test]
fn r07_more_commands_than_slots_wait_for_space() {
    for log2_commands in [0, 3] {
        let (platform, fake, smmu) = with_slots(log2_commands);
        fake.delay_commands(3);
        smmu.run((0..1000).map(command)).unwrap();
        let expected: Vec<_> = (0..1000).map(encoded).chain([SYNC]).collect();
        assert_eq!(commands(&platform.journal()), expected);
        assert_eq!(smmu.statistics().commands, 4 + 1001);
    }
}

#[test]
fn sixty_four_commands_and_their_sync_are_published_at_once() {
    let published = |count| {
        let (platform, _, smmu) = with_slots(8);
        smmu.run((0..count).map(command)).unwrap();
        let journal = platform.journal();
        assert_eq!(commands(&journal), (0..count).map(encoded).chain([SYNC]).collect::<Vec<_>>());
        let index = |step: &Step| if let Step::Write(_, CMDQ_PROD, index) = *step { Some(index) } else { None };
        journal.iter().filter_map(index).collect::<Vec<_>>()
    };
    // Bring-up has sent four.
    assert_eq!(published(0), [5]);
    assert_eq!(published(64), [4 + 65]);
    assert_eq!(published(65), [4 + 64, 4 + 66]);
    assert_eq!(published(129), [4 + 64, 4 + 128, 4 + 130]);
}

#[test]
fn r11_a_queue_that_stands_still_is_given_up() {
    let (platform, fake, smmu) = with_slots(3);
    fake.on_command(|_| Outcome::Stuck);
    for count in [1, 100] {
        let started = crate::platform::Platform::now(platform);
        assert_eq!(timed_out(smmu.run((0..count).map(command))), "CMDQ_CONS");
        let waited = crate::platform::Platform::now(platform) - started;
        assert!((1000..1010).contains(&waited.as_millis()), "{waited:?}");
        let used = fake.get(CMDQ_PROD).wrapping_sub(fake.get(CMDQ_CONS)) & 0xf;
        assert!(used <= 8, "{used} commands in 8 slots");
    }
}

#[test]
fn r06_slots_are_visible_before_the_index() {
    let (platform, fake, _smmu) = with_slots(3);
    platform.journal();
    let smmu = Smmu::bring_up(platform, fake, false, BootPolicy::Abort).unwrap();
    smmu.run((0..20).map(command)).unwrap();
    let journal = platform.journal();
    // The SMMU did not snoop: the slots must have been cleaned.
    assert_eq!(commands(&journal)[4..24], (0..20).map(encoded).collect::<Vec<_>>());
    let published = |step: &Step| matches!(step, Step::Write(_, CMDQ_PROD, value) if *value != 0);
    let mut checked = 0;
    for pair in journal.windows(2).filter(|pair| published(&pair[1])) {
        assert_eq!(pair[0], Step::Barrier);
        checked += 1;
    }
    assert!(checked >= 4, "{checked}");
}

#[test]
fn r03_r08_a_refused_command_is_replaced_and_its_sender_told() {
    let (platform, fake, smmu) = with_slots(3);
    refuse(&fake, 1, |stream| stream == 7);
    for _ in 0..3 {
        assert_eq!(smmu.run([6, 7, 8].map(command)), Err(DeviceError::Command(CommandError::Ill)));
        assert_eq!(fake.get(GERROR), fake.get(GERRORN), "acknowledged");
        smmu.run([command(9)]).unwrap();
    }
    let round = [encoded(6), SYNC, encoded(8), SYNC, encoded(9), SYNC];
    assert_eq!(commands(&platform.journal()), round.repeat(3));
    assert_eq!(smmu.statistics().refused, 3);
}

#[test]
fn r08_a_refusal_is_on_record_before_the_queue_goes_on() {
    let (_, fake, smmu) = with_slots(3);
    refuse(&fake, 1, |stream| stream == 7);
    let smmu = Arc::new(smmu);
    let observed = Arc::new(OnceLock::new());
    let (observer, result) = (Arc::downgrade(&smmu), Arc::clone(&observed));
    fake.ignore(move |offset, _| {
        if offset == GERRORN {
            result.set(observer.upgrade().unwrap().statistics().refused).unwrap();
        }
        false
    });
    smmu.run([command(7)]).unwrap_err();
    assert_eq!(observed.get(), Some(&1));
}

#[test]
fn r08_only_the_culprit_among_many_is_told() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 100;
    let (platform, fake, smmu) = with_slots(3);
    // Threads take turns at the fake's lock: let no deadline pass because of that.
    platform.set_nanoseconds_per_relax(10);
    fake.delay_commands(2);
    // Four refusals per thread: as many as are remembered.
    let is_bad = |number: usize| number % 25 == 3;
    refuse(&fake, 1, move |stream| is_bad(stream as usize % ROUNDS));
    let running = AtomicUsize::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let leave = OnDrop(|| _ = running.fetch_sub(1, Ordering::SeqCst));
            let smmu = &smmu;
            scope.spawn(move || {
                let _leave = leave;
                for round in 0..ROUNDS {
                    let expected = if is_bad(round) { Err(DeviceError::Command(CommandError::Ill)) } else { Ok(()) };
                    let outcome = smmu.run([command(thread * ROUNDS + round)]);
                    assert_eq!(outcome, expected, "thread {thread}, round {round}");
                }
            });
        }
        // The global error interrupt comes in between.
        while running.load(Ordering::SeqCst) != 0 {
            smmu.handle_global_errors();
            thread::yield_now();
        }
    });
    let mut carried_out: Vec<_> = commands(&platform.journal()).into_iter().filter(|words| *words != SYNC).collect();
    carried_out.sort_unstable();
    let expected: Vec<_> = (0..THREADS * ROUNDS).filter(|number| !is_bad(number % ROUNDS)).map(encoded).collect();
    assert_eq!(carried_out, expected);
}

#[test]
fn r03_a_queue_that_cannot_be_read_halts_for_good() {
    let (platform, fake, smmu) = with_slots(3);
    refuse(&fake, 2, |_| true);
    let halted = Err(DeviceError::Command(CommandError::Abt));
    assert_eq!(smmu.run([command(1)]), halted);
    let produced = fake.get(CMDQ_PROD);
    let now = crate::platform::Platform::now(platform);
    assert_eq!(smmu.run([command(2)]), halted);
    assert_eq!((fake.get(CMDQ_PROD), crate::platform::Platform::now(platform)), (produced, now), "not even tried");
    assert_eq!(smmu.handle_global_errors().bits(), 1);
    assert!(smmu.handle_global_errors().is_empty(), "whoever looks until nothing is left would look for ever");
    let journal = platform.journal();
    let acknowledged = journal.iter().position(|step| matches!(step, Step::Write(_, GERRORN, value) if value & 1 != 0));
    let closed = journal.iter().rposition(|step| matches!(step, Step::Write(_, CR0, 0)));
    assert!(closed.is_some() && closed < acknowledged, "it would trip again while it runs");
    assert_eq!(smmu.run([command(3)]), Err(DeviceError::Closed));
}

#[test]
fn r12_an_error_code_that_was_dealt_with_means_nothing() {
    let (_, fake, smmu) = with_slots(3);
    refuse(&fake, 0x7f, |stream| stream == 7);
    assert_eq!(smmu.run([command(7)]), Err(DeviceError::Command(CommandError::Unknown(0x7f))));
    assert_eq!(fake.get(CMDQ_CONS) >> 24, 0x7f, "left behind");
    for number in 10..30 {
        smmu.run([command(number)]).unwrap();
    }
    assert_eq!(smmu.statistics().refused, 1);
}

#[test]
fn a_consumer_past_the_producer_is_told() {
    let (_, fake, smmu) = with_slots(3);
    fake.ignore(move |offset, _| offset == CMDQ_PROD);
    let beyond = (fake.get(CMDQ_PROD) + 5) & 0xf;
    fake.set(CMDQ_CONS, beyond);
    let producer = (fake.get(CMDQ_PROD) + 2) & 0xf;
    let corrupt = DeviceError::QueueCorrupt { register: "CMDQ_CONS", found: beyond, producer };
    assert_eq!(smmu.run([command(1)]), Err(corrupt));
}

#[test]
fn a_closed_smmu_takes_no_commands() {
    let (platform, fake, smmu) = with_slots(3);
    smmu.close().unwrap();
    assert_eq!(smmu.run([command(1)]), Err(DeviceError::Closed));
    assert_eq!((commands(&platform.journal()), fake.get(CR0ACK)), (vec![], 0));
}

#[test]
fn commands_under_way_end_when_the_smmu_is_closed() {
    let (platform, fake, smmu) = with_slots(3);
    platform.set_nanoseconds_per_relax(100);
    fake.on_command(|_| Outcome::Stuck);
    let before = fake.get(CMDQ_PROD);
    std::thread::scope(|scope| {
        // One waits for its command, the other for space.
        let senders = [1, 100].map(|count| {
            let smmu = &smmu;
            scope.spawn(move || smmu.run((0..count).map(command)))
        });
        while fake.get(CMDQ_PROD).wrapping_sub(before) & 0xf != 8 {
            std::thread::yield_now();
        }
        smmu.close().unwrap();
        for sender in senders {
            assert_eq!(sender.join().unwrap(), Err(DeviceError::Closed));
        }
    });
}

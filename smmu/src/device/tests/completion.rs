//! How a request learns that it is done, and what must not pass for it: polling, messages, events, ATC invalidations that
//! no device obeys.

use std::collections::BTreeSet;
use std::{thread, vec};

use super::*;
use crate::addr::StreamId;
use crate::arch::command::{Command, CommandError};
use crate::arch::range::AtcSpan;
use crate::testing::rounds;

const MSI: u32 = 1 << 13;
const SEV: u32 = 1 << 14;
const ATS: u32 = 1 << 10;
const PLAIN_SYNC: [u64; 2] = [CMD_SYNC, 0];
/// CMDQ_CONS.ERR.
const CERROR_ATC_INV_SYNC: u32 = 3;

/// An SMMU that has `features` in IDR0 beside QEMU's, and `2^log2_commands` slots. Its commands take a while.
fn slow(features: u32, log2_commands: u32) -> (&'static TestPlatform, Arc<FakeSmmu>, Smmu<TestPlatform>) {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR0, fake.get(IDR0) | features);
    fake.set(IDR1, fake.get(IDR1) & !(0x1f << 21) | log2_commands << 21);
    let smmu = bring_up(platform, &fake).unwrap();
    fake.delay_commands(3);
    // Those who wait for a message look many times: let that be no long time, under Miri either.
    platform.set_nanoseconds_per_relax(100_000);
    platform.journal();
    (platform, fake, smmu)
}

fn syncs(platform: &TestPlatform) -> Vec<[u64; 2]> {
    commands(&platform.journal()).into_iter().filter(|[word, _]| word & 0xff == CMD_SYNC).collect()
}

fn command() -> Command {
    Command::CfgiSte { stream: StreamId::new(1), leaf: true }
}

fn atc_invalidation() -> Command {
    Command::AtcInv { stream: StreamId::new(9), substream: None, global: false, span: AtcSpan::ALL }
}

#[test]
fn without_features_the_register_is_polled() {
    let (platform, fake, smmu) = slow(0, 3);
    let reads = fake.consumer_reads();
    smmu.run([command()]).unwrap();
    assert_eq!((syncs(platform), platform.waits_for_event()), (vec![PLAIN_SYNC], 0));
    assert_eq!(fake.consumer_reads() - reads, 6);
}

#[test]
fn an_event_ends_the_wait_where_the_smmu_sends_one() {
    let (platform, _, smmu) = slow(SEV, 3);
    smmu.run([command()]).unwrap();
    assert_eq!(syncs(platform), [[CMD_SYNC | 2 << 12, 0]]);
    assert_eq!(platform.waits_for_event(), 4, "six looks, the first two at once");
}

#[test]
fn a_message_spares_the_register() {
    let (platform, fake, smmu) = slow(MSI | SEV, 8);
    fake.delay_commands(0);
    let reads = fake.consumer_reads();
    for _ in 0..rounds(1000) {
        smmu.run([command()]).unwrap();
    }
    assert_eq!((fake.consumer_reads() - reads, platform.waits_for_event()), (0, 0));
}

#[test]
fn r02_no_two_requests_in_flight_wait_for_the_same_message() {
    let (platform, fake, smmu) = slow(MSI, 3);
    fake.delay_commands(0);
    for _ in 0..100 {
        smmu.run([command()]).unwrap();
    }
    let syncs = syncs(platform);
    let messages: BTreeSet<_> = syncs.iter().map(|[word, address]| (word >> 32, *address)).collect();
    assert_eq!(messages.len(), 100);
    // Two slots apart, so that eight slots have four of the words; write-back, inner shareable, never 0.
    assert_eq!(syncs.iter().map(|sync| sync[1]).collect::<BTreeSet<_>>().len(), 4);
    assert!(syncs.iter().all(|[word, _]| word & 0xffff_ffff == CMD_SYNC | 1 << 12 | 3 << 22 | 0xf << 24));
    assert!(messages.iter().all(|(data, _)| *data != 0));
}

#[test]
fn r02_without_idr0_msi_or_coherence_no_message_is_asked_for() {
    for (features, firmware_coherent) in [(0, true), (MSI, false)] {
        let platform = TestPlatform::leaked();
        let fake = FakeSmmu::new(platform, "A");
        fake.set(IDR0, fake.get(IDR0) | features);
        let smmu = Smmu::bring_up(platform, Arc::clone(&fake), firmware_coherent, BootPolicy::Abort).unwrap();
        platform.journal();
        smmu.run([command()]).unwrap();
        assert_eq!(syncs(platform), [PLAIN_SYNC]);
    }
}

#[test]
fn r02_a_timeout_is_no_success_whatever_former_messages_say() {
    let (platform, fake, smmu) = slow(MSI, 3);
    fake.delay_commands(0);
    // Every word has been written to many times.
    for count in 0..100 {
        smmu.run((0..count % 3).map(|_| command())).unwrap();
    }
    for _ in 0..8 {
        fake.on_command(|[word, _]| if word & 0xff == CMD_SYNC { Outcome::Stuck } else { Outcome::Done });
        assert_eq!(timed_out(smmu.run([command()])), "CMDQ_CONS");
        // It gets on after all: what was given up is not taken for what comes next.
        fake.on_command(|_| Outcome::Done);
        smmu.run([command()]).unwrap();
    }
    assert_eq!(platform.waits_for_event(), 0);
}

#[test]
fn a_message_that_gets_lost_costs_time_and_nothing_else() {
    let (_, fake, smmu) = slow(MSI, 3);
    fake.lose_messages();
    for _ in 0..20 {
        smmu.run([command()]).unwrap();
    }
}

/// What hardware may still write to is nobody else's, even when the SMMU is off.
#[test]
fn words_that_a_message_may_be_on_its_way_to_are_not_given_back() {
    for (loses, kept) in [(false, 0), (true, 1)] {
        let (platform, fake, smmu) = slow(MSI, 3);
        if loses {
            fake.lose_messages();
        }
        smmu.run([command()]).unwrap();
        drop(smmu);
        assert_eq!((platform.blocks(), fake.get(CR0ACK)), (kept, 0));
    }
}

/// Lets the next CMD_SYNC behind a CMD_ATC_INV fail, `times` times each.
fn disobey(fake: &FakeSmmu, times: u32) {
    let mut failures = 0;
    fake.on_command(move |[word, _]| match word & 0xff {
        CMD_ATC_INV => {
            failures = times;
            Outcome::Done
        }
        CMD_SYNC if failures != 0 => {
            failures -= 1;
            Outcome::Refused(CERROR_ATC_INV_SYNC)
        }
        _ => Outcome::Done,
    });
}

#[test]
fn r08_a_device_that_does_not_obey_is_told_apart_and_the_sync_repeated() {
    for features in [ATS, ATS | MSI, ATS | SEV] {
        for times in [1, 3, 40] {
            let (platform, fake, smmu) = slow(features, 8);
            disobey(&fake, times);
            assert_eq!(smmu.run([atc_invalidation()]), Err(DeviceError::Command(CommandError::AtcInvSync)));
            assert_eq!(fake.get(GERROR), fake.get(GERRORN), "acknowledged");
            smmu.run([command()]).unwrap();
            assert_eq!(smmu.statistics().refused, 1);
            let syncs = syncs(platform);
            assert_eq!(syncs.len(), 2, "carried out, though not at once");
            // As it was sent, message and all.
            assert_eq!(syncs[0][0] & 0xffff_ffff, syncs[1][0] & 0xffff_ffff);
        }
    }
}

#[test]
fn r08_only_the_sender_of_the_atc_invalidation_is_told() {
    const ROUNDS: usize = 100;
    let (platform, fake, smmu) = slow(ATS, 3);
    // Threads take turns at the fake's lock: let no deadline pass because of that.
    platform.set_nanoseconds_per_relax(10);
    disobey(&fake, 1);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..ROUNDS).for_each(|_| smmu.run([command(), command()]).unwrap()));
        }
        scope.spawn(|| {
            for _ in 0..ROUNDS / 4 {
                let told = smmu.run([command(), atc_invalidation()]);
                assert_eq!(told, Err(DeviceError::Command(CommandError::AtcInvSync)));
            }
        });
    });
}

#[test]
fn every_batch_with_an_atc_invalidation_has_its_own_sync() {
    let (platform, fake, smmu) = slow(ATS, 8);
    fake.delay_commands(0);
    smmu.run((0..70).map(|_| atc_invalidation())).unwrap();
    let expected: Vec<_> = [(CMD_ATC_INV, 64), (CMD_SYNC, 1), (CMD_ATC_INV, 6), (CMD_SYNC, 1)]
        .into_iter()
        .flat_map(|(opcode, count)| core::iter::repeat_n(opcode, count))
        .collect();
    assert_eq!(opcodes(&platform.journal()), expected);
}

#[test]
fn a_queue_that_cannot_hold_an_atc_invalidation_and_its_sync_has_none() {
    let (platform, _, smmu) = slow(ATS, 0);
    let refused = smmu.run([atc_invalidation()]).unwrap_err();
    assert!(matches!(refused, DeviceError::Unsupported { register: "IDR1", .. }), "{refused}");
    assert!(commands(&platform.journal()).is_empty());
}

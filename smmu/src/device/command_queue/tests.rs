//! What needs a look inside: positions handed over out of turn, and a CPU that is held up at the worst moment.

use std::collections::BTreeSet;
use std::vec::Vec;

use proptest::prelude::*;

use super::refusal::{Refusals, Verdict};
use super::reservation::{LOG2_ENTRIES_MAX, Reservations};
use super::*;
use crate::addr::StreamId;
use crate::device::tests::{CMD_CFGI_STE, CMD_SYNC, FakeSmmu, bring_up, commands, timed_out};
use crate::testing::{TestPlatform, tries};

fn command(number: u32) -> Command {
    Command::CfgiSte { stream: StreamId::new(number), leaf: true }
}

#[test]
fn r11_a_cpu_that_is_held_up_between_reserving_and_filling_holds_nobody_up_for_ever() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    let smmu = bring_up(platform, &fake).unwrap();
    platform.journal();
    let held_up = smmu.commands.reservations.reserve(1).unwrap();
    // The error is not of the SMMU's making: it has consumed all that it was given.
    assert_eq!(timed_out(smmu.run([command(1)])), "CMDQ_PROD");
    assert!(commands(&platform.journal()).is_empty());
    smmu.commands.write_slot(held_up.start, command(0).encode());
    smmu.commands.reservations.hand_over(&held_up, |end| smmu.commands.publish(&smmu.control, end));
    smmu.commands.reservations.retire(&held_up);
    let streams: Vec<_> = commands(&platform.journal()).iter().map(|[word, _]| (word & 0xff, word >> 32)).collect();
    assert_eq!(streams, [(CMD_CFGI_STE, 0), (CMD_CFGI_STE, 1), (CMD_SYNC, 0)], "what was filled out of turn follows");
    smmu.run([command(2)]).unwrap();
}

#[test]
fn what_is_filled_while_another_publishes_is_published_by_whoever_waits_for_it() {
    let reservations = Reservations::new(2);
    let [first, second] = [2, 1].map(|count| reservations.reserve(count).unwrap());
    let mut published = Vec::new();
    reservations.hand_over(&first, |end| {
        published.push(end);
        reservations.hand_over(&second, |_| panic!("two CPUs write CMDQ_PROD at once"));
        reservations.help(|_| panic!("two CPUs write CMDQ_PROD at once"));
    });
    reservations.help(|end| published.push(end));
    reservations.help(|_| panic!("there is nothing left"));
    assert_eq!(published, [2, 3]);
}

#[test]
fn a_shut_queue_is_idle_when_everybody_is_done() {
    let reservations = Reservations::new(2);
    let range = reservations.reserve(3).unwrap();
    reservations.shut();
    assert!(reservations.is_shut() && !reservations.is_idle());
    assert_eq!(reservations.reserve(1), None);
    reservations.hand_over(&range, |end| assert_eq!(end, 3));
    reservations.retire(&range);
    assert!(reservations.is_idle());
    assert_eq!(reservations.restart(), 3);
    reservations.reopen();
    assert_eq!((reservations.free(), reservations.reserve(4)), (4, Some(3..7)), "nothing is in flight");
}

#[test]
fn refusals_are_told_by_position_until_there_are_too_many() {
    let refusals = Refusals::new();
    assert_eq!(refusals.verdict(&(0..100), 0), Verdict::Accepted);
    for position in 100..131 {
        refusals.record(position, 1);
        // A CMD_SYNC that is sent again and fails again.
        refusals.record(position, 1);
    }
    assert_eq!(refusals.count(), 31);
    assert_eq!(refusals.verdict(&(0..100), 0), Verdict::Accepted);
    assert_eq!(refusals.verdict(&(99..101), 0), Verdict::Refused(1));
    refusals.record(131, 3);
    assert_eq!(refusals.verdict(&(131..132), 31), Verdict::Refused(3));
    assert_eq!(refusals.verdict(&(0..100), 0), Verdict::Unknown);
    assert_eq!(refusals.verdict(&(0..100), 1), Verdict::Accepted);
}

/// One step of a random history: what somebody does next.
#[derive(Clone, Debug)]
enum Step {
    Reserve(u64),
    /// Hands over one of those that are reserved.
    HandOver(prop::sample::Index),
    Help,
    /// The SMMU consumes so many of what it was given.
    Consume(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1u64..80).prop_map(Step::Reserve),
        3 => any::<prop::sample::Index>().prop_map(Step::HandOver),
        1 => Just(Step::Help),
        2 => (0u64..200).prop_map(Step::Consume),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(tries(256))]

    /// In whatever order ranges are handed over: what is published is what is filled without a gap, and no slot is given
    /// out twice.
    #[test]
    fn published_is_what_is_filled_without_a_gap(log2_entries in 0..=LOG2_ENTRIES_MAX, steps in steps()) {
        let reservations = Reservations::new(log2_entries);
        let (mut open, mut filled) = (Vec::new(), BTreeSet::new());
        let (mut reserved, mut consumed, mut produced) = (0, 0, 0);
        // Whoever finds CMDQ_CONS past what is published takes it for corrupt.
        let publish = |end| {
            assert!(reservations.published() >= end);
            end
        };
        for step in steps {
            match step {
                Step::Reserve(count) => {
                    let space = reserved + count <= consumed + (1 << log2_entries);
                    let range = reservations.reserve(count);
                    prop_assert_eq!(&range, &space.then_some(reserved..reserved + count));
                    reserved = range.as_ref().map_or(reserved, |range| range.end);
                    open.extend(range);
                }
                Step::HandOver(index) if !open.is_empty() => {
                    let range = open.swap_remove(index.index(open.len()));
                    filled.extend(range.clone());
                    reservations.hand_over(&range, |end| produced = publish(end));
                }
                Step::HandOver(_) => {}
                Step::Help => reservations.help(|end| produced = publish(end)),
                Step::Consume(count) => {
                    consumed = produced.min(consumed + count);
                    reservations.consumed_to(consumed);
                }
            }
            let expected = (0..reserved).find(|position| !filled.contains(position)).unwrap_or(reserved);
            prop_assert_eq!((produced, reservations.published()), (expected, expected));
        }
    }
}

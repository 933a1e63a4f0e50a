//! Entries of streams that go on while they change.

use std::vec;

use super::streams::{STATE, View, fail, watch};
use super::*;
use crate::addr::StreamId;
use crate::arch::command::CommandError;
use crate::arch::stream_table::{Shcfg, StreamTableEntry};
use crate::testing::rounds;

const STREAM: StreamId = StreamId::new(8);

/// Stage 1 by the context table at 0x1_0000 (or what is given), S1DSS 2, VMID 0.
fn stage1(table: u64) -> StreamTableEntry {
    StreamTableEntry::from_words([table | 0xb, 0x1000_0000_00d6, 0, 0, 0, 0, 0, 0])
}

/// Stage 2 by the table at 0x2_0000, VMID 7.
fn stage2() -> StreamTableEntry {
    StreamTableEntry::from_words([0xd, 0x1000_0000_0000, 0x04_0f59 << 32 | 7, 0x2_0000, 0, 0, 0, 0])
}

fn attached(entry: &StreamTableEntry) -> (&'static TestPlatform, Arc<FakeSmmu>, Smmu<TestPlatform>) {
    let (platform, fake, smmu) = running();
    smmu.attach(STREAM, entry).unwrap();
    platform.journal();
    (platform, fake, smmu)
}

/// The entry without the software's bits.
fn found(smmu: &Smmu<TestPlatform>) -> [u64; 8] {
    let mut words = smmu.stream_table_entry(STREAM).unwrap().words();
    words[1] &= !STATE;
    words
}

#[test]
fn r14_one_word_is_replaced_in_one_store() {
    let (platform, fake, smmu) = attached(&stage1(0x1_0000));
    let seen = watch(platform, &fake, true, 8);
    smmu.replace(STREAM, &stage1(0x3_0000)).unwrap();
    assert_eq!(*seen.lock().unwrap(), [stage1(0x3_0000).words(); 2]);
    let cfgi = 0x8_0000_0003;
    assert_eq!(commands(&platform.journal()), [[cfgi, 1], [CMD_SYNC, 0]]);
    assert_eq!(smmu.attach(STREAM, &stage1(0)), Err(DeviceError::StreamInUse { stream: STREAM }));
    smmu.detach(STREAM).unwrap();
    assert_eq!(View::new(platform, &fake, true).entry(8), Some([0; 8]));
}

#[test]
fn r14_what_the_old_entry_ignores_is_ready_before_the_switch() {
    let bypass = StreamTableEntry::bypass(Shcfg::UseIncoming);
    let (platform, fake, smmu) = attached(&bypass);
    let seen = watch(platform, &fake, true, 8);
    smmu.replace(STREAM, &stage1(0x1_0000)).unwrap();
    let mut prepared = stage1(0x1_0000).words();
    prepared[0] = 9;
    let new = stage1(0x1_0000).words();
    assert_eq!(*seen.lock().unwrap(), [prepared, prepared, new, new]);
}

#[test]
fn r14_two_words_go_through_invalid() {
    let (platform, fake, smmu) = attached(&stage1(0x1_0000));
    let seen = watch(platform, &fake, true, 8);
    smmu.replace(STREAM, &stage2()).unwrap();
    let (mut cleared, mut prepared) = (stage1(0x1_0000).words(), stage2().words());
    (cleared[0], prepared[0]) = (0, 0);
    let new = stage2().words();
    assert_eq!(*seen.lock().unwrap(), [cleared, cleared, prepared, prepared, new, new]);
}

#[test]
fn an_smmu_that_does_not_snoop_sees_every_stage() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    let smmu = Smmu::bring_up(platform, Arc::clone(&fake), false, BootPolicy::Abort).unwrap();
    smmu.attach(STREAM, &stage1(0x1_0000)).unwrap();
    let seen = watch(platform, &fake, false, 8);
    smmu.replace(STREAM, &stage2()).unwrap();
    let words: Vec<_> = seen.lock().unwrap().iter().map(|words| words[0]).collect();
    assert_eq!(words, [0, 0, 0, 0, 0xd, 0xd]);
}

#[test]
fn nothing_happens_where_nothing_changes() {
    let (platform, _, smmu) = attached(&stage2());
    smmu.replace(STREAM, &stage2()).unwrap();
    assert_eq!(platform.journal(), []);
}

#[test]
fn an_aborted_stream_stays_its_owners() {
    let (platform, fake, smmu) = attached(&stage1(0x1_0000));
    smmu.abort(STREAM).unwrap();
    assert_eq!(opcodes(&platform.journal()), [CMD_CFGI_STE, CMD_SYNC]);
    assert_eq!(View::new(platform, &fake, true).entry(8), Some([1, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(smmu.attach(STREAM, &stage1(0)), Err(DeviceError::StreamInUse { stream: STREAM }));
    smmu.replace(STREAM, &stage2()).unwrap();
    assert_eq!(found(&smmu), stage2().words());
    smmu.abort(STREAM).unwrap();
    smmu.detach(STREAM).unwrap();
    assert_eq!(smmu.abort(STREAM), Err(DeviceError::StreamNotAttached { stream: STREAM }));
    assert_eq!(smmu.replace(STREAM, &stage2()), Err(DeviceError::StreamNotAttached { stream: STREAM }));
}

#[test]
fn r38_a_replacement_that_fails_leaves_the_old_entry_or_none() {
    let bypass = StreamTableEntry::bypass(Shcfg::UseIncoming);
    // From, and what is left where the first, second or third CMD_CFGI_STE fails.
    let cases = [(bypass, vec![bypass.words()[0], 0]), (stage2(), vec![0, 0, 0])];
    for (from, left) in cases {
        for (failing, left) in left.into_iter().enumerate() {
            let (_, fake, smmu) = attached(&from);
            fail(&fake, move |number| (number == failing).then_some(Outcome::Refused(1)));
            assert_eq!(smmu.replace(STREAM, &stage1(0x1_0000)), Err(DeviceError::Command(CommandError::Ill)));
            assert_eq!(found(&smmu)[0], left, "{from} with command {failing} refused");
            smmu.replace(STREAM, &stage1(0x1_0000)).unwrap();
            assert_eq!(found(&smmu), stage1(0x1_0000).words());
            smmu.detach(STREAM).unwrap();
        }
    }
}

#[test]
fn r38_a_replacement_that_is_not_confirmed_is_nobodys() {
    let stuck = Err(DeviceError::StreamStuck { stream: STREAM });
    for outcome in [Outcome::Refused(1), Outcome::Stuck] {
        let (_, fake, smmu) = attached(&stage1(0x1_0000));
        fail(&fake, move |_| Some(outcome));
        assert_eq!(smmu.replace(STREAM, &stage1(0x3_0000)), stuck);
        assert_eq!(found(&smmu)[0], 0);
        fake.on_command(|_| Outcome::Done);
        assert_eq!((smmu.replace(STREAM, &stage2()), smmu.abort(STREAM), smmu.detach(STREAM)), (stuck, stuck, stuck));
        assert_eq!(smmu.attach(STREAM, &stage2()), Err(DeviceError::StreamInUse { stream: STREAM }));
    }
}

#[test]
fn r22_who_comes_second_waits_and_does_not_wait_for_ever() {
    let (_, fake, smmu) = attached(&stage1(0x1_0000));
    let smmu = Arc::new(smmu);
    let second = Arc::clone(&smmu);
    // While the first CPU's command is under way, for ever as far as the second one can tell.
    fake.on_command(move |[word, _]| {
        if word & 0xff == CMD_CFGI_STE {
            let busy = second.detach(STREAM);
            assert!(matches!(busy, Err(DeviceError::StreamBusy { stream: STREAM, .. })), "{busy:?}");
        }
        Outcome::Done
    });
    smmu.replace(STREAM, &stage1(0x3_0000)).unwrap();
    fake.on_command(|_| Outcome::Done);
    smmu.detach(STREAM).unwrap();
}

#[test]
fn r22_of_many_who_change_a_stream_each_gets_its_turn() {
    let (platform, _, smmu) = attached(&stage1(0x1_0000));
    platform.set_nanoseconds_per_relax(1);
    std::thread::scope(|scope| {
        for cpu in 1..4 {
            let smmu = &smmu;
            scope.spawn(move || {
                for round in 0..rounds(50) {
                    let entry = if round % 2 == 0 { stage1(cpu << 16) } else { stage2() };
                    smmu.replace(STREAM, &entry).unwrap();
                }
            });
        }
    });
    assert_eq!(found(&smmu), stage2().words());
    smmu.detach(STREAM).unwrap();
}

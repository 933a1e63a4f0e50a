//! Stream table entries: from aborting to translated and back.

use std::sync::Mutex;
use std::{thread, vec};

use super::*;
use crate::addr::{PhysAddr, StreamId};
use crate::arch::command::CommandError;
use crate::arch::stream_table::StreamTableEntry;
use crate::device::ContextTable;

/// Where the software's bits are in word 1.
pub(super) const STATE: u64 = 0xf << 20;

/// An entry that differs from zero in every word.
pub(super) fn entry() -> StreamTableEntry {
    StreamTableEntry::from_words([0x1_000b, 0x1111 << 32, 0x22, 0x330, 0x44, 0x55, 0x66, 0x77])
}

/// An SMMU whose IDR0 and IDR1 are given.
pub(super) fn with_ids(idr0: u32, idr1: u32) -> (&'static TestPlatform, Arc<FakeSmmu>, Smmu<TestPlatform>) {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR0, idr0);
    fake.set(IDR1, idr1);
    let smmu = bring_up(platform, &fake).unwrap();
    (platform, fake, smmu)
}

fn linear() -> (&'static TestPlatform, Arc<FakeSmmu>, Smmu<TestPlatform>) {
    with_ids(0x0544_101b, 0x0273_0010)
}

/// How the SMMU finds the words of an entry: STRTAB_BASE, STRTAB_BASE_CFG, and what it reads from memory.
pub(super) struct View {
    platform: &'static TestPlatform,
    base: u64,
    config: u32,
    snoops: bool,
}

impl View {
    pub(super) fn new(platform: &'static TestPlatform, fake: &FakeSmmu, snoops: bool) -> Self {
        let base = u64::from(fake.get(STRTAB_BASE) & !0x3f) | u64::from(fake.get(STRTAB_BASE + 4) & 0xff_ffff) << 32;
        Self { platform, base, config: fake.get(STRTAB_BASE_CFG), snoops }
    }

    fn word(&self, address: u64) -> u64 {
        let address = PhysAddr::new(address);
        if self.snoops { self.platform.snooped_word(address) } else { self.platform.memory_word(address) }
    }

    /// The entry without the software's bits, or `None` if the stream has no second level.
    pub(super) fn entry(&self, stream: u64) -> Option<[u64; 8]> {
        let address = if self.config >> 16 == 0 {
            self.base + stream * 64
        } else {
            let split = u64::from(self.config >> 6 & 0x1f);
            let descriptor = self.word(self.base + (stream >> split) * 8);
            if descriptor & 0x1f == 0 {
                return None;
            }
            assert_eq!(descriptor & ((64 << split) - 1), split + 1, "2^SPLIT entries, aligned to their size");
            (descriptor & !0x1f) + (stream & ((1 << split) - 1)) * 64
        };
        let mut words = [0, 1, 2, 3, 4, 5, 6, 7].map(|index| self.word(address + index * 8));
        words[1] &= !STATE;
        Some(words)
    }
}

/// What the SMMU finds in a stream's entry whenever it carries a command out.
pub(super) fn watch(
    platform: &'static TestPlatform,
    fake: &FakeSmmu,
    snoops: bool,
    stream: u64,
) -> Arc<Mutex<Vec<[u64; 8]>>> {
    let view = View::new(platform, fake, snoops);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let result = Arc::clone(&seen);
    fake.on_command(move |_| {
        result.lock().unwrap().push(view.entry(stream).expect("a second level"));
        Outcome::Done
    });
    seen
}

#[test]
fn r14_an_entry_is_whole_before_it_is_valid() {
    let mut prepared = entry().words();
    prepared[0] = 0;
    for coherent in [true, false] {
        let platform = TestPlatform::leaked();
        let fake = FakeSmmu::new(platform, "A");
        let smmu = Smmu::bring_up(platform, Arc::clone(&fake), coherent, BootPolicy::Abort).unwrap();
        let seen = watch(platform, &fake, coherent, 0x1234);
        smmu.attach(StreamId::new(0x1234), &entry()).unwrap();
        assert_eq!(*seen.lock().unwrap(), [prepared, prepared, entry().words(), entry().words()]);
        seen.lock().unwrap().clear();
        smmu.detach(StreamId::new(0x1234)).unwrap();
        assert_eq!(*seen.lock().unwrap(), [prepared, prepared], "one write has made it invalid");
        assert_eq!(View::new(platform, &fake, coherent).entry(0x1234), Some([0; 8]), "nothing of it is left");
    }
}

#[test]
fn r15_four_commands_attach_and_two_detach() {
    let (platform, _, smmu) = running();
    platform.journal();
    smmu.attach(StreamId::new(0x1234), &entry()).unwrap();
    let cfgi = 0x1234_0000_0003;
    assert_eq!(commands(&platform.journal()), [[cfgi, 0], [CMD_SYNC, 0], [cfgi, 1], [CMD_SYNC, 0]]);
    smmu.detach(StreamId::new(0x1234)).unwrap();
    assert_eq!(commands(&platform.journal()), [[cfgi, 1], [CMD_SYNC, 0]]);
}

#[test]
fn r16_siblings_share_a_second_level_that_stays() {
    let (platform, fake, smmu) = running();
    let view = View::new(platform, &fake, true);
    let blocks = platform.blocks();
    let attach = |stream| smmu.attach(StreamId::new(stream), &entry()).unwrap();
    assert_eq!(view.entry(0x100), None);
    attach(0x100);
    attach(0x1ff);
    assert_eq!(platform.blocks(), blocks + 1);
    attach(0x200);
    assert_eq!(platform.blocks(), blocks + 2);
    smmu.detach(StreamId::new(0x100)).unwrap();
    attach(0x101);
    let words = Some(entry().words());
    assert_eq!([0x1ff, 0x101, 0x200, 0x100].map(|stream| view.entry(stream)), [words, words, words, Some([0; 8])]);
    assert_eq!(smmu.statistics().dma_bytes, 4096 + 32768 + 2048 + 2 * 16384 + 2 * 8192);
    drop(smmu);
    assert_eq!(platform.blocks(), 0);
}

#[test]
fn a_linear_table_works_alike() {
    let (platform, fake, smmu) = linear();
    let view = View::new(platform, &fake, true);
    let blocks = platform.blocks();
    for stream in [0, 1, 1023] {
        smmu.attach(StreamId::new(stream), &entry()).unwrap();
        assert_eq!(view.entry(stream.into()), Some(entry().words()));
    }
    smmu.detach(StreamId::new(1)).unwrap();
    assert_eq!([0, 1, 1023].map(|stream| view.entry(stream).unwrap()[0]), [0x1_000b, 0, 0x1_000b]);
    assert_eq!(platform.blocks(), blocks);
}

#[test]
fn streams_out_of_range_are_refused() {
    // Linear tables end at 2^10, two-level ones where the platform says, small StreamIDs before.
    for (idr0, sidsize, bits) in
        [(0x0d44_101b, 16, 16), (0x0d44_101b, 9, 9), (0x0544_101b, 16, 10), (0x0d44_101b, 32, 27), (0x0544_101b, 0, 0)]
    {
        let (platform, _, smmu) = with_ids(idr0, 0x0273_0000 | sidsize);
        let blocks = platform.blocks();
        for stream in [1 << bits, u32::MAX].map(StreamId::new) {
            let refused = DeviceError::StreamOutOfRange { stream, stream_id_bits: bits };
            assert_eq!(smmu.attach(stream, &entry()), Err(refused));
            assert_eq!(smmu.detach(stream), Err(refused));
            assert_eq!(smmu.stream_table_entry(stream), Err(refused));
        }
        assert_eq!(platform.blocks(), blocks);
        smmu.attach(StreamId::new((1 << bits) - 1), &entry()).unwrap();
    }
}

#[test]
fn a_first_level_is_as_large_as_the_stream_ids_need() {
    // SIDSIZE and the platform's word; LOG2SIZE and SPLIT; bytes of the first level and of a second one.
    for (sidsize, wanted, log2size, split, first, second) in [
        (9, 27, 9, 8, 16, 0x4000),
        (16, 27, 16, 8, 0x800, 0x4000),
        (20, 27, 20, 8, 0x8000, 0x4000),
        (21, 27, 21, 10, 0x4000, 0x1_0000),
        (24, 27, 24, 10, 0x2_0000, 0x1_0000),
        (32, 27, 27, 10, 0x10_0000, 0x1_0000),
        (32, 16, 16, 8, 0x800, 0x4000),
        (32, 32, 32, 10, 0x200_0000, 0x1_0000),
    ] {
        if cfg!(miri) && first > 0x10_0000 {
            // Miri would take an hour to zero it.
            continue;
        }
        let platform = TestPlatform::leaked();
        platform.set_stream_id_bits(wanted);
        let fake = FakeSmmu::new(platform, "A");
        fake.set(IDR1, 0x0273_0000 | sidsize);
        let smmu = bring_up(platform, &fake).unwrap();
        assert_eq!(fake.get(STRTAB_BASE_CFG), 1 << 16 | split << 6 | log2size);
        let before = smmu.statistics().dma_bytes;
        assert_eq!(before, 4096 + 32768 + first + 2 * 8192);
        let last = StreamId::new(((1u64 << log2size) - 1) as u32);
        smmu.attach(last, &entry()).unwrap();
        assert_eq!(smmu.statistics().dma_bytes - before, second);
        assert_eq!(View::new(platform, &fake, true).entry(last.get().into()), Some(entry().words()));
    }
}

#[test]
fn r22_a_stream_has_one_owner_at_a_time() {
    for (platform, _, smmu) in [running(), linear()] {
        let stream = StreamId::new(8);
        let not_attached = Err(DeviceError::StreamNotAttached { stream });
        assert_eq!(smmu.detach(stream), not_attached);
        smmu.attach(stream, &entry()).unwrap();
        platform.journal();
        let other = StreamTableEntry::from_words([0x2_000b, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(smmu.attach(stream, &other), Err(DeviceError::StreamInUse { stream }));
        assert_eq!(platform.journal(), [], "nothing was touched");
        assert_eq!(smmu.detach(stream), Ok(()));
        assert_eq!(smmu.detach(stream), not_attached);
        smmu.attach(stream, &other).unwrap();
        let mut words = smmu.stream_table_entry(stream).unwrap().words();
        words[1] &= !STATE;
        assert_eq!(words, other.words(), "nothing of the former entry");
    }
}

/// Refuses or hangs on commands, counted from 0, in the way given.
pub(super) fn fail(fake: &FakeSmmu, fails: impl Fn(usize) -> Option<Outcome> + Send + 'static) {
    let mut count = 0;
    fake.on_command(move |[word, _]| {
        if word & 0xff == CMD_SYNC {
            return Outcome::Done;
        }
        count += 1;
        fails(count - 1).unwrap_or(Outcome::Done)
    });
}

#[test]
fn r38_an_attach_that_fails_is_undone() {
    let stream = StreamId::new(8);
    for failing in [0, 1] {
        let (platform, fake, smmu) = running();
        fail(&fake, move |number| (number == failing).then_some(Outcome::Refused(1)));
        assert_eq!(smmu.attach(stream, &entry()), Err(DeviceError::Command(CommandError::Ill)));
        assert_eq!(View::new(platform, &fake, true).entry(8), Some([0; 8]));
        smmu.attach(stream, &entry()).unwrap();
    }
}

#[test]
fn r38_a_stream_whose_entry_may_be_cached_stays_claimed() {
    let stream = StreamId::new(8);
    let stuck = Err(DeviceError::StreamStuck { stream });
    for outcome in [Outcome::Refused(1), Outcome::Stuck] {
        let (platform, fake, smmu) = running();
        fail(&fake, move |number| (number > 0).then_some(outcome));
        assert_eq!(smmu.attach(stream, &entry()), stuck);
        assert_eq!(View::new(platform, &fake, true).entry(8).unwrap()[0], 0);
        fake.on_command(|_| Outcome::Done);
        assert_eq!(smmu.attach(stream, &entry()), Err(DeviceError::StreamInUse { stream }));
        assert_eq!(smmu.detach(stream), stuck);
    }
    let (_, fake, smmu) = running();
    smmu.attach(stream, &entry()).unwrap();
    fail(&fake, |_| Some(Outcome::Refused(1)));
    assert_eq!(smmu.detach(stream), stuck);
    assert_eq!(smmu.attach(stream, &entry()), Err(DeviceError::StreamInUse { stream }));
}

#[test]
fn a_lack_of_memory_for_a_second_level_changes_nothing() {
    let (platform, fake, smmu) = running();
    platform.allow_allocations(0);
    platform.journal();
    assert!(matches!(smmu.attach(StreamId::new(8), &entry()), Err(DeviceError::OutOfDmaMemory(_))));
    assert_eq!((platform.journal(), View::new(platform, &fake, true).entry(8)), (vec![], None));
    platform.allow_allocations(1);
    smmu.attach(StreamId::new(8), &entry()).unwrap();
}

#[test]
fn r22_of_many_who_want_a_stream_one_gets_it() {
    let (platform, fake, smmu) = running();
    platform.set_nanoseconds_per_relax(10);
    let blocks = platform.blocks();
    for round in 0..50 {
        let wins = thread::scope(|scope| {
            let contender = |stream| smmu.attach(StreamId::new(stream), &entry()).is_ok();
            // Two want the same stream, two its neighbours in the same new second level.
            let streams = [0, 0, 1, 2].map(|low| round << 8 | low);
            let threads = streams.map(|stream| scope.spawn(move || contender(stream)));
            threads.map(|thread| thread.join().unwrap())
        });
        assert!(wins[0] ^ wins[1] && wins[2] && wins[3], "{wins:?}");
        let view = View::new(platform, &fake, true);
        assert!((0..3).all(|low| view.entry((round << 8 | low).into()) == Some(entry().words())));
        assert_eq!(platform.blocks(), blocks + round as usize + 1);
    }
}

#[test]
fn shareability_is_not_overridden() {
    // IDR1 without and with ATTR_TYPES_OVR; STE.SHCFG.
    for (idr1, shcfg) in [(0x0273_0010, 0), (0x0a73_0010, 1 << 44)] {
        let platform = TestPlatform::leaked();
        let fake = FakeSmmu::new(platform, "A");
        fake.set(IDR1, idr1);
        let stream = StreamId::new(5);
        let smmu = Smmu::bring_up(platform, Arc::clone(&fake), true, BootPolicy::Bypass(&[stream])).unwrap();
        let bypass = smmu.stream_table_entry(stream).unwrap().words()[1];
        let contexts = ContextTable::with_substreams(&smmu, 0).unwrap();
        let stage1 = StreamTableEntry::stage1(&contexts.stage1_stream(smmu.features().walk_attributes())).words()[1];
        assert_eq!([bypass, stage1].map(|word| word & 3 << 44), [shcfg; 2]);
    }
}

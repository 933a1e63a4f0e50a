//! Devices with caches of their own: told after the SMMU, and quarantined if they do not listen.

use super::*;
use crate::addr::{Asid, Iova, PhysAddr, StreamId, SubstreamId, Vmid};
use crate::arch::attributes::{Granule, WalkAttributes};
use crate::arch::command::CommandError;
use crate::arch::range::Stale;
use crate::arch::stream_table::{Eats, Stage1Stream, StreamTableEntry};
use crate::device::{AtcTarget, StaleRange, TranslationTag};

const CMD_ATC_INV: u64 = 0x40;
const CERROR_ATC_INV_SYNC: u32 = 3;
const SYNC: [u64; 2] = [CMD_SYNC, 0];
/// ASID 0x5a.
const TAG: TranslationTag = TranslationTag::Stage1 { asid: Asid::new(0x5a), vmid: Vmid::new(0) };
/// A page at 0x4000_0000.
const PAGE: StaleRange = StaleRange {
    start: Iova::new(0x4000_0000),
    size_bytes: 0x1000,
    granule: Granule::K4,
    stale: Stale::Leaves { level: Some(3) },
};
/// What [`PAGE`] under [`TAG`] takes.
const TLBI: [u64; 2] = [CMD_TLBI_NH_VA | 0x5a << 48, 0x4000_0000 | 1 << 10 | 3 << 8 | 1];

fn target(stream: u32, substream: Option<u32>) -> AtcTarget {
    AtcTarget { stream: StreamId::new(stream), substream: substream.map(SubstreamId::new) }
}

/// An ATC invalidation of [`PAGE`] for transactions without a substream.
fn atc_inv(stream: u64) -> [u64; 2] {
    [CMD_ATC_INV | stream << 32, 0x4000_0000]
}

/// An SMMU with ATS.
fn with_ats() -> (&'static TestPlatform, Arc<FakeSmmu>, Smmu<TestPlatform>) {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR0, 0x0d44_101b | 1 << 10);
    let smmu = bring_up(platform, &fake).unwrap();
    platform.journal();
    (platform, fake, smmu)
}

/// A stage-1 entry with ATS and `2^log2_contexts` substreams.
fn entry(log2_contexts: u8) -> StreamTableEntry {
    let stage1 = Stage1Stream::with_one_context(PhysAddr::new(0x9000_0000), WalkAttributes::COHERENT);
    StreamTableEntry::stage1(&Stage1Stream { log2_contexts, ..stage1 }).with_ats(Eats::Full)
}

/// Lets the devices of `streams` ignore what they are told: the next CMD_SYNC fails.
fn silence(fake: &FakeSmmu, streams: &'static [u64]) {
    let mut ignored = false;
    fake.on_command(move |[word, _]| match word & 0xff {
        CMD_ATC_INV => {
            ignored |= streams.contains(&(word >> 32));
            Outcome::Done
        }
        CMD_SYNC if core::mem::take(&mut ignored) => Outcome::Refused(CERROR_ATC_INV_SYNC),
        _ => Outcome::Done,
    });
}

/// Invalidates [`PAGE`] in the SMMU and in some devices; which ones were quarantined.
fn invalidate(smmu: &Smmu<TestPlatform>, targets: &[AtcTarget]) -> Result<Vec<u32>, DeviceError> {
    let mut quarantined = Vec::new();
    smmu.invalidate_with_atcs(TAG, &PAGE, targets.iter().copied(), |stream| quarantined.push(stream.get()))?;
    Ok(quarantined)
}

#[test]
fn r19_translated_traffic_is_checked_where_there_is_ats() {
    let (_, fake, _smmu) = with_ats();
    assert_eq!(fake.get(CR0ACK) & 1 << 4, 1 << 4, "ATSCHK");
    let (_, fake, _smmu) = running();
    assert_eq!(fake.get(CR0ACK) & 1 << 4, 0, "reserved without ATS");
}

#[test]
fn devices_are_told_after_the_smmu_and_with_their_substreams() {
    let (platform, _, smmu) = with_ats();
    let targets = [target(0x11, None), target(0x22, Some(0xf_ffff)), target(0x22, Some(7))];
    assert_eq!(invalidate(&smmu, &targets), Ok(Vec::new()));
    let tagged = |substream: u64| [CMD_ATC_INV | 1 << 11 | substream << 12 | 0x22 << 32, 0x4000_0000];
    assert_eq!(commands(&platform.journal()), [TLBI, SYNC, atc_inv(0x11), tagged(0xf_ffff), tagged(7), SYNC]);
}

#[test]
fn a_range_is_one_span_for_a_device() {
    let (platform, _, smmu) = with_ats();
    let range = |start, pages: u64| StaleRange { start: Iova::new(start), size_bytes: pages * 0x1000, ..PAGE };
    for (range, span) in [
        (range(0x4000_0000, 2), 0x4000_0000 | 1),
        (range(0x4000_1000, 2), 0x4000_0000 | 2),
        (range(0x4000_0000, 512), 0x4000_0000 | 9),
    ] {
        smmu.invalidate_with_atcs(TAG, &range, [target(0x11, None)].into_iter(), |_| ()).unwrap();
        let [_, SYNC, [CMD_ATC_INV_OF_11, found], SYNC] = commands(&platform.journal())[..] else {
            panic!("{range:?}")
        };
        assert_eq!(found, span);
    }
    const CMD_ATC_INV_OF_11: u64 = CMD_ATC_INV | 0x11 << 32;
}

#[test]
fn a_guests_own_translations_go_as_a_whole() {
    let (platform, _, smmu) = with_ats();
    let tag = TranslationTag::Nested { vmid: Vmid::new(0x2b) };
    smmu.invalidate(tag, &PAGE).unwrap();
    let vmall = [CMD_TLBI_S12_VMALL | 0x2b << 32, 0];
    assert_eq!(commands(&platform.journal()), [vmall, SYNC]);
    smmu.invalidate_with_atcs(tag, &PAGE, [target(0x11, None)].into_iter(), |_| ()).unwrap();
    assert_eq!(commands(&platform.journal()), [vmall, SYNC, [CMD_ATC_INV | 0x11 << 32, 52], SYNC]);
}

#[test]
fn a_flush_is_of_all_that_the_entry_permits() {
    let (platform, _, smmu) = with_ats();
    let stream = StreamId::new(0x11);
    let untagged = [CMD_ATC_INV | 0x11 << 32, 52];
    // Global and SSV.
    let tagged = [CMD_ATC_INV | 1 << 9 | 1 << 11 | 0x11 << 32, 52];
    smmu.flush_atc(stream, &entry(0)).unwrap();
    assert_eq!(commands(&platform.journal()), [untagged, SYNC]);
    smmu.flush_atc(stream, &entry(4)).unwrap();
    assert_eq!(commands(&platform.journal()), [untagged, tagged, SYNC]);
    smmu.flush_atc(stream, &entry(4).with_ats(Eats::Off)).unwrap();
    assert!(commands(&platform.journal()).is_empty());
}

#[test]
fn a_device_that_does_not_obey_is_quarantined_and_the_others_go_on() {
    let (platform, fake, smmu) = with_ats();
    let streams = [0x11, 0x22, 0x33];
    streams.iter().for_each(|&stream| smmu.attach(StreamId::new(stream), &entry(0)).unwrap());
    silence(&fake, &[0x22]);
    platform.journal();
    let targets = streams.map(|stream| target(stream, None));
    assert_eq!(invalidate(&smmu, &targets), Ok(vec![0x22]));
    let cfgi = [CMD_CFGI_STE | 0x22 << 32, 1];
    let all: Vec<_> =
        commands(&platform.journal()).into_iter().filter(|command| command[0] & 0xff != CMD_SYNC).collect();
    let asked = [atc_inv(0x11), atc_inv(0x22), atc_inv(0x33)];
    assert_eq!(all, [TLBI, asked[0], asked[1], asked[2], TLBI, asked[0], asked[1], cfgi, asked[2]]);
    let word0 = |stream| smmu.stream_table_entry(StreamId::new(stream)).unwrap().words()[0];
    assert_eq!(streams.map(word0), [0x9000_000b, 0x1, 0x9000_000b], "V, and Config 0");
    // It is still its owner's.
    let stream = StreamId::new(0x22);
    assert_eq!(smmu.attach(stream, &entry(0)), Err(DeviceError::StreamInUse { stream }));
    smmu.detach(stream).unwrap();
    assert_eq!(smmu.stream_table_entry(stream).unwrap().words(), [0; 8]);
    smmu.attach(stream, &entry(0)).unwrap();
}

#[test]
fn a_device_that_was_detached_meanwhile_is_no_trouble() {
    let (_, fake, smmu) = with_ats();
    silence(&fake, &[0x22]);
    assert_eq!(invalidate(&smmu, &[target(0x22, None)]), Ok(Vec::new()));
}

#[test]
fn devices_that_cannot_be_told_are_quarantined() {
    let (_, fake, smmu) = with_ats();
    let stream = StreamId::new(0x22);
    smmu.attach(stream, &entry(0)).unwrap();
    smmu.suspend().unwrap();
    assert_eq!(invalidate(&smmu, &[target(0x22, None)]), Ok(vec![0x22]));
    assert_eq!(smmu.stream_table_entry(stream).unwrap().words()[0], 1);
    smmu.resume().unwrap();
    assert_eq!(fake.get(CR0ACK) & 1 << 4, 1 << 4, "ATSCHK");
    smmu.detach(stream).unwrap();
}

#[test]
fn r38_an_smmu_does_not_fall_asleep_before_devices_have_been_told() {
    let (platform, fake, smmu) = with_ats();
    let smmu = Arc::new(smmu);
    let at_work = Arc::downgrade(&smmu);
    fake.on_command(move |[word, _]| {
        let others = at_work.upgrade().unwrap().lifecycle.wait_for_users(platform);
        assert!(word & 0xff != CMD_ATC_INV || matches!(others, Err(DeviceError::Busy { .. })), "{others:?}");
        Outcome::Done
    });
    assert_eq!(invalidate(&smmu, &[target(0x11, None)]), Ok(Vec::new()));
    fake.on_command(|_| Outcome::Done);
    assert_eq!(smmu.lifecycle.wait_for_users(platform), Ok(()));
}

#[test]
fn r38_a_device_that_does_not_obey_hides_no_error_of_the_smmu() {
    let (_, fake, smmu) = with_ats();
    let mut ignored = false;
    fake.on_command(move |[word, _]| match word & 0xff {
        CMD_TLBI_NH_VA => Outcome::Refused(1),
        CMD_ATC_INV => {
            ignored = true;
            Outcome::Done
        }
        CMD_SYNC if core::mem::take(&mut ignored) => Outcome::Refused(CERROR_ATC_INV_SYNC),
        _ => Outcome::Done,
    });
    assert_eq!(invalidate(&smmu, &[target(0x11, None)]), Err(DeviceError::Command(CommandError::Ill)));
}

#[test]
fn r38_an_smmu_that_does_not_confirm_a_quarantine_says_so() {
    let (_, fake, smmu) = with_ats();
    let stream = StreamId::new(0x22);
    smmu.attach(stream, &entry(0)).unwrap();
    let mut ignored = false;
    fake.on_command(move |[word, _]| match word & 0xff {
        CMD_ATC_INV => {
            ignored = true;
            Outcome::Done
        }
        CMD_SYNC if core::mem::take(&mut ignored) => Outcome::Refused(CERROR_ATC_INV_SYNC),
        CMD_CFGI_STE => Outcome::Stuck,
        _ => Outcome::Done,
    });
    assert_eq!(invalidate(&smmu, &[target(0x22, None)]), Err(DeviceError::StreamStuck { stream }));
}

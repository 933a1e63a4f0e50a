//! What the SMMU is told to forget, bit by bit; and identifiers, which are reused only after that.

use std::collections::BTreeSet;

use super::*;
use crate::addr::{Asid, Iova, Vmid};
use crate::arch::attributes::Granule;
use crate::arch::command::CommandError;
use crate::arch::range::Stale;
use crate::device::{StaleRange, TranslationTag};

const STAGE1: TranslationTag = TranslationTag::Stage1 { asid: Asid::new(0x5a), vmid: Vmid::new(0) };
const STAGE2: TranslationTag = TranslationTag::Stage2 { vmid: Vmid::new(0x2b) };
const PAGES: Stale = Stale::Leaves { level: Some(3) };
const SYNC: [u64; 2] = [CMD_SYNC, 0];
/// ASID 0x5a.
const ASID: u64 = 0x5a << 48;
/// VMID 0x2b.
const VMID: u64 = 0x2b << 32;

fn range(start: u64, size_bytes: u64, stale: Stale) -> StaleRange {
    StaleRange { start: Iova::new(start), size_bytes, granule: Granule::K4, stale }
}

/// The commands of an invalidation, on an SMMU with this IDR3.
fn invalidate(idr3: u32, tag: TranslationTag, range: &StaleRange) -> Vec<[u64; 2]> {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR3, idr3);
    let smmu = bring_up(platform, &fake).unwrap();
    platform.journal();
    smmu.invalidate(tag, range).unwrap();
    commands(&platform.journal())
}

/// IDR3 with RIL, and without.
const RIL: u32 = 0x1414;
const NO_RIL: u32 = 0x1014;

#[test]
fn one_range_command_and_one_sync() {
    let command = invalidate(RIL, STAGE1, &range(0x4000_0000, 0x20_0000, PAGES));
    // NUM 31, SCALE 4; TG 4K, TTL 3, Leaf.
    assert_eq!(command, [[CMD_TLBI_NH_VA | 31 << 12 | 4 << 20 | ASID, 0x4000_0000 | 1 << 10 | 3 << 8 | 1], SYNC]);
    let command = invalidate(RIL, STAGE2, &range(0x4000_0000, 0x3000, PAGES));
    assert_eq!(command, [[CMD_TLBI_S2_IPA | 2 << 12 | VMID, 0x4000_0000 | 1 << 10 | 3 << 8 | 1], SYNC]);
}

#[test]
fn r28_with_tables_gone_it_is_not_leaf_only() {
    let command = invalidate(RIL, STAGE1, &range(0x4000_0000, 0x20_0000, Stale::TablesAndLeaves));
    assert_eq!(command, [[CMD_TLBI_NH_VA | 31 << 12 | 4 << 20 | ASID, 0x4000_0000 | 1 << 10], SYNC]);
    let command = invalidate(NO_RIL, STAGE1, &range(0x4000_0000, 0x1000, Stale::TablesAndLeaves));
    assert_eq!(command, [[CMD_TLBI_NH_VA | ASID, 0x4000_0000], SYNC]);
}

#[test]
fn without_range_invalidation_every_page_has_its_command() {
    let expected = |pages| {
        let command = |page: u64| [CMD_TLBI_NH_VA | ASID, (0x4000_0000 + page * 0x1000) | 1];
        (0..pages).map(command).chain([SYNC]).collect::<Vec<_>>()
    };
    for pages in [1, 3, 64] {
        assert_eq!(invalidate(NO_RIL, STAGE1, &range(0x4000_0000, pages * 0x1000, PAGES)), expected(pages));
    }
    // Parts of pages count whole.
    assert_eq!(invalidate(NO_RIL, STAGE1, &range(0x4000_0fff, 2, PAGES)), expected(2));
}

#[test]
fn r30_beyond_a_few_pages_everything_goes() {
    for size_bytes in [65 * 0x1000, 1 << 40, u64::MAX] {
        let commands = invalidate(NO_RIL, STAGE1, &range(0x4000_0000, size_bytes, PAGES));
        assert_eq!(commands, [[CMD_TLBI_NH_ASID | ASID, 0], SYNC], "{size_bytes:#x}");
    }
    let commands = invalidate(NO_RIL, STAGE2, &range(0, 65 * 0x1000, PAGES));
    assert_eq!(commands, [[CMD_TLBI_S12_VMALL | VMID, 0], SYNC]);
}

#[test]
fn r30_ranges_beyond_all_measure_go_with_everything() {
    // A command covers 2^48 bytes of 4 KiB pages: 64 of them 2^54.
    let commands = invalidate(RIL, STAGE1, &range(0, 1 << 54, PAGES));
    assert_eq!(commands.len(), 65);
    assert!(commands.iter().take(64).all(|[word, _]| word & 0xff == CMD_TLBI_NH_VA), "{commands:#x?}");
    for (start, size_bytes) in [(0, (1 << 54) + 1), (0x4000_0000, u64::MAX)] {
        let commands = invalidate(RIL, STAGE1, &range(start, size_bytes, PAGES));
        assert_eq!(commands, [[CMD_TLBI_NH_ASID | ASID, 0], SYNC], "{size_bytes:#x}");
    }
    let commands = invalidate(RIL, STAGE2, &range(0, u64::MAX, Stale::TablesAndLeaves));
    assert_eq!(commands, [[CMD_TLBI_S12_VMALL | VMID, 0], SYNC]);
}

#[test]
fn blocks_take_one_command_each() {
    let blocks = invalidate(NO_RIL, STAGE1, &range(0x4020_0000, 3 << 21, Stale::Leaves { level: Some(2) }));
    let command = |address: u64| [CMD_TLBI_NH_VA | ASID, address | 1];
    assert_eq!(blocks, [command(0x4020_0000), command(0x4040_0000), command(0x4060_0000), SYNC]);
    let blocks = invalidate(NO_RIL, STAGE1, &range(1 << 30, 2 << 30, Stale::Leaves { level: Some(1) }));
    assert_eq!(blocks, [command(1 << 30), command(2 << 30), SYNC]);
}

#[test]
fn r38_an_invalidation_that_fails_says_so() {
    let (_, fake, smmu) = running();
    fake.on_command(|[word, _]| if word & 0xff == CMD_SYNC { Outcome::Done } else { Outcome::Refused(1) });
    let refused = Err(DeviceError::Command(CommandError::Ill));
    assert_eq!(smmu.invalidate(STAGE1, &range(0, 0x1000, PAGES)), refused);
    assert_eq!(smmu.invalidate_all(STAGE1), refused);
    fake.on_command(|_| Outcome::Stuck);
    assert_eq!(timed_out(smmu.invalidate(STAGE1, &range(0, 0x1000, PAGES))), "CMDQ_CONS");
}

#[test]
fn r27_identifiers_run_out_and_none_is_given_twice() {
    // IDR0 with and without ASID16 and VMID16.
    for (idr0, count) in [(0x0d44_101b, 0xffff), (0x0d40_001b, 0xff)] {
        let platform = TestPlatform::leaked();
        let fake = FakeSmmu::new(platform, "A");
        fake.set(IDR0, idr0);
        let smmu = bring_up(platform, &fake).unwrap();
        let asids: BTreeSet<_> = (0..count).map(|_| smmu.take_asid().unwrap().get()).collect();
        assert_eq!(asids, (1..=count).collect(), "0 is nobody's");
        let error = DeviceError::OutOfIds { kind: "ASID", count: u32::from(count) };
        assert_eq!(smmu.take_asid(), Err(error));
        assert_eq!(smmu.take_vmid(), Ok(Vmid::new(1)), "VMIDs are others");
    }
}

#[test]
fn r27_an_identifier_is_reused_after_its_translations_are_forgotten() {
    let (platform, fake, smmu) = running();
    let tag = |asid| TranslationTag::Stage1 { asid, vmid: Vmid::new(0) };
    let [first, second] = [(); 2].map(|()| smmu.take_asid().unwrap());
    platform.journal();
    smmu.retire(tag(first)).unwrap();
    assert_eq!(commands(&platform.journal()), [[CMD_TLBI_NH_ASID | u64::from(first.get()) << 48, 0], SYNC]);
    assert_eq!(smmu.take_asid(), Ok(first));
    // Refused, or never confirmed: it stays taken.
    for outcome in [Outcome::Refused(1), Outcome::Stuck] {
        fake.on_command(move |[word, _]| if word & 0xff == CMD_SYNC { Outcome::Done } else { outcome });
        smmu.retire(tag(second)).unwrap_err();
        let next = smmu.take_asid().unwrap();
        assert!(next > second, "{next} after {second}");
    }
}

#[test]
fn r27_a_vmid_goes_with_everything_under_it() {
    let (platform, _, smmu) = running();
    let vmid = smmu.take_vmid().unwrap();
    platform.journal();
    smmu.retire(TranslationTag::Stage2 { vmid }).unwrap();
    assert_eq!(commands(&platform.journal()), [[CMD_TLBI_S12_VMALL | 1 << 32, 0], SYNC]);
    assert_eq!(smmu.take_vmid(), Ok(vmid));
}

#[test]
fn a_reserved_identifier_is_never_given_out() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    // 8-bit ASIDs.
    fake.set(IDR0, 0x0d40_001b);
    let smmu = bring_up(platform, &fake).unwrap();
    assert_eq!(smmu.take_asid(), Ok(Asid::new(1)));
    let reserved = [1, 2, 2, 0xff, 0, 0x100, 0xffff].map(|number| smmu.reserve_asid(Asid::new(number)));
    assert_eq!(
        reserved,
        [false, true, false, true, false, false, false],
        "taken, 0, and what does not fit are not free"
    );
    let rest: BTreeSet<_> = core::iter::from_fn(|| smmu.take_asid().ok()).map(Asid::get).collect();
    assert_eq!(rest, (3..0xff).collect());
    assert!(smmu.reserve_vmid(Vmid::new(2)) && !smmu.reserve_vmid(Vmid::new(2)));
    assert_eq!([smmu.take_vmid(), smmu.take_vmid()], [Ok(Vmid::new(1)), Ok(Vmid::new(3))]);
    smmu.retire(TranslationTag::Stage1 { asid: Asid::new(2), vmid: Vmid::new(0) }).unwrap();
    assert_eq!(smmu.take_asid(), Ok(Asid::new(2)));
}

#[test]
fn r27_only_what_is_taken_is_retired() {
    let (platform, _, smmu) = running();
    let stage1 = |number| TranslationTag::Stage1 { asid: Asid::new(number), vmid: Vmid::new(0) };
    let stage2 = |number| TranslationTag::Stage2 { vmid: Vmid::new(number) };
    let taken = smmu.take_asid().unwrap();
    smmu.retire(stage1(taken.get())).unwrap();
    platform.journal();
    for number in [0, taken.get(), 0xffff] {
        assert_eq!(smmu.retire(stage1(number)), Err(DeviceError::IdNotTaken { kind: "ASID", number }));
        assert_eq!(smmu.retire(stage2(number)), Err(DeviceError::IdNotTaken { kind: "VMID", number }));
    }
    assert!(platform.journal().is_empty(), "nothing is asked of the SMMU");
    assert_eq!((smmu.take_asid(), smmu.take_vmid()), (Ok(taken), Ok(Vmid::new(1))), "0 is still nobody's");
}

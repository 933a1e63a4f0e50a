//! Entries that guests write: what is taken over, what is the hypervisor's, and what is refused, field by field.

use proptest::prelude::*;

use super::*;
use crate::addr::{PhysAddr, Vmid};
use crate::arch::attributes::Granule;
use crate::arch::stream_table::{Config, Eats, S1Fmt, Stage2Stream, StreamTableEntry};
use crate::device::{NestedParent, RefusedEntry};
use crate::pgtable::{PageTable, SharedConfig, SharedTable, Stage, TableConfig, Tracking};
use crate::testing::tries;

/// QEMU's IDR0 and IDR1: nothing stalls, and there are no substreams.
const QEMU: (u32, u32) = (0x0d44_101b, 0x0273_0010);
/// The same with ATS, two-level context tables, an optional stall, and substreams of 4 bits.
const FULL: (u32, u32) = (0x0c4c_141b, 0x0273_0110);
/// IDR0.NS1ATS: no split-stage ATS.
const NS1ATS: u32 = 1 << 11;
/// V and Config 101.
const STAGE1: u64 = 0b1011;

fn smmu((idr0, idr1): (u32, u32)) -> Smmu<TestPlatform> {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR0, idr0);
    fake.set(IDR1, idr1);
    bring_up(platform, &fake).unwrap()
}

/// A table of 40 bits at stage 2.
fn table() -> SharedTable {
    let config = SharedConfig {
        root: PhysAddr::new(0x8000_2000),
        granule: Granule::K4,
        input_bits: 40,
        output_bits: 44,
        start_level: 1,
    };
    SharedTable::new(&config).unwrap()
}

/// VMID 9, and everything allowed.
fn parent(smmu: &Smmu<TestPlatform>) -> NestedParent {
    let stage2 = smmu.stage2_stream(Vmid::new(9), &table()).unwrap();
    NestedParent { substream_id_bits: 20, ats: Eats::Full, stalls: true, ..NestedParent::new(stage2) }
}

/// What a guest gets for an entry.
fn ask(words: [u64; 8]) -> Result<[u64; 8], RefusedEntry> {
    let smmu = smmu(FULL);
    parent(&smmu).entry(smmu.features(), words).map(|entry| entry.words())
}

/// A stage-1 entry with more in words 0 and 1.
fn stage1(word0: u64, word1: u64) -> [u64; 8] {
    [STAGE1 | word0, word1, 0, 0, 0, 0, 0, 0]
}

/// Words 2 and 3 of a stage-2 entry: T0SZ 24, SL0 1, cacheable walks, 44 bits out, AArch64, PTW, R; VMID 9.
const WORD2: u64 = 9 | (24 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 4 << 16 | 1 << 19 | 1 << 22 | 1 << 26) << 32;
const WORD3: u64 = 0x8000_2000;

#[test]
fn r25_a_guests_configurations() {
    assert_eq!(ask([0; 8]), Ok([0; 8]), "invalid");
    assert_eq!(ask([u64::MAX - 1; 8]), Ok([0; 8]), "invalid, whatever else");
    for config in 0..4 {
        assert_eq!(ask([1 | config << 1; 8]), Ok([1, 0, 0, 0, 0, 0, 0, 0]), "abort");
    }
    assert_eq!(ask([9, 1 << 28, 7, 7, 7, 7, 7, 7]), Ok([13, 0, WORD2, WORD3, 0, 0, 0, 0]), "bypass is stage 2 alone");
    assert_eq!(ask(stage1(0x4000, 2)), Ok([15 | 0x4000, 2, WORD2, WORD3, 0, 0, 0, 0]), "stage 1 is nested");
    for (word, config) in [(13, Config::Stage2), (15, Config::Nested)] {
        assert_eq!(ask([word, 0, 0, 0, 0, 0, 0, 0]), Err(RefusedEntry::Config { config }));
    }
}

#[test]
fn what_a_guest_says_of_stage_1_is_taken_over() {
    let same = |word0, word1| {
        let [first, second, ..] = ask(stage1(word0, word1)).unwrap();
        assert_eq!((first ^ 0b100, second), (STAGE1 | word0, word1), "{word0:#x} {word1:#x}");
    };
    // S1CDMax 4, S1Fmt; S1DSS.
    for format in 0..3 {
        same(4 << 59 | format << 4 | 0x1_0000, 0);
    }
    (0..3).for_each(|s1dss| same(1 << 59, s1dss));
    // S1CIR, S1COR, S1CSH, S1STALLD, EATS.
    for field in [1 << 2, 2 << 2, 1 << 4, 2 << 4, 2 << 6, 3 << 6, 1 << 27, 1 << 28] {
        same(0, 2 | field);
    }
    same(0xff_ffff_ffc0, 2);
}

#[test]
fn r25_what_a_guest_cannot_have_is_refused_by_name() {
    let refused = |words| ask(words).unwrap_err();
    let field = |words| refused(words).field();
    let (address, input_bits) = (PhysAddr::new(1 << 40), 40);
    assert_eq!(refused(stage1(1 << 40, 0)), RefusedEntry::ContextPointer { address, input_bits });
    assert_eq!(refused(stage1(5 << 59, 0)), RefusedEntry::Contexts { log2_contexts: 5, most: 4 });
    assert_eq!([1, 2, 3].map(|strw| field(stage1(0, strw << 30))), ["STRW"; 3]);
    assert_eq!([2, 3].map(|eats| field(stage1(0, eats << 28))), ["EATS"; 2]);
    // By an SMMU that has not got it, or a hypervisor that does not permit it.
    let qemu = smmu(QEMU);
    let by = |parent: NestedParent, words| parent.entry(qemu.features(), words).map_err(|error| error.field());
    assert_eq!(by(parent(&qemu), stage1(0, 1 << 28)), Err("EATS"));
    assert_eq!(by(parent(&qemu), stage1(0, 1 << 27)), Err("S1STALLD"));
    let no_substreams = by(parent(&qemu), stage1(3 << 59 | 1 << 4, 0)).unwrap();
    assert_eq!((no_substreams.log2_contexts(), no_substreams.format()), (0, S1Fmt::Linear), "they do not count");
    let linear = smmu((FULL.0 & !(1 << 19), FULL.1));
    let two_levels = parent(&linear).entry(linear.features(), stage1(3 << 59 | 1 << 4, 0));
    assert_eq!(two_levels, Err(RefusedEntry::Format { format: S1Fmt::TwoLevel4K }));
    let full = smmu(FULL);
    let strict = NestedParent::new(parent(&full).stage2);
    assert_eq!(strict.entry(full.features(), stage1(0, 1 << 28)), Err(RefusedEntry::Ats { eats: Some(Eats::Full) }));
    let stage2_only = smmu((QEMU.0 & !2, QEMU.1));
    assert_eq!(parent(&stage2_only).entry(stage2_only.features(), stage1(0, 0)).unwrap_err().field(), "Config");
    assert_eq!(
        std::format!("{}", refused(stage1(1 << 40, 0))),
        "the guest's STE.S1ContextPtr is refused: 0x10000000000 lies beyond the 40 bits that stage 2 translates"
    );
}

#[test]
fn ats_and_stalls_are_as_the_hypervisor_permits() {
    let ats = |idr0, ats, stall| {
        let smmu = smmu((idr0, FULL.1));
        let parent = parent(&smmu);
        let parent = NestedParent { ats, stage2: Stage2Stream { stall, ..parent.stage2 }, ..parent };
        parent.entry(smmu.features(), stage1(0, 1 << 28)).ok().and_then(|entry| entry.ats())
    };
    assert_eq!(ats(FULL.0, Eats::Full, false), Some(Eats::Full));
    assert_eq!(ats(FULL.0, Eats::SplitStage, false), Some(Eats::SplitStage));
    assert_eq!(ats(FULL.0 | NS1ATS, Eats::SplitStage, false), None);
    assert_eq!(ats(FULL.0, Eats::Full, true), None, "illegal with S2S");
    assert_eq!(ats(FULL.0, Eats::Off, false), None);
    let smmu = smmu(FULL);
    for (stalls, asked, given) in [(true, 0, false), (true, 1, true), (false, 0, true), (false, 1, true)] {
        let parent = NestedParent { stalls, ..parent(&smmu) };
        let entry = parent.entry(smmu.features(), stage1(0, asked << 27)).unwrap();
        assert_eq!(entry.stall_disabled(), given);
    }
}

#[test]
fn stage_2_is_what_the_page_table_is() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    // HTTU 2, XNX 0, FWB.
    fake.set(IDR0, QEMU.0 | 2 << 6);
    fake.set(IDR3, 0x1500);
    let smmu = bring_up(platform, &fake).unwrap();
    let features = smmu.features();
    assert!(features.force_write_back() && !features.privileged_execute_at_stage2());
    assert_eq!(features.break_before_make_level(), 2);
    let vmid = Vmid::new(7);
    let config = TableConfig::new(Stage::Stage2, Granule::K4, 40, 44);
    let tracked = TableConfig { tracking: Tracking::HardwareAccessAndDirty, ..config };
    let own = PageTable::new(platform, &tracked).unwrap();
    let entry = StreamTableEntry::stage2(&smmu.stage2_stream(vmid, &own).unwrap());
    assert_eq!((entry.vmid(), entry.stage2_table()), (vmid, own.root()));
    // S2HD, S2HA; and this one starts at level 0, where SL0 is 2.
    assert_eq!(entry.words()[2] >> 32, WORD2 >> 32 ^ 3 << 6 | 1 << 23 | 1 << 24);
    let stage1 = PageTable::new(platform, &TableConfig { stage: Stage::Stage1, ..config }).unwrap();
    assert_eq!(smmu.stage2_stream(vmid, &stage1), Err(DeviceError::WrongStage { table: stage1.root() }));
    let unsupported = |smmu: &Smmu<TestPlatform>, config: &TableConfig| match smmu
        .stage2_stream(vmid, &PageTable::new(platform, config).unwrap())
    {
        Err(DeviceError::Unsupported { register, .. }) => register,
        other => panic!("{other:?}"),
    };
    assert_eq!(unsupported(&smmu, &TableConfig { output_bits: 48, ..config }), "IDR5");
    let forced = TableConfig { force_write_back: true, ..config };
    assert!(smmu.stage2_stream(vmid, &PageTable::new(platform, &forced).unwrap()).unwrap().force_write_back);
    let qemu = self::smmu(QEMU);
    assert_eq!((unsupported(&qemu, &tracked), unsupported(&qemu, &forced)), ("IDR0", "IDR3"));
    assert_eq!(unsupported(&self::smmu((QEMU.0 & !1, QEMU.1)), &config), "IDR0");
    fake.set(IDR5, 0x54);
    drop(smmu);
    let no_16k = bring_up(platform, &fake).unwrap();
    assert_eq!(unsupported(&no_16k, &TableConfig::new(Stage::Stage2, Granule::K16, 40, 44)), "IDR5");
}

proptest! {
    #![proptest_config(tries(256))]

    /// Whatever the guest writes: stage 2, the VMID and everything that it has no say in are the hypervisor's.
    #[test]
    fn r25_no_entry_of_a_guest_reaches_beyond_it(mut words: [u64; 8], config in 4..8_u64) {
        words[0] = words[0] & !0b1111 | config << 1 | 1;
        // Let some of them get past the address and the reserved codes.
        words[0] &= !(0x00ff_ff00_0000_0000 | 0b100 << 61);
        words[1] &= !(3 << 30 | 1 << 29);
        if let Ok([first, second, rest @ ..]) = ask(words) {
            prop_assert!(first & 0b1111 == 0b1111 || first == 0b1101, "{first:#x}: nested, or stage 2 alone");
            prop_assert_eq!(rest, [WORD2, WORD3, 0, 0, 0, 0]);
            let guests = 0xff | 1 << 27 | 1 << 28;
            prop_assert_eq!(second & !guests, 0);
        }
    }
}

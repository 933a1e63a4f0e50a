//! Entries against literal words: each case sets one field to all ones, so that a moved bit shows.

extern crate std;

use std::format;

use super::*;
use crate::arch::attributes::{Cacheability, Shareability};
use crate::arch::entry_update::Entry;

const NOTHING: WalkAttributes = WalkAttributes {
    inner: Cacheability::NonCacheable,
    outer: Cacheability::NonCacheable,
    shareability: Shareability::NonShareable,
};

/// All fields zero but S1DSS, which is 2 while there are no substreams.
const STAGE1: Stage1Stream = Stage1Stream {
    context_table: PhysAddr::new(0),
    format: S1Fmt::Linear,
    log2_contexts: 0,
    default_substream: S1Dss::Abort,
    walk: NOTHING,
    stall_disabled: false,
    world: Strw::El1,
    ats: Eats::Off,
    shareability: Shcfg::NonShareable,
    merge_events: false,
    vmid: Vmid::new(0),
};

/// All fields zero.
const STAGE2: Stage2Stream = Stage2Stream {
    vmid: Vmid::new(0),
    table: PhysAddr::new(0),
    t0sz: 0,
    sl0: 0,
    granule: Granule::K4,
    output_size: AddressSize::Bits32,
    walk: NOTHING,
    hardware_update: HardwareUpdate::None,
    access_flag_fault_disabled: false,
    protected_walk: false,
    record_faults: false,
    stall: false,
    force_write_back: false,
    ats: Eats::Off,
    shareability: Shcfg::NonShareable,
    merge_events: false,
};

fn stage1(change: impl FnOnce(&mut Stage1Stream)) -> [u64; 8] {
    let mut stream = STAGE1;
    change(&mut stream);
    StreamTableEntry::stage1(&stream).words()
}

fn stage2(change: impl FnOnce(&mut Stage2Stream)) -> [u64; 8] {
    let mut stream = STAGE2;
    change(&mut stream);
    StreamTableEntry::stage2(&stream).words()
}

#[test]
fn r24_configurations() {
    assert_eq!(StreamTableEntry::INVALID.words(), [0; 8]);
    assert_eq!(StreamTableEntry::abort().words(), [0x1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(StreamTableEntry::bypass(Shcfg::UseIncoming).words(), [0x9, 1 << 44, 0, 0, 0, 0, 0, 0]);
    assert_eq!(StreamTableEntry::stage1(&STAGE1).words(), [0xb, 0x2, 0, 0, 0, 0, 0, 0]);
    assert_eq!(StreamTableEntry::stage2(&STAGE2).words(), [0xd, 0, 1 << 51, 0, 0, 0, 0, 0]);
    assert_eq!(StreamTableEntry::nested(&STAGE1, &STAGE2).words(), [0xf, 0x2, 1 << 51, 0, 0, 0, 0, 0]);
}

#[test]
fn r24_stage1_word_0() {
    assert_eq!(stage1(|s| s.context_table = PhysAddr::new(u64::MAX))[0], 0xb | 0x00ff_ffff_ffff_ffc0);
    assert_eq!(stage1(|s| s.context_table = PhysAddr::new(0x40))[0], 0xb | 1 << 6);
    assert_eq!(stage1(|s| s.format = S1Fmt::TwoLevel4K)[0], 0xb | 1 << 4);
    assert_eq!(stage1(|s| s.format = S1Fmt::TwoLevel64K)[0], 0xb | 1 << 5);
    assert_eq!(stage1(|s| s.log2_contexts = 1)[0], 0xb | 1 << 59);
    assert_eq!(stage1(|s| s.log2_contexts = 0xff)[0], 0xb | 0x1f << 59);
}

#[test]
fn r24_stage1_word_1() {
    let word1 = |change: fn(&mut Stage1Stream)| stage1(change)[1] ^ 0x2;
    assert_eq!(word1(|s| s.walk.inner = Cacheability::WriteBack), 1 << 2);
    assert_eq!(word1(|s| s.walk.inner = Cacheability::WriteThrough), 2 << 2);
    assert_eq!(word1(|s| s.walk.inner = Cacheability::WriteBackNoWriteAllocate), 1 << 2);
    assert_eq!(word1(|s| s.walk.outer = Cacheability::WriteThrough), 2 << 4);
    assert_eq!(word1(|s| s.walk.shareability = Shareability::InnerShareable), 3 << 6);
    assert_eq!(word1(|s| s.merge_events = true), 1 << 19);
    assert_eq!(word1(|s| s.stall_disabled = true), 1 << 27);
    assert_eq!(word1(|s| s.ats = Eats::Full), 1 << 28);
    assert_eq!(word1(|s| s.ats = Eats::SplitStage), 1 << 29);
    assert_eq!(word1(|s| s.world = Strw::El2), 1 << 31);
    assert_eq!(word1(|s| s.shareability = Shcfg::UseIncoming), 1 << 44);
    assert_eq!(word1(|s| s.shareability = Shcfg::InnerShareable), 3 << 44);
}

#[test]
fn default_substream_counts_only_with_substreams() {
    assert_eq!(stage1(|s| s.default_substream = S1Dss::Bypass)[1], 2);
    let with = |default_substream| {
        stage1(|s| {
            s.log2_contexts = 4;
            s.default_substream = default_substream;
        })[1]
    };
    assert_eq!([with(S1Dss::Abort), with(S1Dss::Bypass), with(S1Dss::Substream0)], [0, 1, 2]);
}

#[test]
fn r24_stage1_word_2_is_the_vmid() {
    assert_eq!(stage1(|s| s.vmid = Vmid::new(0xffff))[2..], [0xffff, 0, 0, 0, 0, 0]);
}

#[test]
fn r24_stage2_word_1() {
    assert_eq!(stage2(|s| s.force_write_back = true)[1], 1 << 25);
    assert_eq!(stage2(|s| s.ats = Eats::Full)[1], 1 << 28);
    assert_eq!(stage2(|s| s.merge_events = true)[1], 1 << 19);
    assert_eq!(stage2(|s| s.shareability = Shcfg::OuterShareable)[1], 2 << 44);
}

#[test]
fn r24_stage2_word_2() {
    let word2 = |change: fn(&mut Stage2Stream)| stage2(change)[2] ^ 1 << 51;
    assert_eq!(word2(|s| s.vmid = Vmid::new(0xffff)), 0xffff);
    assert_eq!(word2(|s| s.t0sz = 0xff), 0x3f << 32);
    assert_eq!(word2(|s| s.sl0 = 0xff), 3 << 38);
    assert_eq!(word2(|s| s.walk.inner = Cacheability::WriteBackNoWriteAllocate), 3 << 40);
    assert_eq!(word2(|s| s.walk.outer = Cacheability::WriteBackNoWriteAllocate), 3 << 42);
    assert_eq!(word2(|s| s.walk.shareability = Shareability::InnerShareable), 3 << 44);
    assert_eq!(word2(|s| s.granule = Granule::K64), 1 << 46);
    assert_eq!(word2(|s| s.granule = Granule::K16), 2 << 46);
    assert_eq!(word2(|s| s.output_size = AddressSize::Bits56), 7 << 48);
    assert_eq!(word2(|s| s.access_flag_fault_disabled = true), 1 << 53);
    assert_eq!(word2(|s| s.protected_walk = true), 1 << 54);
    assert_eq!(word2(|s| s.hardware_update = HardwareUpdate::AccessFlag), 1 << 56);
    assert_eq!(word2(|s| s.hardware_update = HardwareUpdate::AccessFlagAndDirtyState), 1 << 56 | 1 << 55);
    assert_eq!(word2(|s| s.stall = true), 1 << 57);
    assert_eq!(word2(|s| s.record_faults = true), 1 << 58);
}

#[test]
fn r24_stage2_word_3() {
    assert_eq!(stage2(|s| s.table = PhysAddr::new(u64::MAX))[3], 0x00ff_ffff_ffff_fff0);
    assert_eq!(stage2(|s| s.table = PhysAddr::new(0x4000_0000))[3], 0x4000_0000);
}

/// 52-bit addresses are in one piece: unlike in descriptors, where bits 51:48 are elsewhere.
#[test]
fn r26_a_root_above_48_bits() {
    assert_eq!(stage2(|s| s.table = PhysAddr::new(0x000f_1234_5678_9000))[3], 0x000f_1234_5678_9000);
    assert_eq!(stage2(|s| s.output_size = AddressSize::Bits52)[2], 1 << 51 | 6 << 48);
}

/// Linux once wrote the field's mask where its value was meant: then a code of all ones came out, whatever went in.
#[test]
fn r26_fields_hold_values_and_not_their_masks() {
    let word2 = |change: fn(&mut Stage2Stream)| stage2(change)[2] ^ 1 << 51;
    for t0sz in 0..64 {
        assert_eq!(
            StreamTableEntry::stage2(&Stage2Stream { t0sz, ..STAGE2 }).words()[2] ^ 1 << 51,
            u64::from(t0sz) << 32
        );
    }
    for sl0 in 0..4 {
        assert_eq!(
            StreamTableEntry::stage2(&Stage2Stream { sl0, ..STAGE2 }).words()[2] ^ 1 << 51,
            u64::from(sl0) << 38
        );
    }
    for code in 0..7 {
        let output_size = AddressSize::from_code(code);
        assert_eq!(StreamTableEntry::stage2(&Stage2Stream { output_size, ..STAGE2 }).words()[2] ^ 1 << 51, code << 48);
    }
    assert_eq!(word2(|s| s.granule = Granule::K16), 2 << 46);
    assert_eq!(word2(|s| s.granule = Granule::K64), 1 << 46);
    assert_eq!(word2(|s| s.walk.shareability = Shareability::OuterShareable), 2 << 44);
    assert_eq!(word2(|s| s.walk.inner = Cacheability::WriteThrough), 2 << 40);
    assert_eq!(word2(|s| s.walk.outer = Cacheability::WriteBack), 1 << 42);
}

#[test]
fn nested_takes_the_vmid_of_stage2_and_the_rest_of_word_1_from_stage1() {
    let first = Stage1Stream { vmid: Vmid::new(1), world: Strw::El2, shareability: Shcfg::UseIncoming, ..STAGE1 };
    let second = Stage2Stream {
        vmid: Vmid::new(2),
        ats: Eats::Full,
        merge_events: true,
        force_write_back: true,
        table: PhysAddr::new(0x1000),
        ..STAGE2
    };
    let words = StreamTableEntry::nested(&first, &second).words();
    assert_eq!(words, [0xf, 1 << 44 | 1 << 25 | 2, 1 << 51 | 2, 0x1000, 0, 0, 0, 0]);
}

#[test]
fn getters_read_literal_words() {
    let entry = StreamTableEntry::from_words([0x2000_0000_1234_560f, 0x1000_0000, 0x7, 0x8000, 0, 0, 0, 0]);
    assert!(entry.is_valid());
    assert_eq!(entry.config(), Config::Nested);
    assert_eq!(entry.context_table(), PhysAddr::new(0x1234_5600));
    assert_eq!(entry.log2_contexts(), 4);
    assert!(entry.ats_enabled());
    assert_eq!(entry.vmid(), Vmid::new(7));
    assert_eq!(entry.stage2_table(), PhysAddr::new(0x8000));
    let configs = [0, 2, 4, 6, 8, 10, 12, 14].map(|word| StreamTableEntry::from_words([word; 8]).config());
    use Config::{Abort, Bypass, Nested, Stage1, Stage2};
    assert_eq!(configs, [Abort, Abort, Abort, Abort, Bypass, Stage1, Stage2, Nested]);
}

#[test]
fn getters_read_what_somebody_else_wrote() {
    let entry = |word1| StreamTableEntry::from_words([0xb, word1, 0, 0, 0, 0, 0, 0]);
    let substreams = [0, 1, 2, 3].map(|code| entry(code).default_substream());
    assert_eq!(substreams, [S1Dss::Abort, S1Dss::Bypass, S1Dss::Substream0, S1Dss::Abort]);
    let ats = [0, 1, 2, 3].map(|code| entry(code << 28).ats());
    assert_eq!(ats, [Some(Eats::Off), Some(Eats::Full), Some(Eats::SplitStage), None]);
    assert_eq!([0, 1, 2, 3].map(|code| entry(code << 30).world_code()), [0, 1, 2, 3]);
    assert_eq!([0, 1 << 27].map(|word| entry(word).stall_disabled()), [false, true]);
    use Cacheability::{NonCacheable, WriteBack, WriteThrough};
    let inner = [0, 1, 2, 3].map(|code| entry(code << 2).context_walk().inner);
    let outer = [0, 1, 2, 3].map(|code| entry(code << 4).context_walk().outer);
    assert_eq!((inner, outer), ([NonCacheable, WriteBack, WriteThrough, WriteBack], inner));
    use Shareability::{InnerShareable, NonShareable, OuterShareable};
    let shareability = [0, 1, 2, 3].map(|code| entry(code << 6).context_walk().shareability);
    assert_eq!(shareability, [NonShareable, NonShareable, OuterShareable, InnerShareable]);
}

#[test]
fn r24_software_bits() {
    let entry = StreamTableEntry::from_words([u64::MAX; 8]);
    assert_eq!((entry.software_bits(), StreamTableEntry::INVALID.software_bits()), (0xf, 0));
    assert_eq!(StreamTableEntry::INVALID.with_software_bits(0xff).words(), [0, 0xf << 20, 0, 0, 0, 0, 0, 0]);
    assert_eq!(entry.with_software_bits(5).words()[1], !(0xa << 20));
}

/// The bits of words 0 to 3 that do not count in some entry: those that hardware does not obey, and those that are not
/// relevant. Software's own, in word 1, are left out.
fn ignored(words: [u64; 4]) -> [[u64; 4]; 2] {
    let [first, second, third, fourth] = words;
    let entry = StreamTableEntry::from_words([first, second, third, fourth, 0, 0, 0, 0]);
    [entry.obeyed(), entry.relevant()].map(|[first, second, third, fourth, rest @ ..]| {
        assert_eq!((rest, second & 0xf << 20), ([u64::MAX; 4], 0), "what is unknown counts");
        [!first, !second & !(0xf << 20), !third, !fourth]
    })
}

#[test]
fn r24_what_counts_in_which_config() {
    const STAGE1: [u64; 2] = [0xf8ff_ffff_ffff_fff0, 0xc800_00ff];
    const STAGE2: [u64; 3] = [1 << 25, 0x07ef_ffff << 32, 0x00ff_ffff_ffff_fff0];
    let both = |words: [u64; 4]| [words; 2];
    assert_eq!(
        ignored([0x9, 0, 0, 0]),
        both([STAGE1[0], STAGE1[1] | STAGE2[0] | 3 << 28, STAGE2[1] | 0xffff, STAGE2[2]])
    );
    assert_eq!(ignored([0xd, 0, 0, 0]), both([STAGE1[0], STAGE1[1], 0, 0]));
    // Stage 1 with substreams and S1DSS 1; with substreams; without.
    assert_eq!(ignored([0xb | 4 << 59, 1, 0, 0]), both([0, STAGE2[0], STAGE2[1], STAGE2[2]]));
    let [_, relevant] = ignored([0xb, 1, 0, 0]);
    let without = |more: u64| [[0, STAGE2[0] | more, STAGE2[1], STAGE2[2]], relevant];
    assert_eq!(ignored([0xb | 4 << 59, 2, 0, 0]), without(3 << 44));
    assert_eq!(ignored([0xb, 1, 0, 0]), without(3 << 44 | 3));
    assert_eq!(ignored([0xf | 4 << 59, 1, 0, 0]), both([0, 3 << 30, 0, 0]));
    assert_eq!(ignored([0xf, 1, 0, 0])[0], [0, 3 << 30 | 3 << 44 | 3, 0, 0]);
    for (word0, relevant) in [(0x1, [0xf, 0xf << 13]), (0x7, [0xf, 0xf << 13]), (0xe, [1, 0])] {
        let entry = StreamTableEntry::from_words([word0, u64::MAX, 0, 0, 0, 0, 0, 0]);
        let expected = [relevant[0], relevant[1], 0, 0, 0, 0, 0, 0];
        assert_eq!((entry.obeyed(), entry.relevant()), (expected, expected), "{word0:#x}");
    }
}

#[test]
fn entries_in_words() {
    let show = |word0| format!("{}", StreamTableEntry::from_words([word0, 0, 5, 0x9000, 0, 0, 0, 0]));
    assert_eq!(show(0), "invalid");
    assert_eq!(show(0x1), "abort");
    assert_eq!(show(0x9), "bypass");
    assert_eq!(show(0x704b), "stage 1 by context table 0x7040");
    assert_eq!(show(0xd), "stage 2 by table 0x9000, VMID 5");
    assert_eq!(show(0x704f), "stage 1 by context table 0x7040, then stage 2 by table 0x9000, VMID 5");
}

#[test]
fn r24_level1_descriptor() {
    assert_eq!(L1StreamTableDescriptor::INVALID.word(), 0);
    assert_eq!(L1StreamTableDescriptor::new(PhysAddr::new(0), 0xff).word(), 0x1f);
    assert_eq!(L1StreamTableDescriptor::new(PhysAddr::new(u64::MAX), 0).word(), 0x00ff_ffff_ffff_ffc0);
    assert_eq!(L1StreamTableDescriptor::new(PhysAddr::new(0x4000), 9).word(), 0x4009);
    let decode = |word| L1StreamTableDescriptor::from_word(word).decode();
    assert_eq!(decode(0x4009), Some((PhysAddr::new(0x4000), 8)));
    assert_eq!(decode(0xff00_0000_0000_8021), Some((PhysAddr::new(0x8000), 0)));
    assert_eq!(decode(0x400b), Some((PhysAddr::new(0x4000), 10)));
    assert_eq!([decode(0x4000), decode(0x400c), decode(0x401f)], [None; 3]);
}

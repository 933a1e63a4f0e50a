//! Context descriptors against literal words: each case sets one field to all ones, so that a moved bit shows.

extern crate std;

use std::format;

use super::*;
use crate::arch::attributes::{Cacheability, Shareability};

/// Every field zero.
const CONTEXT: Stage1Context = Stage1Context {
    asid: Asid::new(0),
    granule: Granule::K4,
    t0sz: 0,
    table: PhysAddr::new(0),
    output_size: AddressSize::Bits32,
    walk: WalkAttributes {
        inner: Cacheability::NonCacheable,
        outer: Cacheability::NonCacheable,
        shareability: Shareability::NonShareable,
    },
    mair: Mair::new([0; 8]),
    hardware_update: HardwareUpdate::None,
    access_flag_fault_disabled: false,
    stall: false,
};

/// Every field zero, but for the granule.
const UPPER: UpperHalf = UpperHalf { granule: Granule::K4, t1sz: 0, table: PhysAddr::new(0), walk: CONTEXT.walk };

/// EPD1 (30), V (31), AA64 (41), R (45), A (46), ASET (47).
const ALWAYS: u64 = 0x0000_e200_c000_0000;

fn words(change: impl FnOnce(&mut Stage1Context)) -> [u64; 8] {
    let mut context = CONTEXT;
    change(&mut context);
    ContextDescriptor::new(&context).words()
}

#[test]
fn r24_constant_bits() {
    assert_eq!(words(|_| ()), [ALWAYS, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ContextDescriptor::INVALID.words(), [0; 8]);
}

#[test]
fn r24_word_0() {
    let word0 = |change: fn(&mut Stage1Context)| words(change)[0] ^ ALWAYS;
    assert_eq!(word0(|c| c.t0sz = 0xff), 0x3f);
    assert_eq!(word0(|c| c.granule = Granule::K64), 1 << 6);
    assert_eq!(word0(|c| c.granule = Granule::K16), 2 << 6);
    assert_eq!(word0(|c| c.walk.inner = Cacheability::WriteBack), 1 << 8);
    assert_eq!(word0(|c| c.walk.inner = Cacheability::WriteBackNoWriteAllocate), 3 << 8);
    assert_eq!(word0(|c| c.walk.outer = Cacheability::WriteThrough), 2 << 10);
    assert_eq!(word0(|c| c.walk.shareability = Shareability::OuterShareable), 2 << 12);
    assert_eq!(word0(|c| c.output_size = AddressSize::Bits48), 5 << 32);
    assert_eq!(word0(|c| c.access_flag_fault_disabled = true), 1 << 35);
    assert_eq!(word0(|c| c.hardware_update = HardwareUpdate::AccessFlag), 1 << 43);
    assert_eq!(word0(|c| c.hardware_update = HardwareUpdate::AccessFlagAndDirtyState), 1 << 43 | 1 << 42);
    assert_eq!(word0(|c| c.stall = true), 1 << 44);
    assert_eq!(word0(|c| c.asid = Asid::new(0xffff)), 0xffff << 48);
}

#[test]
fn r24_other_words() {
    assert_eq!(words(|c| c.table = PhysAddr::new(u64::MAX))[1], 0x00ff_ffff_ffff_fff0);
    assert_eq!(words(|c| c.table = PhysAddr::new(0x4800_1000))[1], 0x4800_1000);
    let mair = words(|c| c.mair = Mair::new([0x44, 0xff, 0x04, 0xf4, 5, 6, 7, 8]));
    assert_eq!(mair[2..], [0, 0x0807_0605_f404_ff44, 0, 0, 0, 0]);
}

/// In one piece, unlike in descriptors.
#[test]
fn r26_roots_above_48_bits() {
    let root = PhysAddr::new(0x000f_1234_5678_9000);
    let words = words(|c| (c.table, c.output_size) = (root, AddressSize::Bits52));
    assert_eq!((words[0] ^ ALWAYS, words[1]), (6 << 32, root.get()));
    let upper = ContextDescriptor::new(&CONTEXT).with_upper_half(&UpperHalf { table: root, ..UPPER });
    assert_eq!(upper.words()[2], root.get());
}

#[test]
fn r26_fields_hold_values_and_not_their_masks() {
    for t0sz in 0..64 {
        assert_eq!(words(|c| c.t0sz = t0sz)[0] ^ ALWAYS, t0sz.into());
        let upper = ContextDescriptor::new(&CONTEXT).with_upper_half(&UpperHalf { t1sz: t0sz, ..UPPER });
        assert_eq!(upper.words()[0] >> 16 & 0x3f, t0sz.into());
    }
    for code in 0..7 {
        let output_size = AddressSize::from_code(code);
        assert_eq!(words(|c| c.output_size = output_size)[0] ^ ALWAYS, code << 32);
    }
}

#[test]
fn r24_upper_half() {
    let word = |change: fn(&mut UpperHalf)| {
        let mut upper = UPPER;
        change(&mut upper);
        let words = ContextDescriptor::new(&CONTEXT).with_upper_half(&upper).words();
        assert_eq!((words[1], &words[3..]), (0, &[0; 5][..]));
        // TG1 has no code 0: 2 is 4 KiB.
        (words[0] ^ (ALWAYS & !(1 << 30)) ^ 2 << 22, words[2])
    };
    assert_eq!(word(|_| ()), (0, 0));
    assert_eq!(word(|u| u.t1sz = 0xff), (0x3f << 16, 0));
    assert_eq!(word(|u| u.granule = Granule::K16), (3 << 22, 0));
    assert_eq!(word(|u| u.granule = Granule::K64), (1 << 22, 0));
    assert_eq!(word(|u| u.walk.inner = Cacheability::WriteBackNoWriteAllocate), (3 << 24, 0));
    assert_eq!(word(|u| u.walk.outer = Cacheability::WriteThrough), (2 << 26, 0));
    assert_eq!(word(|u| u.walk.shareability = Shareability::InnerShareable), (3 << 28, 0));
    assert_eq!(word(|u| u.table = PhysAddr::new(u64::MAX)), (0, 0x00ff_ffff_ffff_fff0));
    let descriptor = ContextDescriptor::new(&CONTEXT);
    assert_eq!(descriptor.upper_table(), None);
    let table = PhysAddr::new(0x000f_0000_4567_0040);
    let whole = descriptor.with_upper_half(&UpperHalf { table, ..UPPER });
    assert_eq!(whole.upper_table(), Some(table), "52 bits");
    assert_eq!(format!("{whole}"), "64-bit addresses by table 0x0, upper half by table 0xf000045670040, ASID 0");
}

#[test]
fn getters_read_literal_words() {
    let words = [0x1234_1000_8000_0019, 0xfff0_0000_4567_8000, 0, 0, 0, 0, 0, 0];
    let descriptor = ContextDescriptor::from_words(words);
    assert!(descriptor.is_valid() && descriptor.stalls());
    assert_eq!(descriptor.t0sz(), 25);
    assert_eq!(descriptor.asid(), Asid::new(0x1234));
    assert_eq!(descriptor.table(), PhysAddr::new(0x00f0_0000_4567_8000));
    assert!(!ContextDescriptor::from_words([!(1 << 31); 8]).is_valid());
}

#[test]
fn r24_what_counts_in_a_descriptor() {
    const NO_TABLE: u64 = 0xff00_0000_0000_000f;
    let lower = ContextDescriptor::new(&CONTEXT);
    assert_eq!(
        (lower.obeyed()[..3].to_vec(), lower.relevant()),
        (std::vec![!0x3fff_0000, u64::MAX, NO_TABLE], [u64::MAX; 8])
    );
    let both = lower.with_upper_half(&UPPER);
    assert_eq!((both.obeyed(), both.relevant()), ([u64::MAX; 8], [u64::MAX; 8]));
    let upper = both.without_walks();
    assert_eq!(upper.words()[0], both.words()[0] | 1 << 14);
    assert_eq!(upper.obeyed()[..3], [!0x3fff, NO_TABLE, u64::MAX]);
    assert_eq!((upper.obeyed()[3..] == [u64::MAX; 5], upper.relevant()), (true, [u64::MAX; 8]));
    let invalid = ContextDescriptor::from_words([!(1 << 31); 8]);
    assert_eq!(
        (invalid.obeyed(), invalid.relevant()),
        ([1 << 31, 0, 0, 0, 0, 0, 0, 0], [1 << 31, 0, 0, 0, 0, 0, 0, 0])
    );
}

#[test]
fn descriptors_in_words() {
    let descriptor = ContextDescriptor::from_words([0x0005_0000_c000_0010, 0x4000, 0, 0, 0, 0, 0, 0]);
    assert_eq!(format!("{descriptor}"), "48-bit addresses by table 0x4000, ASID 5");
    assert_eq!(format!("{}", ContextDescriptor::INVALID), "invalid");
}

#[test]
fn r24_level1_descriptor() {
    assert_eq!(L1ContextDescriptor::INVALID.word(), 0);
    assert_eq!(L1ContextDescriptor::new(PhysAddr::new(u64::MAX)).word(), 0x00ff_ffff_ffff_f001);
    assert_eq!(L1ContextDescriptor::new(PhysAddr::new(0x5000)).word(), 0x5001);
    assert_eq!(L1ContextDescriptor::from_word(0x5001).decode(), Some(PhysAddr::new(0x5000)));
    assert_eq!(L1ContextDescriptor::from_word(0xff00_0000_0000_5ffe).decode(), None);
}

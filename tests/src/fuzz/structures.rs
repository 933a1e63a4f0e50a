//! Stream table entries and context descriptors: any words are read without a panic, and what is encoded is found again at
//! the positions in IHI 0070, 5.1 to 5.4.

use arbitrary::{Result, Unstructured};
use smmu::addr::{Asid, PhysAddr, Vmid};
use smmu::arch::attributes::{AddressSize, Cacheability, Granule, HardwareUpdate, Mair, Shareability, WalkAttributes};
use smmu::arch::context_descriptor::{ContextDescriptor, L1ContextDescriptor, Stage1Context};
use smmu::arch::stream_table::{
    Config, Eats, L1StreamTableDescriptor, S1Dss, S1Fmt, Shcfg, Stage1Stream, Stage2Stream, StreamTableEntry, Strw,
};

use crate::model::bits::{field, flag};

/// Bits of an address that the structures have room for.
const ADDRESS: u64 = (1 << 56) - 1;

/// Takes `data` for the words of each structure, and for the fields of each.
///
/// # Panics
///
/// If a field is not where the architecture has it.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // Running out of input is no failure: what there was has been tried.
    let _ = check(&mut input);
}

fn check(input: &mut Unstructured<'_>) -> Result<()> {
    while !input.is_empty() {
        match input.int_in_range(0..=3)? {
            0 => read_entry(&StreamTableEntry::from_words(input.arbitrary()?)),
            1 => read_descriptor(&ContextDescriptor::from_words(input.arbitrary()?)),
            2 => {
                read_level1(input.arbitrary()?);
                check_level1(PhysAddr::new(input.arbitrary()?), input.int_in_range(0..=12)?);
            }
            _ => {
                let (stage1, stage2) = (stage1_stream(input)?, stage2_stream(input)?);
                check_entries(&stage1, &stage2);
                check_descriptor(&stage1_context(input)?);
            }
        }
    }
    Ok(())
}

fn read_entry(entry: &StreamTableEntry) {
    let words = entry.words();
    assert_eq!(entry.is_valid(), flag(&words, 0));
    let code = field(&words, 3, 1);
    assert_eq!(entry.config() as u64, if code >= 4 { code } else { 0 });
    assert_eq!(entry.context_table().get(), field(&words, 55, 6) << 6);
    assert_eq!(u64::from(entry.log2_contexts()), field(&words, 63, 59));
    assert_eq!(entry.ats_enabled(), field(&words, 93, 92) != 0);
    assert_eq!(u64::from(entry.vmid().get()), field(&words, 143, 128));
    assert_eq!(entry.stage2_table().get(), field(&words, 247, 196) << 4);
    assert_eq!(entry.to_string() == "invalid", !entry.is_valid());
}

fn read_descriptor(descriptor: &ContextDescriptor) {
    let words = descriptor.words();
    assert_eq!(descriptor.is_valid(), flag(&words, 31));
    assert_eq!(u64::from(descriptor.t0sz()), field(&words, 5, 0));
    assert_eq!(u64::from(descriptor.asid().get()), field(&words, 63, 48));
    assert_eq!(descriptor.table().get(), field(&words, 119, 68) << 4);
    assert_eq!(descriptor.stalls(), flag(&words, 44));
    assert_eq!(descriptor.to_string() == "invalid", !descriptor.is_valid());
}

fn read_level1(word: u64) {
    let span = word & 0x1f;
    let entries = L1StreamTableDescriptor::from_word(word).decode();
    let expected = (1..=11).contains(&span).then(|| (PhysAddr::new(word & ADDRESS & !0x3f), span as u8 - 1));
    assert_eq!(entries, expected);
    let leaf = L1ContextDescriptor::from_word(word).decode();
    assert_eq!(leaf, (word & 1 == 1).then(|| PhysAddr::new(word & ADDRESS & !0xfff)));
}

fn check_level1(table: PhysAddr, span: u8) {
    let found = L1StreamTableDescriptor::new(table, span).decode();
    let entries = PhysAddr::new(table.get() & ADDRESS & !0x3f);
    assert_eq!(found, (1..=11).contains(&span).then(|| (entries, span - 1)));
    let leaf = PhysAddr::new(table.get() & ADDRESS & !0xfff);
    assert_eq!(L1ContextDescriptor::new(table).decode(), Some(leaf));
}

/// Encodes an entry of each kind.
fn check_entries(stage1: &Stage1Stream, stage2: &Stage2Stream) {
    let (one, two) = (StreamTableEntry::stage1(stage1), StreamTableEntry::stage2(stage2));
    let nested = StreamTableEntry::nested(stage1, stage2);
    let bypass = StreamTableEntry::bypass(stage1.shareability);
    let all = [
        (StreamTableEntry::abort(), Config::Abort),
        (bypass, Config::Bypass),
        (one, Config::Stage1),
        (two, Config::Stage2),
        (nested, Config::Nested),
    ];
    for (entry, config) in all {
        assert!(entry.is_valid());
        assert_eq!(entry.config(), config);
        assert_eq!(StreamTableEntry::from_words(entry.words()), entry);
        assert_eq!(entry.words()[4..], [0; 4]);
        read_entry(&entry);
    }
    check_stage1(&one, stage1);
    check_stage1(&nested, stage1);
    check_stage2(&two, stage2);
    check_stage2(&nested, stage2);
    assert_eq!(one.vmid(), stage1.vmid);
    assert_eq!(field(&one.words(), 95, 94), stage1.world as u64);
    assert_eq!(field(&two.words(), 93, 92), stage2.ats as u64);
    assert_eq!(field(&two.words(), 109, 108), stage2.shareability as u64);
    // What one half leaves out is zero, and does not leak from the other.
    assert_eq!((one.words()[3], field(&one.words(), 191, 144)), (0, 0));
    assert_eq!((field(&two.words(), 63, 4), field(&two.words(), 71, 64)), (0, 0));
    assert_eq!(field(&nested.words(), 95, 94), 0);
}

fn check_stage1(entry: &StreamTableEntry, stage1: &Stage1Stream) {
    let words = entry.words();
    assert_eq!(entry.context_table().get(), stage1.context_table.get() & ADDRESS & !0x3f);
    assert_eq!(field(&words, 5, 4), stage1.format as u64);
    assert_eq!(entry.log2_contexts(), stage1.log2_contexts);
    let s1dss = if stage1.log2_contexts == 0 { S1Dss::Substream0 } else { stage1.default_substream };
    assert_eq!(field(&words, 65, 64), s1dss as u64);
    assert_eq!(field(&words, 71, 70), stage1.walk.shareability as u64);
    assert_eq!(flag(&words, 83), stage1.merge_events);
    assert_eq!(flag(&words, 91), stage1.stall_disabled);
    assert_eq!(field(&words, 93, 92), stage1.ats as u64);
    assert_eq!(field(&words, 109, 108), stage1.shareability as u64);
}

fn check_stage2(entry: &StreamTableEntry, stage2: &Stage2Stream) {
    let words = entry.words();
    assert_eq!(entry.vmid(), stage2.vmid);
    assert_eq!(entry.stage2_table().get(), stage2.table.get() & ADDRESS & !0xf);
    assert_eq!(field(&words, 165, 160), u64::from(stage2.t0sz));
    assert_eq!(field(&words, 167, 166), u64::from(stage2.sl0));
    assert_eq!(field(&words, 173, 172), stage2.walk.shareability as u64);
    assert_eq!(field(&words, 175, 174), granule_code(stage2.granule));
    assert_eq!(field(&words, 178, 176), stage2.output_size as u64);
    assert!(flag(&words, 179));
    let flags = [
        (181, stage2.access_flag_fault_disabled),
        (182, stage2.protected_walk),
        (183, stage2.hardware_update == HardwareUpdate::AccessFlagAndDirtyState),
        (184, stage2.hardware_update != HardwareUpdate::None),
        (185, stage2.stall),
        (186, stage2.record_faults),
        (89, stage2.force_write_back),
    ];
    flags.iter().for_each(|&(bit, is_set)| assert_eq!(flag(&words, bit), is_set, "bit {bit}"));
}

fn check_descriptor(context: &Stage1Context) {
    let descriptor = ContextDescriptor::new(context);
    let words = descriptor.words();
    read_descriptor(&descriptor);
    assert!(descriptor.is_valid());
    assert_eq!(ContextDescriptor::from_words(words), descriptor);
    assert_eq!((descriptor.asid(), descriptor.t0sz()), (context.asid, context.t0sz));
    assert_eq!(descriptor.table().get(), context.table.get() & ADDRESS & !0xf);
    assert_eq!(descriptor.stalls(), context.stall);
    assert_eq!(field(&words, 7, 6), granule_code(context.granule));
    assert_eq!(field(&words, 13, 12), context.walk.shareability as u64);
    assert_eq!(field(&words, 34, 32), context.output_size as u64);
    let flags = [
        (30, true),
        (35, context.access_flag_fault_disabled),
        (41, true),
        (42, context.hardware_update == HardwareUpdate::AccessFlagAndDirtyState),
        (43, context.hardware_update != HardwareUpdate::None),
        (45, true),
        (46, true),
        (47, true),
    ];
    flags.iter().for_each(|&(bit, is_set)| assert_eq!(flag(&words, bit), is_set, "bit {bit}"));
    assert_eq!(words[2..], [0, context.mair.get(), 0, 0, 0, 0]);
}

fn granule_code(granule: Granule) -> u64 {
    match granule {
        Granule::K4 => 0,
        Granule::K64 => 1,
        Granule::K16 => 2,
    }
}

fn granule(input: &mut Unstructured<'_>) -> Result<Granule> {
    input.choose(&[Granule::K4, Granule::K16, Granule::K64]).copied()
}

fn walk(input: &mut Unstructured<'_>) -> Result<WalkAttributes> {
    let cacheabilities = [
        Cacheability::NonCacheable,
        Cacheability::WriteBack,
        Cacheability::WriteThrough,
        Cacheability::WriteBackNoWriteAllocate,
    ];
    let shareabilities = [Shareability::NonShareable, Shareability::OuterShareable, Shareability::InnerShareable];
    Ok(WalkAttributes {
        inner: *input.choose(&cacheabilities)?,
        outer: *input.choose(&cacheabilities)?,
        shareability: *input.choose(&shareabilities)?,
    })
}

fn hardware_update(input: &mut Unstructured<'_>) -> Result<HardwareUpdate> {
    let all = [HardwareUpdate::None, HardwareUpdate::AccessFlag, HardwareUpdate::AccessFlagAndDirtyState];
    input.choose(&all).copied()
}

fn ats(input: &mut Unstructured<'_>) -> Result<Eats> {
    input.choose(&[Eats::Off, Eats::Full, Eats::SplitStage]).copied()
}

fn shareability(input: &mut Unstructured<'_>) -> Result<Shcfg> {
    let all = [Shcfg::NonShareable, Shcfg::UseIncoming, Shcfg::OuterShareable, Shcfg::InnerShareable];
    input.choose(&all).copied()
}

fn output_size(input: &mut Unstructured<'_>) -> Result<AddressSize> {
    Ok(AddressSize::from_code(input.int_in_range(0..=7)?))
}

fn stage1_stream(input: &mut Unstructured<'_>) -> Result<Stage1Stream> {
    Ok(Stage1Stream {
        context_table: PhysAddr::new(input.arbitrary()?),
        format: *input.choose(&[S1Fmt::Linear, S1Fmt::TwoLevel4K, S1Fmt::TwoLevel64K])?,
        log2_contexts: input.int_in_range(0..=31)?,
        default_substream: *input.choose(&[S1Dss::Abort, S1Dss::Bypass, S1Dss::Substream0])?,
        walk: walk(input)?,
        stall_disabled: input.arbitrary()?,
        world: *input.choose(&[Strw::El1, Strw::El2])?,
        ats: ats(input)?,
        shareability: shareability(input)?,
        merge_events: input.arbitrary()?,
        vmid: Vmid::new(input.arbitrary()?),
    })
}

fn stage2_stream(input: &mut Unstructured<'_>) -> Result<Stage2Stream> {
    Ok(Stage2Stream {
        vmid: Vmid::new(input.arbitrary()?),
        table: PhysAddr::new(input.arbitrary()?),
        t0sz: input.int_in_range(0..=63)?,
        sl0: input.int_in_range(0..=3)?,
        granule: granule(input)?,
        output_size: output_size(input)?,
        walk: walk(input)?,
        hardware_update: hardware_update(input)?,
        access_flag_fault_disabled: input.arbitrary()?,
        protected_walk: input.arbitrary()?,
        record_faults: input.arbitrary()?,
        stall: input.arbitrary()?,
        force_write_back: input.arbitrary()?,
        ats: ats(input)?,
        shareability: shareability(input)?,
        merge_events: input.arbitrary()?,
    })
}

fn stage1_context(input: &mut Unstructured<'_>) -> Result<Stage1Context> {
    Ok(Stage1Context {
        asid: Asid::new(input.arbitrary()?),
        granule: granule(input)?,
        t0sz: input.int_in_range(0..=63)?,
        table: PhysAddr::new(input.arbitrary()?),
        output_size: output_size(input)?,
        walk: walk(input)?,
        mair: Mair::new(input.arbitrary()?),
        hardware_update: hardware_update(input)?,
        access_flag_fault_disabled: input.arbitrary()?,
        stall: input.arbitrary()?,
    })
}

//! Entries of every kind that the driver writes, by name: for tests of the ways between them.

use smmu::addr::{Asid, PhysAddr, Vmid};
use smmu::arch::attributes::{AddressSize, Granule, HardwareUpdate, Mair, WalkAttributes};
use smmu::arch::context_descriptor::{ContextDescriptor, Stage1Context};
use smmu::arch::stream_table::{Eats, S1Dss, S1Fmt, Shcfg, Stage1Stream, Stage2Stream, StreamTableEntry};

/// An entry and what it is called.
pub(crate) struct Named<E> {
    pub(crate) name: &'static str,
    pub(crate) entry: E,
}

/// Stage 1 by the contexts at an address, VMID 0.
fn one_context(table: u64) -> Stage1Stream {
    Stage1Stream::with_one_context(PhysAddr::new(table), WalkAttributes::COHERENT)
}

fn stage2(vmid: u16, table: u64) -> Stage2Stream {
    Stage2Stream {
        vmid: Vmid::new(vmid),
        table: PhysAddr::new(table),
        t0sz: 25,
        sl0: 1,
        granule: Granule::K4,
        output_size: AddressSize::Bits44,
        walk: WalkAttributes::COHERENT,
        hardware_update: HardwareUpdate::None,
        access_flag_fault_disabled: false,
        protected_walk: true,
        record_faults: true,
        stall: false,
        force_write_back: false,
        ats: Eats::Off,
        shareability: Shcfg::UseIncoming,
        merge_events: false,
    }
}

/// Stream table entries: every Config, every S1DSS, with other tables, other VMIDs, other ATS.
pub(crate) fn stream_table_entries() -> Vec<Named<StreamTableEntry>> {
    let (first, other, many) = (one_context(0x8010_0000), one_context(0x8020_0000), one_context(0x8030_0000));
    let substreams = |default_substream| {
        let stream = Stage1Stream { format: S1Fmt::Linear, log2_contexts: 4, default_substream, ..many };
        StreamTableEntry::stage1(&stream)
    };
    let in_vm = Vmid::new(5);
    let (vm, vm_moved, other_vm) = (stage2(5, 0x8040_0000), stage2(5, 0x8050_0000), stage2(6, 0x8060_0000));
    let nested = StreamTableEntry::nested;
    [
        ("invalid", StreamTableEntry::INVALID),
        ("abort", StreamTableEntry::abort()),
        ("bypass", StreamTableEntry::bypass(Shcfg::UseIncoming)),
        ("stage 1", StreamTableEntry::stage1(&first)),
        ("stage 1, other contexts", StreamTableEntry::stage1(&other)),
        ("stage 1 with ATS", StreamTableEntry::stage1(&Stage1Stream { ats: Eats::Full, ..first })),
        ("16 contexts, S1DSS abort", substreams(S1Dss::Abort)),
        ("16 contexts, S1DSS bypass", substreams(S1Dss::Bypass)),
        ("16 contexts, S1DSS substream 0", substreams(S1Dss::Substream0)),
        ("stage 1, VMID 5", StreamTableEntry::stage1(&Stage1Stream { vmid: in_vm, ..first })),
        ("stage 2", StreamTableEntry::stage2(&vm)),
        ("stage 2, other table", StreamTableEntry::stage2(&vm_moved)),
        ("stage 2, VMID 6", StreamTableEntry::stage2(&other_vm)),
        ("stage 2 with ATS", StreamTableEntry::stage2(&Stage2Stream { ats: Eats::Full, ..vm })),
        ("nested", nested(&first, &vm)),
        ("nested, other contexts", nested(&other, &vm)),
        ("nested, VMID 6", nested(&first, &other_vm)),
        ("nested with ATS", nested(&first, &vm).with_ats(Eats::Full)),
        ("nested with split-stage ATS", nested(&first, &vm).with_ats(Eats::SplitStage)),
    ]
    .map(|(name, entry)| Named { name, entry })
    .into()
}

/// Context descriptors: with other tables, other ASIDs, other attributes, and without walks.
pub(crate) fn contexts() -> Vec<Named<ContextDescriptor>> {
    let context = Stage1Context {
        asid: Asid::new(1),
        granule: Granule::K4,
        t0sz: 25,
        table: PhysAddr::new(0x8070_0000),
        output_size: AddressSize::Bits44,
        walk: WalkAttributes::COHERENT,
        mair: Mair::new([0x44, 0xff, 0x04, 0, 0, 0, 0, 0]),
        hardware_update: HardwareUpdate::None,
        access_flag_fault_disabled: false,
        stall: false,
    };
    let (asid, table) = (Asid::new(2), PhysAddr::new(0x8080_0000));
    let new = ContextDescriptor::new;
    let other = Stage1Context { asid, table, ..context };
    [
        ("invalid", ContextDescriptor::INVALID),
        ("a context", new(&context)),
        ("other table", new(&Stage1Context { table, ..context })),
        ("other ASID", new(&Stage1Context { asid, ..context })),
        ("other table and ASID", new(&other)),
        ("other input size", new(&Stage1Context { t0sz: 30, ..context })),
        ("other memory types", new(&Stage1Context { mair: Mair::new([0xff; 8]), ..context })),
        ("stalling", new(&Stage1Context { stall: true, ..context })),
        ("without walks (EPD0)", new(&context).without_walks()),
        ("other table and ASID, without walks", new(&other).without_walks()),
    ]
    .map(|(name, entry)| Named { name, entry })
    .into()
}

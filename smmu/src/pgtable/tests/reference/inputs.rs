//! Random page tables and operations on them.

use proptest::prelude::*;

use super::{Operation, Pages};
use crate::arch::attributes::Granule;
use crate::pgtable::tests::{GRANULES, STAGES, block_bytes};
use crate::pgtable::{
    Access, EmptyTables, Execute, Half, MemoryType, Permissions, Privilege, Stage, TableConfig, Tracking,
};

const MEMORY: [MemoryType; 3] = [MemoryType::WriteBack, MemoryType::NonCacheable, MemoryType::Device];

/// Offsets around borders of tables, of blocks, and of the address space; in granules.
fn pages(config: TableConfig) -> impl Strategy<Value = Pages> {
    let block = block_bytes(config.granule) / config.granule.bytes();
    let table = block << (config.granule.log2_bytes() - 3);
    let space = (1 << config.input_bits) / config.granule.bytes();
    let base = prop::sample::select(std::vec![0, block, 2 * block, table.min(space / 2), space - 2 * block]);
    let near = prop_oneof![Just(0), 0..12u64, block - 6..block + 6];
    let count = prop_oneof![4 => 1..10u64, 2 => 1..=2 * block, 1 => Just(block), 1 => Just(2 * block)];
    (base, near, count).prop_map(|(base, near, count)| Pages { first: base + near, count })
}

pub(super) fn operation(config: TableConfig) -> impl Strategy<Value = Operation> {
    let block = block_bytes(config.granule) / config.granule.bytes();
    let last = (1 << config.output_bits) / config.granule.bytes();
    let to =
        prop_oneof![2 => (0..4u64).prop_map(move |blocks| blocks * block), 2 => 0..4 * block, 1 => last - block..last];
    let allocations = prop::option::weighted(0.3, 0..5usize);
    let map = (pages(config), to, permissions(), prop::sample::select(&MEMORY[..]), allocations).prop_map(
        |(at, to, permissions, memory, allocations)| Operation::Map { at, to, permissions, memory, allocations },
    );
    let which = any::<prop::sample::Index>;
    let leaves = || prop::option::of(1..6usize);
    prop_oneof![
        4 => map,
        1 => pages(config).prop_map(|at| Operation::Unmap { at }),
        3 => (which(), leaves()).prop_map(|(which, leaves)| Operation::UnmapMapped { which, leaves }),
        1 => (pages(config), permissions()).prop_map(|(at, permissions)| Operation::Protect { at, permissions }),
        2 => (which(), leaves(), permissions())
            .prop_map(|(which, leaves, permissions)| Operation::ProtectMapped { which, leaves, permissions }),
        2 => which().prop_map(|which| Operation::Write { which }),
        1 => (pages(config), any::<bool>()).prop_map(|(at, clean)| Operation::Dirty { at, clean }),
        2 => (which(), any::<bool>(), prop::option::weighted(0.2, 0..2usize))
            .prop_map(|(which, breaks, allocations)| Operation::Split { which, breaks, allocations }),
    ]
}

fn permissions() -> impl Strategy<Value = Permissions> {
    let access = prop::sample::select(&[Access::Read, Access::Write, Access::ReadWrite][..]);
    let execute = prop::sample::select(&[Execute::Never, Execute::Allowed][..]);
    let privilege = prop::sample::select(&[Privilege::Any, Privilege::PrivilegedOnly][..]);
    (access, execute, privilege).prop_map(|(access, execute, privilege)| Permissions { access, execute, privilege })
}

pub(super) fn configs() -> impl Strategy<Value = TableConfig> {
    let policy = prop::sample::select(&[EmptyTables::KeepOneLevel, EmptyTables::HandBack][..]);
    let marks = prop_oneof![
        Just((Tracking::Off, false)),
        Just((Tracking::Off, true)),
        Just((Tracking::HardwareAccessAndDirty, false)),
    ];
    let half = prop::sample::select(&[Half::Lower, Half::Upper][..]);
    let kind = (prop::sample::select(&STAGES[..]), prop::sample::select(&GRANULES[..]));
    (kind, any::<bool>(), policy, marks, half).prop_flat_map(
        |((stage, granule), coherent, empty_tables, (tracking, contiguous), half)| {
            let outputs = if granule == Granule::K64 { 7 } else { 6 };
            prop::sample::select(&[32u8, 36, 40, 42, 44, 48, 52][..outputs]).prop_flat_map(move |output_bits| {
                let (most, half) = match stage {
                    Stage::Stage1 => (if granule == Granule::K64 { 52 } else { 48 }, half),
                    Stage::Stage2 => (output_bits, Half::Lower),
                };
                (32..=most).prop_map(move |input_bits| TableConfig {
                    coherent,
                    empty_tables,
                    tracking,
                    contiguous,
                    half,
                    ..TableConfig::new(stage, granule, input_bits, output_bits)
                })
            })
        },
    )
}

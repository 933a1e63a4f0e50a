//! Descriptors, bit by bit.

use super::*;

const S1: Format = Format::new(Stage::Stage1, Granule::K4);
const S2: Format = Format::new(Stage::Stage2, Granule::K4);
const ADDRESS: PhysAddr = PhysAddr::new(0x0000_1234_5678_9000);
/// PXN and UXN.
const S1_NEVER: u64 = 0x0060_0000_0000_0000;
const S2_NEVER: u64 = 0x0040_0000_0000_0000;

fn page(format: Format, access: Access, memory: MemoryType) -> u64 {
    format.leaf(3, ADDRESS, LeafAttributes::new(format.stage, access.into(), memory))
}

#[test]
fn stage1_pages_bit_by_bit() {
    let base = ADDRESS.get() | S1_NEVER;
    assert_eq!(page(S1, Access::ReadWrite, MemoryType::WriteBack), base | 0xf47);
    assert_eq!(page(S1, Access::Write, MemoryType::WriteBack), base | 0xf47);
    assert_eq!(page(S1, Access::Read, MemoryType::WriteBack), base | 0xfc7);
    assert_eq!(page(S1, Access::ReadWrite, MemoryType::Device), base | 0xe4b);
    assert_eq!(page(S1, Access::ReadWrite, MemoryType::NonCacheable), base | 0xe43);
}

#[test]
fn stage2_pages_bit_by_bit() {
    let base = ADDRESS.get() | S2_NEVER;
    assert_eq!(page(S2, Access::ReadWrite, MemoryType::WriteBack), base | 0x7ff);
    assert_eq!(page(S2, Access::Read, MemoryType::WriteBack), base | 0x77f);
    assert_eq!(page(S2, Access::Write, MemoryType::WriteBack), base | 0x7bf);
    assert_eq!(page(S2, Access::ReadWrite, MemoryType::Device), base | 0x6c7);
    assert_eq!(page(S2, Access::ReadWrite, MemoryType::NonCacheable), base | 0x6d7);
}

#[test]
fn mair_bytes() {
    assert_eq!(MemoryType::MAIR.get(), 0x04_ff_44);
}

#[test]
fn blocks_clear_the_type_bit() {
    let block = |format: Format, level, physical| {
        let attributes = LeafAttributes::new(format.stage, Access::ReadWrite.into(), MemoryType::WriteBack);
        format.leaf(level, PhysAddr::new(physical), attributes)
    };
    assert_eq!(block(S1, 2, 0x0000_1234_5660_0000), 0x0000_1234_5660_0000 | S1_NEVER | 0xf45);
    assert_eq!(block(S1, 1, 0x0000_1234_4000_0000), 0x0000_1234_4000_0000 | S1_NEVER | 0xf45);
    for (granule, physical) in [(Granule::K16, 0x0000_1234_5600_0000), (Granule::K64, 0x0000_1234_4000_0000)] {
        let format = Format::new(Stage::Stage2, granule);
        assert_eq!(block(format, 2, physical), physical | S2_NEVER | 0x7fd);
    }
    // An address beyond 48 bits never becomes an attribute.
    assert_eq!(block(S1, 2, 0xffff_1234_5660_0000), 0x0000_1234_5660_0000 | S1_NEVER | 0xf45);
}

#[test]
fn tables() {
    assert_eq!(S1.table(ADDRESS), 0x0000_1234_5678_9003);
    assert_eq!(S2.table(ADDRESS), 0x0000_1234_5678_9003);
    assert_eq!(S1.decode(0, 0x0000_1234_5678_9003), Descriptor::Table(ADDRESS));
    // Bits 51:48 and the hierarchical attributes are no address.
    assert_eq!(S1.decode(2, 0xf8ff_1234_5678_9fff), Descriptor::Table(ADDRESS));
}

#[test]
fn reserved_and_invalid_descriptors() {
    for format in [S1, S2] {
        assert_eq!(format.decode(3, 0x0000_1234_5678_9f45), Descriptor::Invalid, "a block at the last level");
        assert_eq!(format.decode(0, 0x0000_1234_5678_9f45), Descriptor::Invalid, "a block at level 0");
        assert_eq!(format.decode(3, 0x0000_1234_5678_9f46), Descriptor::Invalid, "bit 0 clear");
    }
    for granule in [Granule::K16, Granule::K64] {
        let format = Format::new(Stage::Stage1, granule);
        assert_eq!(format.decode(1, 0x0000_1234_4000_0f45), Descriptor::Invalid, "a block at level 1");
    }
}

#[test]
fn decoding_reads_permissions_and_memory_types() {
    let leaf = |format: Format, low: u64| match format.decode(3, ADDRESS.get() | low) {
        Descriptor::Leaf(leaf) => (leaf.physical, leaf.attributes.access(), leaf.attributes.memory()),
        other => panic!("{other:?}"),
    };
    let found = |access, memory| (ADDRESS, access, memory);
    let wb = Some(MemoryType::WriteBack);
    assert_eq!(leaf(S1, 0xf47), found(Some(Access::ReadWrite), wb));
    assert_eq!(leaf(S1, 0xfc7), found(Some(Access::Read), wb));
    assert_eq!(leaf(S1, 0xe4b), found(Some(Access::ReadWrite), Some(MemoryType::Device)));
    assert_eq!(leaf(S1, 0xe43), found(Some(Access::ReadWrite), Some(MemoryType::NonCacheable)));
    assert_eq!(leaf(S1, 0xf07), found(None, wb), "privileged only");
    assert_eq!(leaf(S1, 0xf5f), found(Some(Access::ReadWrite), None), "AttrIndx 7");
    assert_eq!(leaf(S2, 0x7ff), found(Some(Access::ReadWrite), wb));
    assert_eq!(leaf(S2, 0x77f), found(Some(Access::Read), wb));
    assert_eq!(leaf(S2, 0x7bf), found(Some(Access::Write), wb));
    assert_eq!(leaf(S2, 0x73f), found(None, wb));
    assert_eq!(leaf(S2, 0x7fb), found(Some(Access::ReadWrite), None), "write-through");
    assert_eq!(leaf(S2, 0x6c7), found(Some(Access::ReadWrite), Some(MemoryType::Device)));
    assert_eq!(leaf(S2, 0x6d7), found(Some(Access::ReadWrite), Some(MemoryType::NonCacheable)));
}

/// All permissions there are.
fn permissions() -> impl Iterator<Item = Permissions> {
    [Access::Read, Access::Write, Access::ReadWrite].into_iter().flat_map(|access| {
        [Execute::Never, Execute::Allowed].into_iter().flat_map(move |execute| {
            [Privilege::Any, Privilege::PrivilegedOnly].map(|privilege| Permissions { access, execute, privilege })
        })
    })
}

#[test]
fn stage1_permissions_bit_by_bit() {
    let bits = |access, execute, privilege| {
        let permissions = Permissions { access, execute, privilege };
        LeafAttributes::new(Stage::Stage1, permissions, MemoryType::WriteBack).bits()
    };
    use Access::{Read, ReadWrite};
    use Execute::{Allowed, Never};
    use Privilege::{Any, PrivilegedOnly};
    assert_eq!(bits(ReadWrite, Never, Any), 0x0060_0000_0000_0f44, "AP = 01, PXN, UXN");
    assert_eq!(bits(Read, Never, Any), 0x0060_0000_0000_0fc4, "AP = 11");
    assert_eq!(bits(ReadWrite, Never, PrivilegedOnly), 0x0060_0000_0000_0f04, "AP = 00");
    assert_eq!(bits(Read, Never, PrivilegedOnly), 0x0060_0000_0000_0f84, "AP = 10");
    assert_eq!(bits(Read, Allowed, Any), 0x0000_0000_0000_0fc4, "neither PXN nor UXN");
    assert_eq!(bits(Read, Allowed, PrivilegedOnly), 0x0040_0000_0000_0f84, "UXN");
}

#[test]
fn stage2_permissions_bit_by_bit() {
    let bits = |access, execute| {
        let permissions = Permissions { access, execute, privilege: Privilege::Any };
        LeafAttributes::new(Stage::Stage2, permissions, MemoryType::WriteBack).bits()
    };
    assert_eq!(bits(Access::Read, Execute::Never), 0x0040_0000_0000_077c, "S2AP = 01, XN = 10");
    assert_eq!(bits(Access::Write, Execute::Never), 0x0040_0000_0000_07bc, "S2AP = 10");
    assert_eq!(bits(Access::ReadWrite, Execute::Allowed), 0x0000_0000_0000_07fc, "S2AP = 11, XN = 00");
}

#[test]
fn what_is_tracked_starts_out_clean_and_not_accessed() {
    let bits = |stage, access: Access, tracking| {
        LeafAttributes::new(stage, access.into(), MemoryType::WriteBack).tracked(tracking).bits()
    };
    let (s1, s2) = (Stage::Stage1, Stage::Stage2);
    assert_eq!(bits(s1, Access::ReadWrite, Tracking::Off), 0x0060_0000_0000_0f44);
    assert_eq!(bits(s1, Access::ReadWrite, Tracking::SoftwareAccess), 0x0060_0000_0000_0b44, "AF is bit 10");
    assert_eq!(bits(s1, Access::ReadWrite, Tracking::HardwareAccess), 0x0060_0000_0000_0b44);
    assert_eq!(bits(s1, Access::ReadWrite, Tracking::HardwareAccessAndDirty), 0x0068_0000_0000_0bc4, "DBM is bit 51");
    assert_eq!(bits(s1, Access::Read, Tracking::HardwareAccessAndDirty), 0x0060_0000_0000_0bc4);
    assert_eq!(bits(s2, Access::ReadWrite, Tracking::HardwareAccessAndDirty), 0x0048_0000_0000_037c);
    assert_eq!(bits(s2, Access::Write, Tracking::HardwareAccessAndDirty), 0x0048_0000_0000_033c, "S2AP = 00");
    assert_eq!(bits(s2, Access::Read, Tracking::HardwareAccessAndDirty), 0x0040_0000_0000_037c);
}

/// What hardware does to a leaf that is written to.
fn written(stage: Stage, attributes: LeafAttributes) -> LeafAttributes {
    let bits = attributes.bits() | 1 << 10;
    let clean = bits >> 51 & 1 == 1;
    let bits = match stage {
        Stage::Stage1 if clean => bits & !(1 << 7),
        Stage::Stage2 if clean => bits | 1 << 7,
        _ => bits,
    };
    LeafAttributes::of_descriptor(stage, bits)
}

#[test]
fn permissions_come_back_whatever_is_tracked() {
    for stage in [Stage::Stage1, Stage::Stage2] {
        for tracking in [Tracking::Off, Tracking::HardwareAccess, Tracking::HardwareAccessAndDirty] {
            for asked in permissions() {
                let new = LeafAttributes::new(stage, asked, MemoryType::Device).tracked(tracking);
                for attributes in [new, written(stage, new), written(stage, new).cleaned()] {
                    assert_eq!(attributes.permissions(), Some(asked.enforced(stage)));
                    assert_eq!(attributes.memory(), Some(MemoryType::Device));
                }
                assert_eq!(LeafKinds::new(stage, tracking).of(asked, MemoryType::Device), new);
            }
        }
    }
}

#[test]
fn stage2_that_forces_write_back_has_codes_of_its_own() {
    let kinds = LeafKinds::new(Stage::Stage2, Tracking::Off);
    let of = |kinds: LeafKinds, memory| kinds.of(Access::ReadWrite.into(), memory);
    // MemAttr 0110; the others are the same.
    let forced = of(kinds.forcing_write_back(), MemoryType::WriteBack);
    assert_eq!(forced.bits(), of(kinds, MemoryType::WriteBack).bits() ^ 0b1001 << 2);
    assert_eq!(forced.memory(), Some(MemoryType::WriteBack));
    for memory in [MemoryType::NonCacheable, MemoryType::Device] {
        assert_eq!(of(kinds.forcing_write_back(), memory), of(kinds, memory));
    }
}

#[test]
fn other_permissions_leave_the_rest_and_what_is_dirty() {
    let tracking = Tracking::HardwareAccessAndDirty;
    for stage in [Stage::Stage1, Stage::Stage2] {
        for (before, after) in permissions().flat_map(|before| permissions().map(move |after| (before, after))) {
            let new = LeafAttributes::new(stage, before, MemoryType::NonCacheable).tracked(tracking);
            let clean = new.with_permissions(after, tracking);
            assert_eq!(clean, LeafAttributes::new(stage, after, MemoryType::NonCacheable).tracked(tracking));
            assert!(!clean.is_dirty() && !clean.is_accessed());
            if before.access == Access::Read {
                continue;
            }
            let dirty = written(stage, new).with_permissions(after, tracking);
            assert!(dirty.is_dirty() && dirty.is_accessed());
            assert_eq!((dirty.permissions(), dirty.memory()), (Some(after.enforced(stage)), new.memory()));
            assert_eq!(dirty.cleaned(), clean.with_access_flag(true));
        }
    }
}

#[test]
fn addresses_of_52_bits_have_their_upper_bits_below() {
    let large = Format { large_addresses: true, ..Format::new(Stage::Stage1, Granule::K64) };
    let address = PhysAddr::new(0x000f_1234_5678_0000);
    let attributes = LeafAttributes::new(Stage::Stage1, Access::ReadWrite.into(), MemoryType::WriteBack);
    assert_eq!(large.leaf(3, address, attributes), 0x0000_1234_5678_f000 | S1_NEVER | 0xf47);
    assert_eq!(large.table(address), 0x0000_1234_5678_f003);
    assert_eq!(large.decode(1, 0x0000_1234_5678_f003), Descriptor::Table(address));
    assert_eq!(large.decode_leaf(16, 0x0000_1234_5678_ff47).physical, address);
    let block = PhysAddr::new(0x000b_1234_4000_0000);
    let raw = large.leaf(2, block, attributes);
    assert_eq!(raw, 0x0000_1234_4000_b000 | S1_NEVER | 0xf45);
    assert_eq!(large.decode_leaf(29, raw).physical, block);
    // Blocks of 4 TiB come with them; and without them the bits are no address.
    assert!(matches!(large.decode(1, 0x0000_0400_0000_0f45), Descriptor::Leaf(_)));
    assert_eq!(Format::new(Stage::Stage1, Granule::K64).leaf(3, address, attributes) & 0xffff, 0xf47 & 0xffff);
}

#[test]
fn contiguous_groups() {
    let sizes = |granule| {
        let format = Format::new(Stage::Stage1, granule);
        [2, 3].map(|level| 1_u64 << (format.entry_log2_bytes(level) + format.contiguous_log2_entries(level)))
    };
    assert_eq!(sizes(Granule::K4), [32 << 20, 64 << 10]);
    assert_eq!(sizes(Granule::K16), [1 << 30, 2 << 20]);
    assert_eq!(sizes(Granule::K64), [16 << 30, 2 << 20]);
    let attributes = LeafAttributes::new(Stage::Stage2, Access::Read.into(), MemoryType::WriteBack);
    assert_eq!(attributes.contiguous().bits(), attributes.bits() | 1 << 52);
    assert_eq!(attributes.contiguous().inherited(), attributes);
    assert!(attributes.contiguous().is_contiguous() && !attributes.is_contiguous());
}

#[test]
fn what_parts_inherit() {
    let all = LeafAttributes::of_descriptor(Stage::Stage1, u64::MAX).inherited();
    assert_eq!(all.bits(), 0xffe8_0000_0000_0ffc, "neither address, nor type, nor nT, nor the contiguous bit");
}

#[test]
fn entry_sizes() {
    let sizes = |granule| [0, 1, 2, 3].map(|level| Format::new(Stage::Stage1, granule).entry_log2_bytes(level));
    assert_eq!(sizes(Granule::K4), [39, 30, 21, 12]);
    assert_eq!(sizes(Granule::K16), [47, 36, 25, 14]);
    assert_eq!(sizes(Granule::K64)[1..], [42, 29, 16]);
}

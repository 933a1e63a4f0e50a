//! Permissions changed in place, and what hardware or software records of accesses.

use std::string::ToString;
use std::vec::Vec;

use super::walker::walk;
use super::{G, K, M, STAGES, config, table};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::{Granule, HardwareUpdate};
use crate::arch::range::Stale;
use crate::pgtable::{
    Access, Execute, Half, MemoryType, PageTable, Permissions, Privilege, RangeError, Stage, TableConfig, Tracking,
};
use crate::testing::TestPlatform;

const PAGES: Option<Stale> = Some(Stale::Leaves { level: Some(3) });

fn map(table: &PageTable<TestPlatform>, iova: u64, size_bytes: u64, permissions: impl Into<Permissions>) {
    table.map(Iova::new(iova), PhysAddr::new(iova), size_bytes, permissions, MemoryType::WriteBack).unwrap();
}

fn protect(
    table: &PageTable<TestPlatform>,
    iova: u64,
    size_bytes: u64,
    access: Access,
) -> Result<Option<Stale>, RangeError> {
    table.protect(Iova::new(iova), size_bytes, access)
}

#[test]
fn permissions_change_and_nothing_else_does() {
    for stage in STAGES {
        for coherent in [true, false] {
            let (platform, table) = table(TableConfig { coherent, ..config(stage, Granule::K4, 40) });
            map(&table, 0, 6 * M, Access::ReadWrite);
            let before = table.walk(Iova::new(2 * M)).unwrap();
            let barriers = platform.barriers();
            assert_eq!(protect(&table, 2 * M, 2 * M, Access::Read), Ok(Some(Stale::Leaves { level: Some(2) })));
            assert_eq!(platform.barriers(), barriers + 1);
            let after = table.walk(Iova::new(2 * M)).unwrap();
            assert_eq!((after.physical, after.leaf_bytes()), (before.physical, before.leaf_bytes()));
            assert_eq!((after.access(), after.memory()), (Some(Access::Read), before.memory()));
            let raw = |iova| walk(platform, &table, iova).unwrap().raw;
            assert_eq!(raw(2 * M) ^ (2 * M), raw(0) ^ (1 << 7), "one bit");
            assert_eq!(raw(4 * M) ^ (4 * M), raw(0));
            assert_eq!(protect(&table, 0, 6 * M, Access::ReadWrite), Ok(Some(Stale::Leaves { level: Some(2) })));
            assert_eq!(protect(&table, 0, 6 * M, Access::ReadWrite), Ok(None), "nothing to invalidate");
        }
    }
}

#[test]
fn leaves_of_several_levels_are_protected_together() {
    let (_, table) = table(config(Stage::Stage1, Granule::K4, 40));
    map(&table, 2 * M, 2 * M + 8 * K, Access::Read);
    assert_eq!(protect(&table, 2 * M, 2 * M + 4 * K, Access::ReadWrite), Ok(Some(Stale::Leaves { level: None })));
    assert_eq!(protect(&table, 2 * M, 2 * M + 8 * K, Access::ReadWrite), Ok(PAGES), "only the last has changed");
    let secret = Permissions { access: Access::Read, execute: Execute::Allowed, privilege: Privilege::PrivilegedOnly };
    assert_eq!(table.protect(Iova::new(4 * M), 4 * K, secret), Ok(PAGES));
    let found = table.walk(Iova::new(4 * M)).unwrap();
    assert_eq!((found.attributes.permissions(), found.access()), (Some(secret), None));
    assert!(std::format!("{found}").contains("read-only, executable, privileged only, write-back"), "{found}");
}

#[test]
fn what_cannot_be_protected_changes_nothing() {
    let (_, table) = table(config(Stage::Stage1, Granule::K4, 40));
    map(&table, 0, 4 * M + 8 * K, Access::ReadWrite);
    let splits = |iova| Err(RangeError::SplitsBlock { iova: Iova::new(iova), block_bytes: 2 * M });
    assert_eq!(protect(&table, 0, 4 * K, Access::Read), splits(0));
    assert_eq!(protect(&table, 0, 2 * M + 4 * K, Access::Read), splits(2 * M));
    let end = 4 * M + 8 * K;
    let hole = Err(RangeError::NotMapped { iova: Iova::new(end) });
    assert_eq!(protect(&table, 0, end + 4 * K, Access::Read), hole);
    assert_eq!(protect(&table, 0, 0, Access::Read), Err(RangeError::Empty { iova: Iova::new(0) }));
    for iova in [0, 2 * M, 4 * M, 4 * M + 4 * K] {
        assert_eq!(table.walk(Iova::new(iova)).unwrap().access(), Some(Access::ReadWrite));
    }
}

/// What the SMMU does when a device writes, or reads.
fn device_accesses(platform: &TestPlatform, table: &PageTable<TestPlatform>, iova: u64, writes: bool) {
    let found = walk(platform, table, iova).unwrap();
    let raw = match table.config().stage {
        Stage::Stage1 if writes => found.raw & !(1 << 7),
        Stage::Stage2 if writes => found.raw | 1 << 7,
        _ => found.raw,
    };
    assert!(!writes || found.raw >> 51 & 1 == 1, "DBM");
    platform.write_word(found.at, raw | 1 << 10, true);
}

type Query = fn(&PageTable<TestPlatform>, Iova, u64, &mut dyn FnMut(Iova, u64));

fn reported(table: &PageTable<TestPlatform>, query: Query, size_bytes: u64) -> Vec<(u64, u64)> {
    let mut list = Vec::new();
    query(table, Iova::new(0), size_bytes, &mut |iova, bytes| list.push((iova.get(), bytes)));
    list
}

const DIRTY: Query = |table, iova, bytes, visitor| table.dirty(iova, bytes, visitor).unwrap();
const ACCESSED: Query = |table, iova, bytes, visitor| table.accessed(iova, bytes, visitor).unwrap();

#[test]
fn what_is_written_to_is_dirty_until_it_is_cleaned() {
    for stage in STAGES {
        let tracking = Tracking::HardwareAccessAndDirty;
        assert_eq!(tracking.hardware_update(), HardwareUpdate::AccessFlagAndDirtyState);
        let (platform, table) = table(TableConfig { tracking, ..config(stage, Granule::K4, 40) });
        map(&table, 0, 16 * K, Access::ReadWrite);
        map(&table, 2 * M, 4 * M, Access::ReadWrite);
        map(&table, G, 4 * K, Access::Read);
        assert_eq!(reported(&table, DIRTY, 2 * G), []);
        device_accesses(platform, &table, 4 * K, true);
        device_accesses(platform, &table, 8 * K, false);
        device_accesses(platform, &table, 5 * M, true);
        let all = [(4 * K, 4 * K), (4 * M, 2 * M)];
        assert_eq!(reported(&table, DIRTY, 2 * G), all);
        assert_eq!(reported(&table, DIRTY, 8 * K), all[..1]);
        assert_eq!(reported(&table, DIRTY, 4 * M + 4 * K), all, "part of a block is the block");
        assert_eq!(reported(&table, ACCESSED, 2 * G), [(4 * K, 4 * K), (8 * K, 4 * K), (4 * M, 2 * M)]);
        let mut seen = 0;
        assert_eq!(table.clean_dirty(Iova::new(0), 2 * M, |_, bytes| seen += bytes), Ok(PAGES));
        assert_eq!((seen, reported(&table, DIRTY, 2 * G)), (4 * K, all[1..].to_vec()));
        assert_eq!(table.clean_dirty(Iova::new(0), 2 * M, |_, _| panic!("clean")), Ok(None));
        assert_eq!(table.walk(Iova::new(4 * K)).unwrap().access(), Some(Access::ReadWrite), "writable still");
        assert_eq!(table.clear_accessed(Iova::new(0), 2 * M, |_, _| ()), Ok(PAGES));
        assert_eq!(reported(&table, ACCESSED, 2 * G), all[1..]);
    }
}

#[test]
fn what_was_dirty_stays_so_when_nobody_may_write_any_more() {
    let tracking = Tracking::HardwareAccessAndDirty;
    let (platform, table) = table(TableConfig { tracking, ..config(Stage::Stage1, Granule::K4, 40) });
    map(&table, 0, 8 * K, Access::ReadWrite);
    device_accesses(platform, &table, 0, true);
    protect(&table, 0, 8 * K, Access::Read).unwrap();
    assert_eq!(reported(&table, DIRTY, 2 * M), [(0, 4 * K)]);
    assert_eq!(table.walk(Iova::new(0)).unwrap().access(), Some(Access::Read));
    assert_eq!(table.clean_dirty(Iova::new(0), 2 * M, |_, _| ()), Ok(PAGES));
    assert_eq!(reported(&table, DIRTY, 2 * M), []);
}

#[test]
fn software_lets_a_device_in_by_setting_the_access_flag() {
    let tracking = Tracking::SoftwareAccess;
    assert_eq!(tracking.hardware_update(), HardwareUpdate::None);
    let (platform, table) = table(TableConfig { tracking, ..config(Stage::Stage1, Granule::K16, 40) });
    map(&table, 0, 64 * K, Access::ReadWrite);
    assert_eq!(walk(platform, &table, 0).unwrap().raw >> 10 & 1, 0, "F_ACCESS");
    table.set_accessed(Iova::new(16 * K), 16 * K).unwrap();
    let flags = [0, 16 * K, 32 * K].map(|iova| walk(platform, &table, iova).unwrap().raw >> 10 & 1);
    assert_eq!(flags, [0, 1, 0]);
    assert_eq!(reported(&table, ACCESSED, 64 * K), [(16 * K, 16 * K)]);
}

#[test]
fn the_upper_half_ends_with_the_last_address() {
    for (granule, bits) in [(Granule::K4, 48), (Granule::K4, 39), (Granule::K16, 40), (Granule::K64, 52)] {
        let (platform, table) = table(TableConfig { half: Half::Upper, ..config(Stage::Stage1, granule, bits) });
        let (first, page) = (u64::MAX << bits, granule.bytes());
        let last = u64::MAX - page + 1;
        let map = |iova, physical| {
            table.map(Iova::new(iova), PhysAddr::new(physical), page, Access::Read, MemoryType::WriteBack)
        };
        for (iova, physical) in [(first, page), (last, 2 * page)] {
            map(iova, physical).unwrap();
            assert_eq!(table.walk(Iova::new(iova + 4)).map(|found| found.physical.get()), Some(physical + 4));
            assert_eq!(walk(platform, &table, iova + 4).map(|found| found.physical), Some(physical + 4));
        }
        for iova in [0, first - page, (1 << bits) - page] {
            assert!(map(iova, 0).is_err(), "{iova:#x} is of the other half, or of none");
            assert_eq!(table.walk(Iova::new(iova)), None);
        }
        assert_eq!(map(last, 0), Err(crate::pgtable::MapError::Overlap { iova: Iova::new(last) }));
        let error = table.unmap(Iova::new(last - page), 2 * page).unwrap_err();
        assert_eq!(error, RangeError::NotMapped { iova: Iova::new(last - page) });
        let unmapped = table.unmap(Iova::new(last), page).unwrap();
        assert_eq!((unmapped.start(), unmapped.size_bytes()), (Iova::new(last), page));
        assert_eq!(table.unmap(Iova::new(first), page).unwrap().start(), Iova::new(first));
        assert!(table.trace(Iova::new(last)).to_string().contains("invalid"));
    }
}

/// The two parts of an address of 52 bits do not carry into each other.
#[test]
fn addresses_of_52_bits_are_mapped_across_2_to_the_48() {
    for stage in STAGES {
        let wide = TableConfig { input_bits: 52, output_bits: 52, ..config(stage, Granule::K64, 48) };
        let (platform, table) = table(wide);
        let (iova, physical) = (0x000a_0000_0000_0000, 0x0003_0000_0000_0000 - 128 * K);
        let access = Access::ReadWrite;
        table.map(Iova::new(iova), PhysAddr::new(physical), 256 * K, access, MemoryType::WriteBack).unwrap();
        for offset in [0, 64 * K, 128 * K, 256 * K - 8] {
            let expected = Some(physical + offset);
            assert_eq!(table.walk(Iova::new(iova + offset)).map(|found| found.physical.get()), expected);
            assert_eq!(walk(platform, &table, iova + offset).map(|found| found.physical), expected);
        }
        // A block of 4 TiB at the very end of both.
        let (last, block) = ((1 << 52) - (1 << 42), 1 << 42);
        table.map(Iova::new(last), PhysAddr::new(last), block, access, MemoryType::WriteBack).unwrap();
        let found = table.walk(Iova::new((1 << 52) - 1)).unwrap();
        assert_eq!((found.physical.get(), found.leaf_bytes(), found.level), ((1 << 52) - 1, block, 1));
        assert_eq!(walk(platform, &table, last).map(|found| found.physical), Some(last));
    }
}

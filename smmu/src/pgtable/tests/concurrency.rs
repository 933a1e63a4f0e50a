//! Several CPUs at once.

use std::sync::Barrier;
use std::thread;

use super::walker::walk;
use super::{K, M, TableConfig, config, handing_back, table};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::pgtable::tables::{Spares, replace};
use crate::pgtable::{Access, MemoryType, PageTable, Stage};
use crate::testing::{TestPlatform, rounds};

const THREADS: u64 = 4;
const ROUNDS: u64 = 300;

fn map(table: &PageTable<TestPlatform>, iova: u64, physical: u64, size_bytes: u64) -> bool {
    table.map(Iova::new(iova), PhysAddr::new(physical), size_bytes, Access::ReadWrite, MemoryType::WriteBack).is_ok()
}

/// Runs `body` on several threads that start together.
fn together(body: impl Fn(u64) + Sync) {
    let start = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for cpu in 0..THREADS {
            let (start, body) = (&start, &body);
            scope.spawn(move || {
                start.wait();
                body(cpu);
            });
        }
    });
}

/// Each thread has every fourth page of two tables, so that all make and use the same tables; and 2 MiB of pages of its
/// own, whose table comes and goes beside the others'.
#[test]
fn disjoint_ranges_do_not_disturb_each_other() {
    disjoint_ranges(config(Stage::Stage1, Granule::K4, 48));
}

/// Likewise, while the tables that all use come and go with what is in them.
#[test]
fn disjoint_ranges_do_not_disturb_each_other_where_empty_tables_go() {
    disjoint_ranges(handing_back(config(Stage::Stage1, Granule::K4, 48)));
}

fn disjoint_ranges(config: TableConfig) {
    let (platform, table) = table(config);
    together(|cpu| {
        let own_table = 16 * M + cpu * 2 * M;
        for round in 0..rounds(ROUNDS) {
            let shared = |page: u64| 2 * M - 64 * K + (page * THREADS + cpu) * 4 * K;
            for page in 0..8 {
                assert!(map(&table, shared(page), (round * 8 + page) * 4 * K, 4 * K));
            }
            assert!(map(&table, own_table, 4 * K, 2 * M));
            for page in 0..8 {
                let found = table.walk(Iova::new(shared(page))).map(|found| found.physical.get());
                assert_eq!(found, Some((round * 8 + page) * 4 * K));
            }
            assert_eq!(table.walk(Iova::new(own_table + 2 * M - 1)).unwrap().physical.get(), 2 * M + 4 * K - 1);
            table.free(table.unmap(Iova::new(own_table), 2 * M).unwrap());
            for page in 0..8 {
                table.free(table.unmap(Iova::new(shared(page)), 4 * K).unwrap());
                assert_eq!(table.walk(Iova::new(shared(page))), None);
            }
        }
    });
    if table.hands_back() {
        assert_eq!(platform.blocks(), 1, "whoever was last to unmap took the tables");
    }
    drop(table);
    assert_eq!(platform.blocks(), 0);
}

/// Each thread has a page of the same table, maps and unmaps it: most find the table empty, coming or going.
#[test]
fn a_table_that_comes_and_goes_is_there_for_whoever_maps() {
    let (platform, table) = table(handing_back(config(Stage::Stage1, Granule::K4, 48)));
    together(|cpu| {
        let iova = cpu * 4 * K;
        for round in 0..rounds(8 * ROUNDS) {
            assert!(map(&table, iova, round * 4 * K, 4 * K));
            let found = walk(platform, &table, iova).map(|found| found.physical);
            assert_eq!(found, Some(round * 4 * K), "the SMMU finds it as long as it is mapped");
            table.free(table.unmap(Iova::new(iova), 4 * K).unwrap());
        }
    });
    assert_eq!(platform.blocks(), 1);
}

/// The test platform never hands out an address twice and stops at one that was freed: that it does not is the point.
#[test]
fn reading_and_misusing_the_same_range_stays_within_live_memory() {
    misused(config(Stage::Stage1, Granule::K4, 48));
    misused(handing_back(config(Stage::Stage1, Granule::K4, 48)));
}

fn misused(config: TableConfig) {
    let (_, table) = table(config);
    together(|cpu| {
        for round in 0..rounds(ROUNDS) {
            let page = (round + cpu) % 512 * 4 * K;
            match cpu {
                0 | 1 => {
                    map(&table, 0, 4 * K, 2 * M);
                    if let Ok(unmapped) = table.unmap(Iova::new(0), 2 * M) {
                        table.free(unmapped);
                    }
                }
                2 => {
                    let _ = table.walk(Iova::new(page));
                }
                _ => {
                    map(&table, page, 0, 4 * K);
                    if let Ok(unmapped) = table.unmap(Iova::new(page), 4 * K) {
                        table.free(unmapped);
                    }
                }
            }
        }
    });
}

/// All unmap the same table at the same moment: whoever comes first has it, and nobody frees it twice.
#[test]
fn a_table_is_removed_once() {
    let (platform, table) = table(handing_back(config(Stage::Stage1, Granule::K4, 48)));
    let (ready, done) = (Barrier::new(THREADS as usize), Barrier::new(THREADS as usize));
    together(|cpu| {
        for _ in 0..rounds(ROUNDS) {
            if cpu == 0 {
                assert!(map(&table, 0, 4 * K, 2 * M));
            }
            ready.wait();
            if let Ok(unmapped) = table.unmap(Iova::new(0), 2 * M) {
                table.free(unmapped);
            }
            done.wait();
        }
    });
    drop(table);
    assert_eq!(platform.blocks(), 0);
}

/// Between a link and the cleaning of the entry that holds it, somebody else may already map through it, and must not
/// return before the SMMU can follow.
#[test]
fn mapping_through_a_link_that_has_not_reached_memory_cleans_it() {
    let (platform, table) = table(TableConfig { coherent: false, ..config(Stage::Stage1, Granule::K64, 42) });
    let below = Spares::new(&table.tables).take().unwrap();
    table.clean(table.tables.words(below));
    assert!(replace(&table.root.words()[0], 0, table.format.table(below)));
    assert!(map(&table, 0, 64 * K, 64 * K));
    assert_eq!(walk(platform, &table, 0).map(|found| found.physical), Some(64 * K));
}

//! What may happen to a page table at once.

use std::rc::Rc;

use loom::thread;
use smmu::addr::{Iova, PhysAddr};
use smmu::arch::attributes::Granule;

use super::memory::{self, LoomPlatform};
use super::{Access, EmptyTables, MapError, MemoryType, PageTable, Stage, TableConfig, Unmapped};
use crate::explore;

type Table = PageTable<LoomPlatform>;

const PAGE: u64 = 16 << 10;

/// Two levels: the first table, and tables of pages.
fn config(empty_tables: EmptyTables) -> TableConfig {
    TableConfig { empty_tables, ..TableConfig::new(Stage::Stage1, Granule::K16, 32, 40) }
}

/// A new page table, the only thing in memory; `tables` more can be had.
fn table(config: &TableConfig, tables: usize) -> Rc<Table> {
    memory::reset(1 + tables);
    Rc::new(Table::new(&LoomPlatform, config).unwrap())
}

fn try_map(table: &Table, iova: u64, size_bytes: u64) -> Result<(), MapError> {
    let (iova, physical) = (Iova::new(iova), PhysAddr::new(output(iova)));
    table.map(iova, physical, size_bytes, Access::ReadWrite, MemoryType::WriteBack)
}

fn map(table: &Table, iova: u64) {
    try_map(table, iova, table.config().granule.bytes()).unwrap();
}

/// Where it is mapped.
fn output(iova: u64) -> u64 {
    iova + (2 << 20)
}

fn unmap_bytes(table: &Table, iova: u64, size_bytes: u64) -> Unmapped<LoomPlatform> {
    table.unmap(Iova::new(iova), size_bytes).unwrap()
}

/// The whole life of an unmap; the SMMU forgets at once.
fn unmap(table: &Table, iova: u64) {
    table.free(unmap_bytes(table, iova, table.config().granule.bytes()));
}

fn is_mapped(table: &Table, iova: u64) -> bool {
    let found = table.walk(Iova::new(iova)).map(|found| found.physical.get());
    assert!(found.is_none_or(|found| found == output(iova)), "{found:#x?} is not where {iova:#x} leads");
    found.is_some()
}

fn come_and_go(table: &Table, page: u64) {
    map(table, page);
    assert!(is_mapped(table, page), "it went with the table");
    unmap(table, page);
}

/// What one CPU does.
type Role = fn(&Table);

/// Lets everybody act at once, the first of them on the main thread: that makes fewer schedules to try.
fn race(table: &Rc<Table>, first: Role, others: &[Role]) {
    let spawn = |&role: &Role| {
        let table = Rc::clone(table);
        thread::spawn(move || role(&table))
    };
    let others: Vec<_> = others.iter().map(spawn).collect();
    first(table);
    others.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Nothing is mapped any more, and no memory held but the first table, which goes now.
fn assert_handed_back(table: Rc<Table>) {
    assert_eq!(memory::block_count(), 1, "an empty table is left");
    drop(table);
    assert_eq!(memory::block_count(), 0);
}

#[test]
fn two_cpus_make_the_same_table() {
    for empty_tables in [EmptyTables::KeepOneLevel, EmptyTables::HandBack] {
        explore(2, move || {
            let table = table(&config(empty_tables), 2);
            race(&table, |table| map(table, 0), &[|table| map(table, PAGE)]);
            assert!(is_mapped(&table, 0) && is_mapped(&table, PAGE), "a mapping is lost");
            assert_eq!(memory::block_count(), 2, "one of them was too many");
            table.free(unmap_bytes(&table, 0, 2 * PAGE));
            drop(table);
            assert_eq!(memory::block_count(), 0);
        });
    }
}

#[test]
fn three_cpus_make_the_same_table() {
    explore(1, || {
        let table = table(&config(EmptyTables::HandBack), 3);
        race(&table, |table| map(table, 0), &[|table| map(table, PAGE), |table| map(table, 2 * PAGE)]);
        assert!([0, PAGE, 2 * PAGE].iter().all(|page| is_mapped(&table, *page)), "a mapping is lost");
        assert_eq!(memory::block_count(), 2);
    });
}

#[test]
fn a_table_that_one_cpu_empties_is_there_for_another() {
    explore(3, || {
        let table = table(&config(EmptyTables::HandBack), 2);
        map(&table, 0);
        race(&table, |table| unmap(table, 0), &[|table| map(table, PAGE)]);
        assert!(!is_mapped(&table, 0) && is_mapped(&table, PAGE), "it went with the table");
        unmap(&table, PAGE);
        assert_handed_back(table);
    });
}

#[test]
fn whoever_empties_a_table_last_takes_it() {
    explore(3, || {
        let table = table(&config(EmptyTables::HandBack), 1);
        map(&table, 0);
        map(&table, PAGE);
        race(&table, |table| unmap(table, 0), &[|table| unmap(table, PAGE)]);
        assert_handed_back(table);
    });
}

#[test]
fn two_cpus_empty_a_table_that_a_third_fills() {
    explore(1, || {
        let table = table(&config(EmptyTables::HandBack), 3);
        map(&table, 0);
        map(&table, PAGE);
        race(&table, |table| unmap(table, 0), &[|table| unmap(table, PAGE), |table| map(table, 2 * PAGE)]);
        assert!(is_mapped(&table, 2 * PAGE), "it went with the table");
        unmap(&table, 2 * PAGE);
        assert_handed_back(table);
    });
}

/// Each comes and goes: a table is removed and made again, at the same address, under the other's eyes.
#[test]
fn a_table_comes_and_goes() {
    explore(1, || {
        let table = table(&config(EmptyTables::HandBack), 2);
        race(&table, |table| come_and_go(table, 0), &[|table| come_and_go(table, PAGE)]);
        assert_handed_back(table);
    });
}

/// Two levels of tables go from below, while somebody makes what hangs on the upper one.
#[test]
fn tables_go_from_below() {
    explore(2, || {
        let shape = TableConfig { granule: Granule::K4, input_bits: 39, ..config(EmptyTables::HandBack) };
        let table = table(&shape, 4);
        map(&table, 0);
        race(&table, |table| unmap(table, 0), &[|table| map(table, 2 << 20)]);
        assert!(!is_mapped(&table, 0) && is_mapped(&table, 2 << 20), "it went with a table");
        unmap(&table, 2 << 20);
        assert_handed_back(table);
    });
}

/// Against all rules: one of them finds the page gone, with the tables on the way to it, after it has seen it there.
#[test]
fn two_cpus_unmap_the_same_page() {
    explore(2, || {
        let shape = TableConfig { granule: Granule::K4, input_bits: 39, ..config(EmptyTables::HandBack) };
        let table = table(&shape, 2);
        map(&table, 0);
        let unmap_if_mapped: Role = |table| {
            if let Ok(unmapped) = table.unmap(Iova::new(0), table.config().granule.bytes()) {
                table.free(unmapped);
            }
        };
        race(&table, unmap_if_mapped, &[unmap_if_mapped]);
        assert!(!is_mapped(&table, 0));
        assert_handed_back(table);
    });
}

#[test]
fn no_table_is_freed_under_a_readers_eyes() {
    explore(3, || {
        let table = table(&config(EmptyTables::HandBack), 1);
        map(&table, 0);
        let look: Role = |table| _ = is_mapped(table, 0);
        race(&table, |table| unmap(table, 0), &[look, look]);
        assert_handed_back(table);
    });
}

/// Where one level is kept, tables go with all that the one above them serves. Readers go the short way.
#[test]
fn no_table_is_freed_under_the_eyes_of_who_goes_the_short_way() {
    explore(2, || {
        let shape = TableConfig { granule: Granule::K4, input_bits: 39, ..config(EmptyTables::KeepOneLevel) };
        let table = table(&shape, 1);
        // In blocks: there is one table below the first.
        try_map(&table, 0, 1 << 30).unwrap();
        assert_eq!(memory::block_count(), 2);
        let look: Role = |table| _ = is_mapped(table, 0);
        race(&table, |table| table.free(unmap_bytes(table, 0, 1 << 30)), &[look, look]);
        assert_handed_back(table);
    });
}

/// There may be memory for one of them, for both, or for none: but nobody is told of memory that there is, and what is lost is
/// found.
#[test]
fn memory_that_runs_out_is_no_harm_to_others() {
    explore(3, || {
        let table = table(&config(EmptyTables::HandBack), 1);
        map(&table, 0);
        race(&table, |table| unmap(table, 0), &[|table| _ = try_map(table, PAGE, PAGE)]);
        if is_mapped(&table, PAGE) {
            unmap(&table, PAGE);
        }
        drop(table);
        assert_eq!(memory::block_count(), 0);
    });
}

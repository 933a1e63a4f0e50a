//! Scenarios that show one thing each.

use std::path::Path;

use qemu::machine::{Gic, Machine};
use qemu::outcome::Outcome;
use qemu::scenario::{SCENARIOS, Scenario};

use crate::boot::{Boot, demo_machine};

#[test]
fn hello() {
    let booted = Boot::new("hello", Machine::default()).run();
    booted.assert_outcome(Outcome::Success);
    booted.assert_shows("hello from the kernel");
    assert!(booted.record("hello")["heap_bytes"].as_u64() > Some(0));
}

#[test]
fn timer_interrupts_with_each_gic() {
    for gic in [Gic::V2, Gic::V3] {
        let booted = Boot::new("timer", Machine { gic, ..Machine::default() }).run();
        booted.assert_outcome(Outcome::Success);
        booted.assert_shows("timer interrupt 3");
        assert_eq!(booted.record("timer")["interrupts"], 3, "{gic:?}");
    }
}

#[test]
fn dma_memory() {
    let booted = Boot::new("memory", Machine::default()).run();
    booted.assert_outcome(Outcome::Success);
    let record = booted.record("memory");
    for property in ["sound", "restored", "refused"] {
        assert_eq!(record[property], true, "{property}");
    }
}

#[test]
fn a_missing_invalidation_is_seen() {
    let booted = Boot::new("stale-translation", demo_machine()).logged(&[]).run();
    booted.assert_outcome(Outcome::Success);
    let record = booted.record("stale-translation");
    assert_eq!(record["seen_without_invalidation"], true);
    assert_eq!(record["stopped_after_invalidation"], true);
    booted.assert_shows("unmapped, but nothing invalidated: the device's write arrives");
    booted.assert_shows("\ninvalidated: the device's write is stopped");
    // Edu's, and only once the SMMU had forgotten the translation.
    assert_eq!(booted.log.events(), [("SMMU_EVT_F_TRANSLATION", 0x18)].into());
}

/// The most instructions that map, unmap and lookup may take, by row. They are counted, and so the same on every machine; but
/// what the compiler makes of the same source differs by a few when something else in the kernel changes.
const PAGE_TABLE_ROWS: [(&str, [u64; 3]); 4] =
    [("4k", [80, 75, 60]), ("16x4k", [190, 160, 60]), ("512x4k", [2400, 1900, 60]), ("2m", [80, 75, 52])];

#[test]
fn page_tables_take_no_more_instructions_than_they_may() {
    let scenario = Scenario::by_name("bench-page-tables").unwrap();
    let booted = Boot::new(scenario.name, scenario.machine(Path::new(""))).run();
    booted.assert_outcome(Outcome::Success);
    let rows: Vec<_> = booted.records("pgtable");
    assert_eq!(rows.len(), PAGE_TABLE_ROWS.len());
    for (record, (row, most)) in rows.iter().zip(PAGE_TABLE_ROWS) {
        assert_eq!(record["row"], row);
        booted.assert_shows(&format!("\n{row} "));
        for (operation, most) in ["map", "unmap", "lookup"].into_iter().zip(most) {
            let found = record[operation].as_u64().unwrap();
            assert!((20..=most).contains(&found), "{row}: {operation} takes {found} instructions, not {most}");
        }
    }
}

/// Likewise for an invalidation: the command, the CMD_SYNC behind it, and waiting for it. With this clock the two register
/// accesses cost some 320 on top of the instructions that are carried out.
const INVALIDATION_ROWS: [(&str, u64); 3] = [("4k", 700), ("2m", 700), ("all", 580)];

#[test]
fn invalidations_take_no_more_instructions_than_they_may() {
    let scenario = Scenario::by_name("bench-invalidation").unwrap();
    let booted = Boot::new(scenario.name, scenario.machine(Path::new(""))).run();
    booted.assert_outcome(Outcome::Success);
    let rows: Vec<_> = booted.records("invalidation");
    assert_eq!(rows.len(), INVALIDATION_ROWS.len());
    for (record, (row, most)) in rows.iter().zip(INVALIDATION_ROWS) {
        assert_eq!(record["row"], row);
        let found = record["instructions"].as_u64().unwrap();
        assert!((50..=most).contains(&found), "{row}: it takes {found} instructions, not {most}");
    }
}

/// What DMA costs: row, the most instructions, and the commands that a round sends, there and back. The two register accesses of
/// each CMD_SYNC count as above.
const COST_ROWS: [(&str, u64, u64); 21] = [
    ("attach", 28_000, 8),
    ("detach", 9_000, 8),
    ("iommu_map_4k", 110, 2),
    ("iommu_unmap_4k", 480, 2),
    ("lookup_4k", 70, 0),
    ("iommu_map_64k", 220, 2),
    ("iommu_unmap_64k", 560, 2),
    ("lookup_64k", 70, 0),
    ("iommu_map_1m", 1_350, 2),
    ("iommu_unmap_1m", 1_450, 2),
    ("lookup_1m", 70, 0),
    ("iommu_map_2m", 110, 2),
    ("iommu_unmap_2m", 480, 2),
    ("lookup_2m", 70, 0),
    ("iommu_map_1g", 110, 2),
    ("iommu_unmap_1g", 480, 2),
    ("lookup_1g", 70, 0),
    ("dma_pair_4k", 1_450, 2),
    ("dma_pair_64k", 1_650, 2),
    ("dma_pair_1m", 3_600, 2),
    ("dma_pair_2m", 1_850, 2),
];

#[test]
fn dma_takes_no_more_than_it_may() {
    let scenario = Scenario::by_name("bench-dma").unwrap();
    let booted = Boot::new(scenario.name, scenario.machine(Path::new(""))).run();
    booted.assert_outcome(Outcome::Success);
    let rows: Vec<_> = booted.records("cost");
    assert_eq!(rows.len(), COST_ROWS.len());
    for (record, (row, most, commands)) in rows.iter().zip(COST_ROWS) {
        assert_eq!((&record["row"], &record["commands"]), (&row.into(), &commands.into()));
        let found = record["instructions"].as_u64().unwrap();
        assert!((20..=most).contains(&found), "{row}: it takes {found} instructions, not {most}");
    }
}

#[test]
fn an_unknown_scenario() {
    let booted = Boot::new("nonsense", Machine::default()).run();
    booted.assert_outcome(Outcome::Failed);
    booted.assert_shows("there is no scenario `nonsense`; there are:");
    // The launcher offers what the kernel has.
    for scenario in SCENARIOS {
        booted.assert_shows(&format!("\n  {} ", scenario.name));
    }
}

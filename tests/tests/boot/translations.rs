//! Each kind of translation in front of a device that does real DMA.

use std::path::Path;

use qemu::outcome::Outcome;
use qemu::scenario::Scenario;

use crate::boot::Boot;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

#[test]
fn translations_of_every_kind() {
    let scenario = Scenario::by_name("translation-kinds").unwrap();
    let booted = Boot::new(scenario.name, scenario.machine(Path::new(""))).run();
    booted.assert_outcome(Outcome::Success);
    let leaves =
        [(4 * K, vec![4 * K, 2 * M, 1024 * M]), (16 * K, vec![16 * K, 32 * M]), (64 * K, vec![64 * K, 512 * M])];
    let mut expected = Vec::new();
    for (granule, sizes) in leaves {
        for kind in ["stage 1", "stage 2", "stage 1 on stage 2"] {
            expected.extend(sizes.iter().map(|bytes| (kind.to_owned(), granule, *bytes)));
        }
    }
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let reached: Vec<_> = booted
        .records("translation-kind")
        .into_iter()
        .map(|record| {
            let kind = record["kind"].as_str().unwrap().to_owned();
            (kind, number(&record["granule"]), number(&record["leaf_bytes"]))
        })
        .collect();
    assert_eq!(reached, expected);
    for (kind, count) in [("permissions", 6), ("remap", 6), ("guest", 3)] {
        assert_eq!(booted.records(kind).len(), count, "{kind}");
    }
    assert!(booted.records("permissions").iter().all(|record| record["enforced"] == true));
    assert!(booted.records("guest").iter().all(|record| record["syncs"] == 1));
    booted.assert_shows("F_PERMISSION: write");
}

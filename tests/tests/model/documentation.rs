//! What the driver's documentation says of its tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The table of features, from the workspace's root.
const FEATURES: &str = "smmu/src/device/features.md";
/// Where tests are.
const SOURCES: [&str; 3] = ["smmu/src", "tests/src", "tests/tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust sources in a folder and below it, with their texts.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.extension() {
            _ if path.is_dir() => sources(&path),
            Some(extension) if extension == "rs" => vec![(path.clone(), fs::read_to_string(path).unwrap())],
            _ => Vec::new(),
        })
        .collect()
}

/// The names of tests in the fourth column of the table's rows.
fn tests_of(row: &str) -> Vec<&str> {
    let column = row.split('|').nth(4).unwrap_or_default();
    column.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_feature_has_tests_that_exist() {
    let table = fs::read_to_string(root().join(FEATURES)).unwrap();
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "{FEATURES}: {} rows", rows.len());
    let sources: String =
        SOURCES.iter().flat_map(|folder| sources(&root().join(folder))).map(|(_, text)| text).collect();
    for row in &rows {
        assert!(!tests_of(row).is_empty(), "{FEATURES}: no test in {row}");
    }
    let named: BTreeSet<_> = rows.iter().flat_map(|row| tests_of(row)).collect();
    // In the tests of the kernel a macro makes functions of names.
    let exists = |name: &&str| sources.contains(&format!("fn {name}(")) || sources.contains(&format!("    {name}: "));
    let missing: Vec<_> = named.into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "{FEATURES} names tests that do not exist: {missing:?}");
}

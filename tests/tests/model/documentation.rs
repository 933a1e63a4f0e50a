//! What the driver's documentation says of its tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The table of features, from the workspace's root.
const FEATURES: &str = "smmu/src/device/features.md";

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

/// Where tests of a kind are, from the workspace's root.
const KINDS: [(&str, &[&str]); 3] =
    [("unit", &["smmu/src"]), ("model", &["tests/tests/model"]), ("QEMU", &["tests/tests/boot", "tests/tests/qtest"])];

/// The names of tests in the fourth column of the table's rows.
fn tests_of(row: &str) -> Vec<&str> {
    let column = row.split('|').nth(4).unwrap_or_default();
    column.split('`').skip(1).step_by(2).collect()
}

/// The kinds of tests in the fifth.
fn kinds_of(row: &str) -> BTreeSet<&str> {
    row.split('|').nth(5).unwrap_or_default().split(',').map(str::trim).collect()
}

/// Whether a source has a test of that name. In the tests of the kernel a macro makes functions of names.
fn has_test(source: &str, name: &str) -> bool {
    source.contains(&format!("fn {name}(")) || source.contains(&format!("    {name}: "))
}

#[test]
fn every_feature_has_tests_that_exist() {
    let table = fs::read_to_string(root().join(FEATURES)).unwrap();
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "{FEATURES}: {} rows", rows.len());
    let text_of = |folders: &[&str]| -> String {
        folders.iter().flat_map(|folder| sources(&root().join(folder))).map(|(_, text)| text).collect()
    };
    let texts = KINDS.map(|(kind, folders)| (kind, text_of(folders)));
    for row in &rows {
        let tests = tests_of(row);
        assert!(!tests.is_empty(), "{FEATURES}: no test in {row}");
        let missing = tests.iter().find(|name| !texts.iter().any(|(_, text)| has_test(text, name)));
        assert_eq!(missing, None, "{FEATURES} names a test that does not exist");
        let kinds = texts.iter().filter(|(_, text)| tests.iter().any(|name| has_test(text, name)));
        assert_eq!(kinds_of(row), kinds.map(|(kind, _)| *kind).collect(), "{FEATURES}: where are the tests of {row}");
    }
}

#[test]
fn every_history_has_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/histories.md")).unwrap();
    let texts: String = ["smmu/src/iommu/tests", "tests/tests"]
        .iter()
        .flat_map(|folder| sources(&root().join(folder)))
        .map(|(_, text)| text)
        .collect();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(rows.len(), 4);
    for name in rows.iter().flat_map(|row| tests_of(row)) {
        assert!(has_test(&texts, name), "docs/histories.md names {name}, which does not exist");
    }
}

//! The table of mutations, against the sources as they are. `cargo run -p tests --example mutations` runs them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tests::mutations::{Mutation, MutationError, mutations};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn every_mutation_applies_to_the_sources() {
    let outdated: Vec<_> = mutations().filter_map(|mutation| Some(mutation.apply(root()).err()?.to_string())).collect();
    assert!(outdated.is_empty(), "{}", outdated.join("\n"));
}

#[test]
fn at_least_thirty_mutations_with_names_of_their_own() {
    let names: BTreeSet<_> = mutations().map(|mutation| mutation.name).collect();
    assert!(
        names.len() == mutations().count() && names.len() >= 30,
        "{} names, {} in all",
        names.len(),
        mutations().count()
    );
}

#[test]
fn the_page_shows_every_mutation_as_caught() {
    let page = fs::read_to_string(root().join("docs/mutations.md")).unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let expected: Vec<_> = mutations().map(Mutation::row).collect();
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.into_iter().zip(expected) {
        assert!(row.starts_with(&expected) && !row.contains("**nothing**"), "{row}\ninstead of\n{expected}...");
    }
    assert!(page.contains(&format!("{0} of {0} caught", mutations().count())));
}

#[test]
fn text_that_is_not_there_once_is_told() {
    let apply = |edits| Mutation { name: "name", breaks: "", file: "smmu/src/device/ring.rs", edits }.apply(root());
    assert!(matches!(apply(&[("no such text", "")]), Err(MutationError::Outdated { found: 0, .. })));
    assert!(matches!(apply(&[("Ring::new", "")]), Err(MutationError::Outdated { found: 2.., .. })));
    assert!(
        matches!(apply(&[("struct Ring", "struct A"), ("struct A", "struct B")]), Ok(text) if text.contains("struct B {"))
    );
}

//! The table of mutations, against the sources as they are. `cargo run -p tests --example mutations` runs them.

use std::collections::BTreeSet;
use std::path::Path;

use tests::mutations::{MUTATIONS, Mutation, MutationError};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn every_mutation_applies_to_the_sources() {
    let outdated: Vec<_> =
        MUTATIONS.iter().filter_map(|mutation| Some(mutation.apply(root()).err()?.to_string())).collect();
    assert!(outdated.is_empty(), "{}", outdated.join("\n"));
}

#[test]
fn the_mutations_have_names_of_their_own() {
    let names: BTreeSet<_> = MUTATIONS.iter().map(|mutation| mutation.name).collect();
    assert_eq!((names.len(), names.len() >= 30), (MUTATIONS.len(), true));
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

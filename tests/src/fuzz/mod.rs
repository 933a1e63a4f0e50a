//! What the fuzz targets do with their input, whatever it is.
//!
//! What lives here: one module for each target in `fuzz/fuzz_targets`, each with a `run` that panics where something is
//! wrong. What does not: the fuzzer. It needs a nightly toolchain; the corpora are replayed on the ordinary one too, by
//! `tests/fuzz_corpus.rs`.

pub mod events;
pub mod firmware;
pub mod hostile_device;
pub mod page_table;
mod platform;
pub mod structures;

//! Replays the corpora of the fuzz targets, and reports the file at which one fails.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tests::fuzz;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        let data = fs::read(&path).unwrap();
        if catch_unwind(AssertUnwindSafe(|| run(&data))).is_err() {
            panic!("{target} fails for {}", path.display());
        }
        count += 1;
    }
    assert_ne!(count, 0, "{} is empty", folder.display());
}

#[test]
fn events() {
    replay("events", fuzz::events::run);
}

#[test]
fn firmware() {
    replay("firmware", fuzz::firmware::run);
}

#[test]
fn structures() {
    replay("structures", fuzz::structures::run);
}

#[test]
fn page_table() {
    replay("page_table", fuzz::page_table::run);
}

#[test]
fn hostile_device() {
    replay("hostile_device", fuzz::hostile_device::run);
}

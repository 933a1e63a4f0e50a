//! See `tests::fuzz::firmware`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::firmware::run(data));

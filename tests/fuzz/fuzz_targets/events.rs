//! See `tests::fuzz::events`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::events::run(data));

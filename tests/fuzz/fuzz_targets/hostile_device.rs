//! See `tests::fuzz::hostile_device`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::hostile_device::run(data));

//! The software SMMUv3, by itself and under the real driver.

mod bench;
mod commands;
mod devices;
mod driver;
mod failures;
mod laws;
mod lookups;
mod many;
mod registers;
mod sequences;
mod system;
mod walks;

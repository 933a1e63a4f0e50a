//! What the Arm SMMU architecture (IHI 0070) defines, as data: register offsets and fields, the stream table entry, the
//! context descriptor, translation table descriptors, commands, event and page request records.
//!
//! What lives here: encoders and decoders between Rust types and the words that hardware reads and writes. What does
//! not: state, I/O, policy (see [`crate::device`]), and translation tables (see [`crate::pgtable`]).
//!
//! Words are 64-bit values in the CPU's order; whoever stores them makes them little-endian. A value too wide for its
//! field loses its upper bits and never reaches the neighbouring field. Decoders ignore reserved bits.

#![forbid(unsafe_code)]

pub mod attributes;
pub mod command;
pub mod context_descriptor;
pub mod descriptor;
pub mod entry_update;
pub mod event;
pub mod fields;
pub mod page_request;
pub mod range;
pub mod registers;
pub mod stream_table;

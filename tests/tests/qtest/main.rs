//! The driver over QEMU's SMMU, run here: each test with a machine of its own.
//!
//! What lives here: tests by subject, and in [`setup`] what they share. Without a QEMU that can build all machines none
//! of them runs, and the whole process fails.

mod configuration;
mod faults;
mod isolation;
mod mappings;
mod nested;
mod queues;
mod sequences;
mod setup;
mod shapes;

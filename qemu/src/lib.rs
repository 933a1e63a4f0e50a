//! Finds, feeds and watches QEMU: what `cargo run` and the boot tests share.
//!
//! What lives here: finding a QEMU or fetching one ([`locate`]), building the kernel ([`kernel`]), machines as types
//! ([`machine`]), device trees and disk images for them, runs and what came of them ([`run`], [`outcome`]).
//! What does not: the launcher's command line (`main.rs`) and the tests themselves (package `tests`).

pub mod console;
pub mod device;
pub mod devicetree;
pub mod disk;
pub mod gdb;
mod hash;
pub mod image;
pub mod kernel;
pub mod locate;
pub mod machine;
pub mod outcome;
pub mod private;
pub mod program;
pub mod report;
pub mod run;
pub mod scenario;
pub mod symbols;
pub mod terminal;
pub mod toolchain;
pub mod trace;
pub mod two_smmus;
pub mod workspace;

//! The command queue's concurrent core under loom: every interleaving of a few CPUs and an SMMU, within a bound on
//! preemptions, and every value that the memory model lets a load return.
//!
//! The core's sources are compiled once more here, with loom's atomics in the place of the real ones; registers are atomics
//! too, and slots are cells whose races loom notices: a slot that is written while the SMMU may read it fails a test, and so
//! does one that the SMMU reads without having been handed it. All of loom's threads are one of the host's, so an `Rc` does
//! between them.
//!
//! What bounds the time: two or three CPUs with a batch or three each, an SMMU that looks twice at most, and for every
//! scenario the number of preemptions that `explore` is told, as many as take it a few seconds.

mod queue;
mod scenarios;

/// What the core takes its atomics from.
mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "../../../smmu/src/device/command_queue/refusal.rs"]
#[allow(dead_code, reason = "the driver uses the rest")]
mod refusal;
#[path = "../../../smmu/src/device/command_queue/reservation.rs"]
#[allow(dead_code, reason = "the driver uses the rest")]
mod reservation;

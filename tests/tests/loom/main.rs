//! What CPUs do without locks, under loom: every interleaving of a few CPUs and an SMMU, within a bound on preemptions, and
//! every value that the memory model lets a load return.
//!
//! The sources are compiled once more here, with loom's atomics in the place of the real ones. All of loom's threads are one
//! of the host's, so an `Rc` does between them.
//!
//! * The command queue's concurrent core ([`queue`]): registers are atomics too, and slots are cells whose races loom notices.
//!   A slot that is written while the SMMU may read it fails a test, and so does one that the SMMU reads without having been
//!   handed it.
//! * Page tables ([`page_table`]), over [memory] whose use before it is there, or after it may be gone, loom notices.
//!
//! What bounds the time: two or three CPUs with little to do each, and for every scenario the number of preemptions that
//! `explore` is told, as many as take it a few seconds.

mod page_table;
mod queue;
mod scenarios;

use page_table::memory;
// Where the page tables' sources look for them.
use smmu::{addr, arch, platform};

/// Tries every schedule with so many preemptions.
fn explore(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(scenario);
}

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

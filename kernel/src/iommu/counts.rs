//! What the kernel's SMMUs have done since boot, in numbers.

use core::sync::atomic::{AtomicU64, Ordering};

use smmu::iommu::PagingDomain;

use crate::platform::Kernel;

static MAPPED: AtomicU64 = AtomicU64::new(0);
static UNMAPPED: AtomicU64 = AtomicU64::new(0);
static EVENTS: AtomicU64 = AtomicU64::new(0);

/// Numbers since boot, over all SMMUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Ranges that devices were given a translation for. Domains in use count when they are done.
    pub mapped: u64,
    /// Ranges that were taken away again.
    pub unmapped: u64,
    /// Events that SMMUs have recorded.
    pub events: u64,
}

/// The numbers as they are now.
#[must_use]
pub fn counts() -> Counts {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Counts { mapped: load(&MAPPED), unmapped: load(&UNMAPPED), events: load(&EVENTS) }
}

pub(super) fn add_event() {
    EVENTS.fetch_add(1, Ordering::Relaxed);
}

/// Adds what was done in a domain that is no longer in use.
pub(super) fn add_domain(domain: &dyn PagingDomain<Kernel>) {
    let (mapped, unmapped) = domain.counts();
    MAPPED.fetch_add(mapped, Ordering::Relaxed);
    UNMAPPED.fetch_add(unmapped, Ordering::Relaxed);
}

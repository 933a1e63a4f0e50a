//! The IOMMU core under shuttle: several CPUs at once, in thousands of orders, each of which its seed makes again.
//!
//! The core is the crate as it is. What changes CPUs is the platform: at every try of a lock, at every look at the clock, and in
//! every call of the driver, which is the strict one of the core's own tests. Beside what each [scenario](scenarios) asserts,
//! that driver panics when a stream is moved by two CPUs at once, or without having been probed, or left in a domain that
//! goes; and the lock when a CPU takes one while it holds another, or waits or calls the driver with one in its hands.

extern crate alloc;

mod platform;
mod scenarios;

// Where the driver's source looks for them.
use smmu::{addr, arch, iommu, pgtable};

#[path = "../../../smmu/src/iommu/tests/other.rs"]
#[allow(dead_code, reason = "the core's own tests use the rest")]
mod other;

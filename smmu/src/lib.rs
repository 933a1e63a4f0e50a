//! An Arm SMMUv3 driver and IOMMU core for bare-metal Rust.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod arch;
pub mod device;
pub mod dma;
pub mod firmware;
pub mod iommu;
#[allow(unsafe_code, reason = "DMA memory is shared with hardware")]
pub mod memory;
#[allow(unsafe_code, reason = "register accesses are volatile")]
pub mod mmio;
pub mod pgtable;
#[allow(unsafe_code, reason = "the contract an integrator vouches for")]
pub mod platform;
#[cfg(test)]
#[allow(unsafe_code, reason = "it stands in for the system")]
mod testing;

//! The kernel's SMMUs and the devices behind them: from the device tree to DMA that works, or is stopped and reported.
//!
//! What lives here: bringing SMMUs up, their interrupts, giving devices their fwspecs, and DMA for drivers. What does not:
//! the SMMU driver and the IOMMU core, which are the crate `smmu`.

mod bind;
mod bring_up;
mod counts;
mod device_dma;
mod faults;

pub use bind::{Bound, NO_LIMIT, add_devices};
pub use bring_up::{Described, Instance, describe_all};
pub use counts::{Counts, counts};
pub use device_dma::SmmuDma;
pub use faults::poll;

use smmu::iommu::Iommus;

use crate::platform::{Kernel, PLATFORM};

/// All SMMUs and all devices of the machine.
pub static IOMMUS: Iommus<Kernel> = Iommus::new(&PLATFORM);

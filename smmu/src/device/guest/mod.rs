//! What a hypervisor needs to give a guest an SMMUv3 of its own: streams with the guest's stage 1 on top of the hypervisor's
//! stage 2, and the guest's commands (IHI 0070, 5.2 and 4).
//!
//! What lives here: checks. [`NestedParent::entry`] makes an entry out of one that the guest wrote, [`Smmu::forward`] carries
//! out what the guest put into its command queue. What does not: the registers and queues that the guest sees, its memory, and
//! its events, which the hypervisor takes from the SMMU's and hands on.
//!
//! Nothing that comes from the guest is trusted. It names its own streams by its own numbers, and no VMID: so whatever it
//! invalidates is its own, and there is no command of its that an SMMU stops at.

mod command;
mod entry;
mod error;
mod forward;

pub use entry::NestedParent;
pub use error::{CommandRefusal, RefusedCommand, RefusedEntry};
pub use forward::{Guest, GuestStream};

#[cfg(doc)]
use super::Smmu;

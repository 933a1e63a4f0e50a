//! Stream table entries and context descriptors: found, read, judged (IHI 0070, 3.3 and 5).
//!
//! What lives here: which entry a transaction uses, and whether it is legal. What does not: the translation that it asks
//! for.

mod cd;
mod lookup;
mod meaning;
mod reserved;
mod ste;

pub(super) use cd::{Cd, Half};
pub use meaning::Meaning;
pub(super) use reserved::{cd_reserved, descriptor_reserved, ste_reserved};
pub(super) use ste::{Ste, StreamConfig};

/// StreamWorlds of Non-secure streams (IHI 0070, 3.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum World {
    /// NS-EL1, stage 2 included.
    El1,
    /// EL2, and EL2-E2H.
    El2,
}

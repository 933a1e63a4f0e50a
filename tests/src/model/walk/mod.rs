//! Translation: table walks of stage 1 and 2, alone and nested (Arm ARM, D8; IHI 0070, 3.4 and 3.13).
//!
//! What lives here: from an input address to an output address or a fault. What does not: which tables
//! ([`structures`](super::structures)), and what is remembered ([`caches`](super::caches)).

mod descriptor;
mod memory_type;
mod peek;
mod permissions;
mod regime;
mod walker;

pub(super) use descriptor::{Decoded, Leaf, Limits, decode};
pub use memory_type::{Cacheability, MemoryType};
pub(super) use permissions::{Intent, Permissions};
pub(super) use regime::{Regime, Tag};

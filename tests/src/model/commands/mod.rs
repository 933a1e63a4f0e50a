//! Commands and the queue that they come through (IHI 0070, 3.5 and 4).
//!
//! What lives here: what a command says, whether it is well-formed, and when it is carried out. What does not: the caches
//! that it clears.

mod decode;
mod execute;
mod opcode;
mod queue;
mod tlbi;

pub(super) use decode::Command;
pub use opcode::Opcode;
pub(super) use queue::CommandQueue;
pub(super) use tlbi::{Tlbi, TlbiScope, TlbiStage};

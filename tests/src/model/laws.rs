//! The laws that software owes the SMMU and the memory it lends it. They are always on: a model that saw one broken
//! panics when it is dropped, unless the test took the violations out.

use std::fmt;

/// Which law was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// A register is written only while its guard permits it (IHI 0070, 6.2 and 6.3).
    GuardedRegister,
    /// Registers are accessed at their own place, size and direction (IHI 0070, 6.2).
    RegisterAccess,
    /// A field is not changed again before its acknowledgement; only active errors are acknowledged.
    UpdateProtocol,
    /// PROD and CONS move forward, and never further than there are entries (IHI 0070, 3.5).
    QueueIndex,
    /// What a register write publishes is in memory before it, and what a register read announced is read after it: barriers
    /// come in between.
    Barrier,
    /// A published command stays as it is until it is consumed (IHI 0070, 3.5).
    PublishedSlot,
    /// Commands are well-formed; a reserved bit, a misaligned address, a missing feature is none (IHI 0070, 4).
    Command,
    /// A live STE or CD changes its meaning through one 64-bit store, or through invalid (IHI 0070, 3.21.3).
    LiveEntry,
    /// A valid STE or CD that hardware can reach is legal (IHI 0070, 5.2.2 and 5.4.2).
    IllegalEntry,
    /// Reserved bits of structures and descriptors are zero.
    ReservedBit,
    /// Table bases and pointers have the alignment that their size asks for.
    Alignment,
    /// Memory that hardware can reach, or remembers, is not freed.
    FreedWhileReachable,
    /// Hardware never reads or writes memory that has been freed.
    UseAfterFree,
    /// Nobody writes to memory that has been freed, frees it twice or asks for what is no memory.
    Memory,
    /// A dirty line of the CPU's never overwrites what hardware wrote.
    DirtyLine,
}

/// A law that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The law.
    pub law: Law,
    /// What was seen.
    pub details: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.law, self.details)
    }
}

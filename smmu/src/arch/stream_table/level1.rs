//! The first level of a two-level stream table.

use tock_registers::register_bitfields;

use crate::addr::PhysAddr;

register_bitfields! { u64,
    /// A level-1 stream table descriptor.
    L1STD [
        Span OFFSET(0) NUMBITS(5) [],
        /// In place: bits 55:6 of the address.
        L2Ptr OFFSET(6) NUMBITS(50) []
    ]
}

/// A level-1 stream table descriptor: where the entries of a run of StreamIDs are (IHI 0070, 5.1). 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L1StreamTableDescriptor(u64);

impl L1StreamTableDescriptor {
    /// No entries: the run's transactions abort, C_BAD_STREAMID.
    pub const INVALID: Self = Self(0);

    /// `2^(span - 1)` entries at `table`, which is aligned to their size, `2^(span + 5)` bytes. `span` is 1 to 11 and at
    /// most STRTAB_BASE_CFG.SPLIT + 1; others are invalid.
    #[must_use]
    pub fn new(table: PhysAddr, span: u8) -> Self {
        Self((L1STD::Span.val(span.into()) + L1STD::L2Ptr.val(table.get() >> 6)).value)
    }

    /// A descriptor as read from memory.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Where the entries are and log2 of how many, or `None` if Span is 0 or reserved.
    #[must_use]
    pub fn decode(self) -> Option<(PhysAddr, u8)> {
        match L1STD::Span.read(self.0) as u8 {
            span @ 1..=11 => Some((PhysAddr::new(L1STD::L2Ptr.read(self.0) << 6), span - 1)),
            _ => None,
        }
    }
}

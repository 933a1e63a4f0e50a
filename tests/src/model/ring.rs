//! Queue arithmetic (IHI 0070, 3.5.1).

/// A queue of 2^S entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring(u32);

impl Ring {
    /// The ring that a BASE register describes, capped at what IDR1 announces.
    pub(super) fn of_base(base: u64, limit: u32) -> Self {
        Self(((base & 0x1f) as u32).min(limit))
    }

    pub(super) const fn entries(self) -> u32 {
        1 << self.0
    }

    /// Where the entries are: BASE.ADDR, aligned to the queue's size and at least 32 bytes (IHI 0070, 6.3.25).
    pub(super) fn base(self, base: u64, entry_bytes: u64) -> u64 {
        let bytes = (u64::from(self.entries()) * entry_bytes).max(32);
        base & 0x000f_ffff_ffff_ffe0 & !(bytes - 1)
    }

    /// An index with its wrap bit.
    pub(super) const fn wrapped(self, value: u32) -> u32 {
        value & (self.entries() * 2 - 1)
    }

    pub(super) const fn slot(self, value: u32) -> u32 {
        value & (self.entries() - 1)
    }

    /// How far `consumer` is behind `producer`.
    pub(super) const fn distance(self, producer: u32, consumer: u32) -> u32 {
        self.wrapped(producer.wrapping_sub(consumer))
    }
}

//! ASIDs and VMIDs: who has which, as a bitmap that needs no lock.

use core::sync::atomic::Ordering;

use super::DeviceError;
use crate::memory::DmaMemory;
use crate::platform::Platform;

/// A set of `2^bits` identifiers of which number 0 is never given out.
#[derive(Debug)]
pub(super) struct Identifiers<P: Platform> {
    kind: &'static str,
    count: u32,
    taken: DmaMemory<P>,
}

impl<P: Platform> Identifiers<P> {
    /// A set of `2^bits` (at most 16) identifiers, called `kind` in errors.
    pub(super) fn new(platform: &'static P, kind: &'static str, bits: u8) -> Result<Self, DeviceError> {
        let count = 1u32 << bits.min(16);
        let taken = DmaMemory::allocate(platform, (count / 8) as usize, 8)?;
        if let Some(first) = taken.words().first() {
            // Number 0 tags streams that have no address space of their own.
            first.store(1, Ordering::Relaxed);
        }
        Ok(Self { kind, count, taken })
    }

    /// Takes a free identifier.
    pub(super) fn take(&self) -> Result<u16, DeviceError> {
        for (index, word) in self.taken.words().iter().enumerate() {
            let mut bits = word.load(Ordering::Relaxed);
            while bits != u64::MAX {
                let bit = bits.trailing_ones();
                match word.compare_exchange_weak(bits, bits | 1 << bit, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => {
                        let number = index as u64 * 64 + u64::from(bit);
                        return u16::try_from(number).map_err(|_| self.none_left());
                    }
                    Err(now) => bits = now,
                }
            }
        }
        Err(self.none_left())
    }

    /// Marks a certain identifier as taken. Returns whether it was free; one that the set does not hold never is.
    pub(super) fn reserve(&self, number: u16) -> bool {
        let bit = 1 << (number % 64);
        let word = self.taken.words().get(usize::from(number) / 64);
        word.is_some_and(|word| word.fetch_or(bit, Ordering::AcqRel) & bit == 0)
    }

    /// Refuses what is not anybody's: number 0, and what is not taken.
    pub(super) fn check_taken(&self, number: u16) -> Result<(), DeviceError> {
        let word = self.taken.words().get(usize::from(number) / 64);
        let is_taken = word.is_some_and(|word| word.load(Ordering::Acquire) & 1 << (number % 64) != 0);
        if number != 0 && is_taken { Ok(()) } else { Err(DeviceError::IdNotTaken { kind: self.kind, number }) }
    }

    /// Gives an identifier back that is taken. No translation tagged with it is cached any more.
    pub(super) fn give_back(&self, number: u16) {
        if let Some(word) = self.taken.words().get(usize::from(number) / 64) {
            word.fetch_and(!(1 << (number % 64)), Ordering::AcqRel);
        }
    }

    /// Bytes of memory that the set takes.
    pub(super) fn size_bytes(&self) -> usize {
        self.taken.size_bytes()
    }

    fn none_left(&self) -> DeviceError {
        DeviceError::OutOfIds { kind: self.kind, count: self.count - 1 }
    }
}

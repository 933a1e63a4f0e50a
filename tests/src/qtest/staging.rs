//! How to see what an `edu` read: its buffer is out of reach but for its own DMA, so it has to show it.

use std::sync::atomic::{AtomicU64, Ordering};

use smmu::addr::{Iova, PhysAddr};
use smmu::memory::DmaMemory;
use smmu::platform::OutOfDmaMemory;

use super::edu::{Direction, Edu, Transfer};
use super::machine::{SIGNATURE_OFFSET, SIGNATURE_WORDS};
use super::{QtestError, QtestPlatform};

/// What an engine's landing place holds before a read, so that a read that did nothing is told from one that read zero.
const UNTOUCHED: u64 = 0x0bad_f00d;
/// Where in the buffer words land.
const LANDING: u16 = 0;
const WORD_BYTES: u16 = 4;

/// A page of an engine's own, mapped for reading and writing at [`Staging::IOVA`] of its domain.
#[derive(Debug)]
pub struct Staging {
    page: DmaMemory<QtestPlatform>,
}

impl Staging {
    /// Where the page is to be mapped.
    pub const IOVA: Iova = Iova::new(0x7fff_f000);
    /// How large it is, in bytes.
    pub const BYTES: usize = 4096;

    /// Allocates the page.
    ///
    /// # Errors
    ///
    /// [`OutOfDmaMemory`].
    pub fn new(platform: &'static QtestPlatform) -> Result<Self, OutOfDmaMemory> {
        Ok(Self { page: DmaMemory::allocate(platform, Self::BYTES, Self::BYTES)? })
    }

    /// Where the page is.
    #[must_use]
    pub fn physical(&self) -> PhysAddr {
        self.page.physical()
    }

    /// The word that goes into the engine, and the one that comes out of it.
    fn words(&self) -> Option<(&AtomicU64, &AtomicU64)> {
        Some((self.page.words().first()?, self.page.words().get(1)?))
    }
}

impl Edu {
    /// Writes word `index` of the engine's signature (0 to [`SIGNATURE_WORDS`] - 1) to `iova`: one access of 4 bytes.
    ///
    /// # Errors
    ///
    /// As for [`Edu::run`].
    pub fn write_word(&self, iova: Iova, index: u16) -> Result<(), QtestError> {
        let offset = SIGNATURE_OFFSET + index % SIGNATURE_WORDS * WORD_BYTES;
        self.run(&[Transfer { direction: Direction::ToMemory, iova, offset, length_bytes: WORD_BYTES }])
    }

    /// Reads a word at `iova`, one access of 4 bytes, and returns it as the engine shows it through `staging`. A read that
    /// was stopped gives 0.
    ///
    /// # Errors
    ///
    /// As for [`Edu::run`].
    pub fn read_word(&self, iova: Iova, staging: &Staging) -> Result<u32, QtestError> {
        let (Some((inward, outward)), Some(outward_iova)) = (staging.words(), Staging::IOVA.checked_add(8)) else {
            return Err(QtestError::Missing { what: "staging page" });
        };
        inward.store(UNTOUCHED.to_le(), Ordering::Relaxed);
        outward.store(u64::MAX, Ordering::Relaxed);
        let transfer = |direction, iova| Transfer { direction, iova, offset: LANDING, length_bytes: WORD_BYTES };
        self.run(&[
            transfer(Direction::FromMemory, Staging::IOVA),
            transfer(Direction::FromMemory, iova),
            transfer(Direction::ToMemory, outward_iova),
        ])?;
        Ok(u64::from_le(outward.load(Ordering::Relaxed)) as u32)
    }

    /// Reads a word at `iova` and keeps it: for a device without a mapping through which it could show it.
    ///
    /// # Errors
    ///
    /// As for [`Edu::run`].
    pub fn read_word_unseen(&self, iova: Iova) -> Result<(), QtestError> {
        self.run(&[Transfer { direction: Direction::FromMemory, iova, offset: LANDING, length_bytes: WORD_BYTES }])
    }
}

//! Runs sequences one after the other, over one backend and one pool of pages.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use smmu::memory::DmaMemory;
use smmu::platform::{OutOfDmaMemory, Platform};

use super::access::Observation;
use super::backend::{Backend, Deviation};
use super::expectation::PAGE_BYTES;
use super::failure::{Failure, Mismatch};
use super::flaw::Flaw;
use super::run::Run;
use super::step::{BLOCK_PAGES, POOL_PAGES, Step};

/// Size of the pool.
const POOL_BYTES: usize = POOL_PAGES as usize * PAGE_BYTES as usize;
/// So that blocks fit.
const POOL_ALIGNMENT: usize = BLOCK_PAGES as usize * PAGE_BYTES as usize;

/// A backend and the pages that sequences map.
pub struct Bench<B: Backend> {
    backend: B,
    /// The pages, as they are at first; none after a failure.
    pool: Option<DmaMemory<B::Platform>>,
}

/// What sequences brought about, so that a test can tell whether they tested anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps that could not be made: there was nothing to unmap, say.
    pub skipped: u64,
    /// Devices attached.
    pub attached: u64,
    /// Devices moved to another domain, with another ASID or VMID.
    pub moved: u64,
    /// Stream table entries overwritten.
    pub overwritten: u64,
    /// Ranges mapped.
    pub mapped: u64,
    /// Ranges unmapped.
    pub unmapped: u64,
    /// Maps and unmaps that the driver rightly refused.
    pub refused: u64,
    /// Accesses that reached memory, as they must.
    pub reached: u64,
    /// Accesses that were stopped, as they must be.
    pub stopped: u64,
    /// Accesses of which something else came, by what the SMMU is known for.
    pub deviations: BTreeMap<Deviation, u64>,
    /// Accesses through an overwritten entry, by what it has.
    pub flawed: BTreeMap<Flaw, u64>,
}

impl<B: Backend> Bench<B> {
    /// A bench around `backend`.
    pub fn new(backend: B) -> Self {
        Self { backend, pool: None }
    }

    /// Brings the driver up, makes `steps`, and takes the driver down again. Adds what came of it to `tally`,
    /// and returns what came of each access.
    ///
    /// # Errors
    ///
    /// [`Failure`] at the first thing that is not as it should be. The bench can be used again.
    pub fn run(&mut self, steps: &[Step], tally: &mut Tally) -> Result<Vec<Observation>, Failure> {
        let outside = |mismatch| Failure { step: None, mismatch };
        self.backend.restore().map_err(|error| outside(Mismatch::Backend(Box::new(error))))?;
        // Taken away until it is known to be as it was.
        let pool = match self.pool.take() {
            Some(pool) => pool,
            None => fresh_pool(self.backend.platform()).map_err(|error| outside(error.into()))?,
        };
        let before = self.backend.bytes_in_use();
        let mut run = Run::new(&mut self.backend, &pool, tally).map_err(outside)?;
        for (index, step) in steps.iter().enumerate() {
            run.step(step).map_err(|mismatch| Failure { step: Some((index, *step)), mismatch })?;
        }
        let observations = run.finish().map_err(outside)?;
        self.backend.finished().map_err(|error| outside(Mismatch::Backend(Box::new(error))))?;
        let after = self.backend.bytes_in_use();
        if let (Some(before), Some(after)) = (before, after)
            && before != after
        {
            return Err(outside(Mismatch::Leak { before, after }));
        }
        self.pool = Some(pool);
        Ok(observations)
    }
}

/// What the pool holds at first: every word something else, and none of them 0.
pub(super) fn initial(offset: usize) -> u32 {
    0x4000_0000 | offset as u32
}

/// The word of 4 bytes at `offset`, in bytes. Memory is little-endian.
pub(super) fn word<P: Platform>(pool: &DmaMemory<P>, offset: usize) -> u32 {
    let both = pool.words().get(offset / 8).map_or(0, |word| u64::from_le(word.load(Ordering::Relaxed)));
    (both >> (offset % 8 * 8)) as u32
}

/// Sets the word of 4 bytes at `offset`, in bytes. Nobody else may write to the 8 bytes around it.
pub(super) fn set_word<P: Platform>(pool: &DmaMemory<P>, offset: usize, value: u32) {
    if let Some(both) = pool.words().get(offset / 8) {
        let shift = offset % 8 * 8;
        let others = u64::from_le(both.load(Ordering::Relaxed)) & !(u64::from(u32::MAX) << shift);
        both.store((others | u64::from(value) << shift).to_le(), Ordering::Relaxed);
    }
}

/// A pool as it is at first.
fn fresh_pool<P: Platform>(platform: &'static P) -> Result<DmaMemory<P>, OutOfDmaMemory> {
    let pool = DmaMemory::allocate(platform, POOL_BYTES, POOL_ALIGNMENT)?;
    for (offset, both) in (0..).step_by(8).zip(pool.words()) {
        both.store(initial_pair(offset), Ordering::Relaxed);
    }
    Ok(pool)
}

/// The first word, by its offset in bytes, that is not as it was at first.
pub(super) fn first_change<P: Platform>(pool: &DmaMemory<P>) -> Option<usize> {
    // Two words at a time: this looks at megabytes after every sequence.
    let mut pairs = (0..).step_by(8).zip(pool.words());
    let (offset, _) = pairs.find(|&(offset, both)| both.load(Ordering::Relaxed) != initial_pair(offset))?;
    [offset, offset + 4].into_iter().find(|&offset| word(pool, offset) != initial(offset))
}

/// The words at `offset` and after it, as they lie in memory.
fn initial_pair(offset: usize) -> u64 {
    (u64::from(initial(offset + 4)) << 32 | u64::from(initial(offset))).to_le()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelPlatform;

    #[test]
    fn a_changed_word_is_found_wherever_it_is() {
        let pool = fresh_pool(ModelPlatform::leaked()).unwrap();
        assert_eq!(first_change(&pool), None);
        for offset in [POOL_BYTES - 4, POOL_BYTES - 8, 12, 8] {
            set_word(&pool, offset, 7);
            assert_eq!((word(&pool, offset), first_change(&pool)), (7, Some(offset)));
        }
        set_word(&pool, 8, initial(8));
        assert_eq!(first_change(&pool), Some(12));
    }
}

//! Entries in memory that hardware may be reading: how an [`EntryUpdate`] is carried out on them.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use super::DeviceError;
use crate::arch::entry_update::{EntryUpdate, Meaning};
use crate::platform::Platform;

/// Words of an entry.
const WORDS: usize = 8;

/// An STE or CD in memory. Whoever changes it has made sure that nobody else does.
pub(super) struct LiveEntry<'a, P: Platform> {
    platform: &'static P,
    words: &'a [AtomicU64; WORDS],
    coherent: bool,
}

/// An update that did not get through.
#[derive(Clone, Copy, Debug)]
pub(super) enum Interrupted {
    /// The entry means what it meant.
    Before(DeviceError),
    /// Hardware may take it for the old entry or the new one.
    Within(DeviceError),
}

impl<'a, P: Platform> LiveEntry<'a, P> {
    pub(super) fn new(platform: &'static P, words: &'a [AtomicU64; WORDS], coherent: bool) -> Self {
        Self { platform, words, coherent }
    }

    /// The words as memory has them.
    pub(super) fn load(&self) -> [u64; WORDS] {
        self.words.each_ref().map(|word| u64::from_le(word.load(Ordering::Relaxed)))
    }

    /// Replaces word 1, where an STE has bits that hardware ignores, if it is still `old`. Whether it was.
    pub(super) fn exchange_word1(&self, old: u64, new: u64) -> bool {
        let [_, word, ..] = self.words;
        word.compare_exchange(old.to_le(), new.to_le(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Carries an update out. `sync` makes hardware forget the entry and returns when it has.
    pub(super) fn update(
        &self,
        update: &EntryUpdate,
        mut sync: impl FnMut() -> Result<(), DeviceError>,
    ) -> Result<(), Interrupted> {
        for stage in update.stages() {
            self.store(&stage.words);
            if stage.sync {
                sync().map_err(|error| match stage.meaning {
                    Meaning::Old => Interrupted::Before(error),
                    Meaning::Invalid | Meaning::New => Interrupted::Within(error),
                })?;
            }
        }
        Ok(())
    }

    /// Stores the words that differ, and makes them visible to hardware before anything that follows.
    pub(super) fn store(&self, words: &[u64; WORDS]) {
        let mut changed = false;
        for (word, value) in self.words.iter().zip(words) {
            if word.load(Ordering::Relaxed) != value.to_le() {
                word.store(value.to_le(), Ordering::Relaxed);
                changed = true;
            }
        }
        if changed {
            self.publish();
        }
    }

    /// Makes the entry invalid by one store.
    pub(super) fn invalidate(&self) {
        let [first, ..] = self.words;
        first.store(0, Ordering::Relaxed);
        self.publish();
    }

    fn publish(&self) {
        if !self.coherent {
            self.platform.clean_cache(NonNull::from(self.words).cast(), size_of_val(self.words));
        }
        self.platform.write_barrier();
    }
}

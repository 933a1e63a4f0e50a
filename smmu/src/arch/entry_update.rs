//! How an entry that hardware may be reading gets another meaning (IHI 0070, 3.21.3).
//!
//! What lives here: which words to store, and when hardware must have forgotten the former ones. What does not: the
//! stores and the commands themselves (see [`crate::device`]).
//!
//! Hardware reads the eight words of an STE or CD one by one, in any order and at any time, and may keep each until a
//! CMD_CFGI_STE or CMD_CFGI_CD and a CMD_SYNC have completed. Between two of those it may combine any values that the words
//! have had. Only one 64-bit store is seen whole; so that is what carries an entry from one meaning to the next, and
//! everything else changes while nobody obeys it:
//!
//! 1. what the new entry needs and the old one ignores is stored, and synced;
//! 2. the one word that cannot be prepared is stored, and synced: the switch;
//! 3. what only the old entry needed is wiped. Hardware ignores that by now, so it takes no sync, as a rule.
//!
//! Where two words cannot be prepared, or one meaning must not follow the other, the entry goes through invalid (V = 0): invalid, sync, everything but word 0, sync,
//! word 0, sync. Its transactions abort meanwhile.
//!
#![doc = include_str!("transitions.md")]

/// Words of an entry.
const WORDS: usize = 8;

/// An STE or a CD: eight words of which hardware obeys some bits, and which others those are depends on them.
///
/// Bits that this crate does not know count as obeyed.
pub trait Entry {
    /// The words, lowest first. V is in word 0, and a word 0 of zero is invalid.
    fn words(&self) -> [u64; WORDS];

    /// The bits that hardware obeys in this entry. While they stay, the others may have any value.
    fn obeyed(&self) -> [u64; WORDS];

    /// The bits that hardware obeys in some entry of the same STE.Config or CD.V. At rest, hardware knows them as memory has
    /// them, while it may hold former values of others. They include [`obeyed`](Self::obeyed).
    fn relevant(&self) -> [u64; WORDS];

    /// Whether hardware may meet `new` right after this entry. If not, the way goes through invalid, however few words differ.
    fn may_become(&self, _new: &Self) -> bool {
        true
    }
}

/// What hardware makes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// What it meant before the update.
    Old,
    /// Nothing: transactions abort and record C_BAD_STE or C_BAD_CD.
    Invalid,
    /// What it is to mean.
    New,
}

/// A step of an update: words to store, in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What memory holds afterwards.
    pub words: [u64; WORDS],
    /// Whether hardware must have forgotten the words before these (CMD_CFGI and CMD_SYNC) before anything else happens.
    pub sync: bool,
    /// What the entry means by then.
    pub meaning: Meaning,
}

/// The way from one entry to another, with as few syncs as there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryUpdate {
    stages: [Stage; 3],
    hitless: bool,
}

/// One word on its way, and which of its bits count.
#[derive(Clone, Copy, Default)]
struct Word {
    old: u64,
    old_obeyed: u64,
    old_relevant: u64,
    new: u64,
    new_obeyed: u64,
    new_relevant: u64,
}

impl EntryUpdate {
    /// Plans the update of an entry that means `old`, to `new`.
    #[must_use]
    pub fn new<E: Entry>(old: &E, new: &E) -> Self {
        let words = Word::pairs(old, new);
        // If no word is critical both mean the same, and any order will do.
        if old.may_become(new) && words.iter().filter(|word| word.is_critical()).count() <= 1 {
            Self { stages: hitless(&words), hitless: true }
        } else {
            Self { stages: through_invalid(&words), hitless: false }
        }
    }

    /// Whether transactions never meet anything but the old or the new meaning.
    #[must_use]
    pub fn is_hitless(&self) -> bool {
        self.hitless
    }

    /// How many times hardware is made to forget the entry: 0 to 3.
    #[must_use]
    pub fn syncs(&self) -> usize {
        self.stages.iter().filter(|stage| stage.sync).count()
    }

    /// The stages, first to last. One may leave all words as they are.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }
}

/// Prepared, switched, wiped.
fn hitless(words: &[Word; WORDS]) -> [Stage; 3] {
    let must_prepare = words.iter().any(|word| !word.is_critical() && word.needs_preparation());
    let old = words.map(|word| word.old);
    let switched = words.map(|word| if word.is_critical() { word.new } else { word.prepared() });
    let prepared = words.map(|word| if word.is_critical() { word.old } else { word.prepared() });
    let wiped = words.map(|word| word.new);
    let matters = |from: [u64; WORDS], to: [u64; WORDS]| {
        from.iter().zip(to).zip(words).any(|((from, to), word)| (from ^ to) & word.new_relevant != 0)
    };
    let first = if must_prepare { prepared } else { old };
    [
        Stage { words: first, sync: must_prepare, meaning: Meaning::Old },
        Stage { words: switched, sync: matters(first, switched), meaning: Meaning::New },
        Stage { words: wiped, sync: matters(switched, wiped), meaning: Meaning::New },
    ]
}

/// Invalid, all but word 0, word 0.
fn through_invalid(words: &[Word; WORDS]) -> [Stage; 3] {
    let without_first = |[_, rest @ ..]: [u64; WORDS]| {
        let [second, third, fourth, fifth, sixth, seventh, eighth] = rest;
        [0, second, third, fourth, fifth, sixth, seventh, eighth]
    };
    let new = words.map(|word| word.new);
    [
        Stage { words: without_first(words.map(|word| word.old)), sync: true, meaning: Meaning::Invalid },
        Stage { words: without_first(new), sync: true, meaning: Meaning::Invalid },
        Stage { words: new, sync: true, meaning: Meaning::New },
    ]
}

impl Word {
    fn pairs<E: Entry>(old: &E, new: &E) -> [Self; WORDS] {
        let mut words = [Self::default(); WORDS];
        let olds = old.words().into_iter().zip(old.obeyed()).zip(old.relevant());
        let news = new.words().into_iter().zip(new.obeyed()).zip(new.relevant());
        for (word, (((old, old_obeyed), old_relevant), ((new, new_obeyed), new_relevant))) in
            words.iter_mut().zip(olds.zip(news))
        {
            *word = Self { old, old_obeyed, old_relevant, new, new_obeyed, new_relevant };
        }
        words
    }

    /// As new as the old meaning permits.
    fn prepared(&self) -> u64 {
        self.old & self.old_obeyed | self.new & !self.old_obeyed
    }

    /// Whether the old meaning stands in the way of the new one.
    fn is_critical(&self) -> bool {
        (self.prepared() ^ self.new) & self.new_obeyed != 0
    }

    /// Whether the new meaning needs bits of which memory or hardware has, or may have, another value by now.
    fn needs_preparation(&self) -> bool {
        (self.prepared() ^ self.old) & self.new_obeyed != 0 || self.new_obeyed & !self.old_relevant != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of which word 0 has V (bit 0) and says by bits 2:1 which other words count.
    struct Sample([u64; WORDS]);

    impl Entry for Sample {
        fn words(&self) -> [u64; WORDS] {
            self.0
        }

        fn obeyed(&self) -> [u64; WORDS] {
            let counts = |bit: u64| if self.0[0] & 1 << bit != 0 { u64::MAX } else { 0 };
            if self.0[0] & 1 == 0 { [1, 0, 0, 0, 0, 0, 0, 0] } else { [u64::MAX, counts(1), counts(2), 0, 0, 0, 0, 0] }
        }

        /// Word 2 does in every valid entry, so to speak.
        fn relevant(&self) -> [u64; WORDS] {
            let mut relevant = self.obeyed();
            if self.0[0] & 1 != 0 {
                relevant[2] = u64::MAX;
            }
            relevant
        }
    }

    /// The first three words of each stage, and whether it is synced.
    fn stages(old: [u64; 3], new: [u64; 3]) -> [([u64; 3], bool); 3] {
        let sample = |[first, second, third]: [u64; 3]| Sample([first, second, third, 0, 0, 0, 0, 0]);
        let update = EntryUpdate::new(&sample(old), &sample(new));
        assert_eq!(update.syncs(), update.stages.iter().filter(|stage| stage.sync).count());
        update.stages.map(|Stage { words: [first, second, third, ..], sync, .. }| ([first, second, third], sync))
    }

    #[test]
    fn what_is_ignored_is_prepared_and_wiped() {
        // From word 2 to word 1. The rest of word 2 is relevant still.
        let prepared = ([0b101, 7, 9], true);
        assert_eq!(stages([0b101, 0, 9], [0b011, 7, 0]), [prepared, ([0b011, 7, 9], true), ([0b011, 7, 0], true)]);
        // From word 1 to neither: nothing to prepare, and nobody waits until word 1 is wiped.
        let switched = ([0b001, 5, 0], true);
        assert_eq!(stages([0b011, 5, 0], [0b001, 0, 0]), [([0b011, 5, 0], false), switched, ([0b001, 0, 0], false)]);
    }

    #[test]
    fn what_hardware_may_hold_is_synced_although_memory_is_right() {
        assert_eq!(stages([0b001, 7, 0], [0b011, 7, 0])[0], ([0b001, 7, 0], true));
        assert_eq!(stages([0, 7, 0], [0b011, 7, 0])[0], ([0, 7, 0], true));
        assert!(!stages([0, 7, 0], [0b001, 0, 0])[0].1, "nothing but word 0 counts");
        assert!(!stages([0b001, 0, 2], [0b101, 0, 2])[0].1, "word 2 is as it was");
    }

    #[test]
    fn two_critical_words_go_through_invalid() {
        let expected = [([0, 5, 1], true), ([0, 6, 2], true), ([0b111, 6, 2], true)];
        assert_eq!(stages([0b111, 5, 1], [0b111, 6, 2]), expected);
        assert_eq!(stages([0b111, 5, 1], [0b111, 6, 1])[1], ([0b111, 6, 1], true), "one is none too many");
    }

    #[test]
    fn nothing_is_done_for_nothing() {
        assert_eq!(stages([0b011, 5, 0], [0b011, 5, 0]), [([0b011, 5, 0], false); 3]);
        assert_eq!(
            stages([0b101, 5, 1], [0b101, 6, 1]),
            [([0b101, 5, 1], false), ([0b101, 6, 1], false), ([0b101, 6, 1], false)]
        );
    }
}

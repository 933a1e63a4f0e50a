//! What an entry that somebody else wrote says about stage 1.

use super::entry::STE1;
use super::{Eats, S1Dss, StreamTableEntry};
use crate::arch::attributes::{Cacheability, Shareability, WalkAttributes};

impl StreamTableEntry {
    /// S1DSS; it counts only with more than one context descriptor. The reserved code acts as [`S1Dss::Abort`].
    #[must_use]
    pub fn default_substream(&self) -> S1Dss {
        match STE1::S1DSS.read(self.words()[1]) {
            1 => S1Dss::Bypass,
            2 => S1Dss::Substream0,
            _ => S1Dss::Abort,
        }
    }

    /// S1CIR, S1COR, S1CSH: how descriptors are fetched, but for the hint not to allocate.
    #[must_use]
    pub fn context_walk(&self) -> WalkAttributes {
        let [_, word1, ..] = self.words();
        WalkAttributes {
            inner: Cacheability::of_fetch_code(STE1::S1CIR.read(word1)),
            outer: Cacheability::of_fetch_code(STE1::S1COR.read(word1)),
            shareability: Shareability::from_code(STE1::S1CSH.read(word1)),
        }
    }

    /// S1STALLD: the stream must not stall.
    #[must_use]
    pub fn stall_disabled(&self) -> bool {
        STE1::S1STALLD.is_set(self.words()[1])
    }

    /// EATS, or `None` for the reserved code.
    #[must_use]
    pub fn ats(&self) -> Option<Eats> {
        match STE1::EATS.read(self.words()[1]) {
            0 => Some(Eats::Off),
            1 => Some(Eats::Full),
            2 => Some(Eats::SplitStage),
            _ => None,
        }
    }

    /// The code in STRW, 0 to 3; it counts only in a stage-1 entry, with IDR0.Hyp.
    #[must_use]
    pub fn world_code(&self) -> u8 {
        STE1::STRW.read(self.words()[1]) as u8
    }
}

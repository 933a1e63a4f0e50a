//! Fields of a stream table entry that hold what they must not, and what must come of it (IHI 0070, 5.2).

use smmu::addr::PhysAddr;
use smmu::arch::event::{EventKind, FetchFault, FetchKind};
use smmu::pgtable::Stage;

use super::backend::Deviation;
use super::expectation::{Expectation, Outcome};

/// A field of a stream table entry with a value that the architecture does not permit, or that it ignores. The values are
/// for an SMMU like QEMU's: OAS of 44 bits, no substreams, no stalls, no hardware updates, little-endian tables.
///
/// Left out: S2AA64 = 0, because QEMU's SMMU ends the whole process at such an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flaw {
    /// V is 0.
    V,
    /// Config is 0b011, which is reserved: it aborts like 0b000, and that is not recorded.
    ConfigReserved,
    /// Config is 0b111, both stages, of which the SMMU has one.
    ConfigBothStages,
    /// S1ContextPtr has its first bit beyond OAS set.
    S1ContextPtr,
    /// S1CDMax is 1, which is ignored where there are no substreams.
    S1CdMax,
    /// S1STALLD is 1 although nothing can stall; ignored with stage 2 alone.
    S1Stalld,
    /// S2T0SZ is one less than 64 - IAS.
    S2T0szSmall,
    /// S2T0SZ is 40, one more than there may be without small tables.
    S2T0szLarge,
    /// S2SL0 is 1: 32 tables of level 1 side by side, where 16 are the most.
    S2Sl0,
    /// S2SL0 is 3, level 3, for which there would have to be small tables.
    S2Sl0Reserved,
    /// S2TG is 3, which is reserved.
    S2Tg,
    /// S2ENDI is 1, big-endian.
    S2Endi,
    /// S2HD is 1: hardware updates of the dirty state.
    S2Hd,
    /// S2HA is 1: hardware updates of the Access flag.
    S2Ha,
    /// S2S is 1: faults stall.
    S2S,
    /// S2TTB has its first bit beyond S2PS set.
    S2Ttb,
}

/// A value for a field of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    high: usize,
    low: usize,
    value: u64,
}

impl Field {
    /// The word of the entry that has the field.
    pub(super) fn word(self) -> usize {
        self.low / 64
    }

    /// That word with the field set.
    pub(super) fn set(self, word: u64) -> u64 {
        let shift = self.low % 64;
        let mask = u64::MAX >> (63 - (self.high - self.low)) << shift;
        word & !mask | self.value << shift
    }
}

/// What becomes of accesses through an entry with a flaw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// The entry is ILLEGAL: C_BAD_STE.
    Illegal,
    /// They abort without a record.
    Silent,
    /// What would become of them without it: the field does not count.
    Ignored,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::V,
        Self::ConfigReserved,
        Self::ConfigBothStages,
        Self::S1ContextPtr,
        Self::S1CdMax,
        Self::S1Stalld,
        Self::S2T0szSmall,
        Self::S2T0szLarge,
        Self::S2Sl0,
        Self::S2Sl0Reserved,
        Self::S2Tg,
        Self::S2Endi,
        Self::S2Hd,
        Self::S2Ha,
        Self::S2S,
        Self::S2Ttb,
    ];

    /// Whether it matters in an entry of a domain of this stage, on an SMMU that has both stages or not: because of it
    /// accesses are stopped, or some SMMU is known to stop them.
    #[must_use]
    pub fn matters(self, stage: Stage, has_both_stages: bool) -> bool {
        let lacks_nothing = self == Self::ConfigBothStages && has_both_stages;
        !lacks_nothing && self.effect(stage) != (Effect::Ignored, None)
    }

    /// The field and what it holds, by its bits in the entry.
    pub(super) fn field(self) -> Field {
        let (high, low, value) = match self {
            Self::V => (0, 0, 0),
            Self::ConfigReserved => (3, 1, 0b011),
            Self::ConfigBothStages => (3, 1, 0b111),
            Self::S1ContextPtr => (44, 44, 1),
            Self::S1CdMax => (63, 59, 1),
            Self::S1Stalld => (91, 91, 1),
            Self::S2T0szSmall => (165, 160, 64 - 44 - 1),
            Self::S2T0szLarge => (165, 160, 40),
            Self::S2Sl0 => (167, 166, 1),
            Self::S2Sl0Reserved => (167, 166, 3),
            Self::S2Tg => (175, 174, 3),
            Self::S2Endi => (180, 180, 1),
            Self::S2Hd => (183, 183, 1),
            Self::S2Ha => (184, 184, 1),
            Self::S2S => (185, 185, 1),
            Self::S2Ttb => (192 + 44, 192 + 44, 1),
        };
        Field { high, low, value }
    }

    /// What must come of an access for which there is `right` as long as the entry is right.
    pub(super) fn expectation(self, stage: Stage, right: Expectation) -> Expectation {
        let (effect, deviation) = self.effect(stage);
        let known = match deviation {
            Some(deviation) => known(deviation, &right).into_iter().map(|outcome| (deviation, outcome)).collect(),
            None => Vec::new(),
        };
        match effect {
            Effect::Illegal => Expectation { must: BAD_STE, known },
            Effect::Silent => Expectation { must: Outcome::Stopped(None), known },
            Effect::Ignored => Expectation { known, ..right },
        }
    }

    fn effect(self, stage: Stage) -> (Effect, Option<Deviation>) {
        use Effect::{Ignored, Illegal, Silent};
        match (self, stage) {
            (Self::V | Self::ConfigBothStages, _) | (Self::S1Stalld, Stage::Stage1) => (Illegal, None),
            (Self::ConfigReserved, _) => (Silent, None),
            (Self::S1CdMax, _) | (Self::S1Stalld, Stage::Stage2) => (Ignored, Some(Deviation::IgnoredStage1Fields)),
            (Self::S1ContextPtr, Stage::Stage1) => (Illegal, Some(Deviation::ContextPointerFollowed)),
            (Self::S1ContextPtr, Stage::Stage2) => (Ignored, None),
            // All others are stage 2's.
            (_, Stage::Stage1) => (Ignored, None),
            (Self::S2Ha | Self::S2Hd, _) => (Illegal, Some(Deviation::HardwareUpdate)),
            _ => (Illegal, None),
        }
    }
}

/// C_BAD_STE.
const BAD_STE: Outcome = Outcome::Stopped(Some(EventKind::BadSte));

/// What comes of an access where the SMMU has a deviation that concerns entries, if there is `right` as long as they are
/// right.
fn known(deviation: Deviation, right: &Expectation) -> Vec<Outcome> {
    match deviation {
        Deviation::IgnoredStage1Fields => vec![BAD_STE],
        Deviation::ContextPointerFollowed => {
            let fault =
                FetchFault { kind: FetchKind::Cd, reason: 0, granule_protection: false, address: PhysAddr::new(0) };
            vec![Outcome::Stopped(Some(EventKind::Fetch(fault)))]
        }
        Deviation::HardwareUpdate => right.outcomes().collect(),
        Deviation::CachedStage2Permission | Deviation::Stage2InputRange => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_set_and_nothing_beside_it() {
        let field = Field { high: 165, low: 160, value: 40 };
        assert_eq!((field.word(), field.set(0), field.set(u64::MAX)), (2, 40 << 32, !(0x3f << 32) | 40 << 32));
        assert_eq!(Field { high: 63, low: 59, value: 1 }.set(u64::MAX), u64::MAX >> 4);
    }

    #[test]
    fn every_flaw_fits_its_field_in_one_word() {
        for flaw in Flaw::ALL {
            let Field { high, low, value } = flaw.field();
            assert!(low <= high && high / 64 == low / 64 && value >> (high - low) <= 1, "{flaw:?}");
        }
    }

    #[test]
    fn flaws_matter_where_their_field_counts_or_is_known_to() {
        let of = |stage, has_both| Flaw::ALL.into_iter().filter(move |flaw| flaw.matters(stage, has_both)).count();
        assert_eq!((of(Stage::Stage1, false), of(Stage::Stage1, true), of(Stage::Stage2, false)), (6, 5, 15));
    }

    #[test]
    fn what_an_entry_must_do_and_what_a_deviation_makes_of_it() {
        let reaches = Expectation::of(Outcome::Reaches(8));
        let of = |flaw: Flaw, stage| flaw.expectation(stage, reaches.clone());
        assert_eq!(of(Flaw::S2Tg, Stage::Stage2), Expectation::of(BAD_STE));
        assert_eq!(of(Flaw::S2Tg, Stage::Stage1), reaches);
        assert_eq!(of(Flaw::ConfigReserved, Stage::Stage1), Expectation::of(Outcome::Stopped(None)));
        let passes = Expectation { must: BAD_STE, known: vec![(Deviation::HardwareUpdate, Outcome::Reaches(8))] };
        assert_eq!(of(Flaw::S2Ha, Stage::Stage2), passes);
        let stops = Expectation { known: vec![(Deviation::IgnoredStage1Fields, BAD_STE)], ..reaches };
        assert_eq!(of(Flaw::S1CdMax, Stage::Stage1), stops);
    }
}

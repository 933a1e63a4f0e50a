//! Two runs of the same steps, side by side.

use super::access::Observation;

/// How two runs of the same steps differ, at the first access for which they do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// Not the same number of accesses was made.
    #[error("{0} accesses in the one, {1} in the other")]
    Count(usize, usize),
    /// Something else came of an access, or it was another access.
    #[error("access {index} in the one: {one:?}; in the other: {other:?}")]
    Access {
        /// Which access, counted from 0.
        index: usize,
        /// What came of it in the one run.
        one: Box<Observation>,
        /// What came of it in the other.
        other: Box<Observation>,
    },
}

/// How two runs of the same steps differ, if they do. What a deviation is known for is no difference: it was compared
/// with that when it was seen.
#[must_use]
pub fn difference(one: &[Observation], other: &[Observation]) -> Option<Difference> {
    if one.len() != other.len() {
        return Some(Difference::Count(one.len(), other.len()));
    }
    let mut pairs = one.iter().zip(other).enumerate();
    let (index, (one, other)) = pairs.find(|(_, (one, other))| comparable(one, other) != comparable(other, one))?;
    Some(Difference::Access { index, one: Box::new(*one), other: Box::new(*other) })
}

/// What of an observation must be the same in another.
fn comparable(observation: &Observation, other: &Observation) -> Observation {
    let deviations = [observation.deviation, other.deviation];
    let event = if deviations == [None, None] { observation.event } else { None };
    let data = if deviations.into_iter().flatten().any(|deviation| deviation.concerns_data()) {
        None
    } else {
        observation.data
    };
    Observation { data, event, deviation: None, ..*observation }
}

#[cfg(test)]
mod tests {
    use smmu::addr::{Iova, StreamId};
    use smmu::arch::event::{
        Access, AccessDirection, Event, EventKind, FaultClass, FaultKind, Source, TranslationFault,
    };
    use smmu::pgtable::Stage;

    use super::*;
    use crate::sequence::Deviation;

    const DEVICE: StreamId = StreamId::new(8);
    const HERE: Iova = Iova::new(0x10_0000);

    fn write() -> Observation {
        let direction = AccessDirection::Write;
        Observation { stream: DEVICE, iova: HERE, direction, data: Some(7), event: None, deviation: None }
    }

    fn fault() -> TranslationFault {
        TranslationFault {
            kind: FaultKind::Translation,
            stall: None,
            access: Access { direction: AccessDirection::Write, instruction: false, privileged: false },
            stage: Stage::Stage1,
            class: FaultClass::In,
            input: HERE,
            ipa: None,
            table_access: None,
        }
    }

    fn stopped(stream: StreamId, kind: EventKind) -> Observation {
        let source = Source { stream, substream: None };
        Observation { data: None, event: Some(Event { source, kind }), ..write() }
    }

    #[track_caller]
    fn assert_different(one: Observation, other: Observation) {
        for (one, other) in [(one, other), (other, one)] {
            let found = difference(&[write(), one], &[write(), other]);
            let expected = Difference::Access { index: 1, one: Box::new(one), other: Box::new(other) };
            assert_eq!(found, Some(expected));
            assert_eq!(difference(&[one], &[one]), None);
        }
    }

    #[test]
    fn data_is_compared() {
        assert_different(write(), Observation { data: Some(8), ..write() });
        assert_different(write(), Observation { data: None, ..write() });
    }

    #[test]
    fn an_access_that_is_stopped_differs_from_one_that_is_not() {
        assert_different(write(), stopped(DEVICE, EventKind::BadSte));
        // Without a record, too.
        assert_different(stopped(DEVICE, EventKind::BadSte), Observation { data: None, ..write() });
    }

    #[test]
    fn what_an_event_says_is_compared() {
        let translation = |fault| stopped(DEVICE, EventKind::Translation(fault));
        let usual = translation(fault());
        assert_different(usual, stopped(DEVICE, EventKind::BadSte));
        assert_different(usual, translation(TranslationFault { kind: FaultKind::Permission, ..fault() }));
        assert_different(usual, stopped(StreamId::new(16), EventKind::Translation(fault())));
        assert_different(usual, translation(TranslationFault { input: Iova::new(HERE.get() + 4), ..fault() }));
        assert_different(usual, translation(TranslationFault { stage: Stage::Stage2, ..fault() }));
    }

    #[test]
    fn other_accesses_and_fewer_are_told() {
        assert_different(write(), Observation { stream: StreamId::new(16), ..write() });
        assert_different(write(), Observation { iova: Iova::new(HERE.get() + 4), ..write() });
        assert_different(write(), Observation { direction: AccessDirection::Read, ..write() });
        assert_eq!(difference(&[write()], &[]), Some(Difference::Count(1, 0)));
    }

    #[test]
    fn a_deviation_excuses_what_it_is_known_for_and_no_more() {
        let usual = stopped(DEVICE, EventKind::Translation(fault()));
        let silent = Some(Deviation::CachedStage2Permission);
        let unrecorded = Observation { event: None, deviation: silent, ..usual };
        assert_eq!(difference(&[unrecorded], &[usual]), None);
        assert_different(usual, Observation { data: Some(7), ..unrecorded });
        assert_different(usual, Observation { iova: Iova::new(HERE.get() + 4), ..unrecorded });
        let passed = Observation { data: Some(7), deviation: Some(Deviation::HardwareUpdate), ..unrecorded };
        assert_eq!(difference(&[passed], &[usual]), None);
        assert_different(usual, Observation { direction: AccessDirection::Read, ..passed });
    }
}

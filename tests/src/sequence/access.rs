//! Makes devices access memory, and compares what comes of it with what must.

use smmu::addr::{Iova, StreamId};
use smmu::arch::event::{AccessDirection, Event};
use smmu::pgtable::Stage;

use super::backend::{Backend, Deviation};
use super::bench::{set_word, word};
use super::expectation::{Expectation, Outcome, Space, event};
use super::failure::Mismatch;
use super::run::{Run, backend};
use super::step::Address;

/// What came of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The device that made it.
    pub stream: StreamId,
    /// Where, as the device sees it.
    pub iova: Iova,
    /// Whether it read or wrote.
    pub direction: AccessDirection,
    /// What is in memory there afterwards, if it reached memory; for a read, what the device found.
    pub data: Option<u32>,
    /// The event that was recorded.
    pub event: Option<Event>,
    /// Why something else came of it than must.
    pub deviation: Option<Deviation>,
}

/// What came of an access, by the events since the one before.
struct Found {
    outcome: Outcome,
    event: Option<Event>,
    deviation: Option<Deviation>,
}

impl<B: Backend> Run<'_, B> {
    pub(super) fn write(&mut self, index: usize, address: Address, word_index: u16) -> Result<(), Mismatch> {
        let (iova, expectation) = self.expectation(index, address, AccessDirection::Write);
        self.backend.write(index, iova, word_index).map_err(backend)?;
        let written = self.backend.word(index, word_index);
        let found = self.judge(index, &expectation)?;
        let data = found.outcome.offset().map(|offset| (offset, word(self.pool, offset)));
        if let Some((offset, found)) = data.filter(|&(_, found)| found != written) {
            return Err(Mismatch::Memory { offset, expected: written, found });
        }
        if let Some(offset) = expectation.must.offset() {
            self.written.insert(offset, written);
        }
        if found.deviation.is_some() {
            // Memory becomes what it must be, so that nothing later is about this once more.
            for offset in [expectation.must, found.outcome].into_iter().filter_map(Outcome::offset) {
                set_word(self.pool, offset, self.expected_word(offset));
            }
        }
        self.observe(index, iova, AccessDirection::Write, data.map(|(_, found)| found), &found);
        Ok(())
    }

    pub(super) fn read(&mut self, index: usize, address: Address) -> Result<(), Mismatch> {
        let (iova, expectation) = self.expectation(index, address, AccessDirection::Read);
        let data = self.backend.read(index, iova).map_err(backend)?;
        let found = self.judge(index, &expectation)?;
        let expected = found.outcome.offset().map_or(0, |offset| self.expected_word(offset));
        if let Some(found) = data.filter(|&found| found != expected) {
            return Err(Mismatch::Read { iova, expected, found });
        }
        self.observe(index, iova, AccessDirection::Read, data.filter(|_| found.outcome.offset().is_some()), &found);
        Ok(())
    }

    fn observe(&mut self, index: usize, iova: Iova, direction: AccessDirection, data: Option<u32>, found: &Found) {
        let &Found { event, deviation, .. } = found;
        let stream = self.devices[index].stream;
        self.accessed.push(iova);
        self.observations.push(Observation { stream, iova, direction, data, event, deviation });
    }

    /// The address that a step names, and what must come of an access there.
    fn expectation(&self, index: usize, address: Address, direction: AccessDirection) -> (Iova, Expectation) {
        let client = &self.devices[index];
        let Some((_, space)) = &client.attached else {
            // Any address will do for a device that is not attached.
            let iova = Space::new(Stage::Stage1, 44).address(address, &self.accessed);
            return (iova, Expectation::of(Outcome::Stopped(Some(self.unattached_event(index)))));
        };
        let iova = space.address(address, &self.accessed);
        let right = space.expectation(iova, direction);
        match client.flaw {
            Some(flaw) => (iova, flaw.expectation(space.stage(), right)),
            None => (iova, right),
        }
    }

    /// What of an expectation came true, by the events since the last look.
    fn judge(&mut self, index: usize, expectation: &Expectation) -> Result<Found, Mismatch> {
        let events = self.drain_events()?;
        let client = &self.devices[index];
        let expected = |outcome: Outcome| outcome.event().map(|kind| event(client.stream, kind));
        let is_found = |outcome| events.iter().copied().eq(expected(outcome));
        let (outcome, deviation) = if is_found(expectation.must) {
            (expectation.must, None)
        } else {
            let mut known = expectation.known.iter().filter(|(deviation, _)| self.backend.is_known_for(*deviation));
            match known.find(|&&(_, outcome)| is_found(outcome)) {
                Some(&(deviation, outcome)) => (outcome, Some(deviation)),
                None => return Err(Mismatch::Events { expected: expected(expectation.must), found: events }),
            }
        };
        match (deviation, outcome) {
            (Some(deviation), _) => *self.tally.deviations.entry(deviation).or_default() += 1,
            (None, Outcome::Reaches(_)) => self.tally.reached += 1,
            (None, Outcome::Stopped(_)) => self.tally.stopped += 1,
        }
        if let Some(flaw) = client.flaw {
            *self.tally.flawed.entry(flaw).or_default() += 1;
        }
        Ok(Found { outcome, event: events.first().copied(), deviation })
    }

    /// The events since the last look.
    pub(super) fn drain_events(&self) -> Result<Vec<Event>, Mismatch> {
        let mut found = Vec::new();
        let drain = self.smmu.drain_events(|event| found.push(event));
        if drain.overflowed || drain.inconsistent { Err(Mismatch::EventQueue(drain)) } else { Ok(found) }
    }
}

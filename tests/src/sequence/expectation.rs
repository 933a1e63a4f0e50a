//! What must come of each step, from nothing but what was asked before: who is attached, which page leads where, what is in
//! memory. No page tables, no caches, no registers.

use std::collections::BTreeMap;
use std::iter;

use smmu::addr::{Iova, StreamId};
use smmu::arch::event::{
    Access as EventAccess, AccessDirection, Event, EventKind, FaultClass, FaultKind, Source, TranslationFault,
};
use smmu::pgtable::{Access, Stage};

use super::backend::Deviation;
use super::step::{Address, BLOCK_PAGES, Place, Spot};

pub(super) const PAGE_BYTES: u64 = 4096;

/// One device's address space.
#[derive(Clone, Debug)]
pub(super) struct Space {
    stage: Stage,
    input_bits: u8,
    pages: BTreeMap<u64, Page>,
    mappings: Vec<Mapping>,
}

/// Where a page leads.
#[derive(Clone, Copy, Debug)]
struct Page {
    target: u16,
    access: Access,
    /// First page of the block that it may be part of.
    block: Option<u64>,
}

/// Pages that were mapped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) first: u64,
    pub(super) pages: u16,
    pub(super) target: u16,
    pub(super) access: Access,
}

/// What the driver must answer to a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapAnswer {
    /// Done.
    Mapped,
    /// The range does not end within the input addresses.
    OutOfRange,
    /// Something is mapped at this address already, the first such.
    Overlap(Iova),
}

/// What the driver must answer to an unmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmapAnswer {
    /// Done.
    Unmapped,
    /// The range does not end within the input addresses.
    OutOfRange,
    /// Nothing is mapped at this address, the first such.
    NotMapped(Iova),
    /// The range cuts through what may have been mapped as a block: then that is told. If not, the answer is the other one.
    MaySplitBlock {
        /// Whether every page of the range is mapped.
        all_mapped: bool,
    },
}

/// What comes of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It reaches this byte of the pool.
    Reaches(usize),
    /// It is stopped, and this says so, if anything does.
    Stopped(Option<EventKind>),
}

/// What must come of an access, and what comes of it otherwise where the SMMU is known for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expectation {
    pub(super) must: Outcome,
    pub(super) known: Vec<(Deviation, Outcome)>,
}

impl Outcome {
    /// The byte of the pool that the access reaches.
    pub(super) fn offset(self) -> Option<usize> {
        match self {
            Self::Reaches(offset) => Some(offset),
            Self::Stopped(_) => None,
        }
    }

    /// What is recorded.
    pub(super) fn event(self) -> Option<EventKind> {
        match self {
            Self::Reaches(_) => None,
            Self::Stopped(event) => event,
        }
    }
}

impl Expectation {
    /// Without any deviation.
    pub(super) fn of(must: Outcome) -> Self {
        Self { must, known: Vec::new() }
    }

    /// A fault, of which the SMMU may be known to say nothing.
    fn fault(kind: EventKind, silent: Option<Deviation>) -> Self {
        let known = silent.into_iter().map(|deviation| (deviation, Outcome::Stopped(None))).collect();
        Self { must: Outcome::Stopped(Some(kind)), known }
    }

    /// Everything that may come of it.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = Outcome> + '_ {
        iter::once(self.must).chain(self.known.iter().map(|&(_, outcome)| outcome))
    }
}

impl Space {
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn new(stage: Stage, input_bits: u8) -> Self {
        Self { stage, input_bits, pages: BTreeMap::new(), mappings: Vec::new() }
    }

    pub(super) fn page(&self, spot: Spot) -> u64 {
        spot.place.first_page(self.input_bits) + u64::from(spot.page)
    }

    /// The mapping that a step names.
    pub(super) fn mapping(&self, choice: u8) -> Option<Mapping> {
        self.mappings.get(usize::from(choice).checked_rem(self.mappings.len())?).copied()
    }

    /// The address that a step names; `accessed` are those of earlier accesses.
    pub(super) fn address(&self, address: Address, accessed: &[Iova]) -> Iova {
        let low = Place::Low.first_page(self.input_bits);
        let (page, word) = match address {
            Address::Mapped { mapping, page, word } => {
                let mapping = self.mapping(mapping);
                (mapping.map_or(low, |mapping| mapping.first + u64::from(page % mapping.pages)), word)
            }
            Address::Again { ago } => {
                return accessed.iter().rev().nth(ago.into()).copied().unwrap_or(Iova::new(low * PAGE_BYTES));
            }
            Address::At { spot, word } => (self.page(spot), word),
        };
        Iova::new(page * PAGE_BYTES + u64::from(word) * 4)
    }

    pub(super) fn answer_to_map(&self, mapping: &Mapping) -> MapAnswer {
        if self.is_out_of_range(mapping.first, mapping.pages) {
            return MapAnswer::OutOfRange;
        }
        match self.pages.range(mapping.range()).next() {
            Some((&page, _)) => MapAnswer::Overlap(Iova::new(page * PAGE_BYTES)),
            None => MapAnswer::Mapped,
        }
    }

    /// Notes a mapping that the driver has made.
    pub(super) fn map(&mut self, mapping: Mapping) {
        let Mapping { first, target, access, .. } = mapping;
        // Stage 1 has no permission to write alone (Arm ARM, D8.4).
        let access = if self.stage == Stage::Stage1 && access == Access::Write { Access::ReadWrite } else { access };
        for (page, target) in mapping.range().zip(target..) {
            let into_block = page % u64::from(BLOCK_PAGES);
            let may_be_block = u64::from(target % BLOCK_PAGES) == into_block
                && (page - into_block) >= first
                && (page - into_block) + u64::from(BLOCK_PAGES) <= mapping.range().end;
            let block = may_be_block.then_some(page - into_block);
            self.pages.insert(page, Page { target, access, block });
        }
        self.mappings.push(mapping);
    }

    pub(super) fn answer_to_unmap(&self, first: u64, pages: u16) -> UnmapAnswer {
        if self.is_out_of_range(first, pages) {
            return UnmapAnswer::OutOfRange;
        }
        let range = first..first + u64::from(pages);
        let missing = range.clone().find(|page| !self.pages.contains_key(page));
        let cuts_block = self
            .pages
            .range(range.clone())
            .filter_map(|(_, page)| page.block)
            .any(|block| block < range.start || block + u64::from(BLOCK_PAGES) > range.end);
        match missing {
            _ if cuts_block => UnmapAnswer::MaySplitBlock { all_mapped: missing.is_none() },
            Some(page) => UnmapAnswer::NotMapped(Iova::new(page * PAGE_BYTES)),
            None => UnmapAnswer::Unmapped,
        }
    }

    /// Notes that the driver has unmapped pages that were all mapped.
    pub(super) fn unmap(&mut self, first: u64, pages: u16) {
        let range = first..first + u64::from(pages);
        self.pages.retain(|page, _| !range.contains(page));
        // What is left of a mapping cannot be unmapped by naming it any more.
        self.mappings.retain(|mapping| mapping.range().end <= range.start || mapping.first >= range.end);
    }

    /// What must come of an access of 4 bytes.
    pub(super) fn expectation(&self, iova: Iova, direction: AccessDirection) -> Expectation {
        let page = iova.get() / PAGE_BYTES;
        let at_stage2 = |deviation| (self.stage == Stage::Stage2).then_some(deviation);
        let Some(found) = self.pages.get(&page) else {
            let out_of_range = at_stage2(Deviation::Stage2InputRange).filter(|_| self.is_out_of_range(page, 1));
            let kind = if out_of_range.is_some() { FaultKind::AddrSize } else { FaultKind::Translation };
            return Expectation::fault(self.fault(kind, iova, direction), out_of_range);
        };
        let is_allowed = match direction {
            AccessDirection::Read => found.access != Access::Write,
            AccessDirection::Write => found.access != Access::Read,
        };
        if !is_allowed {
            let fault = self.fault(FaultKind::Permission, iova, direction);
            return Expectation::fault(fault, at_stage2(Deviation::CachedStage2Permission));
        }
        let into_page = (iova.get() % PAGE_BYTES) as usize;
        Expectation::of(Outcome::Reaches(usize::from(found.target) * PAGE_BYTES as usize + into_page))
    }

    fn fault(&self, kind: FaultKind, input: Iova, direction: AccessDirection) -> EventKind {
        // What is no intermediate address does not get as far as stage 2, which has room for all of them: the stage 1
        // that it bypasses stops it (IHI 0070, 3.4).
        let stage = if kind == FaultKind::AddrSize { Stage::Stage1 } else { self.stage };
        EventKind::Translation(TranslationFault {
            kind,
            stall: None,
            access: EventAccess { direction, instruction: false, privileged: false },
            stage,
            class: FaultClass::In,
            input,
            // With stage 2 alone the input is the intermediate address, of which the event has the page.
            ipa: (stage == Stage::Stage2).then(|| input.align_down(PAGE_BYTES)),
            table_access: None,
        })
    }

    fn is_out_of_range(&self, first: u64, pages: u16) -> bool {
        first + u64::from(pages) > 1 << (self.input_bits - 12)
    }
}

impl Mapping {
    pub(super) fn range(&self) -> std::ops::Range<u64> {
        self.first..self.first + u64::from(self.pages)
    }
}

/// An event of `stream`.
pub(super) fn event(stream: StreamId, kind: EventKind) -> Event {
    Event { source: Source { stream, substream: None }, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(stage: Stage, access: Access) -> Space {
        let mut space = Space::new(stage, 44);
        space.map(Mapping { first: 510, pages: 515, target: 510, access });
        space
    }

    #[test]
    fn answers_name_the_first_page_in_the_way() {
        let space = space(Stage::Stage1, Access::Read);
        let map = |first, pages| space.answer_to_map(&Mapping { first, pages, target: 0, access: Access::Read });
        assert_eq!(map(508, 2), MapAnswer::Mapped);
        assert_eq!(map(508, 3), MapAnswer::Overlap(Iova::new(510 * PAGE_BYTES)));
        assert_eq!(map((1 << 32) - 1, 2), MapAnswer::OutOfRange);
        assert_eq!(space.answer_to_unmap(509, 3), UnmapAnswer::NotMapped(Iova::new(509 * PAGE_BYTES)));
        assert_eq!(space.answer_to_unmap(510, 515), UnmapAnswer::Unmapped);
        assert_eq!(space.answer_to_unmap(510, 2), UnmapAnswer::Unmapped);
    }

    #[test]
    fn a_part_of_a_block_is_told_from_pages_beside_it() {
        let space = space(Stage::Stage1, Access::Read);
        assert_eq!(space.answer_to_unmap(512, 512), UnmapAnswer::Unmapped);
        assert_eq!(space.answer_to_unmap(510, 3), UnmapAnswer::MaySplitBlock { all_mapped: true });
        assert_eq!(space.answer_to_unmap(1023, 3), UnmapAnswer::MaySplitBlock { all_mapped: false });
        assert_eq!(space.answer_to_unmap(1024, 1), UnmapAnswer::Unmapped);
    }

    #[test]
    fn permissions_depend_on_the_stage() {
        let reads = |stage, access| {
            let expectation = space(stage, access).expectation(Iova::new(511 * PAGE_BYTES + 8), AccessDirection::Read);
            expectation == Expectation::of(Outcome::Reaches(511 * PAGE_BYTES as usize + 8))
        };
        assert!(reads(Stage::Stage1, Access::Write) && !reads(Stage::Stage2, Access::Write));
        assert!(reads(Stage::Stage1, Access::Read) && reads(Stage::Stage2, Access::Read));
    }
}

//! Tables that became empty and are not to be kept ([`EmptyTables::HandBack`]): removed while others may be mapping.
//!
//! A table hangs on a descriptor in the table above, of which hardware ignores some bits. In these, whoever maps and whoever
//! removes come to terms, without waiting for each other:
//!
//! * Whoever is about to write into a table pins it: it is not removed while it is pinned. A pin is held only until there is
//!   something in the table: a table below, or in the place of a leaf-to-be a mark that is no valid descriptor.
//! * Whoever has cleared something becomes the one who searches the table, unless somebody is at it, who is then made to look
//!   again. The table is removed by one compare-and-swap that fails if anybody has touched it since the search began.
//!
//! So a table that is removed is empty, it stays so, and whatever is linked stays linked while there is something in it.
//!
//! One thing is left undone: if a map has to take back its marks, because memory ran out while others unmapped, an empty table
//! may stay until something in it is unmapped. It cannot be freed with the map, since the SMMU may have cached the way to it,
//! and nothing is invalidated then.
//!
//! [`EmptyTables::HandBack`]: super::EmptyTables::HandBack

use core::cell::Cell;
use core::slice;

use super::PageTable;
use super::atomic::AtomicU64;
use super::map::{Span, Spot};
use super::tables::{Place, Spares, TableList, Visit, load, replace};
use super::{EmptyTables, MapError};
use crate::addr::PhysAddr;
use crate::platform::Platform;

/// Stands where a leaf will be, so that its table is not empty. To a walker it is an invalid descriptor. Bit 1 is clear, as in
/// all that are: above the last level it is set for tables alone.
pub(super) const RESERVED: u64 = 0b100;

// Bits 11:2 and 58:51 of a table descriptor are ignored (Arm ARM, D8.3.1).

/// One who is about to write into the table.
const PIN: u64 = 1 << 2;
/// All of them. So many that nobody counts on are no longer counted: the table stays pinned.
const PINS: u64 = 0xff << 2;
/// Somebody pinned the table or cleared something in it since the search began.
const TOUCHED: u64 = 1 << 57;
/// Somebody is looking whether the table is empty.
const SEARCHED: u64 = 1 << 58;

/// A table, by the descriptor that it hangs on.
#[derive(Clone, Copy)]
struct Hanging<'v> {
    entry: &'v AtomicU64,
    /// The level of the entry: one above the table's.
    level: u8,
    table: PhysAddr,
}

impl Hanging<'_> {
    /// Changes the descriptor as long as it leads to the table and `change` wants it. Returns the new one.
    fn update<P: Platform>(&self, of: &PageTable<P>, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        loop {
            let seen = load(self.entry);
            if of.format.next_table(self.level, seen) != Some(self.table) {
                return None;
            }
            let new = change(seen)?;
            if replace(self.entry, seen, new) {
                return Some(new);
            }
        }
    }

    /// Makes sure that the table is not removed. `false` if it has been.
    fn pin<P: Platform>(&self, of: &PageTable<P>) -> bool {
        let pin = |raw| Some(TOUCHED | if raw & PINS == PINS { raw } else { raw + PIN });
        self.update(of, pin).is_some()
    }

    fn unpin<P: Platform>(&self, of: &PageTable<P>) {
        self.update(of, |raw| (raw & PINS != PINS && raw & PINS != 0).then(|| raw - PIN));
    }
}

impl<P: Platform> PageTable<P> {
    pub(super) fn hands_back(&self) -> bool {
        self.config.empty_tables == EmptyTables::HandBack
    }

    /// The deepest table that exists for `iova`, unless that is the first, which is never removed; and the place in it.
    fn deepest<'v>(&self, visit: &'v Visit<'_, P>, iova: u64) -> Option<(Option<Hanging<'v>>, Place<'v>)> {
        let deepest = Cell::new(None);
        let place = visit.descend_through(iova, |place| {
            let table = self.format.next_table(place.level, place.raw);
            deepest.set(place.entries.first().zip(table).map(|(entry, table)| (entry, place.level, table)));
            true
        })?;
        Some((deepest.get().map(|(entry, level, table)| Hanging { entry, level, table }), place))
    }

    /// Makes all tables that `whole` needs, and leaves something of it in each, so that none is removed any more. Undone if
    /// there is no memory.
    pub(super) fn settle(&self, visit: &Visit<'_, P>, whole: Span, spares: &mut Spares<'_, P>) -> Result<(), MapError> {
        let mut rest = whole;
        while rest.size_bytes != 0 {
            match self.settle_next(visit, &rest, spares) {
                Ok(bytes) => rest.advance(bytes),
                Err(error) => {
                    let settled = Span { size_bytes: whole.size_bytes - rest.size_bytes, ..whole };
                    self.unsettle(visit, settled);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Likewise for what `rest` starts with. Returns how many bytes that settles: none if a table was made on the way.
    fn settle_next(&self, visit: &Visit<'_, P>, rest: &Span, spares: &mut Spares<'_, P>) -> Result<u64, MapError> {
        let overlap = MapError::Overlap { iova: self.iova(rest.iova) };
        let (pinned, _) = self.deepest(visit, rest.iova).ok_or(overlap)?;
        if pinned.is_some_and(|table| !table.pin(self)) {
            return Ok(0);
        }
        // Looked up again, now that it stays.
        let (deepest, place) = self.deepest(visit, rest.iova).ok_or(overlap)?;
        let is_pinned = deepest.map(|deepest| deepest.table) == pinned.map(|pinned| pinned.table);
        let result = if is_pinned { self.settle_in(place, rest, spares) } else { Ok(0) };
        if let Some(table) = pinned {
            table.unpin(self);
        }
        result
    }

    /// Likewise, in a table that stays for the moment.
    fn settle_in(&self, place: Place<'_>, rest: &Span, spares: &mut Spares<'_, P>) -> Result<u64, MapError> {
        match self.spot_at(place, rest)? {
            Spot::NoTable(place) => self.link(&place, spares).map(|()| 0),
            Spot::Run(run) => {
                let run = self.vacant(run, rest.iova)?;
                if let Some(first) = run.entries.first() {
                    replace(first, 0, RESERVED);
                }
                Ok(run.bytes())
            }
        }
    }

    /// Takes the marks away that [`settle`](Self::settle) has left.
    #[cold]
    fn unsettle(&self, visit: &Visit<'_, P>, settled: Span) {
        let mut rest = settled;
        while rest.size_bytes != 0 {
            let Ok(Spot::Run(run)) = self.spot(visit, &rest) else { return };
            let Ok(run) = self.vacant(run, rest.iova) else { return };
            if let Some(first) = run.entries.first() {
                replace(first, RESERVED, 0);
            }
            rest.advance(run.bytes());
        }
    }

    /// Removes the tables that serve `iova` and are empty, from below.
    pub(super) fn remove_empty(&self, visit: &Visit<'_, P>, iova: u64, removed: &mut TableList) {
        while let Some((Some(deepest), _)) = self.deepest(visit, iova) {
            if !self.remove_if_empty(&deepest) {
                return;
            }
            self.clean(slice::from_ref(deepest.entry));
            removed.push(self.tables.memory(), deepest.table);
        }
    }

    /// Removes a table if it is empty; says whether.
    fn remove_if_empty(&self, table: &Hanging<'_>) -> bool {
        let begin = |raw| if raw & SEARCHED != 0 { raw | TOUCHED } else { (raw | SEARCHED) & !TOUCHED };
        let Some(searched) = table.update(self, |raw| Some(begin(raw))) else { return false };
        if searched & TOUCHED != 0 {
            // Somebody else is at it, and will look again.
            return false;
        }
        loop {
            let found = load(table.entry);
            if self.format.next_table(table.level, found) != Some(table.table) {
                return false;
            }
            let untouched = found & !TOUCHED;
            if found != untouched && !replace(table.entry, found, untouched) {
                continue;
            }
            let is_empty = untouched & PINS == 0 && self.tables.words(table.table).iter().all(|entry| load(entry) == 0);
            let end = if is_empty { 0 } else { untouched & !SEARCHED };
            if replace(table.entry, untouched, end) {
                return is_empty;
            }
        }
    }
}

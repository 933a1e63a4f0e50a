//! The memory of tables: finding it from descriptors, keeping it while somebody reads it, giving it back.

use super::PageTable;
use super::atomic::{AtomicU64, Ordering};
use super::empty::RESERVED;
use super::geometry::Geometry;
use super::unmapped::table_bytes;
use crate::addr::PhysAddr;
use crate::arch::attributes::Granule;
use crate::arch::descriptor::{Format, LAST_LEVEL};
use crate::memory::{LinkedArrays, LinkedMemory};
use crate::platform::{OutOfDmaMemory, Platform};

/// Reads a descriptor. If it leads to a table, what was written there before it was linked can be seen.
#[inline]
pub(super) fn load(entry: &AtomicU64) -> u64 {
    u64::from_le(entry.load(Ordering::Acquire))
}

/// Writes a descriptor that leads to no table.
#[inline]
pub(super) fn store(entry: &AtomicU64, raw: u64) {
    entry.store(raw.to_le(), Ordering::Relaxed);
}

/// Writes a descriptor if it still is what was `seen`; says whether. What is written to a table before it is linked so can
/// be seen by whoever [finds](load) it.
#[inline]
pub(super) fn replace(entry: &AtomicU64, seen: u64, raw: u64) -> bool {
    entry.compare_exchange(seen.to_le(), raw.to_le(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// In [`Tables::visitors`]: there are tables that wait for the visitors to leave.
const WAITING: u64 = 1;
/// One visitor.
const VISITOR: u64 = 2;

/// The memory of all tables but the first, and who is using it.
///
/// The first field comes first in memory, and the whole first in a [`PageTable`]: whoever visits finds it without adding.
#[repr(C)]
pub(super) struct Tables<P: Platform> {
    /// How many methods are running, each of which may hold on to tables that are being removed; and [`WAITING`].
    ///
    /// Whoever removes a table does so on a visit, and leaves before it is given back. So a visitor that is not counted then
    /// has either left, which the count acquires; or it comes after the remover has left, which its coming acquires, and
    /// finds the table removed.
    visitors: AtomicU64,
    /// Removed tables that the SMMU has forgotten but a visitor may not have, as a [`TableList`].
    waiting: AtomicU64,
    memory: LinkedMemory<P>,
    arrays: Arrays<P>,
}

/// The same memory, by the granule's number of entries; one of them is there.
struct Arrays<P: Platform> {
    k4: Option<LinkedArrays<P, 512>>,
    k16: Option<LinkedArrays<P, 2048>>,
    k64: Option<LinkedArrays<P, 8192>>,
}

impl<P: Platform> Tables<P> {
    pub(super) fn new(platform: &'static P, granule: Granule) -> Self {
        let memory = LinkedMemory::new(platform, table_bytes(granule));
        let arrays = Arrays { k4: memory.arrays(), k16: memory.arrays(), k64: memory.arrays() };
        Self { visitors: AtomicU64::new(0), waiting: AtomicU64::new(0), memory, arrays }
    }

    /// Allocates a zeroed table.
    fn allocate(&self) -> Result<PhysAddr, OutOfDmaMemory> {
        Ok(self.memory.link(self.memory.allocate()?))
    }

    /// The entries of a table that has not been given back.
    pub(super) fn words(&self, table: PhysAddr) -> &[AtomicU64] {
        self.memory.words(table)
    }

    /// Gives back removed tables that the SMMU has forgotten: now if nobody is visiting, or else as soon as a visitor
    /// leaves and finds itself the last.
    pub(super) fn give_back(&self, mut list: TableList) {
        while !list.is_empty() && self.visitors.load(Ordering::Acquire) >= VISITOR {
            while let Some(table) = list.pop(&self.memory) {
                self.wait(table);
            }
            if self.visitors.fetch_or(WAITING, Ordering::AcqRel) >= VISITOR {
                return;
            }
            // They all left before they could see that.
            list = self.take_waiting();
        }
        self.free_now(list);
    }

    /// The memory that links between tables lead to.
    pub(super) fn memory(&self) -> &LinkedMemory<P> {
        &self.memory
    }

    /// Adds a table to those that wait for the visitors to leave.
    fn wait(&self, table: PhysAddr) {
        let Some(link) = self.words(table).first() else { return };
        let mut first = self.waiting.load(Ordering::Relaxed);
        loop {
            store(link, first);
            match self.waiting.compare_exchange_weak(first, table.get(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => first = changed,
            }
        }
    }

    /// Frees tables that nobody can reach.
    pub(super) fn free_now(&self, mut list: TableList) {
        while let Some(table) = list.pop(&self.memory) {
            drop(self.memory.unlink(table));
        }
    }

    /// Tries again to free what had to wait.
    #[cold]
    pub(super) fn free_waiting(&self) {
        // Taken before the visitors are counted: a table that is added later may have a visitor that is not seen here.
        self.give_back(self.take_waiting());
    }

    /// Takes what waits, and the mark first: whoever adds a table that is not taken here makes a new one.
    fn take_waiting(&self) -> TableList {
        self.visitors.fetch_and(!WAITING, Ordering::AcqRel);
        TableList { first: self.waiting.swap(0, Ordering::AcqRel) }
    }
}

/// Bits that no link has, since tables are aligned, but every descriptor: each valid one, and [`RESERVED`].
const NO_LINK: u64 = 1 | RESERVED;

/// A list of tables that hangs together through their first words, and so needs no memory.
///
/// A link is the address of the next table, with bit 0 clear: to a walker it is an invalid descriptor. Nothing is freed
/// when the list is dropped.
#[derive(Debug)]
pub(super) struct TableList {
    /// Address of the first table, or 0.
    first: u64,
}

impl TableList {
    pub(super) const EMPTY: Self = Self { first: 0 };

    pub(super) const fn is_empty(&self) -> bool {
        self.first == 0
    }

    pub(super) fn push<P: Platform>(&mut self, memory: &LinkedMemory<P>, table: PhysAddr) {
        if let Some(link) = memory.words(table).first() {
            store(link, self.first);
            self.first = table.get();
        }
    }

    pub(super) fn pop<P: Platform>(&mut self, memory: &LinkedMemory<P>) -> Option<PhysAddr> {
        if self.first == 0 {
            return None;
        }
        let table = PhysAddr::new(self.first);
        let link = memory.words(table).first().map_or(0, load);
        // A descriptor is no link. Somebody was mapping into the table while it was removed, which is a mistake; the rest of
        // the list is lost, but nothing is freed that is not ours.
        self.first = if link & NO_LINK == 0 { link } else { 0 };
        Some(table)
    }

    /// Moves the tables of `other` here.
    pub(super) fn append<P: Platform>(&mut self, memory: &LinkedMemory<P>, mut other: Self) {
        while let Some(table) = other.pop(memory) {
            self.push(memory, table);
        }
    }
}

/// Tables allocated before anything changes, so that nothing can fail once it does. What is left is freed on drop.
pub(super) struct Spares<'t, P: Platform> {
    tables: &'t Tables<P>,
    list: TableList,
}

impl<'t, P: Platform> Spares<'t, P> {
    pub(super) const fn new(tables: &'t Tables<P>) -> Self {
        Self { tables, list: TableList::EMPTY }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Allocates one more.
    pub(super) fn reserve(&mut self) -> Result<(), OutOfDmaMemory> {
        let table = self.tables.allocate()?;
        self.list.push(self.tables.memory(), table);
        Ok(())
    }

    /// A zeroed table. Allocates only if too few were reserved: tables that were there have gone since.
    pub(super) fn take(&mut self) -> Result<PhysAddr, OutOfDmaMemory> {
        match self.list.pop(self.tables.memory()) {
            Some(table) => {
                if let Some(link) = self.tables.words(table).first() {
                    store(link, 0);
                }
                Ok(table)
            }
            None => self.tables.allocate(),
        }
    }

    /// Takes a table back that was not linked into the page table.
    pub(super) fn put(&mut self, table: PhysAddr) {
        self.list.push(self.tables.memory(), table);
    }
}

impl<P: Platform> Drop for Spares<'_, P> {
    fn drop(&mut self) {
        self.tables.free_now(core::mem::replace(&mut self.list, TableList::EMPTY));
    }
}

/// Where a descent ends: at an entry that leads no further.
pub(super) struct Place<'v> {
    /// The entry, and those after it in its table. Never empty.
    pub(super) entries: &'v [AtomicU64],
    /// What the entry held.
    pub(super) raw: u64,
    pub(super) level: u8,
    /// log2 of the bytes that an entry covers.
    pub(super) shift: u32,
}

impl<'v> Place<'v> {
    /// The entry `index` of a table.
    #[inline(always)]
    fn at(table: &'v [AtomicU64], index: usize, level: u8, shift: u32) -> Option<Self> {
        let raw = load(table.get(index)?);
        Some(Self { entries: table.get(index..).unwrap_or_default(), raw, level, shift })
    }

    /// The first `size_bytes` of the entries, or all of them if they are fewer.
    #[inline(always)]
    pub(super) fn cover(&self, size_bytes: u64) -> &'v [AtomicU64] {
        let wanted = usize::try_from(size_bytes >> self.shift).unwrap_or(usize::MAX);
        self.entries.get(..wanted).unwrap_or(self.entries)
    }
}

/// While it lives, no table that was reachable when it began is freed.
pub(super) struct Visit<'t, P: Platform> {
    pub(super) table: &'t PageTable<P>,
}

impl<'t, P: Platform> Visit<'t, P> {
    #[inline(always)]
    pub(super) fn new(table: &'t PageTable<P>) -> Self {
        table.tables.visitors.fetch_add(VISITOR, Ordering::Acquire);
        Self { table }
    }

    /// Walks down for an offset to the entry that leads no further. `None` if the first table has no entry for it.
    #[inline(never)]
    pub(super) fn descend(&self, iova: u64) -> Option<Place<'_>> {
        self.descend_through(iova, |_| true)
    }

    /// Likewise, but ends above a table already where `enter` does not want to go into it.
    #[inline(never)]
    pub(super) fn descend_through<'v>(&'v self, iova: u64, enter: impl Fn(&Place<'v>) -> bool) -> Option<Place<'v>> {
        let Arrays { k4, k16, k64 } = &self.table.tables.arrays;
        if let Some(tables) = k4 {
            self.descend_in(tables, iova, enter)
        } else if let Some(tables) = k16 {
            self.descend_in(tables, iova, enter)
        } else {
            self.descend_in(k64.as_ref()?, iova, enter)
        }
    }

    /// The walk, through tables of `N` entries. Unrolled by the compiler, with shifts that it knows.
    #[inline(always)]
    fn descend_in<'v, const N: usize>(
        &'v self,
        tables: &'v LinkedArrays<P, N>,
        iova: u64,
        enter: impl Fn(&Place<'v>) -> bool,
    ) -> Option<Place<'v>> {
        let Geometry { start_level, start_shift, .. } = self.table.geometry;
        let root = self.table.root.words();
        // Known when this is compiled.
        let format = Format { granule: granule_of(N), ..self.table.format };
        #[allow(clippy::cast_possible_truncation, reason = "an index beyond the first table stays one")]
        let mut place = Place::at(root, (iova >> start_shift) as usize, start_level, start_shift)?;
        for level in 1..=LAST_LEVEL {
            if level > start_level {
                let Some(table) = format.next_table(level - 1, place.raw).filter(|_| enter(&place)) else {
                    return Some(Place { level: level - 1, ..place });
                };
                let shift = u32::from(LAST_LEVEL + 1 - level) * N.ilog2() + 3;
                #[allow(clippy::cast_possible_truncation, reason = "only the low bits are kept")]
                let index = (iova >> shift) as usize & (N - 1);
                place = Place::at(tables.words(table), index, level, shift)?;
            }
        }
        Some(Place { level: LAST_LEVEL, ..place })
    }

    /// Takes the table that `raw` points at, an entry at `level` which the caller has just cleared, and all tables below it.
    pub(super) fn gather(&self, level: u8, raw: u64, list: &mut TableList) {
        if let Some(table) = self.table.format.next_table(level, raw) {
            self.gather_below(self.table.tables.words(table), level + 1, list);
            list.push(self.table.tables.memory(), table);
        }
    }

    /// Takes all tables below one at `level`, which nobody else looks at. Entries that are no tables are left as they are.
    pub(super) fn gather_below(&self, words: &[AtomicU64], level: u8, list: &mut TableList) {
        // Pages have nothing below them: a table of pages goes without being read.
        if level == LAST_LEVEL {
            return;
        }
        for entry in words {
            let raw = load(entry);
            if self.table.format.next_table(level, raw).is_some() && replace(entry, raw, 0) {
                self.gather(level, raw, list);
            }
        }
    }
}

/// The granule whose tables have so many entries.
const fn granule_of(entries: usize) -> Granule {
    match entries {
        512 => Granule::K4,
        2048 => Granule::K16,
        _ => Granule::K64,
    }
}

impl<P: Platform> Drop for Visit<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        let tables = &self.table.tables;
        if tables.visitors.fetch_sub(VISITOR, Ordering::Release) == VISITOR | WAITING {
            tables.free_waiting();
        }
    }
}

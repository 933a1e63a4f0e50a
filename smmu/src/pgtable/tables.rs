//! The memory of tables: finding it from descriptors, keeping it while somebody reads it, giving it back.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::PageTable;
use crate::addr::PhysAddr;
use crate::arch::attributes::Granule;
use crate::arch::descriptor::{Format, LAST_LEVEL};
use crate::memory::LinkedMemory;
use crate::platform::{OutOfDmaMemory, Platform};

/// Reads a descriptor.
///
/// Sequentially consistent, which costs an `ldar`: it orders the read after [`Visit::new`], so that a visit which
/// [`Tables::give_back`] did not count cannot find what was removed before.
#[inline]
pub(super) fn load(entry: &AtomicU64) -> u64 {
    u64::from_le(entry.load(Ordering::SeqCst))
}

/// Writes a descriptor that leads to no table.
#[inline]
pub(super) fn store(entry: &AtomicU64, raw: u64) {
    entry.store(raw.to_le(), Ordering::Relaxed);
}

/// Writes a descriptor if it still is what was `seen`; says whether.
#[inline]
pub(super) fn replace(entry: &AtomicU64, seen: u64, raw: u64) -> bool {
    entry.compare_exchange(seen.to_le(), raw.to_le(), Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

/// The memory of all tables but the first, and who is using it.
pub(super) struct Tables<P: Platform> {
    memory: LinkedMemory<P>,
    /// How many methods are running: each may hold on to tables that are being removed.
    visitors: AtomicUsize,
    /// Removed tables that the SMMU has forgotten but a visitor may not have, as a [`TableList`].
    waiting: AtomicU64,
}

impl<P: Platform> Tables<P> {
    pub(super) fn new(platform: &'static P, granule: Granule) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "at most 64 KiB")]
        let table_bytes = granule.bytes() as usize;
        Self {
            memory: LinkedMemory::new(platform, table_bytes),
            visitors: AtomicUsize::new(0),
            waiting: AtomicU64::new(0),
        }
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
        if self.visitors.load(Ordering::SeqCst) == 0 {
            self.free_now(list);
            return;
        }
        while let Some(table) = list.pop(self) {
            self.wait(table);
        }
    }

    /// Adds a table to those that wait for the visitors to leave.
    fn wait(&self, table: PhysAddr) {
        let Some(link) = self.words(table).first() else { return };
        let mut first = self.waiting.load(Ordering::Relaxed);
        loop {
            store(link, first);
            match self.waiting.compare_exchange_weak(first, table.get(), Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => first = changed,
            }
        }
    }

    /// Frees tables that nobody can reach.
    pub(super) fn free_now(&self, mut list: TableList) {
        while let Some(table) = list.pop(self) {
            drop(self.memory.unlink(table));
        }
    }

    /// Tries again to free what had to wait.
    #[cold]
    pub(super) fn free_waiting(&self) {
        // Taken before the visitors are counted: a table that is added later may have a visitor that is not seen here.
        let first = self.waiting.swap(0, Ordering::SeqCst);
        self.give_back(TableList { first });
    }
}

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

    pub(super) fn push<P: Platform>(&mut self, tables: &Tables<P>, table: PhysAddr) {
        if let Some(link) = tables.words(table).first() {
            store(link, self.first);
            self.first = table.get();
        }
    }

    pub(super) fn pop<P: Platform>(&mut self, tables: &Tables<P>) -> Option<PhysAddr> {
        if self.first == 0 {
            return None;
        }
        let table = PhysAddr::new(self.first);
        let link = tables.words(table).first().map_or(0, load);
        // A valid descriptor is no link. Somebody was mapping into the table while it was removed, which is a mistake;
        // the rest of the list is lost, but nothing is freed that is not ours.
        self.first = if link & 1 == 0 { link } else { 0 };
        Some(table)
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

    /// Allocates one more.
    pub(super) fn reserve(&mut self) -> Result<(), OutOfDmaMemory> {
        let table = self.tables.allocate()?;
        self.list.push(self.tables, table);
        Ok(())
    }

    /// A zeroed table. Allocates only if too few were reserved: tables that were there have gone since.
    pub(super) fn take(&mut self) -> Result<PhysAddr, OutOfDmaMemory> {
        match self.list.pop(self.tables) {
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
        self.list.push(self.tables, table);
    }
}

impl<P: Platform> Drop for Spares<'_, P> {
    fn drop(&mut self) {
        self.tables.free_now(core::mem::replace(&mut self.list, TableList::EMPTY));
    }
}

/// A table on the way down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'v> {
    pub(super) words: &'v [AtomicU64],
    pub(super) level: u8,
    /// log2 of the bytes that one entry covers.
    pub(super) shift: u32,
}

impl<'v> Table<'v> {
    /// The entry for an input address, and those after it. Tables have a power of two of entries.
    #[inline]
    pub(super) fn from(&self, iova: u64) -> &'v [AtomicU64] {
        #[allow(clippy::cast_possible_truncation, reason = "only the bits below the table's length are kept")]
        let index = (iova >> self.shift) as usize & self.words.len().wrapping_sub(1);
        self.words.get(index..).unwrap_or_default()
    }
}

/// While it lives, no table that was reachable when it began is freed.
pub(super) struct Visit<'t, P: Platform> {
    table: &'t PageTable<P>,
    /// The table's, at hand on the way down.
    format: Format,
    bits_per_level: u32,
}

impl<'t, P: Platform> Visit<'t, P> {
    #[inline]
    pub(super) fn new(table: &'t PageTable<P>) -> Self {
        table.tables.visitors.fetch_add(1, Ordering::SeqCst);
        Self { table, format: table.format, bits_per_level: table.geometry.bits_per_level }
    }

    /// The first table; concatenated ones are one.
    #[inline]
    pub(super) fn root(&self) -> Table<'_> {
        let geometry = &self.table.geometry;
        Table { words: self.table.root.words(), level: geometry.start_level, shift: geometry.start_shift }
    }

    /// The table that `raw`, an entry of `table`, points at, if it does.
    #[inline]
    pub(super) fn below(&self, table: &Table<'_>, raw: u64) -> Option<Table<'_>> {
        let address = self.format.next_table(table.level, raw)?;
        let shift = table.shift - self.bits_per_level;
        Some(Table { words: self.table.tables.words(address), level: table.level + 1, shift })
    }

    /// Takes the table that `raw` points at, an entry which the caller has just cleared, and all tables below it.
    pub(super) fn gather(&self, parent: &Table<'_>, raw: u64, list: &mut TableList) {
        if let Some(table) = self.below(parent, raw)
            && let Some(address) = self.format.next_table(parent.level, raw)
        {
            self.gather_below(table, list);
            list.push(&self.table.tables, address);
        }
    }

    /// Takes all tables below `table`, which nobody else looks at. Entries that are no tables are left as they are.
    pub(super) fn gather_below(&self, table: Table<'_>, list: &mut TableList) {
        // Pages have nothing below them: a table of pages goes without being read.
        if table.level == LAST_LEVEL {
            return;
        }
        for entry in table.words {
            let raw = load(entry);
            if self.format.next_table(table.level, raw).is_some() && replace(entry, raw, 0) {
                self.gather(&table, raw, list);
            }
        }
    }
}

impl<P: Platform> Drop for Visit<'_, P> {
    fn drop(&mut self) {
        let tables = &self.table.tables;
        let others = tables.visitors.fetch_sub(1, Ordering::SeqCst) != 1;
        if !others && tables.waiting.load(Ordering::Relaxed) != 0 {
            tables.free_waiting();
        }
    }
}

//! DMA memory over loom: what `smmu::memory` is over real memory. Addresses are given out again as soon as they are free.
//!
//! The first words of a block are loom's atomics. The rest are plain: there are hundreds in a table, and what happens to them
//! is settled before the race or happens to all alike; no schedule is tried for their sake.
//!
//! Each access reads a cell that belongs to the block, and allocating and freeing write to it. So loom finds whoever
//! touches a block that it may not know of yet, or that may be gone, even if not in this very order.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering};
use smmu::addr::PhysAddr;
use smmu::platform::{DmaBlock, OutOfDmaMemory, Platform, Registers};

/// Words of each block that are loom's.
const RACED: usize = 3;
/// Where memory begins, and how far blocks are apart.
const START: u64 = 1 << 20;
const BLOCK_BYTES: u64 = 64 << 10;

thread_local! {
    /// All of loom's threads are one of the host's.
    static MEMORY: RefCell<Memory> = const { RefCell::new(Memory { blocks: BTreeMap::new(), past: Vec::new(), allowed: 0 }) };
}

struct Memory {
    blocks: BTreeMap<u64, Rc<Block>>,
    /// Blocks that were freed: somebody may still have a slice of their words.
    past: Vec<Rc<Block>>,
    /// How many more blocks there are.
    allowed: usize,
}

struct Block {
    words: Vec<Word>,
    life: Rc<Life>,
}

pub(crate) struct Life {
    cell: UnsafeCell<()>,
    is_over: Cell<bool>,
}

impl Life {
    fn touch(&self) {
        assert!(!self.is_over.get(), "a table is used that has been freed");
        self.cell.with(|_| ());
    }
}

/// A word of memory, or one of the page table's own.
pub(crate) enum Word {
    Own(AtomicU64),
    Raced(AtomicU64, Rc<Life>),
    Plain(Cell<u64>, Rc<Life>),
}

// SAFETY: all of loom's threads are one of the host's.
unsafe impl Sync for Word {}
// SAFETY: likewise.
unsafe impl Send for Word {}

impl Word {
    pub(crate) fn new(value: u64) -> Self {
        Self::Own(AtomicU64::new(value))
    }

    /// Does it to an atomic or to a plain value.
    fn access<T>(&self, atomic: impl FnOnce(&AtomicU64) -> T, plain: impl FnOnce(&Cell<u64>) -> T) -> T {
        match self {
            Self::Own(word) => atomic(word),
            Self::Raced(word, life) => {
                // Before as well: what it acquires may be what makes the block known.
                life.touch();
                let result = atomic(word);
                life.touch();
                result
            }
            Self::Plain(word, life) => {
                life.touch();
                plain(word)
            }
        }
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.access(|word| word.load(order), Cell::get)
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.access(|word| word.store(value, order), |word| word.set(value));
    }

    pub(crate) fn compare_exchange(&self, seen: u64, new: u64, to: Ordering, or: Ordering) -> Result<u64, u64> {
        let plain = |word: &Cell<u64>| match word.get() {
            value if value == seen => Ok(word.replace(new)),
            value => Err(value),
        };
        self.access(|word| word.compare_exchange(seen, new, to, or), plain)
    }

    pub(crate) fn compare_exchange_weak(&self, seen: u64, new: u64, to: Ordering, or: Ordering) -> Result<u64, u64> {
        self.compare_exchange(seen, new, to, or)
    }

    pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.access(|word| word.swap(value, order), |word| word.replace(value))
    }

    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.access(|word| word.fetch_add(value, order), |word| word.replace(word.get() + value))
    }

    pub(crate) fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
        self.access(|word| word.fetch_sub(value, order), |word| word.replace(word.get() - value))
    }

    pub(crate) fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        self.access(|word| word.fetch_or(value, order), |word| word.replace(word.get() | value))
    }

    pub(crate) fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        self.access(|word| word.fetch_and(value, order), |word| word.replace(word.get() & value))
    }
}

/// Begins anew, with memory for so many blocks.
pub(crate) fn reset(allowed: usize) {
    MEMORY.set(Memory { blocks: BTreeMap::new(), past: Vec::new(), allowed });
}

/// How many blocks there are.
pub(crate) fn block_count() -> usize {
    MEMORY.with_borrow(|memory| memory.blocks.len())
}

fn allocate(size_bytes: usize) -> Result<PhysAddr, OutOfDmaMemory> {
    MEMORY.with_borrow_mut(|memory| {
        let out = OutOfDmaMemory { size_bytes, alignment_bytes: size_bytes };
        memory.allowed = memory.allowed.checked_sub(1).ok_or(out)?;
        let mut addresses = (START..).step_by(BLOCK_BYTES as usize);
        let address = addresses.find(|address| !memory.blocks.contains_key(address)).expect("an address");
        let life = Rc::new(Life { cell: UnsafeCell::new(()), is_over: Cell::new(false) });
        life.cell.with_mut(|_| ());
        let word = |index| match index {
            0..RACED => Word::Raced(AtomicU64::new(0), Rc::clone(&life)),
            _ => Word::Plain(Cell::new(0), Rc::clone(&life)),
        };
        let words = (0..size_bytes / 8).map(word).collect();
        memory.blocks.insert(address, Rc::new(Block { words, life }));
        Ok(PhysAddr::new(address))
    })
}

fn free(physical: PhysAddr) {
    MEMORY.with_borrow_mut(|memory| {
        let block = memory.blocks.remove(&physical.get()).expect("a table is freed twice");
        block.life.cell.with_mut(|_| ());
        block.life.is_over.set(true);
        memory.past.push(block);
        memory.allowed += 1;
    });
}

fn words<'m>(physical: PhysAddr) -> &'m [Word] {
    let words = MEMORY.with_borrow(|memory| {
        let block = memory.blocks.get(&physical.get()).expect("no table is where a descriptor leads");
        block.life.touch();
        NonNull::from(block.words.as_slice())
    });
    // SAFETY: blocks stay, freed or not, until the next schedule.
    unsafe { words.as_ref() }
}

/// A block that frees itself.
pub(crate) struct DmaMemory<P: Platform> {
    platform: &'static P,
    physical: PhysAddr,
    kept: Cell<bool>,
}

// SAFETY: all of loom's threads are one of the host's.
unsafe impl<P: Platform> Sync for DmaMemory<P> {}

impl<P: Platform> DmaMemory<P> {
    pub(crate) fn allocate(platform: &'static P, size_bytes: usize, _: usize) -> Result<Self, OutOfDmaMemory> {
        Ok(Self { platform, physical: allocate(size_bytes)?, kept: Cell::new(false) })
    }

    pub(crate) fn physical(&self) -> PhysAddr {
        self.physical
    }

    pub(crate) fn words(&self) -> &[Word] {
        words(self.physical)
    }

    pub(crate) fn keep(&self) {
        self.kept.set(true);
    }
}

impl<P: Platform> Drop for DmaMemory<P> {
    fn drop(&mut self) {
        if !self.kept.get() {
            free(self.physical);
        }
    }
}

/// Blocks that are found through their addresses.
#[derive(Debug)]
pub(crate) struct LinkedMemory<P: Platform> {
    platform: &'static P,
    block_bytes: usize,
}

impl<P: Platform> LinkedMemory<P> {
    pub(crate) const fn new(platform: &'static P, block_bytes: usize) -> Self {
        Self { platform, block_bytes }
    }

    pub(crate) fn allocate(&self) -> Result<DmaMemory<P>, OutOfDmaMemory> {
        DmaMemory::allocate(self.platform, self.block_bytes, self.block_bytes)
    }

    pub(crate) fn link(&self, block: DmaMemory<P>) -> PhysAddr {
        block.keep();
        block.physical()
    }

    pub(crate) fn words(&self, physical: PhysAddr) -> &[Word] {
        words(physical)
    }

    pub(crate) fn arrays<const N: usize>(&self) -> Option<LinkedArrays<P, N>> {
        (self.block_bytes == N * 8).then_some(LinkedArrays { platform: self.platform })
    }

    pub(crate) fn unlink(&self, physical: PhysAddr) -> DmaMemory<P> {
        DmaMemory { platform: self.platform, physical, kept: Cell::new(false) }
    }
}

/// Likewise, with a length that is known when this is compiled.
#[derive(Debug)]
pub(crate) struct LinkedArrays<P: Platform, const N: usize> {
    platform: &'static P,
}

impl<P: Platform, const N: usize> LinkedArrays<P, N> {
    pub(crate) fn words(&self, physical: PhysAddr) -> &[Word; N] {
        words(physical).try_into().expect("a table of this size")
    }
}

/// Nothing of a platform is needed but memory, which is here.
#[derive(Debug)]
pub(crate) struct LoomPlatform;

/// An SMMU that nobody talks to.
pub(crate) struct NoRegisters;

impl Registers for NoRegisters {
    fn read32(&self, _: usize) -> u32 {
        u32::MAX
    }

    fn write32(&self, _: usize, _: u32) {}

    fn read64(&self, _: usize) -> u64 {
        u64::MAX
    }

    fn write64(&self, _: usize, _: u64) {}
}

// SAFETY: it gives out no memory.
unsafe impl Platform for LoomPlatform {
    type Registers = NoRegisters;
    type Lock = spin::Mutex<()>;

    fn allocate(&self, size_bytes: usize, alignment_bytes: usize) -> Result<DmaBlock, OutOfDmaMemory> {
        Err(OutOfDmaMemory { size_bytes, alignment_bytes })
    }

    unsafe fn free(&self, _: DmaBlock) {}

    unsafe fn pointer(&self, _: PhysAddr) -> NonNull<u8> {
        NonNull::dangling()
    }

    fn physical(&self, _: NonNull<u8>) -> Option<PhysAddr> {
        None
    }

    fn write_barrier(&self) {}

    fn read_barrier(&self) {}

    fn clean_cache(&self, _: NonNull<u8>, _: usize) {}

    fn invalidate_cache(&self, _: NonNull<u8>, _: usize) {}

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn relax(&self) {}
}

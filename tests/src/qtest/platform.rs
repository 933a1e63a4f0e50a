//! The [`Platform`] of a driver that runs here while its SMMU is QEMU's: the machine's memory, mapped, and the registers
//! at the end of the line.

use std::fmt;
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memmap2::MmapRaw;
use range_alloc::RangeAllocator;
use smmu::addr::PhysAddr;
use smmu::platform::{DmaBlock, OutOfDmaMemory, Platform, Registers};

use super::connection::Connection;

/// Where the board's memory starts.
const RAM_BASE: u64 = 0x4000_0000;
/// Start of memory, in bytes, where QEMU leaves the machine's device tree.
pub(super) const DEVICE_TREE_BYTES: usize = 1 << 20;

/// The memory of one machine, shared with QEMU, and this process's clock.
///
/// The driver wants its platform for ever, so it is leaked: that costs address space and not memory.
pub struct QtestPlatform {
    ram: MmapRaw,
    free: Mutex<RangeAllocator<u64>>,
    started: Instant,
}

impl QtestPlatform {
    /// Maps the file that is to be the machine's memory.
    pub(super) fn leaked(ram: &File) -> io::Result<&'static Self> {
        let ram = MmapRaw::map_raw(ram)?;
        let available = RAM_BASE + DEVICE_TREE_BYTES as u64..RAM_BASE + ram.len() as u64;
        let free = Mutex::new(RangeAllocator::new(available));
        Ok(Box::leak(Box::new(Self { ram, free, started: Instant::now() })))
    }

    /// How many bytes [`allocate`](Platform::allocate) has given out and not got back.
    #[must_use]
    pub fn bytes_in_use(&self) -> u64 {
        self.free().allocated_ranges().map(|range| range.end - range.start).sum()
    }

    /// A copy of what QEMU left at the start of memory.
    pub(super) fn device_tree(&self) -> Vec<u8> {
        let mut copy = vec![0; DEVICE_TREE_BYTES.min(self.ram.len())];
        // SAFETY: the mapping is at least as long, and QEMU has no CPU that would write to it.
        unsafe { self.ram.as_ptr().copy_to_nonoverlapping(copy.as_mut_ptr(), copy.len()) }
        copy
    }

    fn free(&self) -> MutexGuard<'_, RangeAllocator<u64>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: ranges of the mapping are given out once until freed, zeroed, and QEMU has the same file as its memory from
// RAM_BASE on; every register access is a system call away, and QEMU sees all stores before it.
unsafe impl Platform for QtestPlatform {
    type Registers = QtestRegisters;
    type Lock = spin::Mutex<()>;

    fn allocate(&self, size_bytes: usize, alignment_bytes: usize) -> Result<DmaBlock, OutOfDmaMemory> {
        let out = OutOfDmaMemory { size_bytes, alignment_bytes };
        let range = self.free().allocate_range_aligned(size_bytes as u64, alignment_bytes as u64).map_err(|_| out)?;
        let physical = PhysAddr::new(range.start);
        // SAFETY: the range is inside the mapping.
        let pointer = unsafe { self.pointer(physical) };
        // SAFETY: likewise, and nobody's yet.
        unsafe { pointer.write_bytes(0, size_bytes) }
        Ok(DmaBlock { pointer, physical, size_bytes, alignment_bytes })
    }

    unsafe fn free(&self, block: DmaBlock) {
        let start = block.physical.get();
        self.free().free_range(start..start + block.size_bytes as u64);
    }

    unsafe fn pointer(&self, physical: PhysAddr) -> NonNull<u8> {
        let offset = physical.get().checked_sub(RAM_BASE).map(|offset| offset as usize);
        let Some(offset) = offset.filter(|&offset| offset < self.ram.len()) else {
            panic!("{physical} is not in the machine's memory")
        };
        // SAFETY: it was just found to be inside the mapping.
        let pointer = unsafe { self.ram.as_mut_ptr().add(offset) };
        NonNull::new(pointer).expect("a mapping does not start at 0")
    }

    fn physical(&self, pointer: NonNull<u8>) -> Option<PhysAddr> {
        let offset = pointer.addr().get().checked_sub(self.ram.as_ptr().addr())?;
        (offset < self.ram.len()).then(|| PhysAddr::new(RAM_BASE + offset as u64))
    }

    fn write_barrier(&self) {
        fence(Ordering::SeqCst);
    }

    fn read_barrier(&self) {
        fence(Ordering::SeqCst);
    }

    fn clean_cache(&self, _start: NonNull<u8>, _size_bytes: usize) {}

    fn invalidate_cache(&self, _start: NonNull<u8>, _size_bytes: usize) {}

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn relax(&self) {
        std::thread::yield_now();
    }
}

impl fmt::Debug for QtestPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QtestPlatform").field("ram", &self.ram).finish_non_exhaustive()
    }
}

/// The registers of a machine's SMMU. They keep the machine running.
///
/// Once the connection is broken they read as all ones, as those of an SMMU without power.
#[derive(Clone, Debug)]
pub struct QtestRegisters {
    pub(super) connection: Arc<Connection>,
    pub(super) base: u64,
    pub(super) length_bytes: usize,
}

impl QtestRegisters {
    /// The address of the register of `size_bytes` at `offset`, if it is aligned and inside the block.
    fn address(&self, offset: usize, size_bytes: usize) -> Option<u64> {
        let end = offset.checked_add(size_bytes)?;
        (end <= self.length_bytes && offset.is_multiple_of(size_bytes)).then(|| self.base + offset as u64)
    }
}

impl Registers for QtestRegisters {
    fn read32(&self, offset: usize) -> u32 {
        let address = self.address(offset, 4);
        // QEMU answers with 64 bits, of which the upper half is 0.
        address
            .and_then(|address| self.connection.ask(|line| line.read32(address)).ok())
            .map_or(u32::MAX, |it| it as u32)
    }

    fn write32(&self, offset: usize, value: u32) {
        if let Some(address) = self.address(offset, 4) {
            // The connection remembers its error; a register write has no way to tell.
            let _ = self.connection.ask(|line| line.write32(address, value));
        }
    }

    fn read64(&self, offset: usize) -> u64 {
        let address = self.address(offset, 8);
        address.and_then(|address| self.connection.ask(|line| line.read64(address)).ok()).unwrap_or(u64::MAX)
    }

    fn write64(&self, offset: usize, value: u64) {
        if let Some(address) = self.address(offset, 8) {
            // As for `write32`.
            let _ = self.connection.ask(|line| line.write64(address, value));
        }
    }
}

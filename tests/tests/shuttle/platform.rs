//! A platform whose CPUs are shuttle's threads.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lock_api::{GuardNoSend, RawMutex};
use smmu::addr::PhysAddr;
pub(crate) use smmu::platform::{DmaBlock, OutOfDmaMemory, Platform, Registers};

shuttle::thread_local! {
    /// How many locks this CPU holds.
    static HELD: Cell<usize> = Cell::new(0);
}

fn assert_none_is_held() {
    HELD.with(|held| assert!(held.get() == 0 || std::thread::panicking(), "a lock is held"));
}

/// A lock that lets others go first, each time that it is tried.
pub(crate) struct Lock(AtomicBool);

// SAFETY: only who sets the flag holds the lock.
unsafe impl RawMutex for Lock {
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        assert_none_is_held();
        shuttle::thread::yield_now();
        while !self.try_lock() {
            shuttle::thread::yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        let locked = !self.0.swap(true, Ordering::Acquire);
        HELD.with(|held| held.set(held.get() + usize::from(locked)));
        locked
    }

    unsafe fn unlock(&self) {
        HELD.with(|held| held.set(held.get() - 1));
        self.0.store(false, Ordering::Release);
        shuttle::thread::yield_now();
    }
}

/// The platform: a clock, and nothing else.
pub(crate) struct Cpus {
    nanoseconds: AtomicU64,
}

impl Cpus {
    /// One for this run.
    pub(crate) fn leaked() -> &'static Self {
        Box::leak(Box::new(Self { nanoseconds: AtomicU64::new(0) }))
    }
}

/// No SMMU is here.
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

// SAFETY: it has no memory to give out, and so none that it could be wrong about.
unsafe impl Platform for Cpus {
    type Registers = NoRegisters;
    type Lock = Lock;

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
        shuttle::thread::yield_now();
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    /// A microsecond passes: nobody here is waited for in vain.
    fn relax(&self) {
        assert_none_is_held();
        self.nanoseconds.fetch_add(1000, Ordering::Relaxed);
        shuttle::thread::yield_now();
    }
}

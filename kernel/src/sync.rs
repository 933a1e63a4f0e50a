//! The lock for data that interrupt handlers share.

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{DAIF, Readable, Writeable};
use lock_api::{GuardNoSend, RawMutex};

/// A spinlock that masks this CPU's interrupts while it is held.
///
/// The mask that was in force before is kept in the lock: release locks in the reverse of the order they were taken in, as
/// guards that live in nested scopes do, or interrupts come back while a lock is still held.
pub struct IrqLock {
    inner: spin::Mutex<()>,
    saved_daif: AtomicU64,
}

// SAFETY: mutual exclusion is that of `inner`.
unsafe impl RawMutex for IrqLock {
    const INIT: Self = Self { inner: <spin::Mutex<()> as RawMutex>::INIT, saved_daif: AtomicU64::new(0) };
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        let daif = mask_interrupts();
        RawMutex::lock(&self.inner);
        self.saved_daif.store(daif, Ordering::Relaxed);
    }

    fn try_lock(&self) -> bool {
        let daif = mask_interrupts();
        let locked = RawMutex::try_lock(&self.inner);
        if locked {
            self.saved_daif.store(daif, Ordering::Relaxed);
        } else {
            DAIF.set(daif);
        }
        locked
    }

    unsafe fn unlock(&self) {
        let daif = self.saved_daif.load(Ordering::Relaxed);
        // SAFETY: the caller holds the lock.
        unsafe { RawMutex::unlock(&self.inner) }
        DAIF.set(daif);
    }
}

/// A mutex that masks this CPU's interrupts while it is held.
pub type IrqMutex<T> = lock_api::Mutex<IrqLock, T>;

/// What `f` returns, which is not interrupted.
pub fn with_interrupts_masked<T>(f: impl FnOnce() -> T) -> T {
    let daif = mask_interrupts();
    let result = f();
    DAIF.set(daif);
    result
}

/// Masks IRQs and returns what PSTATE.DAIF was before.
fn mask_interrupts() -> u64 {
    let daif = DAIF.get();
    DAIF.set(daif | DAIF::I::Masked.value);
    daif
}

//! A lock that holds its users to the crate's rule: nobody takes one while holding another, allocates, or waits.

use core::cell::RefCell;
use core::panic::Location;
use std::thread_local;
use std::vec::Vec;

use lock_api::{GuardNoSend, RawMutex};

/// Where the one lock is taken under which another is: that of the global errors, while a command queue is repaired.
const OUTER: &str = "repair.rs";

thread_local! {
    /// Where this thread took those that it holds.
    static HELD: RefCell<Vec<&'static Location<'static>>> = const { RefCell::new(Vec::new()) };
}

/// Panics if this thread holds one. `when` says what is not done then.
#[track_caller]
pub(super) fn assert_none_is_held(when: &str) {
    let held = HELD.with_borrow(|held| held.last().copied());
    if let Some(held) = held
        && !std::thread::panicking()
    {
        panic!("the lock taken at {held} is held {when}");
    }
}

fn note(taken_at: &'static Location<'static>) {
    HELD.with_borrow_mut(|held| held.push(taken_at));
}

/// The lock.
pub(crate) struct LeafLock(spin::Mutex<()>);

// SAFETY: mutual exclusion is that of the inner lock.
unsafe impl RawMutex for LeafLock {
    const INIT: Self = Self(<spin::Mutex<()> as RawMutex>::INIT);
    type GuardMarker = GuardNoSend;

    #[track_caller]
    fn lock(&self) {
        if !HELD.with_borrow(|held| held.iter().all(|held| held.file().ends_with(OUTER))) {
            assert_none_is_held("while another is taken");
        }
        RawMutex::lock(&self.0);
        note(Location::caller());
    }

    #[track_caller]
    fn try_lock(&self) -> bool {
        let locked = RawMutex::try_lock(&self.0);
        if locked {
            note(Location::caller());
        }
        locked
    }

    unsafe fn unlock(&self) {
        HELD.with_borrow_mut(|held| held.pop());
        // SAFETY: the caller holds the lock.
        unsafe { RawMutex::unlock(&self.0) }
    }
}

#[cfg(test)]
mod tests {
    use lock_api::Mutex;

    use super::*;
    use crate::platform::Platform;
    use crate::testing::TestPlatform;

    #[test]
    #[should_panic(expected = "is held while another is taken")]
    fn nested_locks_are_noticed() {
        let [outer, inner] = [const { Mutex::<LeafLock, _>::new(()) }; 2];
        let _outer = outer.lock();
        let _inner = inner.lock();
    }

    #[test]
    #[should_panic(expected = "is held while hardware or another CPU is waited for")]
    fn waiting_with_a_lock_is_noticed() {
        let lock = Mutex::<LeafLock, _>::new(());
        let _held = lock.lock();
        TestPlatform::leaked().relax();
    }
}

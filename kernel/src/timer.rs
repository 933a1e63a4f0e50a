//! The architected timer (Arm ARM D12): a clock, an end to every wait, and an interrupt after a while.
//!
//! The virtual timer is the one that a kernel at EL1 has to itself, whatever runs at EL2.

use alloc::boxed::Box;
use core::hint;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0, Readable, Writeable};

use crate::devicetree::{self, DeviceTree};
use crate::interrupts::{self, InterruptError};
use crate::sync::IrqMutex;

/// The virtual timer among the `interrupts` of the timer's node: secure, non-secure, virtual, hypervisor.
const VIRTUAL: usize = 2;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

static EXPIRED: AtomicU64 = AtomicU64::new(0);
/// What the next interrupt is to do.
static TASK: IrqMutex<Option<Box<dyn FnOnce() + Send>>> = IrqMutex::new(None);

/// Time since the counter started, which is about when the machine did. Never goes back.
#[must_use]
pub fn now() -> Duration {
    // The counter must not be read ahead of what the caller has just done.
    barrier::isb(barrier::SY);
    let (count, frequency) = (CNTVCT_EL0.get(), frequency_hz());
    let nanos = count % frequency * NANOS_PER_SECOND / frequency;
    Duration::new(count / frequency, nanos as u32)
}

/// Polls `condition` until it holds or `limit` has passed; returns whether it held. Interrupts are taken meanwhile, unless
/// they are masked.
pub fn wait_for(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = now().saturating_add(limit);
    loop {
        // The clock first: a condition that came true in time counts, however late it is looked at.
        let late = now() >= deadline;
        if condition() {
            return true;
        }
        if late {
            return false;
        }
        hint::spin_loop();
    }
}

/// The counter's frequency. It has 32 bits, so the number of counts in a second times [`NANOS_PER_SECOND`] fits into 64.
fn frequency_hz() -> u64 {
    CNTFRQ_EL0.get().clamp(1, u64::from(u32::MAX))
}

/// Enables the virtual timer's interrupt.
///
/// # Errors
///
/// [`InterruptError`] if the device tree has no timer, or its interrupt cannot be enabled.
pub(crate) fn init(tree: &DeviceTree) -> Result<(), InterruptError> {
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::CLEAR);
    let node = devicetree::find_compatible(tree, &["arm,armv8-timer"])?;
    let specifier = devicetree::interrupt(&node, VIRTUAL)?;
    interrupts::enable(specifier, Box::new(expire))
}

/// Asks for one interrupt `after` now; a request that is still pending is replaced.
pub fn start(after: Duration) {
    let fraction = u64::from(after.subsec_nanos()) * frequency_hz() / NANOS_PER_SECOND;
    let ticks = after.as_secs().saturating_mul(frequency_hz()).saturating_add(fraction);
    CNTV_CVAL_EL0.set(CNTVCT_EL0.get().saturating_add(ticks));
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET + CNTV_CTL_EL0::IMASK::CLEAR);
    barrier::isb(barrier::SY);
}

/// Has `task` run in the timer's interrupt, `after` now. A request of [`start`] or this that is still pending is replaced.
pub fn run_after(after: Duration, task: Box<dyn FnOnce() + Send>) {
    let replaced = TASK.lock().replace(task);
    start(after);
    drop(replaced);
}

/// How many of the interrupts asked for by [`start`] have come.
#[must_use]
pub fn expired() -> u64 {
    EXPIRED.load(Ordering::Relaxed)
}

/// The interrupt handler: the interrupt is level-triggered, so the timer has to stop asking for it.
fn expire() {
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::CLEAR);
    barrier::isb(barrier::SY);
    EXPIRED.fetch_add(1, Ordering::Relaxed);
    let task = TASK.lock().take();
    if let Some(task) = task {
        task();
    }
}

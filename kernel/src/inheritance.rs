//! From one run of the kernel to the next on the same machine, without a reset in between: what the next one must leave
//! alone, and the way there.
//!
//! It is told through a page of the image that nobody clears. What is in memory when a machine is switched on is no
//! inheritance, because it does not begin with [`MARK`].

use alloc::vec::Vec;
use core::convert::Infallible;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use smmu::addr::StreamId;
use smmu::iommu::fwspec::Phandle;

use crate::boot;
use crate::devicetree::{self, DeviceTree};
use crate::memory::layout;
use crate::sync;

/// The first word of the page.
const MARK: u64 = u64::from_le_bytes(*b"inherit!");

/// What one run leaves to the next.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Memory that hardware goes on using, physical addresses in bytes: nothing else may come to lie there.
    pub reserved: Vec<Range<u64>>,
    /// Devices whose DMA goes on.
    pub devices: Vec<InheritedDevice>,
    /// Whatever else there is to say.
    pub note: u64,
}

/// A device that works for the next run as it did for the one before. It is a function of a root bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InheritedDevice {
    /// Bus, device and function number, as in a Requester ID.
    pub requester_id: u16,
    /// The IOMMU that it is behind.
    pub iommu: Phandle,
    /// Its stream there.
    pub stream: StreamId,
}

/// There is more to say than the page has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch {
    /// Words that it takes.
    pub words: usize,
    /// Words that there are.
    pub room: usize,
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the next run would have to be told {} words, and there is room for {}", self.words, self.room)
    }
}

impl core::error::Error for TooMuch {}

/// Takes what the run before has left, if there was one.
pub(crate) fn receive() -> Option<Inheritance> {
    let (mark, page) = page().split_first()?;
    if mark.swap(0, Ordering::Acquire) != MARK {
        return None;
    }
    let mut words = page.iter().map(|word| word.load(Ordering::Relaxed));
    let (note, reserved, devices) = (words.next()?, words.next()?, words.next()?);
    let mut inheritance = Inheritance { note, ..Inheritance::default() };
    for _ in 0..reserved {
        inheritance.reserved.push(words.next()?..words.next()?);
    }
    for _ in 0..devices {
        let (requester_id, iommu, stream) = (words.next()?, words.next()?, words.next()?);
        let (requester_id, iommu) = (requester_id as u16, Phandle::new(iommu as u32));
        inheritance.devices.push(InheritedDevice { requester_id, iommu, stream: StreamId::new(stream as u32) });
    }
    Some(inheritance)
}

/// Leaves everything to the next run of the kernel, and starts it: by its own entry point, with MMU and caches off.
///
/// # Errors
///
/// [`TooMuch`] if it cannot be put in words.
pub fn bequeath(tree: &DeviceTree, inheritance: &Inheritance) -> Result<Infallible, TooMuch> {
    let Inheritance { reserved, devices, note } = inheritance;
    let counts = [*note, reserved.len() as u64, devices.len() as u64];
    let reserved = reserved.iter().flat_map(|range| [range.start, range.end]);
    let devices = devices
        .iter()
        .flat_map(|device| [device.requester_id.into(), device.iommu.get().into(), device.stream.get().into()]);
    let words: Vec<u64> = counts.into_iter().chain(reserved).chain(devices).collect();
    let (mark, page) = page().split_first().ok_or(TooMuch { words: words.len(), room: 0 })?;
    if words.len() > page.len() {
        return Err(TooMuch { words: words.len(), room: page.len() });
    }
    for (word, value) in page.iter().zip(words) {
        word.store(value, Ordering::Relaxed);
    }
    mark.store(MARK, Ordering::Release);
    let device_tree = devicetree::location(tree).start as usize;
    sync::with_interrupts_masked(|| boot::again(device_tree))
}

/// The page.
fn page() -> &'static [AtomicU64] {
    let range = layout::inheritance();
    // SAFETY: the linker script sets this page aside, and nobody else uses it.
    unsafe { core::slice::from_raw_parts(range.start as *const AtomicU64, range.len() / size_of::<AtomicU64>()) }
}

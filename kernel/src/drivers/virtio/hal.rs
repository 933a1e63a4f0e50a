//! The ground under `virtio-drivers`: its `Hal`, which is a type without values, so that a device's memory has to be found
//! through a number in that type.
//!
//! Each device in use occupies a slot of a static table; the crate's types for it are instantiated for [`SlotHal`] with
//! that slot's number, and so allocate, map and unmap in the domain of that device and of no other. What occupies a slot is
//! behind an `Arc`, because mapping may wait for an SMMU, and no lock is held meanwhile.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use smmu::addr::Iova;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use super::{Page, Reason};
use crate::drivers::dma::{CoherentPages, DeviceDma};
use crate::pci::{Bar, PciFunction};
use crate::sync::IrqMutex;
use crate::timer::wait_for;

/// A request takes milliseconds, unless the machine is starved or the device has stopped.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How many virtio devices can be in use at a time.
pub const SLOTS: usize = 8;

/// What the device is told in place of the address of a buffer that could not be mapped, because `Hal::share` cannot fail:
/// above every input range that an SMMU translates (bit 63 set, bit 55 clear), so that the access is stopped and reported.
const NEVER_MAPPED: PhysAddr = 1 << 63;

/// An address for registers that are not to be had, aligned for all of them.
const NOWHERE: NonNull<u8> = NonNull::<[Page; 0]>::dangling().cast();

static TABLE: [IrqMutex<Option<Arc<Occupant>>>; SLOTS] = [const { IrqMutex::new(None) }; SLOTS];

/// The device in a slot.
pub(super) struct Occupant {
    dma: Box<dyn DeviceDma>,
    /// The buffers that the device has been given for requests, and where it sees them.
    shared: IrqMutex<Vec<Shared>>,
    /// Its memory BARs and where the CPU sees them.
    bars: Vec<(Bar, NonNull<[u8]>)>,
    /// Set when a buffer could not be mapped.
    pub(super) not_mapped: AtomicBool,
    /// Set when a BAR did not hold the address any more that was written to it.
    pub(super) bars_moved: AtomicBool,
    /// Set when it did not accept the features chosen.
    pub(super) features_refused: AtomicBool,
}

/// A buffer that the device can reach.
struct Shared {
    iova: Iova,
    buffer: NonNull<[u8]>,
    direction: BufferDirection,
}

// SAFETY: the pointers are to device registers and to buffers that nobody uses meanwhile; the rest is Send and Sync itself.
unsafe impl Send for Occupant {}
// SAFETY: as above.
unsafe impl Sync for Occupant {}

/// The right to a slot, which is free again when it is dropped.
pub(super) struct Slot<const SLOT: usize>(Arc<Occupant>);

impl<const SLOT: usize> Slot<SLOT> {
    /// Puts `function`, with all its BARs, into the slot.
    pub(super) fn occupy(function: &mut PciFunction, dma: Box<dyn DeviceDma>) -> Result<Self, Reason> {
        let taken = Reason::SlotTaken { slot: SLOT };
        let mut entry = match TABLE.get(SLOT) {
            Some(entry) => entry.lock(),
            None => return Err(taken),
        };
        if entry.is_some() {
            return Err(taken);
        }
        // All are mapped before any is taken: a function that cannot be had keeps its BARs.
        let mapped: Vec<_> = function.bars.iter().flatten().map(Bar::map).collect::<Result<_, _>>()?;
        let bars = function.bars.iter_mut().filter_map(Option::take).zip(mapped).collect();
        let occupant = Arc::new(Occupant {
            dma,
            shared: IrqMutex::new(Vec::new()),
            bars,
            not_mapped: AtomicBool::new(false),
            bars_moved: AtomicBool::new(false),
            features_refused: AtomicBool::new(false),
        });
        *entry = Some(occupant.clone());
        Ok(Self(occupant))
    }

    /// The device's record.
    pub(super) fn occupant(&self) -> &Arc<Occupant> {
        &self.0
    }

    /// Why setting up the device failed with `error`, which may have been provoked to stop the crate.
    pub(super) fn explain(&self, error: virtio_drivers::Error) -> Reason {
        if self.0.features_refused.load(Ordering::Relaxed) { Reason::FeaturesRefused } else { Reason::Device(error) }
    }

    /// Waits for the device to be done with the request `token`, which it has just been given; `next_used` tells which
    /// request it says is done.
    ///
    /// # Errors
    ///
    /// Whatever it is, the device may still use the request's buffers: until it has been dropped and
    /// [`Self::take_back`] has been called.
    pub(super) fn wait(&self, token: u16, mut next_used: impl FnMut() -> Option<u16>) -> Result<(), Reason> {
        if self.0.not_mapped.swap(false, Ordering::Relaxed) {
            return Err(Reason::NotMapped);
        }
        if !wait_for(REQUEST_LIMIT, || next_used().is_some()) {
            return Err(Reason::Stopped { limit: REQUEST_LIMIT });
        }
        if next_used() != Some(token) {
            return Err(Reason::Device(virtio_drivers::Error::WrongToken));
        }
        Ok(())
    }

    /// Makes the buffers of unfinished requests unreachable for the device.
    pub(super) fn take_back(&self) {
        let shared = core::mem::take(&mut *self.0.shared.lock());
        for Shared { iova, buffer, direction } in shared {
            // SAFETY: `map` returned it for this buffer, which its driver keeps until the end of the request, that is now.
            unsafe { self.0.dma.unmap(iova, buffer, direction) };
        }
    }
}

impl<const SLOT: usize> Drop for Slot<SLOT> {
    fn drop(&mut self) {
        self.take_back();
        // The record itself goes with the last `Arc`, which is this slot's own: after the lock has been released.
        if let Some(entry) = TABLE.get(SLOT) {
            *entry.lock() = None;
        }
    }
}

/// The `Hal` of the device in slot `SLOT`.
pub(super) struct SlotHal<const SLOT: usize>;

impl<const SLOT: usize> SlotHal<SLOT> {
    /// The device in the slot, if there is one.
    fn occupant() -> Option<Arc<Occupant>> {
        TABLE.get(SLOT)?.lock().clone()
    }
}

// SAFETY: memory comes from `DeviceDma`, whose implementations promise what `Hal` asks for; registers lie in mapped BARs.
unsafe impl<const SLOT: usize> Hal for SlotHal<SLOT> {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        match Self::occupant().and_then(|occupant| occupant.dma.allocate_coherent(pages)) {
            Some(memory) => (memory.iova.get(), memory.pointer),
            // Address 0 stands for failure.
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        if let Some(occupant) = Self::occupant() {
            let memory = CoherentPages { iova: Iova::new(paddr), pointer: vaddr, pages };
            // SAFETY: the caller promises that these came from `dma_alloc` and are freed once.
            unsafe { occupant.dma.free_coherent(memory) };
        }
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        let occupant = Self::occupant();
        let mut bars = occupant.iter().flat_map(|occupant| &occupant.bars);
        let found = bars.find_map(|(bar, registers)| {
            let offset = usize::try_from(paddr.checked_sub(bar.bus_address)?).ok()?;
            let end = offset.checked_add(size)?;
            // SAFETY: the offset is inside the mapped BAR.
            (end <= registers.len()).then(|| unsafe { registers.cast::<u8>().add(offset) })
        });
        // The crate read the address from a BAR that enumeration wrote, and `capabilities` checked offset and size: if it is
        // not there, the device has changed the BAR since. Nobody may use what is returned then.
        found.unwrap_or_else(|| {
            if let Some(occupant) = occupant {
                occupant.bars_moved.store(true, Ordering::Relaxed);
            }
            NOWHERE
        })
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let Some(occupant) = Self::occupant() else {
            return NEVER_MAPPED;
        };
        // SAFETY: the caller promises that the buffer is valid, not empty, and left alone until `unshare`.
        let Some(iova) = (unsafe { occupant.dma.map(buffer, direction) }) else {
            occupant.not_mapped.store(true, Ordering::Relaxed);
            return NEVER_MAPPED;
        };
        occupant.shared.lock().push(Shared { iova, buffer, direction });
        iova.get()
    }

    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let Some(occupant) = Self::occupant() else {
            return;
        };
        let mut shared = occupant.shared.lock();
        let Some(index) = shared.iter().position(|shared| shared.iova.get() == paddr) else {
            return;
        };
        shared.swap_remove(index);
        drop(shared);
        // SAFETY: `map` returned this address for this buffer, and the caller promises that the transfer is over.
        unsafe { occupant.dma.unmap(Iova::new(paddr), buffer, direction) };
    }
}

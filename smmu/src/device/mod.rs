//! One SMMUv3: its features, bring-up, queues, stream table, invalidation, faults.
//!
//! What lives here: everything that one instance of the hardware needs, without a heap. What does not: which device has
//! which stream and which domain ([`crate::iommu`]), page tables ([`crate::pgtable`]), bit positions ([`crate::arch`]).
//!
#![doc = include_str!("features.md")]

mod adopt;
mod atc;
mod attach;
mod boot_policy;
mod bring_up;
mod command_queue;
mod context_table;
mod control;
mod dump;
mod entry_table;
mod error;
mod event_queue;
mod features;
mod global_error;
mod guest;
mod identifiers;
mod interrupts;
mod invalidation;
mod lifecycle;
mod live_entry;
mod modes;
mod page_requests;
mod phase;
mod record_queue;
mod ring;
mod stage2;
mod stream_table;
#[cfg(test)]
pub(crate) mod tests;

use core::fmt;

use lock_api::Mutex;

pub use atc::AtcTarget;
pub use boot_policy::{BootPolicy, Takeover};
pub use context_table::ContextTable;
pub use dump::Dump;
pub use error::{CannotAdopt, DeviceError};
pub use event_queue::EventDrain;
pub use features::Features;
pub use global_error::GlobalErrorReport;
pub use guest::{CommandRefusal, Guest, GuestStream, NestedParent, RefusedCommand, RefusedEntry};
pub use interrupts::{Message, Messages};
pub use invalidation::{StaleRange, TranslationTag};
pub use lifecycle::Handover;
pub use page_requests::PageRequestDrain;
pub use stage2::Stage2Table;

use crate::addr::{Asid, PhysAddr, Vmid};
use crate::arch::command::Command;
use crate::platform::Platform;
use command_queue::CommandQueue;
use control::Control;
#[cfg(feature = "alloc")]
pub(crate) use control::wait_until;
use event_queue::{EventCounts, EventQueue};
use global_error::GlobalErrors;
use identifiers::Identifiers;
use interrupts::Interrupts;
use modes::Modes;
use page_requests::PageRequestQueue;
use phase::Lifecycle;
use ring::Ring;
use stream_table::StreamTable;

/// Counts since bring-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Commands sent, CMD_SYNCs included.
    pub commands: u64,
    /// Commands that the SMMU refused.
    pub refused: u64,
    /// Events handed out by [`drain_events`](Smmu::drain_events).
    pub events: u64,
    /// How often the event queue was found to have overflowed. How many events that cost, the SMMU does not say.
    pub event_overflows: u64,
    /// DMA memory in use by queues, stream tables and identifier bitmaps, in bytes.
    pub dma_bytes: usize,
}

/// One SMMUv3, up and running: every stream that is not attached aborts.
///
/// All methods take `&self` and may be called from several CPUs at once. Dropping it stops the SMMU with all traffic
/// aborted.
///
/// # Interrupt handlers
///
/// What an interrupt handler is there for may be called by it: [`handle_global_errors`](Self::handle_global_errors) and
/// the drains of events and page requests never wait for commands. All that sends commands (attaching, detaching,
/// invalidating, retiring, answering) waits until they are carried out, and commands are carried out in the order in which
/// CPUs reserved slots for them. A handler that sends some may have interrupted another sender on its own CPU between
/// reserving slots and filling them. It waits for it in vain, and gets [`DeviceError::Timeout`] with CMDQ_PROD after a
/// second: no deadlock, but no invalidation either. So leave such work to a thread, or mask the interrupts whose handlers
/// send commands wherever commands are sent. A kernel that preempts itself need not care, as long as whoever was preempted
/// runs again within that second.
pub struct Smmu<P: Platform> {
    control: Control<P>,
    features: Features,
    modes: Modes,
    takeover: Takeover,
    lifecycle: Lifecycle,
    commands: CommandQueue<P>,
    events: EventQueue<P>,
    event_counts: EventCounts,
    page_requests: Option<PageRequestQueue<P>>,
    errors: GlobalErrors<P>,
    interrupts: Mutex<P::Lock, Interrupts>,
    streams: StreamTable<P>,
    asids: Identifiers<P>,
    vmids: Identifiers<P>,
}

impl<P: Platform> Smmu<P> {
    /// What the system around it provides.
    #[must_use]
    pub fn platform(&self) -> &'static P {
        self.control.platform()
    }

    /// What the SMMU can do.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Whether the SMMU would abort all traffic if it were switched off (GBPA.ABORT is in force). One that is asleep does.
    #[must_use]
    pub fn aborts_while_disabled(&self) -> bool {
        let held = self.lifecycle.hold_registers();
        held.map_or(self.is_suspended(), |_held| bring_up::aborts_while_disabled(&self.control))
    }

    /// Counts since bring-up.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let (commands, refused) = self.commands.counts();
        let dma_bytes = [
            self.commands.size_bytes(),
            self.events.size_bytes(),
            self.page_requests.as_ref().map_or(0, PageRequestQueue::size_bytes),
            self.streams.size_bytes(),
            self.asids.size_bytes(),
            self.vmids.size_bytes(),
        ];
        let (events, event_overflows) = self.event_counts.get();
        Statistics { commands, refused, events, event_overflows, dma_bytes: dma_bytes.iter().sum() }
    }

    /// Takes a free ASID. No translation is cached under it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfIds`] if all are in use.
    pub fn take_asid(&self) -> Result<Asid, DeviceError> {
        self.asids.take().map(Asid::new)
    }

    /// Takes a free VMID. No translation is cached under it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfIds`] if all are in use.
    pub fn take_vmid(&self) -> Result<Vmid, DeviceError> {
        self.vmids.take().map(Vmid::new)
    }

    /// Marks an ASID as taken that somebody else uses already: firmware in an entry that stays, or the CPUs. Returns whether
    /// it was free. [`retire`](Self::retire) gives it back as any other.
    pub fn reserve_asid(&self, asid: Asid) -> bool {
        self.asids.reserve(asid.get())
    }

    /// Marks a VMID as taken that somebody else uses already: firmware in an entry that stays, or the CPUs. Returns whether
    /// it was free. [`retire`](Self::retire) gives it back as any other.
    pub fn reserve_vmid(&self, vmid: Vmid) -> bool {
        self.vmids.reserve(vmid.get())
    }

    /// Retires the identifier in `tag`: drops every translation cached under it, then gives it back. Once it is retired it may
    /// be somebody else's: whoever took it retires it once.
    ///
    /// # Errors
    ///
    /// [`DeviceError::IdNotTaken`] if it is nobody's. On any other the identifier stays taken: translations may be cached under
    /// it.
    pub fn retire(&self, tag: TranslationTag) -> Result<(), DeviceError> {
        let (set, number) = self.identifier(tag);
        set.check_taken(number)?;
        self.invalidate_all(tag)?;
        self.give_back(tag);
        Ok(())
    }

    /// Gives an identifier back that was never put to use.
    pub(crate) fn give_back(&self, tag: TranslationTag) {
        let (set, number) = self.identifier(tag);
        set.give_back(number);
    }

    /// What `tag` takes, and of which set.
    fn identifier(&self, tag: TranslationTag) -> (&Identifiers<P>, u16) {
        match tag {
            TranslationTag::Stage1 { asid, .. } => (&self.asids, asid.get()),
            TranslationTag::Stage2 { vmid } | TranslationTag::Nested { vmid } => (&self.vmids, vmid.get()),
        }
    }

    /// Never gives the memory back that the SMMU may still reach.
    fn keep_memory(&self) {
        self.commands.keep();
        self.events.keep();
        self.page_requests.iter().for_each(PageRequestQueue::keep);
        self.streams.keep();
    }

    /// Sends invalidations and waits. A suspended SMMU has none to carry out: it translates nothing, and forgets everything
    /// before it does again.
    fn run_invalidations(&self, commands: impl IntoIterator<Item = Command>) -> Result<(), DeviceError> {
        needless_while_suspended(self.run(commands))
    }

    /// The same for one that no device has to obey.
    #[inline]
    fn run_invalidation(&self, command: Command) -> Result<(), DeviceError> {
        needless_while_suspended(self.commands.run_one(&self.control, &self.errors, command))
    }

    /// Sends commands and waits until they are carried out.
    fn run(&self, commands: impl IntoIterator<Item = Command>) -> Result<(), DeviceError> {
        self.commands.run(&self.control, &self.errors, commands)
    }
}

impl<P: Platform> fmt::Debug for Smmu<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smmu").field("features", &self.features).finish_non_exhaustive()
    }
}

#[inline]
fn needless_while_suspended(result: Result<(), DeviceError>) -> Result<(), DeviceError> {
    match result {
        Err(DeviceError::Suspended) => Ok(()),
        other => other,
    }
}

/// The value of a queue's BASE register: address, size, and the hint to keep it in caches.
fn queue_base(physical: PhysAddr, ring: Ring) -> u64 {
    const ALLOCATE_HINT: u64 = 1 << 62;
    ALLOCATE_HINT | physical.get() | u64::from(ring.log2_entries())
}

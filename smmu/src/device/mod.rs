//! One SMMUv3: its features, bring-up, queues, stream table, invalidation, faults.
//!
//! What lives here: everything that one instance of the hardware needs, without a heap. What does not: which device has
//! which stream and which domain ([`crate::iommu`]), page tables ([`crate::pgtable`]), bit positions ([`crate::arch`]).

mod attach;
mod bring_up;
mod command_queue;
mod context_table;
mod control;
mod error;
mod event_queue;
mod features;
mod global_error;
mod identifiers;
mod invalidation;
mod ring;
mod stream_table;
#[cfg(test)]
pub(crate) mod tests;

use core::fmt;

pub use context_table::ContextTable;
pub use error::DeviceError;
pub use features::Features;
pub use global_error::GlobalErrorReport;
pub use invalidation::{StaleRange, TranslationTag};

use crate::addr::{Asid, PhysAddr, Vmid};
use crate::arch::command::Command;
use crate::arch::event::Event;
use crate::arch::registers::GERROR;
use crate::platform::Platform;
use command_queue::CommandQueue;
use control::Control;
use event_queue::EventQueue;
use global_error::GlobalErrors;
use identifiers::Identifiers;
use ring::Ring;
use stream_table::StreamTable;

/// Commands that the queue holds: 2^8 of 16 bytes are one page.
const LOG2_COMMANDS: u8 = 8;
/// Events that the queue holds: 2^10 of 32 bytes. A device that misses its mapping raises one per bus beat.
const LOG2_EVENTS: u8 = 10;

/// What becomes of DMA when the driver takes the SMMU over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootPolicy {
    /// Every stream aborts from the first register write on, whatever firmware had set up.
    #[default]
    Abort,
}

/// What one look at the event queue brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventDrain {
    /// Events handed to the handler.
    pub events: u32,
    /// Whether the SMMU had dropped events because the queue was full. Acknowledged.
    pub overflowed: bool,
    /// Whether EVENTQ_PROD made no sense. The queue was emptied.
    pub inconsistent: bool,
}

/// Counts since bring-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Commands sent, CMD_SYNCs included.
    pub commands: u64,
    /// Commands that the SMMU refused.
    pub refused: u64,
    /// DMA memory in use by queues, stream tables and identifier bitmaps, in bytes.
    pub dma_bytes: usize,
}

/// One SMMUv3, up and running: every stream that is not attached aborts.
///
/// All methods take `&self` and may be called from several CPUs at once. Dropping it stops the SMMU with all traffic
/// aborted.
pub struct Smmu<P: Platform> {
    control: Control<P>,
    features: Features,
    commands: CommandQueue<P>,
    events: EventQueue<P>,
    errors: GlobalErrors<P>,
    streams: StreamTable<P>,
    asids: Identifiers<P>,
    vmids: Identifiers<P>,
}

impl<P: Platform> Smmu<P> {
    /// Takes an SMMU over and brings it up. `firmware_coherent` is the firmware table's word on whether the SMMU's own
    /// accesses snoop the CPU's caches (`dma-coherent`).
    ///
    /// # Errors
    ///
    /// Any [`DeviceError`]; the SMMU is then off with all traffic aborted, or never answered.
    pub fn bring_up(
        platform: &'static P,
        registers: P::Registers,
        firmware_coherent: bool,
        policy: BootPolicy,
    ) -> Result<Self, DeviceError> {
        match policy {
            BootPolicy::Abort => {}
        }
        let control = Control::new(platform, registers);
        let features = bring_up::quiesce(&control, firmware_coherent)?;
        let coherent = features.coherent();
        let smmu = Self {
            commands: CommandQueue::new(platform, LOG2_COMMANDS.min(features.log2_commands_max()), coherent)?,
            events: EventQueue::new(platform, LOG2_EVENTS.min(features.log2_events_max()), coherent)?,
            errors: GlobalErrors::new(&control),
            streams: StreamTable::new(platform, &features)?,
            asids: Identifiers::new(platform, "ASID", features.asid_bits())?,
            vmids: Identifiers::new(platform, "VMID", features.vmid_bits())?,
            control,
            features,
        };
        // From here on dropping `smmu`, on success or failure, switches the hardware off before its memory goes.
        smmu.start()?;
        Ok(smmu)
    }

    /// What the SMMU can do.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Whether the SMMU would abort all traffic if it were switched off (GBPA.ABORT is in force).
    #[must_use]
    pub fn aborts_while_disabled(&self) -> bool {
        bring_up::aborts_while_disabled(&self.control)
    }

    /// Counts since bring-up.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let (commands, refused) = self.commands.counts();
        let dma_bytes = [
            self.commands.size_bytes(),
            self.events.size_bytes(),
            self.streams.size_bytes(),
            self.asids.size_bytes(),
            self.vmids.size_bytes(),
        ];
        Statistics { commands, refused, dma_bytes: dma_bytes.iter().sum() }
    }

    /// Hands the waiting events to `handler`, at most one queue's worth. Call it from the event interrupt, or poll.
    ///
    /// `handler` runs outside any lock of the SMMU, in the caller's context.
    pub fn drain_events(&self, handler: impl FnMut(Event)) -> EventDrain {
        self.events.drain(&self.control, handler)
    }

    /// Looks for global errors and deals with them: a refused command is replaced, the others acknowledged. An SMMU that
    /// cannot read its command queue any more, and so cannot be told to forget anything, is closed. Call it from the global
    /// error interrupt, or poll. Returns what was active; each error once.
    pub fn handle_global_errors(&self) -> GlobalErrorReport {
        let report = self.errors.report(&self.control);
        if report.bits() & GERROR::CMDQ_ERR::SET.value != 0 {
            self.commands.repair(&self.control, &self.errors);
            if self.commands.is_halted() {
                // An error only means that the next look finds CMDQ_ERR again.
                let _ = self.close();
                self.errors.acknowledge(&self.control, GERROR::CMDQ_ERR::SET.value);
            }
        }
        self.errors.acknowledge(&self.control, report.bits() & !GERROR::CMDQ_ERR::SET.value);
        report
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

    /// Retires the identifier in `tag`: drops every translation cached under it, then gives it back.
    ///
    /// # Errors
    ///
    /// On any error the identifier stays taken: translations may be cached under it.
    pub fn retire(&self, tag: TranslationTag) -> Result<(), DeviceError> {
        self.invalidate_all(tag)?;
        self.give_back(tag);
        Ok(())
    }

    /// Gives an identifier back that was never put to use.
    pub(crate) fn give_back(&self, tag: TranslationTag) {
        match tag {
            TranslationTag::Stage1 { asid, .. } => self.asids.give_back(asid.get()),
            TranslationTag::Stage2 { vmid } => self.vmids.give_back(vmid.get()),
        }
    }

    /// Switches the SMMU off with all traffic aborted, for good: what is left when it does not do as it is told. Commands
    /// are refused from here on.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Timeout`] if it does not even do that: then it may go on reading its tables.
    pub fn close(&self) -> Result<(), DeviceError> {
        if self.commands.close() {
            // It was told before. Every further wait for it would be in vain.
            return bring_up::is_off(&self.control);
        }
        bring_up::stop(&self.control)
    }

    /// Sends commands and waits until they are carried out.
    fn run(&self, commands: impl IntoIterator<Item = Command>) -> Result<(), DeviceError> {
        self.commands.run(&self.control, &self.errors, commands)
    }
}

impl<P: Platform> Drop for Smmu<P> {
    fn drop(&mut self) {
        if bring_up::stop(&self.control).is_err() {
            // It may still read them: memory that hardware reaches is not given back.
            self.commands.keep();
            self.events.keep();
            self.streams.keep();
        }
    }
}

impl<P: Platform> fmt::Debug for Smmu<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smmu").field("features", &self.features).finish_non_exhaustive()
    }
}

/// The value of a queue's BASE register: address, size, and the hint to keep it in caches.
fn queue_base(physical: PhysAddr, ring: Ring) -> u64 {
    const ALLOCATE_HINT: u64 = 1 << 62;
    ALLOCATE_HINT | physical.get() | u64::from(ring.log2_entries())
}

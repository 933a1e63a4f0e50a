//! Streams: from aborting to translated, from one meaning to another, and back, never through a third (IHI 0070, 3.21.3).

use core::mem;

use super::live_entry::Interrupted;
use super::stream_table::{Owner, Slot};
use super::{DeviceError, Smmu};
use crate::addr::StreamId;
use crate::arch::command::Command;
use crate::arch::stream_table::StreamTableEntry;
use crate::platform::Platform;

impl<P: Platform> Smmu<P> {
    /// Gives an aborting stream the meaning of `entry`: four commands, two of them CMD_SYNC.
    ///
    /// Whatever `entry` points at is whole, in memory, and stays there until [`detach`](Self::detach) has returned `Ok`.
    ///
    /// # Errors
    ///
    /// [`DeviceError::StreamInUse`], [`DeviceError::StreamOutOfRange`] or [`DeviceError::OutOfDmaMemory`] before anything
    /// changed. After any other error the stream aborts, or the SMMU does not answer any more: then it is
    /// [`DeviceError::StreamStuck`], and what `entry` points at must be kept.
    pub fn attach(&self, stream: StreamId, entry: &StreamTableEntry) -> Result<(), DeviceError> {
        self.lifecycle.check_running()?;
        self.update_stream(stream, self.streams.claim(stream)?, entry, Owner::Attached)
    }

    /// Gives an attached stream another meaning while its device goes on, or takes one over from the boot policy. Its
    /// transactions meet the old entry or the new one, or abort if there is no other way:
    /// [`EntryUpdate`](crate::arch::entry_update::EntryUpdate) says beforehand.
    ///
    /// When it returns `Ok`, the SMMU reads nothing any more that only the old entry led to. Translations stay cached: where
    /// both entries tag them alike (ASID, VMID) but mean different tables, invalidate them
    /// ([`invalidate_all`](Self::invalidate_all)). So they do in a device with ATS ([`flush_atc`](Self::flush_atc)): before an
    /// entry without ATS the device must have stopped using it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::StreamNotAttached`] if it was not, [`DeviceError::StreamBusy`] if another CPU has the stream; nothing
    /// has changed then. [`DeviceError::StreamStuck`] if the SMMU does not answer: keep what both entries point at. After
    /// any other error the stream is attached and has its old meaning, or aborts.
    pub fn replace(&self, stream: StreamId, entry: &StreamTableEntry) -> Result<(), DeviceError> {
        self.lifecycle.check_running()?;
        self.update_stream(stream, self.streams.reclaim(stream)?, entry, Owner::Attached)
    }

    /// Makes an attached stream abort, silently, and leaves it attached: for a device that must not reach anything until
    /// its owner has dealt with it. The owner revives it by [`replace`](Self::replace) or ends it by
    /// [`detach`](Self::detach). This works while the SMMU is suspended, too.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace); the stream aborts after all but [`DeviceError::StreamNotAttached`],
    /// [`DeviceError::StreamBusy`], [`DeviceError::StreamStuck`], and [`DeviceError::HandedOver`]: then it is another owner's.
    pub fn abort(&self, stream: StreamId) -> Result<(), DeviceError> {
        // One that sleeps forgets all entries before it translates again.
        self.lifecycle.check_ours()?;
        let slot = self.streams.reclaim(stream)?;
        let former = slot.former();
        self.update_stream(stream, slot, &StreamTableEntry::abort(), former)
    }

    /// Makes an attached stream abort again and gives it up. When it returns `Ok`, no transaction of the stream is
    /// translated any more and what its entry pointed at is the caller's again.
    ///
    /// # Errors
    ///
    /// [`DeviceError::StreamNotAttached`] if it was not, [`DeviceError::StreamBusy`] if another CPU has the stream;
    /// [`DeviceError::StreamStuck`] if the SMMU does not answer; [`DeviceError::Closed`] and [`DeviceError::HandedOver`] if it
    /// is not this driver's to change any more.
    pub fn detach(&self, stream: StreamId) -> Result<(), DeviceError> {
        self.lifecycle.check_ours()?;
        let slot = self.streams.reclaim(stream)?;
        self.retract(stream, slot, Owner::Nobody)
    }

    /// What the stream table says about a stream at this moment. Read-only.
    ///
    /// # Errors
    ///
    /// [`DeviceError::StreamOutOfRange`].
    pub fn stream_table_entry(&self, stream: StreamId) -> Result<StreamTableEntry, DeviceError> {
        self.streams.load(stream)
    }

    /// Updates the entry of a stream and hands it to `next`; back to its former owner, aborting, if that fails half-way.
    fn update_stream(
        &self,
        stream: StreamId,
        slot: Slot<'_, P>,
        entry: &StreamTableEntry,
        next: Owner,
    ) -> Result<(), DeviceError> {
        let former = slot.former();
        // Not leaf-only at first if the second level may be new.
        let mut leaf = former != Owner::Nobody;
        let mut forget = || self.run_invalidations([Command::CfgiSte { stream, leaf: mem::replace(&mut leaf, true) }]);
        match slot.update(entry, &mut forget) {
            Ok(()) => {
                slot.hand_over(next);
                Ok(())
            }
            Err(Interrupted::Before(error)) => {
                slot.hand_over(former);
                Err(error)
            }
            Err(Interrupted::Within(error)) => {
                self.retract(stream, slot, former)?;
                Err(error)
            }
        }
    }

    /// Invalidates an entry and hands its stream over. One whose invalidation fails stays claimed: nobody gets it.
    fn retract(&self, stream: StreamId, slot: Slot<'_, P>, next: Owner) -> Result<(), DeviceError> {
        slot.invalidate();
        let result = self.run_invalidations([Command::CfgiSte { stream, leaf: true }]);
        slot.hand_over(if result.is_ok() { next } else { Owner::Stuck });
        result.map_err(|_| DeviceError::StreamStuck { stream })
    }
}

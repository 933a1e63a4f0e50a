//! Streams: from aborting to translated and back, never through a third meaning (IHI 0070, 3.21.3).

use super::stream_table::Entry;
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
        let slot = self.streams.claim(stream)?;
        slot.prepare(entry);
        // The words of an entry may be read in any order and kept: what is left of the old ones must go before word 0
        // gives the new ones a meaning. Not leaf-only, because the second level may be new.
        if let Err(error) = self.run([Command::CfgiSte { stream, leaf: false }]) {
            slot.release();
            return Err(error);
        }
        slot.switch(entry);
        if let Err(error) = self.run([Command::CfgiSte { stream, leaf: true }]) {
            self.retract(stream, &slot)?;
            return Err(error);
        }
        slot.settle();
        Ok(())
    }

    /// Makes an attached stream abort again. When it returns `Ok`, no transaction of the stream is translated any more
    /// and what its entry pointed at is the caller's again.
    ///
    /// # Errors
    ///
    /// [`DeviceError::StreamNotAttached`] if it was not; [`DeviceError::StreamStuck`] if the SMMU does not answer.
    pub fn detach(&self, stream: StreamId) -> Result<(), DeviceError> {
        self.lifecycle.check_running()?;
        let slot = self.streams.reclaim(stream)?;
        self.retract(stream, &slot)
    }

    /// What the stream table says about a stream at this moment. Read-only.
    ///
    /// # Errors
    ///
    /// [`DeviceError::StreamOutOfRange`].
    pub fn stream_table_entry(&self, stream: StreamId) -> Result<StreamTableEntry, DeviceError> {
        self.streams.load(stream)
    }

    /// Invalidates an entry and gives its stream up. A stream whose invalidation fails stays claimed: nobody gets it.
    fn retract(&self, stream: StreamId, slot: &Entry<'_, P>) -> Result<(), DeviceError> {
        slot.switch(&StreamTableEntry::INVALID);
        self.run([Command::CfgiSte { stream, leaf: true }]).map_err(|_| DeviceError::StreamStuck { stream })?;
        slot.release();
        Ok(())
    }
}

//! Devices that cache translations themselves, in an address translation cache (ATC): PCIe ATS (IHI 0070, 3.9 and 4.5).
//!
//! The SMMU lets such a device use what it has cached, and checks no more than that the stream may use ATS at all
//! (CR0.ATSCHK). So the device is believed, and must be made to forget. One that does not is quarantined: its stream
//! [aborts](Smmu::abort). While the entry says so the SMMU refuses the device's translation requests and, because CR0.ATSCHK
//! is 1, aborts transactions that it has translated itself: what it has cached is of no use to it.

use super::{DeviceError, Smmu};
use crate::addr::{StreamId, SubstreamId};
use crate::arch::command::{Command, CommandError};
use crate::arch::range::AtcSpan;
use crate::arch::stream_table::StreamTableEntry;
use crate::platform::Platform;

/// What a device may have cached of one address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtcTarget {
    /// The stream of the device.
    pub stream: StreamId,
    /// The substream that the address space is bound to, or `None` if it is that of transactions without one.
    pub substream: Option<SubstreamId>,
}

impl AtcTarget {
    /// The command that makes the device forget `span`.
    pub(super) fn invalidation(self, span: AtcSpan) -> Command {
        let Self { stream, substream } = self;
        Command::AtcInv { stream, substream, global: false, span }
    }
}

/// The commands that make a device forget everything, also what it has cached of `substreams` if there are any.
pub(super) fn forget_everything(stream: StreamId, substreams: bool) -> impl Iterator<Item = Command> + Clone {
    let untagged = AtcTarget { stream, substream: None }.invalidation(AtcSpan::ALL);
    let all_substreams =
        Command::AtcInv { stream, substream: Some(SubstreamId::new(0)), global: true, span: AtcSpan::ALL };
    [untagged].into_iter().chain(substreams.then_some(all_substreams))
}

impl<P: Platform> Smmu<P> {
    /// Sends commands with CMD_ATC_INVs among them and waits until they are carried out, by the devices too.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Suspended`] unless the SMMU runs. It ignores CMD_ATC_INV while SMMUEN is 0 (IHI 0070, 4.5.1), and for a
    /// moment on the way to sleep and back its queue takes commands all the same.
    pub(super) fn run_with_atcs(&self, commands: impl IntoIterator<Item = Command>) -> Result<(), DeviceError> {
        // It does not go to sleep meanwhile. It may be closed.
        let _held = self.lifecycle.hold_running()?;
        self.run(commands)?;
        self.lifecycle.check_ours()
    }

    /// Makes a device forget all that it may have cached under a stream table entry, whatever the substream, and returns when
    /// it has. Does nothing unless the entry permits ATS.
    ///
    /// For an entry that is about to go, and before one becomes valid: what the device has cached by then it could use
    /// again.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Command`] with `AtcInvSync` if the device does not obey, [`DeviceError::Suspended`] if it could not be
    /// told, or any other. Then it may still use what it has cached, while the stream's entry permits ATS.
    pub fn flush_atc(&self, stream: StreamId, entry: &StreamTableEntry) -> Result<(), DeviceError> {
        if !entry.ats_enabled() {
            return Ok(());
        }
        self.run_with_atcs(forget_everything(stream, entry.log2_contexts() != 0))
    }

    /// Makes a device forget all that it may have cached under whatever entry its stream has had.
    pub(crate) fn forget_in_device(&self, stream: StreamId) -> Result<(), DeviceError> {
        self.run_with_atcs(forget_everything(stream, self.features.substream_id_bits() != 0))
    }

    /// Sends one device's CMD_ATC_INVs. If it does not obey, or cannot be told, it is quarantined: its stream
    /// [aborts](Self::abort), and is handed to `quarantined`.
    pub(super) fn run_or_quarantine(
        &self,
        stream: StreamId,
        commands: impl IntoIterator<Item = Command>,
        quarantined: &mut impl FnMut(StreamId),
    ) -> Result<(), DeviceError> {
        match self.run_with_atcs(commands) {
            Err(DeviceError::Command(CommandError::AtcInvSync) | DeviceError::Suspended) => match self.abort(stream) {
                // Not yet, or not any more: then it has been told by whoever attaches or detaches it.
                Err(DeviceError::StreamNotAttached { .. }) => Ok(()),
                result => result.map(|()| quarantined(stream)),
            },
            result => result,
        }
    }
}

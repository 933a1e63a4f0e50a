//! What becomes of DMA when the driver takes an SMMU over, and the streams that go on working meanwhile.

use core::fmt;

use super::stream_table::{Owner, StreamTable};
use super::{DeviceError, Smmu};
use crate::addr::StreamId;
use crate::arch::stream_table::StreamTableEntry;
use crate::platform::Platform;

/// What becomes of DMA when the driver takes the SMMU over.
///
/// Streams that a policy lets through are this driver's to answer for from then on: [`Smmu::boot_streams`] lists them, no
/// other can attach them, [`replace`](Smmu::replace) makes one a driver's, and [`detach`](Smmu::detach) ends what the policy
/// began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootPolicy<'a> {
    /// Every stream aborts from the first register write on, whatever firmware had set up.
    #[default]
    Abort,
    /// An SMMU that a former owner (firmware, or a kernel that ended) left running goes on: these streams are translated
    /// as they were, without a gap, and all others abort.
    ///
    /// The former owner's first-level or linear stream table stays in use for good, and the context descriptors and
    /// translation tables of these streams for as long as they are not attached anew, so all of that memory has to be kept
    /// from other uses; [`Platform::foreign`] gives the crate access to the tables. Entries of streams that are to be kept
    /// but abort already are left to abort. If the SMMU is off this is the same as [`BootPolicy::Abort`], and
    /// [`Smmu::takeover`] says so.
    ///
    /// Old translations must not be global (descriptors with nG = 0): those would be found by every domain of their VMID.
    Adopt(&'a [StreamId]),
    /// As `Abort`, but these streams pass untranslated: they reach all of memory.
    Bypass(&'a [StreamId]),
}

impl fmt::Display for BootPolicy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, streams) = match self {
            Self::Abort => return f.write_str("every stream aborts"),
            Self::Adopt(streams) => ("go on as a running SMMU has them", streams),
            Self::Bypass(streams) => ("pass untranslated", streams),
        };
        f.write_str("StreamIDs")?;
        for stream in *streams {
            write!(f, " {stream}")?;
        }
        write!(f, " {what}, all others abort")
    }
}

/// How bring-up found the SMMU, and what it did about that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// It was off, and started from nothing.
    Off,
    /// It was on. It was switched off with all traffic aborted, and started from nothing.
    Stopped,
    /// It was on, and stayed on with the streams that were chosen.
    Adopted,
}

impl fmt::Display for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "it was off",
            Self::Stopped => "it was on, and was stopped first",
            Self::Adopted => "it was on, and was adopted",
        })
    }
}

impl<P: Platform> StreamTable<P> {
    /// Gives a stream a meaning that the boot policy wants, before translation is switched on.
    pub(super) fn preset(&self, stream: StreamId, entry: &StreamTableEntry) -> Result<(), DeviceError> {
        match self.claim(stream) {
            Ok(slot) => {
                slot.preset(entry);
                Ok(())
            }
            // Named twice.
            Err(DeviceError::StreamInUse { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl<P: Platform> Smmu<P> {
    /// How bring-up found the SMMU.
    #[must_use]
    pub fn takeover(&self) -> Takeover {
        self.takeover
    }

    /// The streams that work because the boot policy said so, and that no driver has taken over yet.
    pub fn boot_streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.streams.streams_of(Owner::Boot)
    }

    /// Lets streams pass untranslated, before translation is switched on.
    pub(super) fn bypass(&self, streams: &[StreamId]) -> Result<(), DeviceError> {
        let entry = StreamTableEntry::bypass(self.features.incoming_shareability());
        streams.iter().try_for_each(|stream| self.streams.preset(*stream, &entry))
    }
}

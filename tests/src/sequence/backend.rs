//! What a sequence is run against: an SMMU, memory, and devices that do as they are told.

use std::error::Error;

use smmu::addr::{Iova, StreamId};
use smmu::iommu::PagingDomain;
use smmu::platform::Platform;

/// An SMMU with devices behind it, and the memory that they reach.
pub trait Backend {
    /// The platform of drivers.
    type Platform: Platform;
    /// What can go wrong in the backend itself.
    type Error: Error + 'static;

    /// The platform. It stays the same until [`restore`](Self::restore) says otherwise.
    fn platform(&self) -> &'static Self::Platform;

    /// Called before each sequence. Gets the backend going again if it broke in the one before; then its platform, and all
    /// memory with it, may be a new one.
    ///
    /// # Errors
    ///
    /// If it cannot.
    fn restore(&mut self) -> Result<(), Self::Error>;

    /// The SMMU's registers, for a driver that takes it over in whatever state it is.
    fn registers(&self) -> <Self::Platform as Platform>::Registers;

    /// The devices, by their StreamIDs.
    fn streams(&self) -> Vec<StreamId>;

    /// Called when device `device` (an index into [`streams`](Self::streams)) was attached to `domain`, to map what the
    /// backend needs for itself: one page, at 0x7fff_f000.
    ///
    /// # Errors
    ///
    /// If that fails.
    fn attached(&mut self, device: usize, domain: &dyn PagingDomain<Self::Platform>) -> Result<(), Self::Error>;

    /// Called before the test itself overwrites the stream table entry of an attached device, which then may reach nothing,
    /// not even what the backend mapped for itself.
    fn overwriting(&mut self, device: usize);

    /// Called when a device was detached, by the driver, with whatever entry it had.
    fn detached(&mut self, device: usize);

    /// What device `device` writes when told to write its word `index`; not 0.
    fn word(&self, device: usize, index: u16) -> u32;

    /// Makes a device write its word `index` at `iova`, in one access of 4 bytes.
    ///
    /// # Errors
    ///
    /// Not for a write that the SMMU stops.
    fn write(&mut self, device: usize, iova: Iova, index: u16) -> Result<(), Self::Error>;

    /// Makes a device read 4 bytes at `iova`, in one access, and returns them, or 0 if the SMMU stopped it. `None` if the
    /// device, being detached, cannot show what it read.
    ///
    /// # Errors
    ///
    /// Not for a read that the SMMU stops.
    fn read(&mut self, device: usize, iova: Iova) -> Result<Option<u32>, Self::Error>;

    /// Called when all is taken down after a sequence that went well so far.
    ///
    /// # Errors
    ///
    /// If the backend saw something go wrong.
    fn finished(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// How much of the platform's memory is given out, in bytes, if that is known.
    fn bytes_in_use(&self) -> Option<u64>;

    /// Whether the SMMU is known to differ from the architecture in this way.
    fn is_known_for(&self, deviation: Deviation) -> bool;
}

/// Word `index` of what the device with this StreamID writes: it tells who wrote it, and is not 0.
#[must_use]
pub fn signature(stream: StreamId, index: u16) -> u32 {
    stream.get() << 16 | 0x8000 | u32::from(index)
}

/// Ways in which an SMMU, and not the driver, differs from the architecture. Nothing else is waved through. What is said of
/// QEMU was seen with version 11.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deviation {
    /// With stage 2 alone, an access that a cached translation forbids is stopped, but no F_PERMISSION is recorded. (QEMU
    /// takes a write for a fault of stage 1, of which it records those that a context descriptor tells it to: there is
    /// none. Of reads it does not think. The first access after a map, which walks the tables, is recorded.)
    CachedStage2Permission,
    /// With stage 2 alone, an access beyond the intermediate addresses is stopped, but no F_ADDR_SIZE is recorded.
    /// (QEMU, for the same reason; it is a fault of stage 1 indeed, but one that no context descriptor can silence.)
    Stage2InputRange,
    /// S1ContextPtr beyond OAS does not make an entry ILLEGAL: there is a fetch, which fails, F_CD_FETCH. Its address is not
    /// where the architecture has it. (QEMU; permitted up to SMMUv3.0, and it calls itself SMMUv3.1.)
    ContextPointerFollowed,
    /// S1CDMax without substreams, and S1CDMax and S1STALLD with stage 2 alone, are not ignored: C_BAD_STE. (QEMU, which
    /// looks at both before it knows what they mean.)
    IgnoredStage1Fields,
    /// S2HA and S2HD do not make an entry ILLEGAL, though there are no hardware updates. (QEMU does not look at them.)
    HardwareUpdate,
}

impl Deviation {
    /// Whether because of it data is moved that should not be, or not moved that should be.
    #[must_use]
    pub fn concerns_data(self) -> bool {
        match self {
            Self::IgnoredStage1Fields | Self::HardwareUpdate => true,
            Self::CachedStage2Permission | Self::Stage2InputRange | Self::ContextPointerFollowed => false,
        }
    }
}

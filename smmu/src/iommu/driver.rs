//! What an IOMMU driver implements for the core: [`Iommu`], one instance, and [`PagingDomain`], one address space.

use alloc::sync::Arc;
use core::any::Any;
use core::fmt;

use super::{Device, Domain, DomainConfig, DriverError, UnmapError};
use crate::addr::{Iova, PhysAddr, StreamId};
use crate::arch::attributes::Granule;
use crate::iommu::fwspec::Phandle;
use crate::pgtable::{Access, MapError, MemoryType, Stage, Translation};
use crate::platform::Platform;

/// A stream of a device at an instance, while it is attached.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The instance, as firmware refers to it.
    pub iommu: Phandle,
    /// The StreamID there.
    pub id: StreamId,
    /// The device that was the first to have it attached.
    pub device: Arc<Device>,
    /// Whether the device is to cache translations of this stream. Only if the instance
    /// [supports](Iommu::supports_ats) that.
    pub uses_ats: bool,
}

/// Why an instance does not let a stream go through a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The domain is another driver's.
    Foreign {
        /// Whose.
        driver: &'static str,
    },
    /// The instance lacks something that the domain needs.
    Lacks(&'static str),
}

/// One IOMMU, as its driver presents it to the core. The core knows no other way to it.
///
/// All of it may be called by several CPUs at once, but never twice at the same time for one stream.
pub trait Iommu<P: Platform>: Send + Sync + 'static {
    /// The name of the driver, for people: `arm-smmu-v3`.
    fn driver(&self) -> &'static str;

    /// How many bits the widest StreamID has that the instance can see: at most 32.
    fn stream_id_bits(&self) -> u8;

    /// Whether devices may cache translations of this instance (PCIe ATS).
    fn supports_ats(&self) -> bool {
        false
    }

    /// Prepares for a device's stream, before anything is attached to it. Called once for each StreamID of a device, when
    /// all of the device's IOMMUs are there. The stream goes on aborting.
    ///
    /// # Errors
    ///
    /// Whatever keeps the instance from serving the stream; the device is not configured then.
    fn probe(&self, stream: StreamId) -> Result<(), DriverError> {
        let _ = stream;
        Ok(())
    }

    /// The reverse of [`probe`](Self::probe).
    fn release(&self, stream: StreamId) {
        let _ = stream;
    }

    /// Makes an address space without mappings that this instance can serve.
    ///
    /// # Errors
    ///
    /// [`DriverError::Lacks`] if it is to be what the instance cannot serve; or any other, if there is no memory for its first
    /// table, for instance.
    fn allocate_domain(self: Arc<Self>, config: &DomainConfig) -> Result<Arc<dyn PagingDomain<P>>, DriverError>;

    /// Whether a stream could go through a domain, as far as that can be said without trying. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: the domain is another driver's, or needs what the instance does not have.
    fn accepts(&self, domain: &Domain<P>) -> Result<(), Refusal>;

    /// Moves a stream from one domain to another that the instance [accepts](Self::accepts). From and to
    /// [`Domain::Blocked`] this is attaching and detaching; else there is no moment at which the device meets anything
    /// but the old or the new domain, or, if there is no other way, is aborted.
    ///
    /// When it returns `Ok`, the stream reaches nothing any more by way of the old domain.
    ///
    /// # Errors
    ///
    /// The stream still goes through the old domain, or it aborts: the core then moves it on with that domain as `from`,
    /// whichever it was, and has it abort before it lets the domain go. If the hardware does not even confirm that, the driver
    /// has closed the instance, and keeps for good what the hardware may still read.
    fn set_domain(self: Arc<Self>, stream: &Stream, from: &Domain<P>, to: &Domain<P>) -> Result<(), DriverError>;

    /// Writes what the instance has of a stream that goes through `domain`, for people. It changes nothing and waits for
    /// nobody.
    ///
    /// # Errors
    ///
    /// Those of the formatter.
    fn dump(&self, stream: StreamId, domain: &Domain<P>, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// What guests' devices go through: address spaces that the guests make, on top of one that is their hypervisor's. The core
/// moves devices in and out of it; the rest is between the hypervisor and the driver that made it.
pub trait NestedDomain<P: Platform>: Any + Send + Sync {
    /// The name of the driver it is of.
    fn driver(&self) -> &'static str;

    /// The memory of the guests.
    fn parent(&self) -> &dyn PagingDomain<P>;
}

/// An address space for devices, made by a driver, and live in each of its instances that a stream was attached in.
pub trait PagingDomain<P: Platform>: Any + Send + Sync {
    /// The name of the driver it is of.
    fn driver(&self) -> &'static str;

    /// Size of the input addresses in bits.
    fn input_bits(&self) -> u8;

    /// The stage that translates.
    fn stage(&self) -> Stage;

    /// The granule: the least that can be mapped, and what addresses and sizes are multiples of.
    fn granule(&self) -> Granule;

    /// Maps `size_bytes` bytes at `iova` to `physical`; both are multiples of the granule. Devices reach it at once.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing is mapped then that was not before.
    fn map(
        &self,
        iova: Iova,
        physical: PhysAddr,
        size_bytes: u64,
        access: Access,
        memory: MemoryType,
    ) -> Result<(), MapError>;

    /// Unmaps a range of whole mappings. When it returns `Ok`, no device reaches what was mapped there: a device that has
    /// cached translations and does not let go of them is [quarantined](Device::is_quarantined).
    ///
    /// # Errors
    ///
    /// [`UnmapError::Table`] if the range is not what was mapped; nothing has changed. [`UnmapError::Invalidation`] if an
    /// instance did not confirm: it has been closed, all traffic through it aborts. [`UnmapError::Stuck`] if it did not
    /// even confirm that: devices may still reach what was mapped, which must not be used for anything else, ever.
    fn unmap(&self, iova: Iova, size_bytes: u64) -> Result<(), UnmapError>;

    /// What a device sees at `iova`.
    fn lookup(&self, iova: Iova) -> Option<Translation>;

    /// How many ranges have been mapped and how many unmapped, each by one call.
    fn counts(&self) -> (u64, u64);

    /// Writes the walk for `iova`, descriptor by descriptor, for people.
    ///
    /// # Errors
    ///
    /// Those of the formatter.
    fn write_walk(&self, iova: Iova, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

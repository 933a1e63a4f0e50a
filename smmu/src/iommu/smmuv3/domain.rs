//! One address space for devices, live in every SMMU that one of them sits behind.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::config::{lacks, table_config};
use super::live::{Live, LiveList, Presence, Presences};
use super::tables::{DomainTables, ReadDescriptor};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::arch::range::Stale;
use crate::device::{DeviceError, Features, Smmu, StaleRange};
use crate::iommu::{DomainConfig, DriverError, PagingDomain, UnmapError};
use crate::pgtable::{
    Access, MapError, MemoryType, PageTable, Permissions, SharedTable, Stage, TableError, Translation,
};
use crate::platform::Platform;

/// The name of the driver.
pub(super) const DRIVER: &str = "arm-smmu-v3";

/// An address space that devices can be attached to; at stage 2 also what guests' own address spaces stand on
/// ([`SmmuNestedDomain`](super::SmmuNestedDomain)).
///
/// It knows every SMMU that it is live in, what tags its translations there, and which devices cache them: whatever leaves
/// the page table is invalidated in all of them.
pub struct SmmuDomain<P: Platform> {
    tables: DomainTables<P>,
    live: Presences<P>,
    mapped: AtomicU64,
    unmapped: AtomicU64,
}

impl<P: Platform> SmmuDomain<P> {
    /// A domain without mappings, with page tables as `config` says. What that leaves open is chosen for an SMMU of these
    /// features: whether it can walk them otherwise is for [`lacks`](Self::lacks) to say.
    ///
    /// # Errors
    ///
    /// [`TableError`] if there can be no such tables, or there is no memory for the first one.
    pub fn new(platform: &'static P, features: &Features, config: &DomainConfig) -> Result<Self, TableError> {
        let config = table_config(features, platform.virtual_address_bits(), config);
        Ok(Self::of(DomainTables::Own(PageTable::new(platform, &config)?)))
    }

    /// A domain over a hypervisor's own stage-2 table, which its CPUs use too: mapping and unmapping are the hypervisor's,
    /// which then calls [`forget`](Self::forget). `read` is for looking things up.
    ///
    /// The table stays as long as the domain, and is in the CPUs' caches: an SMMU that does not snoop them refuses it.
    #[must_use]
    pub fn over(table: SharedTable, read: ReadDescriptor) -> Self {
        Self::of(DomainTables::Shared(table, read))
    }

    fn of(tables: DomainTables<P>) -> Self {
        Self { tables, live: Presences::new(), mapped: AtomicU64::new(0), unmapped: AtomicU64::new(0) }
    }

    /// What an SMMU lacks to walk this domain's tables, if anything.
    #[must_use]
    pub fn lacks(&self, features: &Features) -> Option<&'static str> {
        lacks(features, &self.tables.config())
    }

    /// Changes what devices may do with a range of whole mappings; when it returns `Ok`, they can do no more than that.
    /// No address is without a mapping meanwhile.
    ///
    /// # Errors
    ///
    /// As [`unmap`](PagingDomain::unmap).
    pub fn protect(&self, iova: Iova, size_bytes: u64, permissions: Permissions) -> Result<(), UnmapError> {
        let table = self.tables.to_change(iova).map_err(UnmapError::Table)?;
        let stale = table.protect(iova, size_bytes, permissions).map_err(UnmapError::Table)?;
        self.forget_stale(iova, size_bytes, stale)
    }

    /// Reports the pages and blocks, with their sizes in bytes, that devices have written to in a range since the last call.
    /// What was reported is to be read once this has returned `Ok`: up to then a write may leave no mark. For domains that
    /// have it [tracked](DomainConfig::tracking).
    ///
    /// # Errors
    ///
    /// As [`unmap`](PagingDomain::unmap).
    pub fn clean_dirty(
        &self,
        iova: Iova,
        size_bytes: u64,
        mut visitor: impl FnMut(Iova, u64),
    ) -> Result<(), UnmapError> {
        let table = self.tables.to_change(iova).map_err(UnmapError::Table)?;
        // A block that is partly in the range is cleaned, and so forgotten, as a whole.
        let (mut start, mut end) = (iova, iova.get().saturating_add(size_bytes));
        let visit = |at: Iova, bytes| {
            start = start.min(at);
            end = end.max(at.get().saturating_add(bytes));
            visitor(at, bytes);
        };
        let stale = table.clean_dirty(iova, size_bytes, visit).map_err(UnmapError::Table)?;
        self.forget_stale(start, end.saturating_sub(start.get()), stale)
    }

    fn forget_stale(&self, start: Iova, size_bytes: u64, stale: Option<Stale>) -> Result<(), UnmapError> {
        let granule = self.tables.config().granule;
        stale.map_or(Ok(()), |stale| self.forget(&StaleRange { start, size_bytes, granule, stale }))
    }

    /// Makes every SMMU and every device forget translations that have left the table, or changed there. For whoever changes a
    /// [shared](Self::over) table; domains that have one of their own see to it themselves.
    ///
    /// # Errors
    ///
    /// [`UnmapError::Invalidation`] and [`UnmapError::Stuck`] as [`unmap`](PagingDomain::unmap).
    #[inline]
    pub fn forget(&self, range: &StaleRange) -> Result<(), UnmapError> {
        // The list after the tables: an SMMU or device that joins in between finds the entries gone already.
        let live = self.live.now();
        let mut failure = None;
        for presence in live.iter() {
            if let Err(error) = self.invalidate(presence, range) {
                // The worst that happened is what the caller has to know.
                failure = match (presence.live.smmu.close(), failure) {
                    (Err(error), _) => Some(UnmapError::Stuck(DriverError::Smmu(error))),
                    (Ok(()), None) => Some(UnmapError::Invalidation(DriverError::Smmu(error))),
                    (Ok(()), earlier) => earlier,
                };
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// What knows the domain's translations, unless somebody is changing that.
    pub(super) fn try_live(&self) -> Option<LiveList<P>> {
        self.live.try_now()
    }

    /// Makes all that is behind one SMMU forget a range.
    #[inline]
    fn invalidate(&self, presence: &Presence<P>, range: &StaleRange) -> Result<(), DeviceError> {
        let Presence { live, ats, .. } = presence;
        if ats.is_empty() {
            return live.smmu.invalidate(presence.tag(), range);
        }
        let targets = ats.iter().map(|stream| stream.target);
        live.smmu.invalidate_with_atcs(presence.tag(), range, targets, |stream| {
            self.live.remove_ats(live, stream);
            for silent in ats.iter().filter(|silent| silent.target.stream == stream) {
                silent.device.quarantine(silent.iommu, stream);
            }
        })
    }

    /// The domain in an SMMU, from now on if not before.
    pub(super) fn live_in(&self, smmu: &Arc<Smmu<P>>) -> Result<Arc<Live<P>>, DeviceError> {
        self.live.find_or_add(smmu, || Live::new(&self.tables, smmu))
    }

    /// What knows the domain's translations.
    pub(super) fn live(&self) -> &Presences<P> {
        &self.live
    }
}

impl<P: Platform> PagingDomain<P> for SmmuDomain<P> {
    fn driver(&self) -> &'static str {
        DRIVER
    }

    fn input_bits(&self) -> u8 {
        self.tables.config().input_bits
    }

    fn stage(&self) -> Stage {
        self.tables.config().stage
    }

    fn granule(&self) -> Granule {
        self.tables.config().granule
    }

    fn map(
        &self,
        iova: Iova,
        physical: PhysAddr,
        size_bytes: u64,
        access: Access,
        memory: MemoryType,
    ) -> Result<(), MapError> {
        self.tables.to_map(iova)?.map(iova, physical, size_bytes, access, memory)?;
        self.mapped.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn unmap(&self, iova: Iova, size_bytes: u64) -> Result<(), UnmapError> {
        let table = self.tables.to_change(iova).map_err(UnmapError::Table)?;
        let unmapped = table.unmap(iova, size_bytes).map_err(UnmapError::Table)?;
        let granule = table.config().granule;
        self.forget(&StaleRange { start: iova, size_bytes, granule, stale: unmapped.stale() })?;
        table.free(unmapped);
        self.unmapped.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn lookup(&self, iova: Iova) -> Option<Translation> {
        self.tables.walk(iova)
    }

    fn counts(&self) -> (u64, u64) {
        (self.mapped.load(Ordering::Relaxed), self.unmapped.load(Ordering::Relaxed))
    }

    fn write_walk(&self, iova: Iova, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables.write_walk(iova, f)
    }
}

impl<P: Platform> Drop for SmmuDomain<P> {
    /// Every attachment holds the domain, so no stream leads here any more. What is still cached under its tags goes now;
    /// an SMMU that does not confirm is closed, and if it does not even do that, it may keep the tables.
    fn drop(&mut self) {
        for Presence { live, .. } in self.live.now().iter() {
            if live.smmu.retire(live.tag).is_err() && live.smmu.close().is_err() {
                if let Some(table) = self.tables.own() {
                    table.keep();
                }
                if let Some(context) = &live.context {
                    context.keep();
                }
            }
        }
    }
}

impl<P: Platform> fmt::Debug for SmmuDomain<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmmuDomain").field("config", &self.tables.config()).finish_non_exhaustive()
    }
}

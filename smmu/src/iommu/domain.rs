//! Paging domains: one address space for devices, live in every SMMU that one of them sits behind.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::Device;
use super::attachment::Port;
use super::error::UnmapError;
use super::live::{AtsStream, Live, LiveList, Presence, Presences};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::arch::command::CommandError;
use crate::arch::stream_table::Eats;
use crate::device::{AtcTarget, DeviceError, Features, StaleRange};
use crate::pgtable::{Access, MapError, MemoryType, PageTable, Stage, TableConfig, TableError, Translation, Walk};
use crate::platform::Platform;

/// An address space that devices can be attached to.
///
/// It knows every SMMU that it is live in, what tags its translations there, and which devices cache them: whatever leaves
/// the page table is invalidated in all of them.
pub struct PagingDomain<P: Platform> {
    table: PageTable<P>,
    live: Presences<P>,
    mapped: AtomicU64,
    unmapped: AtomicU64,
}

impl<P: Platform> PagingDomain<P> {
    /// A domain without mappings, with page tables that an SMMU of these features can walk: stage 1 where there is one,
    /// 4 KiB granule, input addresses as wide as the SMMU and the platform's CPUs go.
    ///
    /// # Errors
    ///
    /// [`TableError`] if there is no memory for the first table.
    pub fn new(platform: &'static P, features: &Features) -> Result<Self, TableError> {
        let output_bits = features.output_size().bits().min(48);
        let (stage, input_bits) = if features.stage1() {
            (Stage::Stage1, features.virtual_address_bits().min(platform.virtual_address_bits()).min(48))
        } else {
            (Stage::Stage2, output_bits)
        };
        let config = TableConfig {
            coherent: features.coherent(),
            ..TableConfig::new(stage, Granule::K4, input_bits, output_bits)
        };
        Ok(Self {
            table: PageTable::new(platform, &config)?,
            live: Presences::new(),
            mapped: AtomicU64::new(0),
            unmapped: AtomicU64::new(0),
        })
    }

    /// What an SMMU lacks to walk this domain's tables, if anything.
    #[must_use]
    pub fn lacks(&self, features: &Features) -> Option<&'static str> {
        let config = self.table.config();
        let stage = match config.stage {
            Stage::Stage1 => features.stage1(),
            Stage::Stage2 => features.stage2(),
        };
        [
            (!stage, "the translation stage"),
            (!features.granule(config.granule), "the granule"),
            (features.output_size().bits() < config.output_bits, "the output address size"),
            (!features.coherent() && config.coherent, "coherent table walks"),
        ]
        .into_iter()
        .find_map(|(missing, what)| missing.then_some(what))
    }

    /// Size of the input addresses in bits.
    #[must_use]
    pub fn input_bits(&self) -> u8 {
        self.table.config().input_bits
    }

    /// The stage that translates.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.table.config().stage
    }

    /// Maps `size_bytes` bytes at `iova` to `physical`; both are multiples of the granule. Devices reach it at once.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing is mapped then that was not before.
    pub fn map(
        &self,
        iova: Iova,
        physical: PhysAddr,
        size_bytes: u64,
        access: Access,
        memory: MemoryType,
    ) -> Result<(), MapError> {
        self.table.map(iova, physical, size_bytes, access, memory)?;
        self.mapped.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Unmaps a range of whole mappings. When it returns `Ok`, no device reaches what was mapped there: a device that has
    /// cached translations and does not let go of them is [quarantined](Device::is_quarantined).
    ///
    /// # Errors
    ///
    /// [`UnmapError::Table`] if the range is not what was mapped; nothing has changed. [`UnmapError::Invalidation`] if an
    /// SMMU did not confirm: it has been closed, all traffic through it aborts. [`UnmapError::Stuck`] if it did not even
    /// confirm that: devices may still reach what was mapped, which must not be used for anything else, ever.
    pub fn unmap(&self, iova: Iova, size_bytes: u64) -> Result<(), UnmapError> {
        let unmapped = self.table.unmap(iova, size_bytes).map_err(UnmapError::Table)?;
        let range =
            StaleRange { start: iova, size_bytes, granule: self.table.config().granule, stale: unmapped.stale() };
        // The list after the tables: an SMMU or device that joins in between finds the entries gone already.
        let live = self.live.now();
        let mut failure = None;
        for presence in live.iter() {
            if let Err(error) = self.invalidate(presence, &range) {
                // The worst that happened is what the caller has to know.
                failure = match (presence.live.smmu.close(), failure) {
                    (Err(error), _) => Some(UnmapError::Stuck(error)),
                    (Ok(()), None) => Some(UnmapError::Invalidation(error)),
                    (Ok(()), earlier) => earlier,
                };
            }
        }
        match failure {
            None => {
                self.table.free(unmapped);
                self.unmapped.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Some(error) => Err(error),
        }
    }

    /// What a device sees at `iova`.
    #[must_use]
    pub fn lookup(&self, iova: Iova) -> Option<Translation> {
        self.table.walk(iova)
    }

    /// How many ranges have been mapped and how many unmapped, each by one call.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.mapped.load(Ordering::Relaxed), self.unmapped.load(Ordering::Relaxed))
    }

    /// The descriptors that a walk for `iova` meets, for people to read.
    #[must_use]
    pub fn trace(&self, iova: Iova) -> Walk {
        self.table.trace(iova)
    }

    /// What knows the domain's translations, unless somebody is changing that.
    pub(super) fn try_live(&self) -> Option<LiveList<P>> {
        self.live.try_now()
    }

    /// Makes all that is behind one SMMU forget a range.
    #[inline]
    fn invalidate(&self, presence: &Presence<P>, range: &StaleRange) -> Result<(), DeviceError> {
        let Presence { live, ats } = presence;
        if ats.is_empty() {
            return live.smmu.invalidate(live.tag, range);
        }
        let targets = ats.iter().map(|stream| stream.target);
        live.smmu.invalidate_with_atcs(live.tag, range, targets, |stream| {
            self.live.remove_ats(live, stream);
            for silent in ats.iter().filter(|silent| silent.target.stream == stream) {
                silent.device.quarantine(silent.iommu, stream);
            }
        })
    }

    /// Attaches a stream of a device.
    pub(super) fn attach(&self, port: &Port<P>, device: &Arc<Device>) -> Result<(), DeviceError> {
        let Port { iommu, ref smmu, stream, uses_ats } = *port;
        let live = self.live.find_or_add(smmu, || Live::new(&self.table, smmu))?;
        if !uses_ats {
            return smmu.attach(stream, &live.entry);
        }
        let entry = live.entry.with_ats(Eats::Full);
        // What the device may still have from whoever used it before.
        smmu.flush_atc(stream, &entry)?;
        let target = AtcTarget { stream, substream: None };
        // Known before the first translation can be asked for.
        self.live.add_ats(&live, AtsStream { iommu, target, device: Arc::clone(device) });
        smmu.attach(stream, &entry).inspect_err(|_| self.live.remove_ats(&live, stream))
    }

    /// Detaches a stream of a device, and empties the device's cache.
    pub(super) fn detach(&self, port: &Port<P>, device: &Device) -> Result<(), DeviceError> {
        let Port { iommu, ref smmu, stream, uses_ats } = *port;
        if !uses_ats {
            return smmu.detach(stream);
        }
        let list = self.live.now();
        let live = list.iter().map(|presence| &presence.live).find(|live| Arc::ptr_eq(&live.smmu, smmu));
        if let Some(live) = live.filter(|_| !device.is_quarantined())
            && let Err(DeviceError::Command(CommandError::AtcInvSync)) =
                smmu.flush_atc(stream, &live.entry.with_ats(Eats::Full))
        {
            // Without its entry it can use nothing of what it has kept.
            device.quarantine(iommu, stream);
        }
        smmu.detach(stream)?;
        if let Some(live) = live {
            self.live.remove_ats(live, stream);
        }
        Ok(())
    }
}

impl<P: Platform> Drop for PagingDomain<P> {
    /// Every attachment holds the domain, so no stream leads here any more. What is still cached under its tags goes now;
    /// an SMMU that does not confirm is closed, and if it does not even do that, it may keep the tables.
    fn drop(&mut self) {
        for Presence { live, .. } in self.live.now().iter() {
            if live.smmu.retire(live.tag).is_err() && live.smmu.close().is_err() {
                self.table.keep();
                if let Some(context) = &live.context {
                    context.keep();
                }
            }
        }
    }
}

impl<P: Platform> fmt::Debug for PagingDomain<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagingDomain").field("config", self.table.config()).finish_non_exhaustive()
    }
}

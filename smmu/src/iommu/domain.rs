//! Paging domains: one address space for devices, live in every SMMU that one of them sits behind.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use lock_api::Mutex;

use super::error::UnmapError;
use crate::addr::{Iova, PhysAddr, StreamId, Vmid};
use crate::arch::attributes::{AddressSize, Granule, HardwareUpdate, WalkAttributes};
use crate::arch::context_descriptor::{ContextDescriptor, Stage1Context};
use crate::arch::stream_table::{Eats, Shcfg, Stage1Stream, Stage2Stream, StreamTableEntry};
use crate::device::{ContextTable, DeviceError, Features, Smmu, StaleRange, TranslationTag};
use crate::pgtable::{Access, MapError, MemoryType, PageTable, Stage, TableConfig, TableError, Translation};
use crate::platform::Platform;

/// An address space that devices can be attached to.
///
/// It knows every SMMU that it is live in, and what tags its translations there: whatever leaves the page table is
/// invalidated in all of them.
pub struct PagingDomain<P: Platform> {
    platform: &'static P,
    table: PageTable<P>,
    /// Replaced as a whole, so that an invalidation takes a copy of the pointer and holds no lock while it waits.
    live: Mutex<P::Lock, LiveList<P>>,
    mapped: AtomicU64,
    unmapped: AtomicU64,
}

/// The SMMUs that a domain is live in.
type LiveList<P> = Arc<[Arc<Live<P>>]>;

/// The domain in one SMMU: from the first attachment there until the domain goes.
struct Live<P: Platform> {
    smmu: Arc<Smmu<P>>,
    tag: TranslationTag,
    /// What the stream table entry of an attached stream says.
    entry: StreamTableEntry,
    /// The context descriptor that `entry` points at, for stage 1.
    context: Option<ContextTable<P>>,
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
        let config =
            TableConfig { stage, granule: Granule::K4, input_bits, output_bits, coherent: features.coherent() };
        Ok(Self {
            platform,
            table: PageTable::new(platform, &config)?,
            live: Mutex::new(Arc::new([])),
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

    /// Unmaps a range of whole mappings. When it returns `Ok`, no device reaches what was mapped there.
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
        // The list after the tables: an SMMU that joins in between finds the entries gone already.
        let live = self.live();
        let mut failure = None;
        for live in live.iter() {
            if let Err(error) = live.smmu.invalidate(live.tag, &range) {
                // The worst that happened is what the caller has to know.
                failure = match (live.smmu.close(), failure) {
                    (Err(error), _) => Some(UnmapError::Stuck(error)),
                    (Ok(()), None) => Some(UnmapError::Invalidation(error)),
                    (Ok(()), earlier) => earlier,
                };
            }
        }
        match failure {
            None => {
                unmapped.free();
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

    fn live(&self) -> LiveList<P> {
        Arc::clone(&self.live.lock())
    }

    /// Attaches a stream of an SMMU.
    pub(super) fn attach(&self, smmu: &Arc<Smmu<P>>, stream: StreamId) -> Result<(), DeviceError> {
        let live = self.live_in(smmu)?;
        smmu.attach(stream, &live.entry)
    }

    /// The domain's presence in an SMMU, made if this is its first stream there. Waits for no hardware.
    fn live_in(&self, smmu: &Arc<Smmu<P>>) -> Result<Arc<Live<P>>, DeviceError> {
        let mut list = self.live.lock();
        if let Some(live) = list.iter().find(|live| Arc::ptr_eq(&live.smmu, smmu)) {
            return Ok(Arc::clone(live));
        }
        let live = Arc::new(match self.stage() {
            Stage::Stage1 => self.stage1_in(smmu)?,
            Stage::Stage2 => self.stage2_in(smmu)?,
        });
        let longer: Vec<_> = list.iter().chain([&live]).cloned().collect();
        *list = longer.into();
        Ok(live)
    }

    fn stage1_in(&self, smmu: &Arc<Smmu<P>>) -> Result<Live<P>, DeviceError> {
        let features = smmu.features();
        let walk = walk_attributes(features);
        let asid = smmu.take_asid()?;
        // VMID 0 is never given to a virtual machine: it tags the streams that have none.
        let vmid = Vmid::new(0);
        let context = Stage1Context {
            asid,
            granule: self.table.config().granule,
            t0sz: self.table.t0sz(),
            table: self.table.root(),
            output_size: self.output_size(),
            walk,
            mair: PageTable::<P>::MAIR,
            hardware_update: HardwareUpdate::None,
            access_flag_fault_disabled: false,
            stall: false,
        };
        let tag = TranslationTag::Stage1 { asid, vmid };
        let context = ContextTable::new(self.platform, &ContextDescriptor::new(&context), features.coherent())
            .inspect_err(|_| smmu.give_back(tag))?;
        let entry = StreamTableEntry::stage1(&Stage1Stream {
            stall_disabled: features.stall_optional(),
            vmid,
            ..Stage1Stream::with_one_context(context.physical(), walk)
        });
        Ok(Live { smmu: Arc::clone(smmu), tag, entry, context: Some(context) })
    }

    fn stage2_in(&self, smmu: &Arc<Smmu<P>>) -> Result<Live<P>, DeviceError> {
        let features = smmu.features();
        let vmid = smmu.take_vmid()?;
        let entry = StreamTableEntry::stage2(&Stage2Stream {
            vmid,
            table: self.table.root(),
            t0sz: self.table.t0sz(),
            sl0: self.table.sl0(),
            granule: self.table.config().granule,
            output_size: self.output_size(),
            walk: walk_attributes(features),
            hardware_update: HardwareUpdate::None,
            access_flag_fault_disabled: false,
            protected_walk: true,
            record_faults: true,
            stall: false,
            force_write_back: false,
            ats: Eats::Off,
            shareability: Shcfg::UseIncoming,
            merge_events: false,
        });
        Ok(Live { smmu: Arc::clone(smmu), tag: TranslationTag::Stage2 { vmid }, entry, context: None })
    }

    fn output_size(&self) -> AddressSize {
        AddressSize::holding(self.table.config().output_bits).unwrap_or(AddressSize::Bits48)
    }
}

/// How an SMMU walks tables and reads descriptors.
fn walk_attributes(features: &Features) -> WalkAttributes {
    if features.coherent() { WalkAttributes::COHERENT } else { WalkAttributes::NON_COHERENT }
}

impl<P: Platform> Drop for PagingDomain<P> {
    /// Every attachment holds the domain, so no stream leads here any more. What is still cached under its tags goes now;
    /// an SMMU that does not confirm is closed, and if it does not even do that, it may keep the tables.
    fn drop(&mut self) {
        for live in self.live().iter() {
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

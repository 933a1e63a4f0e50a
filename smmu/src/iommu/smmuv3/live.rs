//! Where a domain is live: in which SMMUs, what tags its translations there, and which devices have caches of their own.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::{mem, ptr};

use lock_api::Mutex;

use super::tables::DomainTables;
use crate::addr::{StreamId, Vmid};
use crate::arch::attributes::AddressSize;
use crate::arch::context_descriptor::{ContextDescriptor, Stage1Context};
use crate::arch::stream_table::{Stage1Stream, Stage2Stream, StreamTableEntry};
use crate::device::{AtcTarget, ContextTable, DeviceError, Smmu, Stage2Table, TranslationTag};
use crate::iommu::Device;
use crate::iommu::fwspec::Phandle;
use crate::pgtable::{PageTable, Stage};
use crate::platform::Platform;

/// A domain in one SMMU: from the first attachment there until the domain goes.
pub(super) struct Live<P: Platform> {
    pub(super) smmu: Arc<Smmu<P>>,
    pub(super) tag: TranslationTag,
    /// What the stream table entry of an attached stream says.
    pub(super) entry: StreamTableEntry,
    /// The context descriptor that `entry` points at, for stage 1.
    pub(super) context: Option<ContextTable<P>>,
    /// What stage 2 says in every entry, those of nested streams included.
    pub(super) stage2: Option<Stage2Stream>,
}

/// An attached stream whose device caches translations.
pub(super) struct AtsStream {
    pub(super) iommu: Phandle,
    pub(super) target: AtcTarget,
    pub(super) device: Arc<Device>,
}

/// What knows a domain's translations by way of one SMMU: its TLB, and the caches of devices behind it.
pub(super) struct Presence<P: Platform> {
    pub(super) live: Arc<Live<P>>,
    /// Several times the same one, if it is about to leave and has come back by another domain that stands on this one.
    pub(super) ats: Arc<[Arc<AtsStream>]>,
    /// Whether guests have, or had, a stage 1 of their own on top, by which they may have cached anything.
    is_nested: bool,
}

/// All that knows a domain's translations at one moment.
pub(super) type LiveList<P> = Arc<[Presence<P>]>;

/// All that knows a domain's translations. Replaced as a whole, so that an invalidation takes a copy of the pointer and holds
/// no lock while it waits.
pub(super) struct Presences<P: Platform>(Mutex<P::Lock, LiveList<P>>);

impl<P: Platform> Live<P> {
    /// Prepares an SMMU for streams of a domain that `tables` belong to. Waits for no hardware.
    pub(super) fn new(tables: &DomainTables<P>, smmu: &Arc<Smmu<P>>) -> Result<Self, DeviceError> {
        match tables.own().filter(|table| table.config().stage == Stage::Stage1) {
            Some(table) => Self::stage1(table, smmu),
            None => Self::stage2(tables.stage2(), smmu),
        }
    }

    /// Whether it is this SMMU that the domain is live in.
    pub(super) fn is_in(&self, smmu: &Smmu<P>) -> bool {
        ptr::eq(Arc::as_ptr(&self.smmu), smmu)
    }

    fn stage1(table: &PageTable<P>, smmu: &Arc<Smmu<P>>) -> Result<Self, DeviceError> {
        let features = smmu.features();
        let walk = features.walk_attributes();
        let asid = smmu.take_asid()?;
        // VMID 0 is never given to a virtual machine: it tags the streams that have none.
        let vmid = Vmid::new(0);
        let context = Stage1Context {
            asid,
            granule: table.config().granule,
            t0sz: table.t0sz(),
            table: table.root(),
            output_size: output_size(table),
            walk,
            mair: PageTable::<P>::MAIR,
            hardware_update: table.config().tracking.hardware_update(),
            access_flag_fault_disabled: false,
            stall: false,
        };
        let tag = TranslationTag::Stage1 { asid, vmid };
        let context =
            ContextTable::new(smmu, &ContextDescriptor::new(&context)).inspect_err(|_| smmu.give_back(tag))?;
        let entry = StreamTableEntry::stage1(&Stage1Stream {
            stall_disabled: features.stall_optional(),
            vmid,
            shareability: features.incoming_shareability(),
            ..Stage1Stream::with_one_context(context.physical(), walk)
        });
        Ok(Self { smmu: Arc::clone(smmu), tag, entry, context: Some(context), stage2: None })
    }

    fn stage2(table: Stage2Table, smmu: &Arc<Smmu<P>>) -> Result<Self, DeviceError> {
        let vmid = smmu.take_vmid()?;
        let tag = TranslationTag::Stage2 { vmid };
        let stream = smmu.stage2_stream(vmid, table).inspect_err(|_| smmu.give_back(tag))?;
        let entry = StreamTableEntry::stage2(&stream);
        Ok(Self { smmu: Arc::clone(smmu), tag, entry, context: None, stage2: Some(stream) })
    }
}

fn output_size<P: Platform>(table: &PageTable<P>) -> AddressSize {
    AddressSize::holding(table.config().output_bits).unwrap_or(AddressSize::Bits48)
}

impl<P: Platform> Presence<P> {
    /// What tags its translations.
    #[inline]
    pub(super) fn tag(&self) -> TranslationTag {
        match self.live.tag {
            TranslationTag::Stage2 { vmid } if self.is_nested => TranslationTag::Nested { vmid },
            tag => tag,
        }
    }
}

impl<P: Platform> Clone for Presence<P> {
    fn clone(&self) -> Self {
        Self { live: Arc::clone(&self.live), ats: Arc::clone(&self.ats), is_nested: self.is_nested }
    }
}

impl<P: Platform> Presences<P> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Arc::new([])))
    }

    /// All of them as they are now.
    #[inline]
    pub(super) fn now(&self) -> LiveList<P> {
        Arc::clone(&self.0.lock())
    }

    /// The same without waiting for a lock, for whoever may have interrupted its holder.
    pub(super) fn try_now(&self) -> Option<LiveList<P>> {
        self.0.try_lock().map(|list| Arc::clone(&list))
    }

    /// The domain in `smmu`, which `make` makes if it is not there yet.
    pub(super) fn find_or_add(
        &self,
        smmu: &Arc<Smmu<P>>,
        make: impl FnOnce() -> Result<Live<P>, DeviceError>,
    ) -> Result<Arc<Live<P>>, DeviceError> {
        let find = |list: &[Presence<P>]| {
            let here = list.iter().find(|presence| Arc::ptr_eq(&presence.live.smmu, smmu));
            here.map(|presence| Arc::clone(&presence.live))
        };
        if let Some(live) = find(&self.now()) {
            return Ok(live);
        }
        // Not under the lock, because it allocates.
        let new = Arc::new(make()?);
        let mut list = self.0.lock();
        if let Some(live) = find(&list) {
            // Another CPU was faster.
            drop(list);
            smmu.give_back(new.tag);
            return Ok(live);
        }
        let presence = Presence { live: Arc::clone(&new), ats: Arc::new([]), is_nested: false };
        let longer = list.iter().cloned().chain([presence]).collect();
        let old = mem::replace(&mut *list, longer);
        drop(list);
        drop(old);
        Ok(new)
    }

    /// Has a device's own cache invalidated from here on.
    pub(super) fn add_ats(&self, live: &Arc<Live<P>>, stream: AtsStream) {
        let stream = Arc::new(stream);
        self.change_ats(live, |streams| streams.push(stream));
    }

    /// The reverse of [`add_ats`](Self::add_ats).
    pub(super) fn forget_ats(&self, live: &Arc<Live<P>>, stream: StreamId) {
        self.change_ats(live, |streams| {
            if let Some(first) = streams.iter().position(|known| known.target.stream == stream) {
                streams.remove(first);
            }
        });
    }

    /// Has a device's cache left alone from here on, however often it was added.
    pub(super) fn remove_ats(&self, live: &Arc<Live<P>>, stream: StreamId) {
        self.change_ats(live, |streams| streams.retain(|known| known.target.stream != stream));
    }

    /// Has everything under the VMID forgotten with each range, from here on.
    pub(super) fn nest(&self, live: &Arc<Live<P>>) {
        self.change(live, |presence| presence.is_nested = true);
    }

    fn change_ats(&self, live: &Arc<Live<P>>, change: impl FnOnce(&mut Vec<Arc<AtsStream>>)) {
        self.change(live, |presence| {
            let mut streams = presence.ats.to_vec();
            change(&mut streams);
            presence.ats = streams.into();
        });
    }

    fn change(&self, live: &Arc<Live<P>>, change: impl FnOnce(&mut Presence<P>)) {
        let mut list = self.0.lock();
        let mut presences: Vec<_> = list.iter().cloned().collect();
        if let Some(presence) = presences.iter_mut().find(|presence| Arc::ptr_eq(&presence.live, live)) {
            change(presence);
        }
        let old = mem::replace(&mut *list, presences.into());
        // Nothing is freed under the lock.
        drop(list);
        drop(old);
    }
}

//! Guests' own address spaces: stage 1 that a guest writes, on top of a stage-2 domain that is its hypervisor's.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use lock_api::Mutex;

use super::config::lacks_nesting;
use super::domain::{DRIVER, SmmuDomain};
use super::live::Live;
use crate::addr::StreamId;
use crate::arch::command::Completion;
use crate::arch::stream_table::{Eats, StreamTableEntry};
use crate::device::{
    CommandRefusal, DeviceError, Features, Guest, GuestStream, NestedParent, RefusedCommand, Smmu, wait_until,
};
use crate::iommu::fwspec::Phandle;
use crate::iommu::{NestedDomain, PagingDomain, Stream};
use crate::platform::Platform;

/// What a hypervisor knows of its guest's SMMU: a virtual one for each that the guest's devices sit behind.
pub trait VirtualSmmu: Send + Sync {
    /// The number by which the guest knows a stream. `None` if it does not: the stream aborts.
    fn guest_stream(&self, iommu: Phandle, stream: StreamId) -> Option<StreamId>;

    /// What the guest's stream table says about its stream at this moment: eight words, lowest first, as they are in its
    /// memory. All zero if there is no such entry.
    fn entry(&self, iommu: Phandle, stream: StreamId) -> [u64; 8];
}

/// How much of an SMMU a guest may have. [`Default`] is no substreams, no ATS and no stalls; [`NestedParent`] says what the
/// fields mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented at `NestedParent`")]
pub struct GuestRights {
    pub substream_id_bits: u8,
    /// For devices that may use ATS at all.
    pub ats: Eats,
    pub stalls: bool,
}

impl Default for GuestRights {
    fn default() -> Self {
        Self { substream_id_bits: 0, ats: Eats::Off, stalls: false }
    }
}

/// What a guest's devices go through: what its stream tables say, on top of its memory ([`parent`](NestedDomain::parent)), which
/// may have other domains on top too. All of them share one VMID in each SMMU, which is retired with the parent.
///
/// Its hypervisor owns the group ([`Iommus::own_group`](crate::iommu::Iommus::own_group)), and hands on what the guest writes
/// into its command queues ([`forward`](Self::forward)).
pub struct SmmuNestedDomain<P: Platform> {
    parent: Arc<SmmuDomain<P>>,
    rights: GuestRights,
    guest: Box<dyn VirtualSmmu>,
    streams: Mutex<P::Lock, Streams<P>>,
}

struct Streams<P: Platform> {
    attached: Vec<Attached<P>>,
    /// Whether a CPU is giving one of them another entry.
    is_changing: bool,
}

/// A stream of the guest's.
struct Attached<P: Platform> {
    live: Arc<Live<P>>,
    stream: Stream,
    guest: StreamId,
}

/// The right to give streams of a domain another entry, for as long as this lives: what is decided by the guest's table is
/// carried out before the table is looked at again, and before a stream leaves.
pub(super) struct Turn<'a, P: Platform>(&'a SmmuNestedDomain<P>);

impl<P: Platform> SmmuNestedDomain<P> {
    /// A guest's domain on top of its memory. Its streams are asked for as they are attached.
    #[must_use]
    pub fn new(parent: Arc<SmmuDomain<P>>, rights: GuestRights, guest: Box<dyn VirtualSmmu>) -> Self {
        let streams = Streams { attached: Vec::new(), is_changing: false };
        Self { parent, rights, guest, streams: Mutex::new(streams) }
    }

    /// The memory of the guest.
    #[must_use]
    pub fn memory(&self) -> &Arc<SmmuDomain<P>> {
        &self.parent
    }

    /// What an SMMU lacks to have it, if anything.
    #[must_use]
    pub fn lacks(&self, features: &Features) -> Option<&'static str> {
        self.parent.lacks(features).or_else(|| lacks_nesting(features, self.parent.stage()))
    }

    /// The number by which the guest knows an attached stream: of who has faulted, say.
    #[must_use]
    pub fn guest_stream(&self, iommu: Phandle, stream: StreamId) -> Option<StreamId> {
        let streams = self.streams.lock();
        let is_same = |known: &&Attached<P>| (known.stream.iommu, known.stream.id) == (iommu, stream);
        streams.attached.iter().find(is_same).map(|known| known.guest)
    }

    /// Carries out what the guest has written into the command queue of the virtual SMMU that stands for `smmu`, as
    /// [`Smmu::forward`] does, for the streams that are attached there. Entries that it changed take effect. `synced` is called for
    /// each of its CMD_SYNCs: all before it is complete then.
    ///
    /// # Errors
    ///
    /// As [`Smmu::forward`].
    pub fn forward(
        &self,
        smmu: &Arc<Smmu<P>>,
        commands: &[[u64; 2]],
        synced: impl FnMut(Completion),
    ) -> Result<(), RefusedCommand> {
        let refused = |error| RefusedCommand { index: 0, reason: CommandRefusal::Device(error) };
        let live = self.parent.live_in(smmu).map_err(refused)?;
        // Of stage 1 alone there is no guest.
        let Some(stage2) = live.stage2 else { return Ok(()) };
        smmu.forward(&mut Forwarding { domain: self, smmu, synced }, stage2.vmid, commands)
    }

    /// Waits until nobody else gives a stream another entry.
    pub(super) fn turn(&self, smmu: &Smmu<P>, stream: StreamId) -> Result<Turn<'_, P>, DeviceError> {
        let take = || (!core::mem::replace(&mut self.streams.lock().is_changing, true)).then_some(());
        wait_until(smmu.platform(), take).map_err(|waited| DeviceError::StreamBusy { stream, waited })?;
        Ok(Turn(self))
    }

    /// The entry that the guest's entry makes. Only in one's turn.
    pub(super) fn entry(&self, live: &Live<P>, stream: &Stream) -> StreamTableEntry {
        let guest = self.guest_stream(stream.iommu, stream.id);
        let (Some(stage2), Some(guest)) = (live.stage2, guest) else { return StreamTableEntry::abort() };
        let GuestRights { substream_id_bits, ats, stalls } = self.rights;
        let ats = if stream.uses_ats { ats } else { Eats::Off };
        let parent = NestedParent { substream_id_bits, ats, stalls, ..NestedParent::new(stage2) };
        let words = self.guest.entry(stream.iommu, guest);
        // One that is refused is illegal to the guest: its transactions record C_BAD_STE.
        parent.entry(live.smmu.features(), words).unwrap_or(StreamTableEntry::INVALID)
    }

    /// Whether a device may have cached translations of a stream that goes through this.
    pub(super) fn may_use_ats(&self, stream: &Stream) -> bool {
        stream.uses_ats && self.rights.ats != Eats::Off
    }

    /// Takes a stream up, if the guest knows it.
    pub(super) fn join(&self, _turn: &Turn<'_, P>, live: &Arc<Live<P>>, stream: &Stream) {
        if let Some(guest) = self.guest.guest_stream(stream.iommu, stream.id) {
            let attached = Attached { live: Arc::clone(live), stream: stream.clone(), guest };
            self.streams.lock().attached.push(attached);
        }
    }

    /// Leaves a stream alone from here on: the guest's commands are none of its business any more.
    pub(super) fn leave(&self, _turn: &Turn<'_, P>, smmu: &Smmu<P>, stream: StreamId) {
        let left = {
            let mut streams = self.streams.lock();
            let is_it = |known: &Attached<P>| known.live.is_in(smmu) && known.stream.id == stream;
            streams.attached.iter().position(is_it).map(|index| streams.attached.swap_remove(index))
        };
        // Not under the lock: it may be the last that holds the device.
        drop(left);
    }
}

impl<P: Platform> Drop for Turn<'_, P> {
    fn drop(&mut self) {
        self.0.streams.lock().is_changing = false;
    }
}

/// A guest that has written commands.
struct Forwarding<'a, P: Platform, F> {
    domain: &'a SmmuNestedDomain<P>,
    smmu: &'a Smmu<P>,
    synced: F,
}

impl<P: Platform, F> Forwarding<'_, P, F> {
    /// The stream by the SMMU's number, as it is attached.
    fn find(&self, stream: StreamId) -> Option<(Arc<Live<P>>, Stream)> {
        let streams = self.domain.streams.lock();
        let is_it = |known: &&Attached<P>| known.live.is_in(self.smmu) && known.stream.id == stream;
        streams.attached.iter().find(is_it).map(|it| (Arc::clone(&it.live), it.stream.clone()))
    }
}

impl<P: Platform, F: FnMut(Completion)> Guest for Forwarding<'_, P, F> {
    fn stream_from(&self, first: StreamId) -> Option<GuestStream> {
        let streams = self.domain.streams.lock();
        let here = streams.attached.iter().filter(|known| known.live.is_in(self.smmu) && known.guest >= first);
        here.map(|known| GuestStream { guest: known.guest, physical: known.stream.id }).min_by_key(|found| found.guest)
    }

    fn reload(&mut self, stream: GuestStream) -> Result<(), DeviceError> {
        let _turn = self.domain.turn(self.smmu, stream.physical)?;
        // It may have left by now.
        let Some((live, stream)) = self.find(stream.physical) else { return Ok(()) };
        if stream.device.is_quarantined() {
            return Ok(());
        }
        let entry = self.domain.entry(&live, &stream);
        self.smmu.replace_nested(stream.id, &entry)
    }

    fn synced(&mut self, completion: Completion) {
        (self.synced)(completion);
    }

    fn quarantined(&mut self, stream: StreamId) {
        if let Some((live, Stream { iommu, device, .. })) = self.find(stream) {
            self.domain.parent.live().remove_ats(&live, stream);
            device.quarantine(iommu, stream);
        }
    }
}

impl<P: Platform> NestedDomain<P> for SmmuNestedDomain<P> {
    fn driver(&self) -> &'static str {
        DRIVER
    }

    fn parent(&self) -> &dyn PagingDomain<P> {
        &*self.parent
    }
}

impl<P: Platform> fmt::Debug for SmmuNestedDomain<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmmuNestedDomain")
            .field("parent", &self.parent)
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}

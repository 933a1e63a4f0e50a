//! A stream on its way from one domain to another: which entries, and what is forgotten when.

use alloc::sync::Arc;

use super::domain::SmmuDomain;
use super::instance::{own, own_nested};
use super::live::{AtsStream, Live};
use super::nested::{SmmuNestedDomain, Turn};
use crate::arch::command::CommandError;
use crate::arch::stream_table::{Eats, Shcfg, StreamTableEntry};
use crate::device::{AtcTarget, DeviceError, Smmu};
use crate::iommu::{Domain, Stream};
use crate::platform::Platform;

/// A stream on its way from one domain to another.
pub(super) struct Change<'a, P: Platform> {
    smmu: &'a Arc<Smmu<P>>,
    stream: &'a Stream,
    from: Meaning<'a, P>,
    to: Meaning<'a, P>,
}

/// What a domain means to one SMMU.
enum Meaning<'a, P: Platform> {
    Blocked,
    Bypass(Shcfg),
    Live(&'a SmmuDomain<P>, Arc<Live<P>>),
    /// The second is the parent's.
    Nested(&'a SmmuNestedDomain<P>, Arc<Live<P>>),
}

impl<'a, P: Platform> Change<'a, P> {
    pub(super) fn new(
        smmu: &'a Arc<Smmu<P>>,
        stream: &'a Stream,
        from: &'a Domain<P>,
        to: &'a Domain<P>,
    ) -> Result<Self, DeviceError> {
        Ok(Self { smmu, stream, from: Meaning::new(smmu, from)?, to: Meaning::new(smmu, to)? })
    }

    pub(super) fn make(self) -> Result<(), DeviceError> {
        // From here on the guest whose stream it was changes nothing of it.
        self.from.leave(self.smmu, self.stream)?;
        let result = match (&self.from, &self.to) {
            (Meaning::Blocked, Meaning::Blocked) => Ok(()),
            (_, Meaning::Blocked) => self.detach(),
            (_, to) => self.enter(to),
        };
        if result.is_ok() {
            self.from.forget_ats(self.stream);
        } else {
            // It aborts, or has what it had. Its guest goes on with it.
            self.from.join(self.from.turn(self.smmu, self.stream)?.as_ref(), self.stream);
        }
        result
    }

    /// Gives the stream the meaning of `to`. A guest that changes its own entry meanwhile waits.
    fn enter(&self, to: &Meaning<'_, P>) -> Result<(), DeviceError> {
        let turn = to.turn(self.smmu, self.stream)?;
        to.join(turn.as_ref(), self.stream);
        to.know_ats(self.stream);
        let entry = to.entry(self.stream);
        let is_new = matches!(self.from, Meaning::Blocked);
        let result = if is_new { self.attach(to, &entry) } else { self.replace(to, &entry) };
        result.inspect_err(|_| {
            to.forget_ats(self.stream);
            if let (Meaning::Nested(domain, _), Some(turn)) = (to, &turn) {
                domain.leave(turn, self.smmu, self.stream.id);
            }
        })
    }

    fn attach(&self, to: &Meaning<'_, P>, entry: &StreamTableEntry) -> Result<(), DeviceError> {
        let id = self.stream.id;
        // What the device may still have from whoever used it before.
        self.smmu.flush_atc(id, entry)?;
        to.forget_former_guests()?;
        // What the boot policy let through goes on without a gap.
        let is_handed_over = self.smmu.boot_streams().any(|stream| stream == id);
        if is_handed_over { self.smmu.replace(id, entry) } else { self.smmu.attach(id, entry) }
    }

    fn detach(&self) -> Result<(), DeviceError> {
        if !self.stream.device.is_quarantined() {
            // Without its entry it can use nothing of what it has kept.
            self.flush_or_quarantine();
        }
        self.smmu.detach(self.stream.id)
    }

    fn replace(&self, to: &Meaning<'_, P>, entry: &StreamTableEntry) -> Result<(), DeviceError> {
        to.forget_former_guests()?;
        self.smmu.replace(self.stream.id, entry)?;
        // What the device has cached is of the old domain. One that keeps it must not use it.
        if !self.flush_or_quarantine() {
            return self.smmu.abort(self.stream.id);
        }
        match (self.from.live(), to.live()) {
            // The same tag for something else: stage 2 with stage 1 on top, or without.
            (Some(from), Some(to)) if Arc::ptr_eq(from, to) => self.smmu.invalidate_all(to.tag),
            _ => Ok(()),
        }
    }

    /// Empties the device's cache of what it has by the old domain. Returns whether it obeyed.
    fn flush_or_quarantine(&self) -> bool {
        let (from, id) = (&self.from, self.stream.id);
        let flushed = match from {
            // By an entry that is not there any more, if the guest has switched ATS off since.
            Meaning::Nested(..) if from.may_use_ats(self.stream) => self.smmu.forget_in_device(id),
            Meaning::Nested(..) => Ok(()),
            _ => self.smmu.flush_atc(id, &from.entry(self.stream)),
        };
        let obeyed = !matches!(flushed, Err(DeviceError::Command(CommandError::AtcInvSync)));
        if !obeyed {
            self.stream.device.quarantine(self.stream.iommu, self.stream.id);
        }
        obeyed
    }
}

impl<'a, P: Platform> Meaning<'a, P> {
    fn new(smmu: &Arc<Smmu<P>>, domain: &'a Domain<P>) -> Result<Self, DeviceError> {
        // The core asked whether it is accepted.
        match domain {
            Domain::Blocked => Ok(Self::Blocked),
            Domain::Identity => Ok(Self::Bypass(smmu.features().incoming_shareability())),
            Domain::Paging(paging) => match own(paging) {
                Some(own) => Ok(Self::Live(own, own.live_in(smmu)?)),
                None => Ok(Self::Blocked),
            },
            Domain::Nested(nested) => match own_nested(nested) {
                Some(own) => Ok(Self::Nested(own, own.memory().live_in(smmu)?)),
                None => Ok(Self::Blocked),
            },
        }
    }

    fn live(&self) -> Option<&Arc<Live<P>>> {
        match self {
            Self::Blocked | Self::Bypass(_) => None,
            Self::Live(_, live) | Self::Nested(_, live) => Some(live),
        }
    }

    /// The domain whose mappings it goes by, and what has been made of it here.
    fn mappings(&self) -> Option<(&SmmuDomain<P>, &Arc<Live<P>>)> {
        match self {
            Self::Blocked | Self::Bypass(_) => None,
            Self::Live(domain, live) => Some((domain, live)),
            Self::Nested(domain, live) => Some((domain.memory(), live)),
        }
    }

    /// Keeps the guest from changing its entries, where there is one.
    fn turn(&self, smmu: &Smmu<P>, stream: &Stream) -> Result<Option<Turn<'_, P>>, DeviceError> {
        match self {
            Self::Nested(domain, _) => domain.turn(smmu, stream.id).map(Some),
            Self::Blocked | Self::Bypass(_) | Self::Live(..) => Ok(None),
        }
    }

    /// Tells the guest's domain of the stream, if it is one.
    fn join(&self, turn: Option<&Turn<'_, P>>, stream: &Stream) {
        if let (Self::Nested(domain, live), Some(turn)) = (self, turn) {
            domain.join(turn, live, stream);
        }
    }

    /// What the stream is to get; for a guest's, what the guest says at this moment.
    fn entry(&self, stream: &Stream) -> StreamTableEntry {
        match self {
            Self::Blocked => StreamTableEntry::abort(),
            Self::Bypass(shareability) => StreamTableEntry::bypass(*shareability),
            Self::Live(_, live) if stream.uses_ats => live.entry.with_ats(Eats::Full),
            Self::Live(_, live) => live.entry,
            Self::Nested(domain, live) => domain.entry(live, stream),
        }
    }

    /// Has the device's cache invalidated with the domain's mappings, before the first translation can be asked for.
    fn know_ats(&self, stream: &Stream) {
        let Some((domain, live)) = self.mappings() else { return };
        if let Self::Nested(..) = self {
            domain.live().nest(live);
        }
        if self.may_use_ats(stream) {
            let Stream { iommu, id, ref device, .. } = *stream;
            let target = AtcTarget { stream: id, substream: None };
            domain.live().add_ats(live, AtsStream { iommu, target, device: Arc::clone(device) });
        }
    }

    fn forget_ats(&self, stream: &Stream) {
        if let Some((domain, live)) = self.mappings()
            && self.may_use_ats(stream)
        {
            domain.live().forget_ats(live, stream.id);
        }
    }

    fn may_use_ats(&self, stream: &Stream) -> bool {
        match self {
            Self::Nested(domain, _) => domain.may_use_ats(stream),
            Self::Blocked | Self::Bypass(_) | Self::Live(..) => stream.uses_ats,
        }
    }

    /// Keeps a guest from what was cached under its VMID before it came.
    fn forget_former_guests(&self) -> Result<(), DeviceError> {
        match self {
            Self::Nested(_, live) => live.smmu.invalidate_all(live.tag),
            Self::Blocked | Self::Bypass(_) | Self::Live(..) => Ok(()),
        }
    }

    fn leave(&self, smmu: &Smmu<P>, stream: &Stream) -> Result<(), DeviceError> {
        if let Self::Nested(domain, _) = self {
            domain.leave(&domain.turn(smmu, stream.id)?, smmu, stream.id);
        }
        Ok(())
    }
}

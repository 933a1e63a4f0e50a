//! One SMMU as the core sees it.

use alloc::sync::Arc;
use core::any::Any;
use core::fmt;

use super::domain::{DRIVER, SmmuDomain};
use super::live::{AtsStream, Live};
use crate::addr::{StreamId, SubstreamId};
use crate::arch::command::CommandError;
use crate::arch::stream_table::{Eats, Shcfg, StreamTableEntry};
use crate::device::{AtcTarget, DeviceError, Smmu};
use crate::iommu::{Domain, DomainConfig, DriverError, Iommu, PagingDomain, Refusal, Stream};
use crate::platform::Platform;

impl<P: Platform> Iommu<P> for Smmu<P> {
    fn driver(&self) -> &'static str {
        DRIVER
    }

    fn stream_id_bits(&self) -> u8 {
        self.features().stream_id_bits()
    }

    fn supports_ats(&self) -> bool {
        self.features().ats()
    }

    fn allocate_domain(self: Arc<Self>, config: &DomainConfig) -> Result<Arc<dyn PagingDomain<P>>, DriverError> {
        let domain = SmmuDomain::new(self.platform(), self.features(), config).map_err(DriverError::Table)?;
        domain.lacks(self.features()).map_or(Ok(()), |lacks| Err(DriverError::Lacks(lacks)))?;
        Ok(Arc::new(domain))
    }

    fn accepts(&self, domain: &Domain<P>) -> Result<(), Refusal> {
        let Domain::Paging(paging) = domain else { return Ok(()) };
        let own = own(paging).ok_or(Refusal::Foreign { driver: paging.driver() })?;
        own.lacks(self.features()).map_or(Ok(()), |lacks| Err(Refusal::Lacks(lacks)))
    }

    fn set_domain(self: Arc<Self>, stream: &Stream, from: &Domain<P>, to: &Domain<P>) -> Result<(), DriverError> {
        let result = Change::new(&self, stream, from, to).and_then(|change| change.make());
        // Before anything that the stream reaches is reused. One that does not even close keeps the tables when the domain
        // goes.
        if to.is_blocked() && result.is_err() || matches!(result, Err(DeviceError::StreamStuck { .. })) {
            let _ = self.close();
        }
        result.map_err(DriverError::Smmu)
    }

    fn dump(&self, stream: StreamId, domain: &Domain<P>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dump = self.dump(stream);
        let Some(domain) = domain.paging().and_then(|domain| own(domain)) else { return writeln!(f, "{dump}") };
        let Some(live) = domain.try_live() else {
            return writeln!(f, "{dump}\ncontext descriptor: not to be had, the domain is being attached or detached");
        };
        let here = live.iter().map(|presence| &presence.live).find(|live| live.is_in(self));
        match here.and_then(|live| live.context.as_ref()) {
            Some(table) => writeln!(f, "{}", dump.context(table, SubstreamId::new(0))),
            None => writeln!(f, "{dump}"),
        }
    }
}

/// A domain that this driver made.
fn own<P: Platform>(domain: &Arc<dyn PagingDomain<P>>) -> Option<&SmmuDomain<P>> {
    let domain: &dyn Any = &**domain;
    domain.downcast_ref()
}

/// A stream on its way from one domain to another.
struct Change<'a, P: Platform> {
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
}

impl<'a, P: Platform> Change<'a, P> {
    fn new(
        smmu: &'a Arc<Smmu<P>>,
        stream: &'a Stream,
        from: &'a Domain<P>,
        to: &'a Domain<P>,
    ) -> Result<Self, DeviceError> {
        Ok(Self { smmu, stream, from: Meaning::new(smmu, from)?, to: Meaning::new(smmu, to)? })
    }

    fn make(self) -> Result<(), DeviceError> {
        let result = match (&self.from, &self.to) {
            (Meaning::Blocked, Meaning::Blocked) => Ok(()),
            (Meaning::Blocked, to) => self.attach(to),
            (from, Meaning::Blocked) => self.detach(from),
            (_, to) => self.replace(to),
        };
        let left = if result.is_ok() { &self.from } else { &self.to };
        left.forget_ats(self.stream.id);
        result
    }

    fn attach(&self, to: &Meaning<'_, P>) -> Result<(), DeviceError> {
        let id = self.stream.id;
        let entry = to.entry(self.stream);
        // What the device may still have from whoever used it before.
        self.smmu.flush_atc(id, &entry)?;
        to.know_ats(self.stream);
        // What the boot policy let through goes on without a gap.
        let is_handed_over = self.smmu.boot_streams().any(|stream| stream == id);
        if is_handed_over { self.smmu.replace(id, &entry) } else { self.smmu.attach(id, &entry) }
    }

    fn detach(&self, from: &Meaning<'_, P>) -> Result<(), DeviceError> {
        if !self.stream.device.is_quarantined() {
            // Without its entry it can use nothing of what it has kept.
            self.flush_or_quarantine(&from.entry(self.stream));
        }
        self.smmu.detach(self.stream.id)
    }

    fn replace(&self, to: &Meaning<'_, P>) -> Result<(), DeviceError> {
        let entry = to.entry(self.stream);
        to.know_ats(self.stream);
        self.smmu.replace(self.stream.id, &entry)?;
        // What the device has cached is of the old domain. One that keeps it must not use it.
        if self.flush_or_quarantine(&self.from.entry(self.stream)) { Ok(()) } else { self.smmu.abort(self.stream.id) }
    }

    /// Empties the device's cache. Returns whether it obeyed.
    fn flush_or_quarantine(&self, entry: &StreamTableEntry) -> bool {
        let flushed = self.smmu.flush_atc(self.stream.id, entry);
        let obeyed = !matches!(flushed, Err(DeviceError::Command(CommandError::AtcInvSync)));
        if !obeyed {
            self.stream.device.quarantine(self.stream.iommu, self.stream.id);
        }
        obeyed
    }
}

impl<'a, P: Platform> Meaning<'a, P> {
    fn new(smmu: &Arc<Smmu<P>>, domain: &'a Domain<P>) -> Result<Self, DeviceError> {
        match domain {
            Domain::Blocked => Ok(Self::Blocked),
            Domain::Identity => Ok(Self::Bypass(smmu.features().incoming_shareability())),
            // The core asked whether it is accepted.
            Domain::Paging(paging) => match own(paging) {
                Some(own) => Ok(Self::Live(own, own.live_in(smmu)?)),
                None => Ok(Self::Blocked),
            },
        }
    }

    fn entry(&self, stream: &Stream) -> StreamTableEntry {
        match self {
            Self::Blocked => StreamTableEntry::abort(),
            Self::Bypass(shareability) => StreamTableEntry::bypass(*shareability),
            Self::Live(_, live) if stream.uses_ats => live.entry.with_ats(Eats::Full),
            Self::Live(_, live) => live.entry,
        }
    }

    /// Has the device's cache invalidated with the domain's mappings, before the first translation can be asked for.
    fn know_ats(&self, stream: &Stream) {
        if let Self::Live(domain, live) = self
            && stream.uses_ats
        {
            let Stream { iommu, id, ref device, .. } = *stream;
            let target = AtcTarget { stream: id, substream: None };
            domain.live().add_ats(live, AtsStream { iommu, target, device: Arc::clone(device) });
        }
    }

    fn forget_ats(&self, stream: StreamId) {
        if let Self::Live(domain, live) = self {
            domain.live().remove_ats(live, stream);
        }
    }
}

//! One SMMU as the core sees it.

use alloc::sync::Arc;
use core::any::Any;
use core::fmt;

use super::change::Change;
use super::domain::{DRIVER, SmmuDomain};
use super::nested::SmmuNestedDomain;
use crate::addr::{StreamId, SubstreamId};
use crate::device::{DeviceError, Smmu};
use crate::iommu::{Domain, DomainConfig, DriverError, Iommu, NestedDomain, PagingDomain, Refusal, Stream};
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
        let lacks = match domain {
            Domain::Blocked | Domain::Identity => None,
            Domain::Paging(paging) => {
                own(paging).ok_or(Refusal::Foreign { driver: paging.driver() })?.lacks(self.features())
            }
            Domain::Nested(nested) => {
                own_nested(nested).ok_or(Refusal::Foreign { driver: nested.driver() })?.lacks(self.features())
            }
        };
        lacks.map_or(Ok(()), |lacks| Err(Refusal::Lacks(lacks)))
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
pub(super) fn own<P: Platform>(domain: &Arc<dyn PagingDomain<P>>) -> Option<&SmmuDomain<P>> {
    let domain: &dyn Any = &**domain;
    domain.downcast_ref()
}

/// A guest's domain that this driver made.
pub(super) fn own_nested<P: Platform>(domain: &Arc<dyn NestedDomain<P>>) -> Option<&SmmuNestedDomain<P>> {
    let domain: &dyn Any = &**domain;
    domain.downcast_ref()
}

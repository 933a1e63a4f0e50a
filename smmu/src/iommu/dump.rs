//! A device's way to memory at one moment, for people.

use alloc::sync::Arc;
use core::fmt;

use super::Attachment;
use super::attachment::Port;
use super::live::LiveList;
use crate::addr::{Iova, SubstreamId};
use crate::platform::Platform;

/// How an attached device's address is translated; see [`Attachment::dump`]. Its `Display` looks when it is called.
pub struct AttachmentDump<'a, P: Platform> {
    pub(super) attachment: &'a Attachment<P>,
    pub(super) iova: Iova,
}

/// Each IOMMU and the device's streams there, with the context descriptor; then the walk, level by level.
impl<P: Platform> fmt::Display for AttachmentDump<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attachment, iova } = *self;
        writeln!(f, "{}", attachment.device())?;
        let live = attachment.domain().try_live();
        for port in attachment.ports() {
            writeln!(f, "IOMMU {}", port.iommu)?;
            writeln!(f, "{}", port.smmu.dump(port.stream))?;
            match &live {
                Some(live) => write_context(f, port, live)?,
                None => writeln!(f, "context descriptor: not to be had, the domain is being attached or detached")?,
            }
        }
        write!(f, "{}", attachment.domain().trace(iova))
    }
}

/// Writes the context descriptor of a stream, if stage 1 translates it.
fn write_context<P: Platform>(f: &mut fmt::Formatter<'_>, port: &Port<P>, live: &LiveList<P>) -> fmt::Result {
    let here = live.iter().map(|presence| &presence.live).find(|live| Arc::ptr_eq(&live.smmu, &port.smmu));
    match here.and_then(|live| live.context.as_ref()?.context(SubstreamId::new(0)).ok()) {
        Some(context) => writeln!(f, "context descriptor: {context:#}"),
        None => Ok(()),
    }
}

impl<P: Platform> fmt::Debug for AttachmentDump<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachmentDump").field("iova", &self.iova).finish_non_exhaustive()
    }
}

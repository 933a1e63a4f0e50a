//! A device's way to memory at one moment, for people.

use alloc::sync::Arc;
use core::fmt;

use super::Attachment;
use super::attachment::Port;
use super::live::LiveList;
use crate::addr::{Iova, SubstreamId};
use crate::device::Dump;
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
            let dump = port.smmu.dump(port.stream);
            match &live {
                Some(live) => writeln!(f, "{}", with_context(dump, port, live))?,
                None => {
                    writeln!(f, "{dump}\ncontext descriptor: not to be had, the domain is being attached or detached")?
                }
            }
        }
        write!(f, "{}", attachment.domain().trace(iova))
    }
}

/// Adds the context descriptor of a stream, if stage 1 translates it.
fn with_context<'a, P: Platform>(dump: Dump<'a, P>, port: &Port<P>, live: &'a LiveList<P>) -> Dump<'a, P> {
    let here = live.iter().map(|presence| &presence.live).find(|live| Arc::ptr_eq(&live.smmu, &port.smmu));
    match here.and_then(|live| live.context.as_ref()) {
        Some(table) => dump.context(table, SubstreamId::new(0)),
        None => dump,
    }
}

impl<P: Platform> fmt::Debug for AttachmentDump<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachmentDump").field("iova", &self.iova).finish_non_exhaustive()
    }
}

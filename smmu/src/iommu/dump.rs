//! A device's way to memory at one moment, for people.

use core::fmt;

use super::{Attachment, Domain};
use crate::addr::Iova;
use crate::platform::Platform;

/// How an attached device's address is translated; see [`Attachment::dump`]. Its `Display` looks when it is called.
pub struct AttachmentDump<'a, P: Platform> {
    pub(super) attachment: &'a Attachment<P>,
    pub(super) iova: Iova,
}

/// Each IOMMU and the device's streams there, as its driver tells; then the walk, level by level.
impl<P: Platform> fmt::Display for AttachmentDump<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attachment, iova } = *self;
        writeln!(f, "{}", attachment.device())?;
        for (iommu, stream, instance) in attachment.streams() {
            writeln!(f, "IOMMU {iommu}")?;
            instance.dump(stream.id, attachment.domain(), f)?;
        }
        match attachment.domain() {
            Domain::Paging(domain) => domain.write_walk(iova, f),
            domain => write!(f, "{iova}: {domain}"),
        }
    }
}

impl<P: Platform> fmt::Debug for AttachmentDump<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachmentDump").field("iova", &self.iova).finish_non_exhaustive()
    }
}

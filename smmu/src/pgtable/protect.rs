//! Changing leaves in place: what they allow.

use core::slice;

use super::atomic::AtomicU64;
use super::tables::{Visit, load, replace};
use super::unmap::Span;
use super::{PageTable, Permissions, RangeError};
use crate::addr::Iova;
use crate::arch::descriptor::LeafAttributes;
use crate::arch::range::Stale;
use crate::platform::Platform;

/// A leaf, found in a table.
pub(super) struct FoundLeaf<'v> {
    pub(super) entry: &'v AtomicU64,
    pub(super) level: u8,
    /// Where it starts, and what it covers.
    pub(super) offset: u64,
    pub(super) size_bytes: u64,
}

impl<P: Platform> PageTable<P> {
    /// Changes what devices may do with a range that consists of whole pages and blocks, without gaps. What was accessed or
    /// dirty stays so.
    ///
    /// No address is without a mapping meanwhile: hardware uses the old permissions or the new ones, and only the new ones
    /// once what is returned has been invalidated in the range. `None` if nothing has changed. That the new permissions
    /// allow more is no reason to leave the invalidation out (Arm ARM, D8.17.1).
    ///
    /// # Errors
    ///
    /// [`RangeError`]; then nothing has changed.
    pub fn protect(
        &self,
        iova: Iova,
        size_bytes: u64,
        permissions: impl Into<Permissions>,
    ) -> Result<Option<Stale>, RangeError> {
        let (whole, permissions) = (self.range(iova, size_bytes)?, permissions.into());
        let visit = self.visit();
        self.common_level(&visit, whole)?;
        let tracking = self.config.tracking;
        Ok(self.change_leaves(&visit, whole, |leaf| leaf.with_permissions(permissions, tracking), |_| ()))
    }

    /// Changes all leaves that are at least partly in a range, and tells of those that were not as `change` wants them.
    /// Returns what is stale then.
    pub(super) fn change_leaves(
        &self,
        visit: &Visit<'_, P>,
        whole: Span,
        change: impl Fn(LeafAttributes) -> LeafAttributes,
        mut changed: impl FnMut(&FoundLeaf<'_>),
    ) -> Option<Stale> {
        let mut stale = None;
        self.for_each_leaf(visit, whole, |leaf| {
            if self.change_leaf(leaf, &change) {
                let this = Stale::Leaves { level: Some(leaf.level) };
                stale = Some(stale.map_or(this, |stale: Stale| stale.merge(this)));
                changed(leaf);
            }
        });
        if stale.is_some() {
            self.platform.write_barrier();
        }
        stale
    }

    /// Changes a leaf, which hardware may be changing too. Says whether there was anything to change.
    fn change_leaf(&self, leaf: &FoundLeaf<'_>, change: impl Fn(LeafAttributes) -> LeafAttributes) -> bool {
        loop {
            let seen = load(leaf.entry);
            // Gone, or split, by a caller who should not have.
            if seen & 1 == 0 || self.format.next_table(leaf.level, seen).is_some() {
                return false;
            }
            let new = change(LeafAttributes::of_descriptor(self.config.stage, seen)).bits();
            if new == seen {
                return false;
            }
            if replace(leaf.entry, seen, new) {
                self.clean(slice::from_ref(leaf.entry));
                return true;
            }
        }
    }

    /// Visits the leaves that are at least partly in a range, in order.
    pub(super) fn for_each_leaf(&self, visit: &Visit<'_, P>, whole: Span, mut each: impl FnMut(&FoundLeaf<'_>)) {
        let mut rest = whole;
        while rest.size_bytes != 0 {
            let Some(place) = visit.descend(rest.iova) else { return };
            let size_bytes = 1 << place.shift;
            let mut offset = rest.iova & !(size_bytes - 1);
            for entry in place.entries {
                let raw = load(entry);
                let is_past = offset > rest.iova && offset - rest.iova >= rest.size_bytes;
                if is_past || self.format.next_table(place.level, raw).is_some() {
                    break;
                }
                if raw & 1 == 1 {
                    each(&FoundLeaf { entry, level: place.level, offset, size_bytes });
                }
                offset = offset.wrapping_add(size_bytes);
            }
            rest.advance(offset.wrapping_sub(rest.iova).min(rest.size_bytes));
        }
    }
}

//! What devices have read and written: the Access flag and the dirty state (Arm ARM, D8.5; IHI 0070, 3.13).
//!
//! Ranges are of whole granules and may have gaps. A block that is partly in a range counts whole: hardware knows no parts
//! of it. Its first address and its size are reported as they are.

use super::protect::FoundLeaf;
use super::{PageTable, RangeError};
use crate::addr::Iova;
use crate::arch::descriptor::LeafAttributes;
use crate::arch::range::Stale;
use crate::platform::Platform;

impl<P: Platform> PageTable<P> {
    /// Reports the pages and blocks that devices have written to, with their sizes in bytes, in order.
    ///
    /// # Errors
    ///
    /// [`RangeError`] if the range is empty, misaligned or out of bounds.
    pub fn dirty(&self, iova: Iova, size_bytes: u64, visitor: impl FnMut(Iova, u64)) -> Result<(), RangeError> {
        self.report(iova, size_bytes, LeafAttributes::is_dirty, visitor)
    }

    /// Reports what [`dirty`](Self::dirty) does, and begins anew: it is clean until the next write.
    ///
    /// A write through a cached translation leaves no mark until what is returned has been invalidated in the range. So what
    /// was reported is to be read (and sent, or saved) after that.
    ///
    /// # Errors
    ///
    /// [`RangeError`] if the range is empty, misaligned or out of bounds.
    pub fn clean_dirty(
        &self,
        iova: Iova,
        size_bytes: u64,
        visitor: impl FnMut(Iova, u64),
    ) -> Result<Option<Stale>, RangeError> {
        self.report_and_change(iova, size_bytes, LeafAttributes::cleaned, visitor)
    }

    /// Reports the pages and blocks that devices have accessed, with their sizes in bytes, in order.
    ///
    /// # Errors
    ///
    /// [`RangeError`] if the range is empty, misaligned or out of bounds.
    pub fn accessed(&self, iova: Iova, size_bytes: u64, visitor: impl FnMut(Iova, u64)) -> Result<(), RangeError> {
        self.report(iova, size_bytes, LeafAttributes::is_accessed, visitor)
    }

    /// Reports what [`accessed`](Self::accessed) does, and begins anew. Accesses through cached translations leave no mark until
    /// what is returned has been invalidated in the range.
    ///
    /// # Errors
    ///
    /// [`RangeError`] if the range is empty, misaligned or out of bounds.
    pub fn clear_accessed(
        &self,
        iova: Iova,
        size_bytes: u64,
        visitor: impl FnMut(Iova, u64),
    ) -> Result<Option<Stale>, RangeError> {
        self.report_and_change(iova, size_bytes, |leaf| leaf.with_access_flag(false), visitor)
    }

    /// Lets devices access what they had not before: the answer to F_ACCESS, where software sets the Access flag. Nothing
    /// has to be invalidated: no translation is cached whose Access flag is clear.
    ///
    /// # Errors
    ///
    /// [`RangeError`] if the range is empty, misaligned or out of bounds.
    pub fn set_accessed(&self, iova: Iova, size_bytes: u64) -> Result<(), RangeError> {
        self.report_and_change(iova, size_bytes, |leaf| leaf.with_access_flag(true), |_, _| ()).map(|_| ())
    }

    fn report(
        &self,
        iova: Iova,
        size_bytes: u64,
        is_meant: impl Fn(LeafAttributes) -> bool,
        mut visitor: impl FnMut(Iova, u64),
    ) -> Result<(), RangeError> {
        let whole = self.range(iova, size_bytes)?;
        let visit = self.visit();
        self.for_each_leaf(&visit, whole, |leaf| {
            let raw = super::tables::load(leaf.entry);
            if raw & 1 == 1 && is_meant(LeafAttributes::of_descriptor(self.config.stage, raw)) {
                visitor(self.iova(leaf.offset), leaf.size_bytes);
            }
        });
        Ok(())
    }

    fn report_and_change(
        &self,
        iova: Iova,
        size_bytes: u64,
        change: impl Fn(LeafAttributes) -> LeafAttributes,
        mut visitor: impl FnMut(Iova, u64),
    ) -> Result<Option<Stale>, RangeError> {
        let whole = self.range(iova, size_bytes)?;
        let visit = self.visit();
        let changed = |leaf: &FoundLeaf<'_>| visitor(self.iova(leaf.offset), leaf.size_bytes);
        Ok(self.change_leaves(&visit, whole, change, changed))
    }
}

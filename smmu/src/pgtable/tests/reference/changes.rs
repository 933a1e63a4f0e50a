//! Operations that change what is mapped already.

use std::collections::BTreeSet;
use std::vec::Vec;

use proptest::prelude::*;

use super::Checked;
use crate::addr::Iova;
use crate::pgtable::tests::walker::{shifts, walk};
use crate::pgtable::{Access, Permissions, RangeError, SplitError, Stage, TableConfig, Tracking};

impl Checked {
    /// What hardware does with a leaf when a device writes to it.
    pub(super) fn write(&mut self, which: &prop::sample::Index) {
        let Some(page) = self.any(which) else { return };
        let TableConfig { stage, coherent, tracking, .. } = *self.table.config();
        if page.permissions.access == Access::Read || tracking != Tracking::HardwareAccessAndDirty {
            return;
        }
        let found = walk(self.platform, &self.table, self.iova(page.leaf_start).get()).expect("mapped");
        assert_eq!(found.raw >> 51 & 1, 1, "DBM: {:#x}", found.raw);
        let written = if stage == Stage::Stage1 { found.raw & !(1 << 7) } else { found.raw | 1 << 7 } | 1 << 10;
        self.platform.write_word(found.at, written, true);
        if !coherent {
            self.platform.write_word(found.at, written, false);
        }
        for iova in (page.leaf_start..page.leaf_start + page.leaf_bytes).step_by(self.page_bytes() as usize) {
            self.pages.get_mut(&iova).expect("a page of the leaf").dirty = true;
        }
    }

    pub(super) fn dirty(&mut self, iova: u64, bytes: u64, clean: bool) {
        let mut reported = Vec::new();
        let note = |iova: Iova, bytes| reported.push((iova, bytes));
        let (start, end) = (self.iova(iova), iova + bytes);
        let result = match clean {
            true => self.table.clean_dirty(start, bytes, note).map(|stale| stale.is_some()),
            false => self.table.dirty(start, bytes, note).map(|()| false),
        };
        if end > 1 << self.table.config().input_bits {
            assert!(matches!(result, Err(RangeError::InputOutOfRange { .. })));
            return;
        }
        let dirty: BTreeSet<_> = (self.pages.range(iova..end))
            .filter(|(_, page)| page.dirty)
            .map(|(_, page)| (page.leaf_start, page.leaf_bytes))
            .collect();
        assert_eq!(result, Ok(clean && !dirty.is_empty()), "whether there is anything to invalidate");
        let expected: Vec<_> = dirty.iter().map(|(start, bytes)| (self.iova(*start), *bytes)).collect();
        assert_eq!(reported, expected);
        for (start, bytes) in dirty {
            for (_, page) in self.pages.range_mut(start..start + bytes) {
                page.dirty &= !clean;
            }
        }
        self.check_near(iova, bytes);
    }

    pub(super) fn split(&mut self, which: &prop::sample::Index, breaks: bool, allocations: Option<usize>) {
        let Some(page) = self.any(which) else { return };
        let iova = self.iova(page.group_start + page.group_bytes / 2);
        let (blocks, is_group) = (self.platform.blocks(), page.leaf_bytes != page.group_bytes);
        self.platform.allow_allocations(allocations.unwrap_or(usize::MAX));
        let result = match breaks {
            false => self.table.split(iova).map(|stale| stale.is_some()),
            true => self.table.begin_split(iova).map(|broken| {
                broken.is_some_and(|broken| {
                    assert_eq!((broken.start(), broken.size_bytes()), (self.iova(page.group_start), page.group_bytes));
                    assert_eq!(self.table.walk(iova), None, "neither the old nor the new");
                    assert_eq!(walk(self.platform, &self.table, iova.get()), None);
                    broken.make().unwrap();
                    true
                })
            }),
        };
        self.platform.allow_allocations(usize::MAX);
        let is_page = !is_group && page.leaf_bytes == self.page_bytes();
        match result {
            Ok(split) => assert_eq!(split, !is_page),
            Err(error) => {
                assert!(matches!(error, SplitError::OutOfDmaMemory(_)) && allocations == Some(0), "{error}");
                assert_eq!(self.platform.blocks(), blocks);
            }
        }
        if result == Ok(true) {
            let end = page.group_start + page.group_bytes;
            let shifts = shifts(self.table.config().granule).map(|shift| 1_u64 << shift);
            let parts = shifts.into_iter().find(|bytes| *bytes < page.leaf_bytes);
            let parts = if is_group { page.leaf_bytes } else { parts.expect("no page") };
            for (iova, page) in self.pages.range_mut(page.group_start..end) {
                (page.leaf_start, page.leaf_bytes) = (iova & !(parts - 1), parts);
                (page.group_start, page.group_bytes) = (page.leaf_start, page.leaf_bytes);
            }
        }
        self.check_near(page.group_start, page.group_bytes);
    }

    pub(super) fn protect(&mut self, iova: u64, bytes: u64, permissions: Permissions) {
        let result = self.table.protect(self.iova(iova), bytes, permissions);
        if iova + bytes > 1 << self.table.config().input_bits {
            assert!(matches!(result, Err(RangeError::InputOutOfRange { .. })));
            return;
        }
        assert_eq!(result.map(|_| ()), self.expected_unmap(iova, bytes));
        if let Ok(stale) = result {
            let permissions = permissions.enforced(self.table.config().stage);
            let mut changes = false;
            for (_, page) in self.pages.range_mut(iova..iova + bytes) {
                changes |= page.permissions != permissions;
                page.permissions = permissions;
            }
            assert_eq!(stale.is_some(), changes);
        }
        self.check_near(iova, bytes);
    }
}

//! What memory the machine has, and what of it is free: the device tree's memory nodes, less what is taken.

use alloc::vec::Vec;
use core::ops::Range;

use fdt::nodes::AsNode;

use super::layout;
use crate::devicetree::{self, DeviceTree, DeviceTreeError, Node};

/// A page, in bytes.
pub const PAGE_BYTES: u64 = 4096;

/// The machine's memory as ranges of physical addresses in bytes.
pub(super) struct Ram {
    /// What may be mapped as Normal memory: whole pages.
    pub(super) usable: Vec<Range<u64>>,
    /// What of that nobody uses: whole pages.
    pub(super) free: Vec<Range<u64>>,
}

/// Reads the memory nodes, `/reserved-memory` and the memory reservation block. What is `inherited` is taken as well.
pub(super) fn read(tree: &DeviceTree, inherited: &[Range<u64>]) -> Result<Ram, DeviceTreeError> {
    let mut usable = Vec::new();
    for node in tree.root()?.as_node().children()? {
        let node = node?;
        let device_type = node.raw_property("device_type")?;
        if device_type.is_some_and(|property| property.value == b"memory\0") && devicetree::is_enabled(&node)? {
            usable.extend(byte_ranges(&node)?.into_iter().filter_map(whole_pages));
        }
    }
    if usable.is_empty() {
        return Err(DeviceTreeError::NoNode(&["device_type = \"memory\""]));
    }

    let image = layout::image();
    let mut taken = devicetree::reservations(tree);
    taken.extend_from_slice(inherited);
    taken.push(devicetree::location(tree));
    taken.push(image.start as u64..image.end as u64);
    // Address 0 could not be told from a null pointer.
    taken.push(0..PAGE_BYTES);
    if let Some(reserved) = tree.find_node("/reserved-memory")? {
        for node in reserved.children()? {
            let node = node?;
            if node.raw_property("reg")?.is_none() {
                continue;
            }
            for range in byte_ranges(&node)? {
                if node.raw_property("no-map")?.is_some() {
                    usable = without(usable, &range);
                }
                taken.push(range);
            }
        }
    }
    let free = taken.iter().fold(usable.clone(), without);
    Ok(Ram { usable, free })
}

/// The node's `reg` as ranges.
fn byte_ranges(node: &Node) -> Result<Vec<Range<u64>>, DeviceTreeError> {
    let regs = devicetree::regs(node)?;
    Ok(regs.into_iter().map(|(start, size)| start.get()..start.get().saturating_add(size as u64)).collect())
}

/// The whole pages inside `range`, if any.
fn whole_pages(range: Range<u64>) -> Option<Range<u64>> {
    let start = range.start.checked_next_multiple_of(PAGE_BYTES)?;
    let end = range.end & !(PAGE_BYTES - 1);
    (start < end).then_some(start..end)
}

/// `ranges` without the pages that `hole` touches.
fn without(ranges: Vec<Range<u64>>, hole: &Range<u64>) -> Vec<Range<u64>> {
    let hole_start = hole.start & !(PAGE_BYTES - 1);
    let hole_end = hole.end.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
    let parts = ranges
        .into_iter()
        .flat_map(|range| [range.start..range.end.min(hole_start), range.start.max(hole_end)..range.end]);
    parts.filter(|range| !range.is_empty()).collect()
}

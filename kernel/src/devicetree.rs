//! The device tree that the loader passed: checked before it is read, and the few questions that the kernel's base asks it.
//!
//! The `fdt` crate reads it through its fallible interface, after `smmu` has checked what its arithmetic takes for granted.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use fdt::nodes::Node as FdtNode;
use fdt::parsing::{NoPanic, unaligned::UnalignedParser};
use fdt::{Fdt, FdtError};
use smmu::addr::PhysAddr;
use smmu::firmware::{FirmwareError, check_blob};

/// The `fdt` crate's parser in the mode that returns errors.
pub type Parser = (UnalignedParser<'static>, NoPanic);
/// A device tree, checked.
pub type DeviceTree = Fdt<'static, Parser>;
/// A node of the device tree.
pub type Node = FdtNode<'static, Parser>;

/// The most that the boot protocol allows a device tree to be, in bytes; as much is mapped when it is first read.
const MAX_BYTES: usize = 2 << 20;

/// The device tree is missing, damaged, or lacks something that the kernel cannot do without.
#[derive(Debug)]
pub enum DeviceTreeError {
    /// The loader passed no usable address in x0.
    Address(usize),
    /// What lies there is damaged.
    Blob(FirmwareError),
    /// The tree's structure is damaged.
    Parse(FdtError),
    /// No node is compatible with any of these.
    NoNode(&'static [&'static str]),
    /// A node's property is missing or malformed.
    Property {
        /// The node's name.
        node: NodeName,
        /// The property.
        property: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl From<FdtError> for DeviceTreeError {
    fn from(error: FdtError) -> Self {
        Self::Parse(error)
    }
}

impl fmt::Display for DeviceTreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => {
                write!(f, "device tree: the loader passed {address:#x} in x0, which is not the address of one")
            }
            Self::Blob(error) => error.fmt(f),
            Self::Parse(error) => write!(f, "device tree: {error}"),
            Self::NoNode(compatible) => write!(f, "device tree: no node is compatible with any of {compatible:?}"),
            Self::Property { node, property, expected } => {
                write!(f, "device tree: node {node}: property `{property}` should be {expected}")
            }
        }
    }
}

/// A node's name, kept for error messages.
#[derive(Clone, Copy, Debug)]
pub struct NodeName(Option<fdt::nodes::NodeName<'static>>);

impl NodeName {
    /// The name of `node`.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        Self(node.name().ok())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => name.fmt(f),
            None => f.write_str("(name unreadable)"),
        }
    }
}

/// Checks the tree at `address` and opens it.
///
/// # Errors
///
/// [`DeviceTreeError::Address`], [`DeviceTreeError::Blob`] or [`DeviceTreeError::Parse`].
pub fn open(address: usize) -> Result<DeviceTree, DeviceTreeError> {
    if address == 0 || !address.is_multiple_of(8) {
        return Err(DeviceTreeError::Address(address));
    }
    // SAFETY: the boot protocol says that a tree lies there; the boot code has mapped `MAX_BYTES` from there on.
    let buffer = unsafe { core::slice::from_raw_parts(address as *const u8, MAX_BYTES) };
    let tree = Fdt::<Parser>::new_unaligned_fallible(check_blob(buffer).map_err(DeviceTreeError::Blob)?)?;
    tree.root()?;
    Ok(tree)
}

/// The first enabled node that is compatible with one of `compatible`.
///
/// # Errors
///
/// [`DeviceTreeError::NoNode`] if there is none, [`DeviceTreeError::Parse`] if the tree is damaged.
pub fn find_compatible(tree: &DeviceTree, compatible: &'static [&'static str]) -> Result<Node, DeviceTreeError> {
    for node in tree.all_compatible(compatible)? {
        let node = node?;
        if is_enabled(&node)? {
            return Ok(node);
        }
    }
    Err(DeviceTreeError::NoNode(compatible))
}

/// Whether the node's `status` is absent or says "okay".
///
/// # Errors
///
/// [`DeviceTreeError::Parse`] if the tree is damaged.
pub fn is_enabled(node: &Node) -> Result<bool, DeviceTreeError> {
    let status = node.raw_property("status")?;
    Ok(status.is_none_or(|status| matches!(status.value, b"okay\0" | b"ok\0")))
}

/// The node's `reg`: physical addresses and sizes in bytes. Not translated through `ranges`: the node is a child of the
/// root, or of buses that pass addresses on unchanged.
///
/// # Errors
///
/// [`DeviceTreeError::Property`] if there is none, or an entry is empty or beyond 64 bits.
pub fn regs(node: &Node) -> Result<Vec<(PhysAddr, usize)>, DeviceTreeError> {
    let expected = "addresses and sizes, each of one or two cells, none empty";
    let bad = || DeviceTreeError::Property { node: NodeName::of(node), property: "reg", expected };
    // `fdt` divides by their sum.
    if reg_cells(node)?.contains(&0) {
        return Err(bad());
    }
    let entries = node.reg()?.ok_or_else(bad)?.iter::<u64, u64>().map(|entry| match entry {
        Ok(entry) if entry.len != 0 && entry.address.checked_add(entry.len).is_some() => {
            Ok((PhysAddr::new(entry.address), entry.len as usize))
        }
        _ => Err(bad()),
    });
    entries.collect()
}

/// Entry number `index` of the node's `reg`, see [`regs`].
///
/// # Errors
///
/// As for [`regs`], and if there are too few entries.
pub fn reg(node: &Node, index: usize) -> Result<(PhysAddr, usize), DeviceTreeError> {
    let expected = "a list with more entries than it has";
    let missing = || DeviceTreeError::Property { node: NodeName::of(node), property: "reg", expected };
    regs(node)?.get(index).copied().ok_or_else(missing)
}

/// The parent's `#address-cells` and `#size-cells`, or their defaults.
fn reg_cells(node: &Node) -> Result<[u32; 2], DeviceTreeError> {
    let Some(parent) = node.parent() else { return Ok([2, 1]) };
    let cells = |name, default| -> Result<u32, DeviceTreeError> {
        let property = parent.raw_property(name)?;
        Ok(property.and_then(|property| property.as_value::<u32>().ok()).unwrap_or(default))
    };
    Ok([cells("#address-cells", 2)?, cells("#size-cells", 1)?])
}

/// Entry number `index` of the node's `interrupts`: a GIC specifier of three cells (type, number, trigger).
///
/// # Errors
///
/// [`DeviceTreeError::Property`] if there is no such entry.
pub fn interrupt(node: &Node, index: usize) -> Result<[u32; 3], DeviceTreeError> {
    let property = node.raw_property("interrupts")?;
    let entry = property.and_then(|property| property.value.chunks_exact(12).nth(index));
    let mut cells = entry.into_iter().flat_map(|entry| entry.chunks_exact(4)).map(|cell| {
        let bytes = cell.try_into().unwrap_or_default();
        u32::from_be_bytes(bytes)
    });
    match (cells.next(), cells.next(), cells.next()) {
        (Some(kind), Some(number), Some(trigger)) => Ok([kind, number, trigger]),
        _ => {
            let expected = "GIC interrupt specifiers of three cells each, and enough of them";
            Err(DeviceTreeError::Property { node: NodeName::of(node), property: "interrupts", expected })
        }
    }
}

/// The memory that the tree itself takes, in bytes.
#[must_use]
pub fn location(tree: &DeviceTree) -> Range<u64> {
    // The structure block lies `structs_offset` bytes into the tree.
    let start = (tree.structs_block().as_ptr().addr() as u64).wrapping_sub(u64::from(tree.header().structs_offset));
    start..start.wrapping_add(tree.total_size() as u64)
}

/// The tree as it lies in memory.
#[must_use]
pub fn bytes(tree: &DeviceTree) -> &'static [u8] {
    let Range { start, end } = location(tree);
    // SAFETY: `open` has checked that the tree lies there; nothing changes or frees it.
    unsafe { core::slice::from_raw_parts(start as *const u8, end.saturating_sub(start) as usize) }
}

/// The memory reservation block (Devicetree Specification 5.3): what the kernel must not use.
#[must_use]
pub fn reservations(tree: &DeviceTree) -> Vec<Range<u64>> {
    let Range { start, end } = location(tree);
    let offset = u64::from(tree.header().memory_reserve_map_offset);
    let mut reservations = Vec::new();
    let mut entry = start + offset;
    while entry + 16 <= end {
        // SAFETY: the entry lies inside the tree, as just checked.
        let [address, size] = unsafe { (entry as *const [[u8; 8]; 2]).read() }.map(u64::from_be_bytes);
        if size == 0 {
            break;
        }
        reservations.push(address..address.saturating_add(size));
        entry += 16;
    }
    reservations
}

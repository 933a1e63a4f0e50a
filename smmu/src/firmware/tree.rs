//! The nodes and properties of a device tree, read once through `fdt` and indexed.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::iter;
use core::ops::Range;
use core::ptr;

use fdt::helpers::UnalignedFallibleNode;
use fdt::nodes::{AsNode, NodeName};
use fdt::{Fdt, FdtError};

use super::blob::check_blob;
use super::error::{FirmwareError, PropertyError, PropertyProblem};
use super::property::Property;
use crate::iommu::fwspec::Phandle;

/// A device tree, checked and indexed.
///
/// It borrows the blob, and needs about 32 bytes of heap for each property and 64 for each node.
#[derive(Debug)]
pub struct DeviceTree<'a> {
    /// Depth first; the root comes first, and parents come before their children.
    nodes: Vec<Entry<'a>>,
    /// Name and value; those of one node together and sorted by name.
    properties: Vec<(&'a str, &'a [u8])>,
    /// Phandle and position of its node; sorted.
    phandles: Vec<(u32, usize)>,
}

#[derive(Debug)]
struct Entry<'a> {
    name: NodeName<'a>,
    parent: Option<usize>,
    properties: Range<usize>,
}

impl<'a> DeviceTree<'a> {
    /// Checks and indexes the flattened device tree at the start of `bytes`. Bytes after its `totalsize` are ignored.
    ///
    /// # Errors
    ///
    /// [`FirmwareError::Blob`] names the first damaged byte: a device tree in which one token is wrong may hide an
    /// SMMU, so none of it is used.
    pub fn new(bytes: &'a [u8]) -> Result<Self, FirmwareError> {
        Self::index(check_blob(bytes)?).map_err(|error| FirmwareError::Reader { message: error.to_string() })
    }

    fn index(blob: &'a [u8]) -> Result<Self, FdtError> {
        let mut tree = Self { nodes: Vec::new(), properties: Vec::new(), phandles: Vec::new() };
        let root = Fdt::new_unaligned_fallible(blob)?.root()?;
        tree.add(root.as_node(), None)?;
        let mut ancestors = Vec::from([0]);
        for item in root.all_nodes()? {
            let (depth, node) = item?;
            ancestors.truncate(depth);
            let parent = ancestors.last().copied();
            ancestors.push(tree.nodes.len());
            tree.add(node, parent)?;
        }
        let phandle = |node: Node<'_>| node.property("phandle")?.single().ok();
        let mut phandles: Vec<_> =
            tree.nodes().enumerate().filter_map(|(position, node)| Some((phandle(node)?, position))).collect();
        phandles.sort_unstable();
        tree.phandles = phandles;
        Ok(tree)
    }

    fn add(&mut self, node: UnalignedFallibleNode<'a>, parent: Option<usize>) -> Result<(), FdtError> {
        let start = self.properties.len();
        for property in node.properties()? {
            let property = property?;
            self.properties.push((property.name, property.value));
        }
        if let Some(own) = self.properties.get_mut(start..) {
            // Stable: of two properties of one name the first is found.
            own.sort_by_key(|&(name, _)| name);
        }
        self.nodes.push(Entry { name: node.name()?, parent, properties: start..self.properties.len() });
        Ok(())
    }

    /// All nodes, depth first.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.nodes.iter().map(|entry| Node { tree: self, entry })
    }

    fn node(&self, position: usize) -> Option<Node<'_>> {
        self.nodes.get(position).map(|entry| Node { tree: self, entry })
    }

    /// The node at a full path, unit addresses included.
    pub(super) fn find(&self, path: &str) -> Result<Node<'_>, FirmwareError> {
        let missing = || FirmwareError::NoSuchNode { path: path.to_string() };
        let mut found = self.node(0).ok_or_else(missing)?;
        let relative = path.strip_prefix('/').ok_or_else(missing)?;
        for name in relative.split('/').filter(|_| !relative.is_empty()) {
            let child = self.nodes().find(|node| node.is_child(found, name));
            found = child.ok_or_else(missing)?;
        }
        Ok(found)
    }

    /// The node that the phandle `value`, read from `property` at `offset_bytes`, names.
    pub(super) fn resolve(
        &self,
        property: Property<'_>,
        offset_bytes: usize,
        value: u32,
    ) -> Result<(Phandle, Node<'_>), PropertyError> {
        let error = |problem| Err(property.error(offset_bytes, problem));
        if matches!(value, 0 | u32::MAX) {
            return error(PropertyProblem::NullPhandle { value });
        }
        let phandle = Phandle::new(value);
        let first = self.phandles.partition_point(|&(smaller, _)| smaller < value);
        let mut owners = self.phandles.iter().skip(first).take_while(|&&(owned, _)| owned == value);
        let mut owner = || owners.next().and_then(|&(_, position)| self.node(position));
        match (owner(), owner()) {
            (Some(node), None) => Ok((phandle, node)),
            (Some(first), Some(second)) => {
                error(PropertyProblem::AmbiguousPhandle { phandle, first: first.path(), second: second.path() })
            }
            (None, _) => error(PropertyProblem::DanglingPhandle { phandle }),
        }
    }
}

/// A node of an indexed tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'t> {
    pub(super) tree: &'t DeviceTree<'t>,
    entry: &'t Entry<'t>,
}

impl<'t> Node<'t> {
    pub(super) fn parent(self) -> Option<Self> {
        self.tree.node(self.entry.parent?)
    }

    /// The node itself, its parent, and so on up to the root.
    pub(super) fn lineage(self) -> impl Iterator<Item = Self> {
        iter::successors(Some(self), |node| node.parent())
    }

    fn is(self, other: Self) -> bool {
        ptr::eq(self.entry, other.entry)
    }

    fn is_child(self, parent: Self, name: &str) -> bool {
        let (base, unit_address) = name.split_once('@').map_or((name, None), |(base, unit)| (base, Some(unit)));
        self.entry.name == NodeName::new(base, unit_address) && self.parent().is_some_and(|above| above.is(parent))
    }

    /// Whether it is the root's child of that name, which has no unit address.
    pub(super) fn is_named(self, name: &str) -> bool {
        self.parent().is_some_and(|parent| parent.parent().is_none() && self.is_child(parent, name))
    }

    /// Whether it is a PCI host bridge or a bus below one.
    pub(super) fn is_pci(self) -> bool {
        self.property("device_type").is_some_and(|kind| matches!(kind.value, b"pci\0" | b"pciex\0"))
    }

    pub(super) fn path(self) -> String {
        let mut names: Vec<_> = self.lineage().map(|node| node.entry.name.to_string()).collect();
        // The root, named "/", becomes the empty string before the first slash.
        names.pop();
        names.push(String::new());
        names.reverse();
        if names.len() == 1 { "/".to_string() } else { names.join("/") }
    }

    pub(super) fn property(self, name: &'static str) -> Option<Property<'t>> {
        let own = self.tree.properties.get(self.entry.properties.clone())?;
        let first = own.partition_point(|&(smaller, _)| smaller < name);
        let &(_, value) = own.get(first).filter(|&&(found, _)| found == name)?;
        Some(Property { node: self, name, value })
    }

    pub(super) fn required(self, name: &'static str) -> Result<Property<'t>, PropertyError> {
        let missing = Property { node: self, name, value: &[] }.error(0, PropertyProblem::Missing);
        self.property(name).ok_or(missing)
    }

    pub(super) fn has(self, name: &'static str) -> bool {
        self.property(name).is_some()
    }

    /// Whether `status` lets the node be used, its own and those of the buses above it: a disabled bus has no devices.
    pub(super) fn is_enabled(self) -> bool {
        self.lineage().all(|node| match node.property("status") {
            Some(status) => matches!(status.value, b"okay\0" | b"ok\0"),
            None => true,
        })
    }
}

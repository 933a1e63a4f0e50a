//! Device trees for machines: QEMU's own taken down, edited, and handed back.
//!
//! Set [`Machine::device_tree`] to the file that [`Tree::write`] wrote; QEMU then adds the memory and the kernel's
//! command line to it, as it does to its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{fs, io};

use dtoolkit::error::{FdtParseError, ModelError};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node as _, Property as _, ToPropertyValue};

use crate::device::escaped;
use crate::machine::{Iommu, Machine};
use crate::program::Qemu;
use crate::{two_smmus, workspace};

/// A device tree that can be edited. Nodes are named by their full path, such as `/smmuv3@9050000`.
#[derive(Clone, Debug)]
pub struct Tree(DeviceTree);

/// Why a device tree cannot be had or edited.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// QEMU wrote none.
    #[error("QEMU wrote no device tree for the machine: {message}")]
    Dump {
        /// What it said.
        message: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are no device tree.
    #[error("no valid device tree: {0}")]
    Parse(#[from] FdtParseError),
    /// A name cannot stand in a device tree.
    #[error("not possible in a device tree: {0}")]
    Name(#[from] ModelError),
    /// There is no such node.
    #[error("the device tree has no node {path}")]
    NoNode {
        /// Its path.
        path: String,
    },
    /// There is no such property.
    #[error("node {path} of the device tree has no property {property}")]
    NoProperty {
        /// The node's path.
        path: String,
        /// The property's name.
        property: String,
    },
}

impl Tree {
    /// The tree that `qemu` makes for `machine`, completed where that does not describe all of it. Nothing is started.
    ///
    /// # Errors
    ///
    /// If QEMU refuses the machine, or what it wrote cannot be read.
    pub fn of_machine(qemu: &Qemu, machine: &Machine) -> Result<Self, TreeError> {
        let in_file = |path: &Path, source| TreeError::File { path: path.to_path_buf(), source };
        let folder = tempfile::tempdir().map_err(|error| in_file(Path::new("temporary folder"), error))?;
        let file = folder.path().join("machine.dtb");
        let mut dump = OsString::from("dumpdtb=");
        dump.push(escaped(&file));
        let own_tree = Machine { device_tree: None, ..machine.clone() };
        let mut arguments = own_tree.arguments(&qemu.capabilities);
        // A second -M adds to the first.
        arguments.extend(["-M".into(), dump]);
        let output = qemu.command(&arguments).stdout(Stdio::null()).output();
        let output = output.map_err(|error| in_file(&qemu.program, error))?;
        if !output.status.success() || !file.is_file() {
            return Err(TreeError::Dump { message: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
        }
        let mut tree = Self::parse(&fs::read(&file).map_err(|error| in_file(&file, error))?)?;
        if let Iommu::TwoSmmuV3(_) = machine.iommu {
            two_smmus::complete(&mut tree)?;
        }
        Ok(tree)
    }

    /// The tree in flattened form in `bytes`.
    ///
    /// # Errors
    ///
    /// If they are no valid device tree.
    pub fn parse(bytes: &[u8]) -> Result<Self, TreeError> {
        Ok(Self(DeviceTree::from_fdt(&Fdt::new(bytes)?)))
    }

    /// Its flattened form.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_dtb()
    }

    /// Writes its flattened form to `file`, in one step. Missing folders are made.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<(), TreeError> {
        let in_file = |source| TreeError::File { path: file.to_path_buf(), source };
        workspace::write_whole(file, &self.to_bytes()).map_err(in_file)
    }

    /// The paths of all nodes whose `compatible` names `compatible`, in the tree's order.
    pub fn compatible(&self, compatible: &str) -> Vec<String> {
        let mut paths = Vec::new();
        collect_compatible(&self.0.root, "", compatible, &mut paths);
        paths
    }

    /// The value of `property` of the node `path`, as it lies in the tree.
    ///
    /// # Errors
    ///
    /// If there is no such node or property.
    pub fn property(&self, path: &str, property: &str) -> Result<Vec<u8>, TreeError> {
        let node = self.0.find_node(path).ok_or_else(|| TreeError::NoNode { path: path.to_owned() })?;
        let found = node.property(property).ok_or_else(|| no_property(path, property))?;
        Ok(found.value().to_vec())
    }

    /// The value of `property` of the node `path`, as 32-bit cells; bytes after the last whole cell are left out.
    ///
    /// # Errors
    ///
    /// If there is no such node or property.
    pub fn cells(&self, path: &str, property: &str) -> Result<Vec<u32>, TreeError> {
        let value = self.property(path, property)?;
        Ok(value.as_chunks().0.iter().map(|&cell| u32::from_be_bytes(cell)).collect())
    }

    /// Gives the node `path` the `property`, in place of one that it may have. A value is a `u32`, `u64`, string, or a
    /// slice of cells, strings or bytes.
    ///
    /// # Errors
    ///
    /// If there is no such node, or the name is not possible.
    pub fn set_property(&mut self, path: &str, property: &str, value: impl ToPropertyValue) -> Result<(), TreeError> {
        let property = DeviceTreeProperty::new(property, value)?;
        self.node(path)?.add_property(property);
        Ok(())
    }

    /// Takes `property` away from the node `path`.
    ///
    /// # Errors
    ///
    /// If there is no such node or property.
    pub fn remove_property(&mut self, path: &str, property: &str) -> Result<(), TreeError> {
        let removed = self.node(path)?.remove_property(property);
        removed.map(drop).ok_or_else(|| no_property(path, property))
    }

    /// Gives the node `path` the status `disabled`.
    ///
    /// # Errors
    ///
    /// If there is no such node.
    pub fn disable(&mut self, path: &str) -> Result<(), TreeError> {
        self.set_property(path, "status", "disabled")
    }

    /// Adds an empty node called `name` to the node `parent` and returns its path. A node of that name is replaced.
    ///
    /// # Errors
    ///
    /// If there is no such parent, or the name is not possible.
    pub fn add_node(&mut self, parent: &str, name: &str) -> Result<String, TreeError> {
        let node = DeviceTreeNode::new(name)?;
        self.node(parent)?.add_child(node);
        Ok(format!("{}/{name}", parent.trim_end_matches('/')))
    }

    /// Adds a node called `name` with the properties of the node `path`, not its children, beside it.
    ///
    /// # Errors
    ///
    /// If there is no such node, or the name is not possible.
    pub fn copy_node(&mut self, path: &str, name: &str) -> Result<(), TreeError> {
        let properties: Vec<DeviceTreeProperty> = self.node(path)?.properties_mut().map(|it| it.clone()).collect();
        let copy = self.add_node(parent(path).unwrap_or("/"), name)?;
        let copy = self.node(&copy)?;
        properties.into_iter().for_each(|property| copy.add_property(property));
        Ok(())
    }

    /// Takes the node `path`, and all below it, out of the tree.
    ///
    /// # Errors
    ///
    /// If there is no such node.
    pub fn remove_node(&mut self, path: &str) -> Result<(), TreeError> {
        self.take_node(path).map(drop)
    }

    /// Puts the node `path`, and all below it, behind its siblings.
    ///
    /// # Errors
    ///
    /// If there is no such node.
    pub fn move_to_end(&mut self, path: &str) -> Result<(), TreeError> {
        let (parent, node) = self.take_node(path)?;
        self.node(&parent)?.add_child(node);
        Ok(())
    }

    /// The node `path`, taken out of the tree, and its parent's path.
    fn take_node(&mut self, path: &str) -> Result<(String, DeviceTreeNode), TreeError> {
        let no_node = || TreeError::NoNode { path: path.to_owned() };
        let parent = parent(path).ok_or_else(no_node)?;
        let node = self.node(parent)?.remove_child(path.rsplit('/').next().unwrap_or_default());
        Ok((parent.to_owned(), node.ok_or_else(no_node)?))
    }

    fn node(&mut self, path: &str) -> Result<&mut DeviceTreeNode, TreeError> {
        self.0.find_node_mut(path).ok_or_else(|| TreeError::NoNode { path: path.to_owned() })
    }
}

/// The path of the parent of the node `path`.
fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| if parent.is_empty() { "/" } else { parent })
}

fn no_property(path: &str, property: &str) -> TreeError {
    TreeError::NoProperty { path: path.to_owned(), property: property.to_owned() }
}

fn collect_compatible(node: &DeviceTreeNode, path: &str, compatible: &str, paths: &mut Vec<String>) {
    for child in node.children() {
        let path = format!("{path}/{}", child.name());
        let is_compatible = child.property("compatible").is_some_and(|property| {
            property.value().split(|&byte| byte == 0).any(|name| name == compatible.as_bytes())
        });
        if is_compatible {
            paths.push(path.clone());
        }
        collect_compatible(child, &path, compatible, paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMMU: &str = "/smmuv3@9050000";

    fn tree() -> Tree {
        let mut tree = Tree(DeviceTree::new());
        let smmu = tree.add_node("/", "smmuv3@9050000").unwrap();
        tree.set_property(&smmu, "compatible", ["other", "arm,smmu-v3"].as_slice()).unwrap();
        tree.set_property(&smmu, "#iommu-cells", 1_u32).unwrap();
        tree.set_property(&smmu, "reg", [0_u32, 0x905_0000, 0, 0x2_0000]).unwrap();
        let bus = tree.add_node("/", "pcie").unwrap();
        tree.add_node(&bus, "device").unwrap();
        tree
    }

    fn reread(tree: &Tree) -> Tree {
        Tree::parse(&tree.to_bytes()).unwrap()
    }

    #[test]
    fn nodes_are_found_by_compatible() {
        let tree = reread(&tree());
        assert_eq!(tree.compatible("arm,smmu-v3"), [SMMU]);
        assert_eq!(tree.compatible("arm,smmu"), [""; 0]);
    }

    #[test]
    fn edits_survive_flattening() {
        let mut tree = tree();
        tree.set_property(SMMU, "reg", [0_u32, 0x1000]).unwrap();
        tree.remove_property(SMMU, "#iommu-cells").unwrap();
        tree.disable(SMMU).unwrap();
        tree.remove_node("/pcie/device").unwrap();
        let tree = reread(&tree);
        assert_eq!(tree.cells(SMMU, "reg").unwrap(), [0, 0x1000]);
        assert_eq!(tree.property(SMMU, "status").unwrap(), b"disabled\0");
        assert!(matches!(tree.property(SMMU, "#iommu-cells"), Err(TreeError::NoProperty { .. })));
        assert!(matches!(tree.property("/pcie/device", "reg"), Err(TreeError::NoNode { .. })));
        assert!(matches!(tree.property("/pcie", "reg"), Err(TreeError::NoProperty { .. })));
    }

    #[test]
    fn nodes_are_copied_and_moved() {
        let mut tree = tree();
        tree.copy_node(SMMU, "copy").unwrap();
        tree.set_property("/copy", "reg", 7_u32).unwrap();
        tree.move_to_end(SMMU).unwrap();
        let tree = reread(&tree);
        assert_eq!(tree.compatible("arm,smmu-v3"), ["/copy", SMMU]);
        assert_eq!(tree.cells("/copy", "reg").unwrap(), [7]);
        assert_eq!(tree.cells(SMMU, "reg").unwrap(), [0, 0x905_0000, 0, 0x2_0000]);
    }

    #[test]
    fn what_is_not_there_cannot_be_edited() {
        let mut tree = tree();
        assert_eq!(
            tree.remove_property(SMMU, "msi-parent").unwrap_err().to_string(),
            "node /smmuv3@9050000 of the device tree has no property msi-parent"
        );
        assert!(matches!(tree.disable("/smmuv3"), Err(TreeError::NoNode { .. })));
        assert!(matches!(tree.remove_node("/pcie/none"), Err(TreeError::NoNode { .. })));
        assert!(Tree::parse(b"no tree").is_err());
    }
}

//! Device trees, built as the tests need them, and read back.

mod blob;
mod bus_limits;
mod hostile;
mod interrupts;
mod iommu_map;
mod iommus;
mod reserved_memory;
mod smmu_nodes;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use vm_fdt::FdtWriter;

use super::{DeviceTree, FirmwareError, FirmwareWarning, Oddity, PropertyProblem, SmmuNode};

const GIC: u32 = 1;
const SMMU0: u32 = 0x10;
const SMMU1: u32 = 0x11;
const SMMU0_PATH: &str = "/iommu@2b400000";

/// A node under construction.
#[derive(Clone)]
struct Source {
    name: &'static str,
    properties: Vec<(&'static str, Vec<u8>)>,
    children: Vec<Source>,
}

fn node(name: &'static str) -> Source {
    Source { name, properties: Vec::new(), children: Vec::new() }
}

impl Source {
    /// Adds a property, or replaces the one of that name.
    fn bytes(mut self, name: &'static str, value: &[u8]) -> Self {
        self = self.without(name);
        self.properties.push((name, value.to_vec()));
        self
    }

    fn cells(self, name: &'static str, cells: &[u32]) -> Self {
        let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.bytes(name, &bytes)
    }

    fn strings(self, name: &'static str, strings: &[&str]) -> Self {
        let bytes: Vec<u8> = strings.iter().flat_map(|string| string.bytes().chain([0])).collect();
        self.bytes(name, &bytes)
    }

    fn flag(self, name: &'static str) -> Self {
        self.bytes(name, &[])
    }

    fn without(mut self, name: &str) -> Self {
        self.properties.retain(|&(existing, _)| existing != name);
        self
    }

    fn child(mut self, child: Source) -> Self {
        self.children.push(child);
        self
    }

    fn write(&self, writer: &mut FdtWriter) {
        let open = writer.begin_node(self.name).unwrap();
        for (name, value) in &self.properties {
            writer.property(name, value).unwrap();
        }
        for child in &self.children {
            child.write(writer);
        }
        writer.end_node(open).unwrap();
    }

    fn blob(&self) -> Vec<u8> {
        let mut writer = FdtWriter::new().unwrap();
        self.write(&mut writer);
        writer.finish().unwrap()
    }
}

/// A root with two address and two size cells, and a GIC.
fn board() -> Source {
    let gic = node("intc@8000000").cells("phandle", &[GIC]).cells("#interrupt-cells", &[3]);
    node("")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .cells("interrupt-parent", &[GIC])
        .child(gic.flag("interrupt-controller"))
}

fn smmu(name: &'static str, phandle: u32, base: u32) -> Source {
    node(name)
        .strings("compatible", &["arm,smmu-v3"])
        .cells("reg", &[0, base, 0, 0x2_0000])
        .cells("phandle", &[phandle])
        .cells("#iommu-cells", &[1])
}

/// At [`SMMU0_PATH`]; its interrupts are in the order of the binding.
fn smmu0() -> Source {
    smmu("iommu@2b400000", SMMU0, 0x2b40_0000)
        .cells("interrupts", &[0, 74, 1, 0, 79, 1, 0, 75, 1, 0, 77, 1])
        .strings("interrupt-names", &["eventq", "gerror", "priq", "cmdq-sync"])
        .flag("dma-coherent")
}

fn smmu1() -> Source {
    smmu("iommu@2b500000", SMMU1, 0x2b50_0000)
        .cells("interrupts", &[0, 80, 1])
        .strings("interrupt-names", &["combined"])
}

fn smmus(board: &Source) -> Vec<Result<SmmuNode, FirmwareError>> {
    DeviceTree::new(&board.blob()).unwrap().smmus().collect()
}

/// The node, property, byte and problem of an error; its text has to name the first two.
fn at<T: core::fmt::Debug>(result: Result<T, FirmwareError>) -> (String, &'static str, usize, PropertyProblem) {
    let error = result.unwrap_err();
    let text = error.to_string();
    let FirmwareError::Property(error) = error else { panic!("not about a property: {error}") };
    assert!(text.contains(&error.place.node) && text.contains(error.place.property), "{text}");
    (error.place.node, error.place.property, error.place.offset_bytes, error.problem)
}

/// The property, byte and oddity of every warning.
fn oddities(warnings: &[FirmwareWarning]) -> Vec<(&'static str, usize, Oddity)> {
    warnings
        .iter()
        .map(|warning| (warning.place.property, warning.place.offset_bytes, warning.oddity.clone()))
        .collect()
}

//! A machine with two SMMUs: what QEMU is told of it, and what QEMU's own device tree leaves out.
//!
//! QEMU describes the SMMU of `pcie.0` alone and says that all PCI functions are behind it. The other one's node, and which
//! functions are behind that, are added here, and so is a device that is behind both.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::device::{Device, DeviceKind};
use crate::devicetree::{Tree, TreeError};
use crate::machine::Stage;
use crate::workspace;

/// The node of the SMMU in front of `pcie.0`.
pub const FIRST: &str = "/smmuv3@c000000";
/// The node of the SMMU in front of `pcie.1`, the root of buses 8 and above.
pub const SECOND: &str = "/smmuv3@c020000";
/// The node of the host bridge that both root buses belong to.
pub const HOST_BRIDGE: &str = "/pcie@10000000";
/// The node of the device that is behind both SMMUs. Each of its ports is an `edu`, which its property `ports` names by
/// Requester ID.
pub const DUAL_PORT: &str = "/dual-port";

/// The second's phandle. QEMU counts up from 0x8000.
const SECOND_PHANDLE: u32 = 0x9000;
/// The root bus behind the second.
const SECOND_BUS: u32 = 8;
const REGISTERS: [u32; 4] = [0, 0xc02_0000, 0, 0x2_0000];
/// Shared peripheral interrupts for eventq, priq, cmdq-sync and gerror, as QEMU wires them; all are edge-triggered.
const INTERRUPTS: [u32; 12] = [0, 116, 1, 0, 117, 1, 0, 118, 1, 0, 119, 1];
/// Requester IDs of the dual-port device's engines: in slot 3 of bus 0, and behind the third root port of bus 8.
const PORTS: [u32; 2] = [0x0018, 0x0b00];

/// QEMU's arguments for the second root bus, and for an SMMU with these stages in front of each.
pub(crate) fn arguments(stages: [Stage; 2]) -> Vec<OsString> {
    let expander = format!("pxb-pcie,id=pcie.1,bus_nr={SECOND_BUS},bus=pcie.0,addr=0x1f");
    let smmu = |(bus, stage): (usize, Stage)| format!("arm-smmuv3,primary-bus=pcie.{bus},stage={}", stage.name());
    let devices = std::iter::once(expander).chain(stages.into_iter().enumerate().map(smmu));
    devices.flat_map(|device| ["-device".into(), device.into()]).collect()
}

/// A source of random bytes, a DMA engine, and one port of the dual-port device behind each SMMU; and an
/// `iommu-testdev` behind the second, which knows nothing of bus mastering.
pub(crate) fn devices() -> Vec<Device> {
    let first = [DeviceKind::VirtioRng, DeviceKind::Edu, DeviceKind::Edu];
    let second = [DeviceKind::VirtioRng, DeviceKind::Edu, DeviceKind::Edu, DeviceKind::IommuTestdev];
    let on_first = (1..).zip(first).map(|(slot, kind)| Device::new(kind).on_bus("pcie.0").in_slot(slot));
    // Its root bus takes nothing but bridges.
    let on_second = (1..).zip(second).flat_map(|(number, kind)| {
        let port = format!("port{number}");
        [Device::root_port(&port, number).on_bus("pcie.1"), Device::new(kind).on_bus(&port)]
    });
    on_first.chain(on_second).collect()
}

/// Adds to QEMU's own tree of such a machine what it leaves out.
pub(crate) fn complete(tree: &mut Tree) -> Result<(), TreeError> {
    let first = tree.cells(FIRST, "phandle")?.first().copied().unwrap_or_default();
    tree.copy_node(FIRST, SECOND.trim_start_matches('/'))?;
    tree.set_property(SECOND, "reg", REGISTERS)?;
    tree.set_property(SECOND, "interrupts", INTERRUPTS.as_slice())?;
    tree.set_property(SECOND, "phandle", SECOND_PHANDLE)?;

    let boundary = SECOND_BUS << 8;
    let map = [0, first, 0, boundary, boundary, SECOND_PHANDLE, boundary, 0x1_0000 - boundary];
    tree.set_property(HOST_BRIDGE, "iommu-map", map.as_slice())?;

    tree.add_node("/", DUAL_PORT.trim_start_matches('/'))?;
    tree.set_property(DUAL_PORT, "compatible", "smmu,dual-port")?;
    tree.set_property(DUAL_PORT, "iommus", [first, PORTS[0], SECOND_PHANDLE, PORTS[1]])?;
    tree.set_property(DUAL_PORT, "ports", PORTS)
}

/// Where the launcher puts the tree.
pub fn tree_path() -> PathBuf {
    workspace::target_directory().join("two-smmus.dtb")
}

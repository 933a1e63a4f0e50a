//! PCI Express: every function behind every host bridge of the device tree, with bus numbers and addresses assigned and
//! bus mastering off.
//!
//! What lives here: host bridges ([`HostBridge`]), configuration space ([`Ecam`]), enumeration, and functions as drivers
//! see them ([`PciFunction`]), and those that come and go while the machine runs ([`Slot`], [`Placement`]). Access to
//! configuration registers and BAR sizing are `virtio-drivers`'; bridges and the assignment of numbers and addresses are
//! here, because it has none. What does not: the devices themselves ([`crate::drivers`]), and who translates their DMA
//! (`iommu-map` stands in the node of [`PciBus::node_path`]).

mod bridge;
mod bus_master;
mod ecam;
mod enumerate;
mod error;
mod function;
mod host_bridge;
mod isolation;
mod slot;
mod window;

use alloc::string::String;
use alloc::vec::Vec;

pub use bus_master::BusMaster;
pub use ecam::Ecam;
pub use error::PciError;
pub use function::{Bar, PciFunction};
pub use slot::{Placement, Slot};

use crate::devicetree::DeviceTree;
use crate::memory;
use enumerate::Enumeration;
use host_bridge::HostBridge;

/// What was found behind one host bridge.
#[derive(Debug)]
pub struct PciBus {
    /// Path of the host bridge's node in the device tree.
    pub node_path: String,
    /// Every function, bridges included, each bridge followed by what lies behind it.
    pub functions: Vec<PciFunction>,
    /// What had to be left out, and why.
    pub problems: Vec<PciError>,
}

/// Enumerates everything behind every host bridge in the device tree.
///
/// Afterwards no function can read or write memory ([`PciFunction::bus_master`] changes that), except those of root
/// buses among the `working` ones, by Requester ID, which go on if they could before. Bridges forward to the functions
/// behind them. A host bridge that cannot be used is an error of its own in the list.
///
/// # Errors
///
/// [`PciError::Tree`] if the device tree does not parse.
pub fn enumerate(tree: &DeviceTree, working: &[u16]) -> Result<Vec<Result<PciBus, PciError>>, PciError> {
    let hosts = HostBridge::find_all(tree)?.into_iter();
    Ok(hosts.map(|host| host.and_then(|host| enumerate_behind(host, working))).collect())
}

fn enumerate_behind(host: HostBridge, working: &[u16]) -> Result<PciBus, PciError> {
    let registers = memory::map_mmio(host.ecam_base, host.ecam_bytes())?;
    // SAFETY: the whole space has just been mapped, for good, and its base is a multiple of 1 MiB.
    let ecam = unsafe { Ecam::new(registers, host.first_bus, host.last_bus) };
    let Enumeration { functions, problems, .. } = Enumeration::run(&host, ecam, working);
    Ok(PciBus { node_path: host.node_path, functions, problems })
}

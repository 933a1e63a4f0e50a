//! Every SMMU of the device tree: found, mapped, brought up, registered, its interrupts connected.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use smmu::addr::StreamId;
use smmu::device::{BootPolicy, Smmu};
use smmu::firmware::{DeviceTree, FirmwareError, Interrupt, SmmuNode};
use smmu::iommu::Registration;
use smmu::iommu::fwspec::Phandle;
use smmu::mmio::Mmio;

use super::{IOMMUS, faults};
use crate::inheritance::InheritedDevice;
use crate::interrupts;
use crate::memory;
use crate::platform::{Kernel, PLATFORM};
use crate::timer;

/// Size of the largest registers, in bytes. The CPU faults on one that is not aligned to its size.
const REGISTER_BYTES: u64 = 8;

/// An SMMU that is up and registered.
#[derive(Debug)]
pub struct Instance {
    /// Its node in the device tree.
    pub node: SmmuNode,
    /// What devices refer to it by.
    pub phandle: Phandle,
    /// The SMMU.
    pub smmu: Arc<Smmu<Kernel>>,
    /// How long the driver took to bring it up.
    pub bring_up: Duration,
    /// What became of the devices that waited for it.
    pub registration: Registration,
}

/// An SMMU as the device tree describes it. It has not been touched yet.
#[derive(Debug)]
pub struct Described {
    phandle: Option<Phandle>,
    /// Or what is wrong with the description.
    node: Result<SmmuNode, String>,
}

/// Every SMMU of the device tree that may be used, in its order. Devices behind the others are told not to wait for them.
#[must_use]
pub fn describe_all(tree: &DeviceTree<'_>) -> Vec<Described> {
    let mut described = Vec::new();
    for node in tree.smmus() {
        match node {
            Ok(SmmuNode { enabled: false, phandle, path, .. }) => give_up(phandle, format!("{path} is disabled")),
            Ok(node) => described.push(Described { phandle: node.phandle, node: Ok(node) }),
            Err(error) => {
                let phandle = match &error {
                    FirmwareError::Property(error) => tree.phandle(&error.place.node),
                    _ => None,
                };
                described.push(Described { phandle, node: Err(error.to_string()) });
            }
        }
    }
    described
}

impl Described {
    /// Brings the SMMU up and registers it: devices that waited for it can be bound then. DMA of `inherited` devices goes on
    /// as it is; all else aborts.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for people. Devices behind it are told not to wait for it: they stay blocked.
    pub fn bring_up(self, inherited: &[InheritedDevice]) -> Result<Instance, String> {
        let Self { phandle, node } = self;
        let brought_up = node.and_then(|node| bring_up(node, inherited));
        brought_up.inspect_err(|error| give_up(phandle, error.clone()))
    }
}

/// Says that no SMMU will come that devices refer to by `phandle`.
fn give_up(phandle: Option<Phandle>, reason: String) {
    let Some(phandle) = phandle else { return };
    if let Err(error) = IOMMUS.fail(phandle, reason) {
        log::warn!("{error}");
    }
}

fn bring_up(node: SmmuNode, inherited: &[InheritedDevice]) -> Result<Instance, String> {
    for warning in &node.warnings {
        log::warn!("{warning}");
    }
    let explain = |error: &dyn core::fmt::Display| format!("{}: {error}", node.path);
    let phandle = node.phandle.ok_or_else(|| explain(&"has no phandle, so that no device can be behind it"))?;
    if !node.base.is_aligned(REGISTER_BYTES) {
        let odd = format_args!("property `reg`: no register can be at {}; correct the address", node.base);
        return Err(explain(&odd));
    }
    let size_bytes = node.size_bytes as usize;
    let base = memory::map_mmio(node.base, size_bytes).map_err(|error| explain(&error))?;
    // SAFETY: the block was just mapped as device registers, for good; firmware says that it is this SMMU's alone.
    let registers = unsafe { Mmio::new(base, size_bytes) }.map_err(|error| explain(&error))?;
    let is_here = |device: &&InheritedDevice| device.iommu == phandle;
    let streams: Vec<StreamId> = inherited.iter().filter(is_here).map(|device| device.stream).collect();
    let policy = if inherited.is_empty() { BootPolicy::Abort } else { BootPolicy::Adopt(&streams) };
    let started = timer::now();
    let smmu = Smmu::bring_up(&PLATFORM, registers, node.dma_coherent, policy);
    let bring_up = timer::now().saturating_sub(started);
    let smmu = Arc::new(smmu.map_err(|error| explain(&error))?);
    if let Err(error) = connect_interrupts(&node, phandle, &smmu) {
        log::warn!("{}: no interrupts, events have to be polled for: {error}", node.path);
        faults::poll_for(phandle, &smmu);
    }
    let registration = IOMMUS.register(phandle, Arc::clone(&smmu)).map_err(|error| explain(&error))?;
    Ok(Instance { node, phandle, smmu, bring_up, registration })
}

/// Connects the event and global error interrupts, or the combined one, and looks once at what came before.
fn connect_interrupts(node: &SmmuNode, phandle: Phandle, smmu: &Arc<Smmu<Kernel>>) -> Result<(), String> {
    let lines = &node.interrupts;
    if lines.combined.is_none() && lines.eventq.is_none() {
        return Err("the device tree names none for the event queue".into());
    }
    let lines = [&lines.combined, &lines.eventq, &lines.gerror].into_iter().flatten();
    let lines = lines.map(specifier).collect::<Result<Vec<_>, _>>()?;
    for (index, &line) in lines.iter().enumerate() {
        let smmu = Arc::clone(smmu);
        // Either source on either line: they are cheap to look at, and a lost pulse is made good by the next.
        let handler = Box::new(move || faults::handle(phandle, &smmu));
        if let Err(error) = interrupts::enable(line, handler) {
            disconnect(lines.iter().take(index));
            return Err(error.to_string());
        }
    }
    if let Err(error) = smmu.enable_interrupts() {
        disconnect(&lines);
        return Err(error.to_string());
    }
    faults::handle(phandle, smmu);
    Ok(())
}

/// Takes lines back that were connected: an SMMU that is polled is not called for.
fn disconnect<'a>(lines: impl IntoIterator<Item = &'a [u32; 3]>) {
    for &line in lines {
        if let Err(error) = interrupts::disable(line) {
            log::warn!("{error}");
        }
    }
}

/// The three cells of a GIC's interrupt specifier.
fn specifier(line: &Interrupt) -> Result<[u32; 3], String> {
    line.specifier
        .first_chunk()
        .copied()
        .ok_or_else(|| format!("interrupt specifier {:?} is not a GIC's three cells", line.specifier))
}

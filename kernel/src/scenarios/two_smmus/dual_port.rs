//! A device behind two IOMMUs: two DMA engines that are one device to its driver, and have one address space.
//!
//! No such device is in QEMU. A node of the device tree makes one of two `edu`: its `iommus` names a stream of each
//! engine, its `ports` their Requester IDs.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use smmu::addr::Iova;
use smmu::dma::{Direction, Dma, PAGE_BYTES};
use smmu::firmware;
use smmu::iommu::{BindError, Device, DeviceDescription};

use super::super::system::{Endpoint, System};
use super::super::watch::{Page, caught};
use super::clients::Client;
use crate::devicetree::{DeviceTree, DeviceTreeError};
use crate::drivers::edu::Edu;
use crate::iommu::{Bound, IOMMUS, NO_LIMIT};
use crate::pci::BusMaster;
use crate::platform::Kernel;
use crate::{println, record};

/// The device's node, and its name.
const NODE: &str = "/dual-port";
const NAME: &str = "dual-port";

/// What is copied at a time, a quarter of the buffer, in bytes.
const PART_BYTES: usize = PAGE_BYTES / 4;
const PART_WORDS: usize = PART_BYTES / 8;

static BUFFER: Page = Page::new();

/// The Requester IDs of the device's ports; none if there is no such device.
pub(super) fn ports(tree: &DeviceTree) -> Result<Vec<u16>, DeviceTreeError> {
    let Some(node) = tree.find_node(NODE)? else { return Ok(Vec::new()) };
    let ports = node.raw_property("ports")?.map_or(&[][..], |property| property.value);
    // Big-endian cells, of which a Requester ID fills the lower half.
    Ok(ports.as_chunks::<4>().0.iter().map(|&[_, _, high, low]| u16::from_be_bytes([high, low])).collect())
}

/// The device, its driver perhaps bound.
pub(super) struct DualPort {
    /// Or why the IOMMU core does not know it.
    device: Result<Arc<Device>, String>,
    ports: Vec<Endpoint>,
    bound: Option<(Vec<Edu>, Bound)>,
}

impl DualPort {
    /// Makes the device known to the IOMMU core, and takes its ports out of the other devices.
    pub(super) fn new(tree: &firmware::DeviceTree<'_>, ports: &[u16], system: &mut System) -> Result<Self, String> {
        let is_port = |endpoint: &mut Endpoint| ports.contains(&endpoint.function.requester_id());
        let ports: Vec<_> = system.endpoints.extract_if(.., is_port).collect();
        if ports.is_empty() {
            return Err(format!("the device tree has no device {NODE}"));
        }
        let iommus = tree.iommus(NODE).map_err(|error| error.to_string());
        let device = iommus.and_then(|iommus| {
            let description = DeviceDescription::new(NAME, iommus.fwspec);
            IOMMUS.add_device(description).map_err(|error| error.to_string())
        });
        Ok(Self { device, ports, bound: None })
    }

    /// What it is behind, and what its ports are.
    pub(super) fn description(&self) -> String {
        let behind = match &self.device {
            Ok(device) => device.fwspec().to_string(),
            Err(error) => format!("blocked: {error}"),
        };
        let ports: Vec<_> = self.ports.iter().map(|port| port.function.address.to_string()).collect();
        format!("  {NAME}, which is {}: {behind}", ports.join(" and "))
    }
}

impl Client for DualPort {
    fn name(&self) -> String {
        NAME.into()
    }

    fn bind(&mut self) -> Result<(), BindError<String>> {
        let device = self.device.as_ref().map_err(|error| BindError::Probe(error.clone()))?;
        let bus = self.ports.iter().map(|port| port.function.bus_master()).reduce(BusMaster::and);
        let bus = bus.ok_or_else(|| BindError::Probe("it has no ports".into()))?;
        let bound = Bound::new(bus, device, NO_LIMIT)?;
        let engines = self.ports.iter_mut().map(|port| Edu::new(&mut port.function)).collect::<Result<_, _>>();
        self.bound = Some((engines.map_err(|error| BindError::Probe(error.to_string()))?, bound));
        Ok(())
    }

    fn work(&mut self) -> Result<(), String> {
        let Some((engines, bound)) = &mut self.bound else { return Ok(()) };
        let iova = copy(engines, bound.dma())?;
        reach_in_vain(engines, bound.dma().device(), iova)
    }
}

/// Has each engine copy the part of one buffer that the one before has written. Returns where the buffer was.
fn copy(engines: &mut [Edu], dma: &Dma<Kernel>) -> Result<Iova, String> {
    BUFFER.fill(0);
    for (index, word) in (1u64..).zip(part(0)) {
        word.store(index.wrapping_mul(0x9e37_79b9_7f4a_7c15), Ordering::Relaxed);
    }
    let before = dma.domain().counts();
    // SAFETY: nobody touches the buffer before it is unmapped below.
    let buffer = unsafe { dma.map(BUFFER.memory(), Direction::Bidirectional) }.map_err(|error| error.to_string())?;
    let iova = buffer.iova();
    for (index, engine) in engines.iter_mut().enumerate() {
        let (from, to) = (place(iova, index)?, place(iova, index + 1)?);
        let copied = engine.copy_from_memory(from, 0, PART_BYTES);
        let copied = copied.and_then(|()| engine.copy_to_memory(to, 0, PART_BYTES));
        copied.map_err(|error| error.to_string())?;
    }
    buffer.unmap().map_err(|error| error.to_string())?;
    let (mapped, unmapped) = dma.domain().counts();
    let (mapped, unmapped) = (mapped - before.0, unmapped - before.1);
    let words = |index| part(index).iter().map(|word| word.load(Ordering::Relaxed));
    if !words(engines.len()).eq(words(0)) {
        return Err(format!("{NAME}: what came through both ports is not what went in"));
    }
    println!("{NAME}: {PART_BYTES} bytes through both ports, equal to the byte; one buffer at {iova}, one domain");
    println!("  mapped {mapped} time, unmapped {unmapped} time");
    record!("dual-port", "ports" => engines.len(), "mapped" => mapped, "unmapped" => unmapped);
    Ok(iova)
}

/// Has each engine write to where the buffer was.
fn reach_in_vain(engines: &mut [Edu], device: &Arc<Device>, iova: Iova) -> Result<(), String> {
    let last = engines.len() + 1;
    for (port, engine) in engines.iter_mut().enumerate() {
        println!("{NAME} is told to write to the buffer through port {port}:");
        let before = device.faults();
        engine.copy_to_memory(place(iova, last)?, 0, PART_BYTES).map_err(|error| error.to_string())?;
        caught(device, before)?;
        record!("stopped-port", "port" => port, "faults" => device.faults() - before);
    }
    if part(last).iter().any(|word| word.load(Ordering::Relaxed) != 0) {
        return Err(format!("{NAME} has written to a buffer that it has no more"));
    }
    println!("  stopped; the buffer is as it was");
    Ok(())
}

/// Where the device finds part `index` of the buffer.
fn place(iova: Iova, index: usize) -> Result<Iova, String> {
    iova.checked_add((index * PART_BYTES) as u64).ok_or_else(|| format!("{iova} is at the end of the address space"))
}

/// Part `index` of the buffer.
fn part(index: usize) -> &'static [AtomicU64] {
    BUFFER.words().chunks(PART_WORDS).nth(index).unwrap_or_default()
}

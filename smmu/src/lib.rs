//! An Arm SMMUv3 driver and IOMMU core for bare-metal Rust: kernels, hypervisors, firmware.
//!
//! A device that can do DMA can read and write all of memory, unless something stands in between. On Arm that is the
//! System Memory Management Unit (SMMU), and this crate makes it do its duty: a device reaches what it was given, for
//! as long as it was given it, and nothing else. Everything is aborted first and allowed later; every wait has an end;
//! nothing that a device or a firmware table says can make the crate panic.
//!
//! # The layers
//!
//! Each uses those below it, and can be used without those above it.
//!
//! | module | what it knows |
//! |---|---|
//! | [`dma`] | buffers: addresses for them, mappings that undo themselves, bounce buffers |
//! | [`iommu`] | devices: which sits behind which SMMU, domains, who caused a fault |
//! | [`firmware`] | the device tree: SMMU nodes, `iommus`, `iommu-map` |
//! | [`device`] | one SMMUv3: bring-up, queues, stream table, invalidation, events |
//! | [`pgtable`] | translation tables, stage 1 and 2 |
//! | [`arch`] | the architecture as data: registers, table entries, commands, events, descriptors |
//! | [`platform`] | what the system around the crate provides: one trait |
//!
//! The first three need a heap, and the feature `alloc`, which is on unless `default-features = false`. What is below them
//! gets by with [`platform`]'s DMA memory.
//!
//! [`addr`] has the types that keep one kind of address from passing for another. `unsafe` is in [`mmio`], [`memory`] and
//! where a driver's raw buffer is lent to a device, and nowhere else.
//!
//! # Quick start
//!
//! Implement [`Platform`](platform::Platform) for the kernel, then:
//!
//! ```
//! extern crate alloc;
//! use alloc::sync::Arc;
//! use core::error::Error;
//!
//! use smmu::device::{BootPolicy, Smmu};
//! use smmu::dma::Dma;
//! use smmu::firmware::{DeviceTree, RequesterId, SmmuNode};
//! use smmu::iommu::{Binding, BusDevice, DeviceDescription, Iommus};
//! use smmu::platform::Platform;
//!
//! /// Brings up every SMMU that the device tree names and allows. From here on their devices abort.
//! fn bring_up<P: Platform>(
//!     platform: &'static P,
//!     iommus: &Iommus<P>,
//!     tree: &DeviceTree<'_>,
//!     map_registers: impl Fn(u64, u64) -> P::Registers,
//! ) -> Vec<Result<(), Box<dyn Error>>> {
//!     let bring_up_one = |node: SmmuNode| {
//!         let registers = map_registers(node.base.get(), node.size_bytes);
//!         let smmu = Arc::new(Smmu::bring_up(platform, registers, node.dma_coherent, BootPolicy::Abort)?);
//!         // Connect the interrupts in `node.interrupts` to `drain_events` and `handle_global_errors`, then:
//!         smmu.enable_interrupts()?;
//!         iommus.register(node.phandle.ok_or("an SMMU without a phandle has no devices")?, smmu)?;
//!         Ok(())
//!     };
//!     // A broken node is reported and leaves the others alone; a disabled one is not ours to touch.
//!     let nodes = tree.smmus().filter(|node| node.as_ref().map_or(true, |node| node.enabled));
//!     nodes.map(|node| bring_up_one(node?)).collect()
//! }
//!
//! /// Binds a driver to one PCI function: DMA first, then bus mastering, then the driver's probe; all undone if one fails.
//! fn bind<P: Platform, B: BusDevice>(
//!     platform: &'static P,
//!     iommus: &Iommus<P>,
//!     tree: &DeviceTree<'_>,
//!     host_bridge: &str,
//!     requester_id: u16,
//!     function: B,
//! ) -> Result<Binding<P, B, Dma<P>>, Box<dyn Error>> {
//!     let map = tree.iommu_map(host_bridge)?.ok_or("the host bridge has no iommu-map")?;
//!     let device = iommus.add_device(DeviceDescription::new("00:01.0 disk", map.fwspec([RequesterId::new(requester_id)])))?;
//!     let bound = iommus.bind(&device, function, |_, attachment| {
//!         // The driver's probe: here, it is content with DMA.
//!         Dma::new(platform, Arc::clone(attachment), u64::MAX)
//!     });
//!     // Among the errors: that an IOMMU is not there yet. Then try again when it has been registered.
//!     Ok(bound?)
//! }
//!
//! /// What the driver does with it.
//! fn use_it<P: Platform>(dma: &Dma<P>) -> Result<(), Box<dyn Error>> {
//!     let ring = dma.allocate_coherent(4096)?;
//!     let for_the_device = ring.iova();
//!     // ... tell the device, wait for it ...
//!     drop(ring); // unmapped, invalidated, synced: only now is its memory free
//!     Ok(())
//! }
//! ```
//!
//! [`iommu`] tells the rest: what a kernel calls when devices and IOMMUs come and go.
//!
//! # Errors
//!
//! Every error is an enum with values inside, and prints as a sentence that says which device, StreamID or register, what
//! was expected and what was found. What had been begun by then has been undone.

#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod arch;
pub mod device;
#[cfg(feature = "alloc")]
pub mod dma;
#[cfg(feature = "alloc")]
pub mod firmware;
#[cfg(feature = "alloc")]
pub mod iommu;
#[allow(unsafe_code, reason = "DMA memory is shared with hardware")]
pub mod memory;
#[allow(unsafe_code, reason = "register accesses are volatile")]
pub mod mmio;
pub mod pgtable;
#[allow(unsafe_code, reason = "the contract an integrator vouches for")]
pub mod platform;
#[cfg(test)]
#[allow(unsafe_code, reason = "it stands in for the system")]
mod testing;

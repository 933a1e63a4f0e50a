//! A device that faults as fast as it is told to, while a disk is being read: every fault counts, few are worth a line, and
//! the disk does not notice.

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use smmu::addr::Iova;

use super::Context;
use super::disk::Disk;
use super::system::System;
use crate::drivers::DriverKind;
use crate::drivers::virtio::Astray;
use crate::iommu::{self, NO_LIMIT, SmmuDma};
use crate::power::ExitCode;
use crate::{println, record, sync};

/// The virtio device slot of the device that strays. Slot 0 is the disk's.
const SLOT: usize = 1;
/// Where the device looks for its queue.
const QUEUE: Iova = Iova::new(0x10_0000);
/// How often it is told to while one piece of the disk is being read.
const KICKS_PER_REQUEST: u64 = 32;
/// How often it is told to while nobody takes events: more often than the event queue is long.
const KICKS_UNSEEN: u64 = 3000;

pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(show(context))
}

fn show(context: &Context) -> Result<(), String> {
    let mut system = System::discover(context)?;
    let mut disk = system.take_endpoint(DriverKind::VirtioBlock)?;
    let stray = system.endpoint(DriverKind::VirtioEntropy)?;
    let device = stray.device()?;
    let bound = stray.bind(NO_LIMIT).map_err(|error| error.to_string())?;
    let dma = Box::new(SmmuDma::new(bound.dma().clone()));
    let mut astray = Astray::<SLOT>::new(&mut stray.function, dma, QUEUE).map_err(|error| error.to_string())?;

    println!("\n== The disk is read while {device} faults");
    let mut kicks = 0;
    let mut disk = Disk::new(&mut disk)?;
    disk.read_whole(context, |_| {
        (0..KICKS_PER_REQUEST).for_each(|_| astray.kick());
        kicks += KICKS_PER_REQUEST;
        Ok(())
    })?;
    iommu::poll();
    let (seen, events) = (device.faults(), iommu::counts().events);
    println!("told to look into its queue {kicks} times, {seen} faults; {events} events in all");
    record!("storm", "kicks" => kicks, "faults" => seen, "events" => events);

    println!("\n== It faults while nobody looks");
    sync::with_interrupts_masked(|| (0..KICKS_UNSEEN).for_each(|_| astray.kick()));
    iommu::poll();
    let unseen = device.faults() - seen;
    println!("told to {KICKS_UNSEEN} times, {unseen} faults counted");
    record!("unseen", "kicks" => KICKS_UNSEEN, "faults" => unseen);
    drop(astray);
    disk.read_whole(context, |_| Ok(()))
}

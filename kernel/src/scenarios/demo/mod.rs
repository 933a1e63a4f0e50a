//! The demonstration: DMA through an SMMU, and what becomes of devices that stray.

mod disk;
mod engine;
mod rogue;

use alloc::string::String;

use super::Context;
use super::system::System;
use crate::drivers::DriverKind;
use crate::iommu;
use crate::power::ExitCode;
use crate::{memory, println, record, timer};
use engine::Engine;

/// Addresses that a device may put on the bus where nothing limits it.
const NO_LIMIT: u64 = u64::MAX;

/// Runs all parts; what does not work ends it.
pub(super) fn run(context: &Context) -> ExitCode {
    match parts(context) {
        Ok(()) => ExitCode::Success,
        Err(error) => {
            println!("\nFAILED: {error}");
            record!("failure", "message" => error.as_str());
            ExitCode::Failure
        }
    }
}

fn parts(context: &Context) -> Result<(), String> {
    let started = timer::now();
    println!("== 1. The machine");
    let mut system = System::discover(context)?;
    let dma_bytes_before = memory::dma::usage().used_bytes;

    println!("\n== 2. The disk, through translated DMA");
    disk::read(&mut system, context)?;
    disk::random_bytes(&mut system)?;

    println!("\n== 3. RAM -> device -> RAM");
    let mut engine = Engine::new(system.endpoint(DriverKind::Edu)?)?;
    engine.copy()?;

    println!("\n== 4. Rogues");
    rogue::edu(&mut engine)?;
    drop(engine);
    if context.arguments.has("without", "iommu-testdev") {
        println!("left out: iommu-testdev, which this QEMU does not have");
    } else {
        rogue::testdev(system.endpoint(DriverKind::IommuTestdev)?)?;
    }

    println!("\n== 5. Summary");
    summarise(&system, dma_bytes_before)?;
    println!("done after {:.1} s", timer::now().saturating_sub(started).as_secs_f32());
    Ok(())
}

fn summarise(system: &System, dma_bytes_before: usize) -> Result<(), String> {
    for endpoint in &system.endpoints {
        let device = endpoint.device()?;
        println!("  {:<24} {:>6} faults", device.name(), device.faults());
    }
    for instance in &system.smmus {
        let statistics = instance.smmu.statistics();
        let (commands, refused) = (statistics.commands, statistics.refused);
        println!("  {}: {commands} commands, {refused} of them refused", instance.node.path);
    }
    let counts = iommu::counts();
    println!("  {} translations given, {} taken back, {} events", counts.mapped, counts.unmapped, counts.events);
    record!("summary", "mapped" => counts.mapped, "unmapped" => counts.unmapped, "events" => counts.events);
    // Second levels of stream tables stay; everything that devices had is back.
    let dma_bytes = memory::dma::usage().used_bytes;
    println!("  DMA memory in use: {} KiB before, {} KiB after", dma_bytes_before >> 10, dma_bytes >> 10);
    Ok(())
}

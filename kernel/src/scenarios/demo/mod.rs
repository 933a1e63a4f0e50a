//! The demonstration: DMA through an SMMU, and what becomes of devices that stray.

mod rogue;

use alloc::string::{String, ToString};

use super::Context;
use super::disk::Disk;
use super::engine::Engine;
use super::entropy::RandomBytes;
use super::system::System;
use crate::drivers::DriverKind;
use crate::iommu;
use crate::power::ExitCode;
use crate::{memory, println, record, timer};

/// The virtio device slot of the source of random bytes. Slot 0 is the disk's.
const ENTROPY_SLOT: usize = 1;

/// Runs all parts; what does not work ends it.
pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(parts(context))
}

fn parts(context: &Context) -> Result<(), String> {
    let started = timer::now();
    println!("== 1. The machine");
    let mut system = System::discover(context)?;
    let before = MemoryUse::now(&system);

    println!("\n== 2. The disk, through translated DMA");
    Disk::new(system.endpoint(DriverKind::VirtioBlock)?)?.read_whole(context, |_| Ok(()))?;
    let random = RandomBytes::<ENTROPY_SLOT>::new(system.endpoint(DriverKind::VirtioEntropy)?);
    random.map_err(|error| error.to_string())?.fetch()?;

    println!("\n== 3. RAM -> device -> RAM");
    let engine = Engine::new(system.endpoint(DriverKind::Edu)?);
    let mut engine = engine.map_err(|error| error.to_string())?;
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
    summarise(&system, &before)?;
    println!("done after {:.1} s", timer::now().saturating_sub(started).as_secs_f32());
    Ok(())
}

fn summarise(system: &System, before: &MemoryUse) -> Result<(), String> {
    for endpoint in &system.endpoints {
        match endpoint.device() {
            Ok(device) => println!("  {:<24} {:>6} faults", device.name(), device.faults()),
            Err(_) => println!("  {:<24} blocked", alloc::format!("{} {}", endpoint.function.address, endpoint.driver)),
        }
    }
    for instance in &system.smmus {
        let statistics = instance.smmu.statistics();
        let (commands, refused) = (statistics.commands, statistics.refused);
        println!("  {}: {commands} commands, {refused} of them refused", instance.node.path);
    }
    let counts = iommu::counts();
    println!("  {} translations given, {} taken back, {} events", counts.mapped, counts.unmapped, counts.events);
    let after = MemoryUse::now(system);
    let growth_bytes = after.smmus_bytes.saturating_sub(before.smmus_bytes);
    record!(
        "summary",
        "mapped" => counts.mapped,
        "unmapped" => counts.unmapped,
        "events" => counts.events,
        "dma_bytes_before" => before.all_bytes,
        "dma_bytes_after" => after.all_bytes,
        "stream_table_bytes" => growth_bytes,
    );
    println!(
        "  DMA memory in use: {} KiB before, {} KiB after, {} KiB more of that in stream tables",
        before.all_bytes >> 10,
        after.all_bytes >> 10,
        growth_bytes >> 10
    );
    // Second levels of stream tables are there to stay; all that devices had is back.
    match after.all_bytes == before.all_bytes.saturating_add(growth_bytes) {
        true => Ok(()),
        false => Err("DMA memory that devices had was not given back".into()),
    }
}

/// DMA memory in use.
struct MemoryUse {
    /// In all, in bytes.
    all_bytes: usize,
    /// Of that by the SMMUs' own queues and tables.
    smmus_bytes: usize,
}

impl MemoryUse {
    fn now(system: &System) -> Self {
        let smmus_bytes = system.smmus.iter().map(|instance| instance.smmu.statistics().dma_bytes).sum();
        Self { all_bytes: memory::dma::usage().used_bytes, smmus_bytes }
    }
}

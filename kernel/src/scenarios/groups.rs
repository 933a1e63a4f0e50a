//! Devices that cannot be told apart, or kept from each other, share what they reach: those behind a bridge to conventional
//! PCI, whose requests all bear the bridge's Requester ID, and the functions of a device without access control services.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use smmu::addr::Iova;

use super::Context;
use super::engine::{Engine, TRANSFER_BYTES};
use super::system::System;
use super::watch::caught;
use crate::drivers::DriverKind;
use crate::power::ExitCode;
use crate::{println, record};

pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(show(context))
}

fn show(context: &Context) -> Result<(), String> {
    let mut system = System::discover(context)?;
    println!("\n== All are bound");
    let endpoints = system.endpoints.iter_mut().filter(|endpoint| endpoint.driver == DriverKind::Edu);
    let engines = endpoints.map(|endpoint| Engine::new(endpoint).map_err(|error| error.to_string()));
    let mut engines = engines.collect::<Result<Vec<_>, _>>()?;
    for engine in &mut engines {
        engine.copy()?;
    }
    println!("\n== Who shares an address space");
    let mut groups: Vec<Vec<Engine>> = Vec::new();
    for engine in engines {
        let same = |group: &&mut Vec<Engine>| {
            group.first().is_some_and(|first| Arc::ptr_eq(first.dma().domain(), engine.dma().domain()))
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(engine),
            None => groups.push(Vec::from([engine])),
        }
    }
    for group in &groups {
        let names: Vec<_> = group.iter().map(|engine| engine.device.name()).collect();
        println!("{}", names.join(", "));
        record!("group", "devices" => names.join(", ").as_str());
    }
    groups.into_iter().filter(|group| group.len() > 1).try_for_each(share)
}

/// What a device has, all of its group can reach; what is taken from it, none.
fn share(mut group: Vec<Engine>) -> Result<(), String> {
    let owner = group.remove(0);
    let (name, iova) = (owner.device.name().to_string(), owner.source.iova());
    println!("\n== {name} and its group");
    for other in &mut group {
        read(other, iova)?;
        let words = |words: &[core::sync::atomic::AtomicU64]| -> Vec<u64> {
            words.iter().take(TRANSFER_BYTES / 8).map(|word| word.load(Ordering::Relaxed)).collect()
        };
        if words(owner.source.words()) != words(other.target.words()) {
            return Err(format!("{} does not reach what {name} has", other.device));
        }
        println!("{} reads the buffer of {name}: no IOMMU can tell them apart", other.device);
    }
    drop(owner);
    println!("{name} is unbound");
    for other in &mut group {
        let before = other.device.faults();
        read(other, iova)?;
        caught(&other.device, before)?;
        println!("{} does not read it any more", other.device);
        other.copy()?;
        record!("shared", "device" => other.device.name(), "with" => name.as_str());
    }
    Ok(())
}

/// Has a device bring what is at `iova` into its own buffer.
fn read(engine: &mut Engine, iova: Iova) -> Result<(), String> {
    engine.edu.copy_from_memory(iova, 0, TRANSFER_BYTES).map_err(|error| error.to_string())?;
    engine.bring_out()
}

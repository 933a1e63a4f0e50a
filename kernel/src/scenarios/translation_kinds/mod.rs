//! Every kind of translation, one after the other, in front of the same device while it goes on: stage 1, stage 2, and a guest's
//! stage 1 on stage 2; each granule, by pages and blocks of every size.

mod guest;
mod trial;

use alloc::string::{String, ToString};
use alloc::sync::Arc;

use smmu::arch::attributes::Granule;
use smmu::iommu::smmuv3::SmmuDomain;
use smmu::iommu::{BusDevice, Domain, DomainConfig, PagingDomain};
use smmu::pgtable::{Access, MemoryType, Stage};

use self::guest::Guest;
use self::trial::{Leaf, Trial};
use super::Context;
use super::system::System;
use crate::drivers::DriverKind;
use crate::drivers::edu::Edu;
use crate::iommu::IOMMUS;
use crate::platform::{Kernel, PLATFORM};
use crate::power::ExitCode;
use crate::println;

const GRANULES: [Granule; 3] = [Granule::K4, Granule::K16, Granule::K64];

pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(show(context))
}

fn show(context: &Context) -> Result<(), String> {
    let mut system = System::discover(context)?;
    let smmu = system.smmus.first().map(|instance| Arc::clone(&instance.smmu)).ok_or("no SMMU")?;
    let endpoint = system.endpoint(DriverKind::Edu)?;
    let device = endpoint.device()?;
    let edu = Edu::new(&mut endpoint.function).map_err(|error| error.to_string())?;
    let ownership = IOMMUS.own_group(&device, Domain::Blocked).map_err(|error| error.to_string())?;
    let mut trial = Trial::new(smmu, device, edu, ownership)?;
    let mut bus_master = endpoint.function.bus_master();
    bus_master.set_bus_master(true);
    let result = GRANULES.into_iter().try_for_each(|granule| try_granule(&mut trial, granule));
    bus_master.set_bus_master(false);
    result
}

/// All kinds of one granule. The device goes from each to the next while it is at work.
fn try_granule(trial: &mut Trial, granule: Granule) -> Result<(), String> {
    println!("\ngranule of {granule}");
    for stage in [Stage::Stage1, Stage::Stage2] {
        let config = DomainConfig { stage: Some(stage), granule: Some(granule), ..DomainConfig::default() };
        let domain = SmmuDomain::new(&PLATFORM, trial.smmu().features(), &config).map_err(|error| error.to_string())?;
        let domain = Arc::new(domain);
        for leaf in trial.leaves(granule) {
            map(&domain, leaf, Access::ReadWrite)?;
        }
        trial.move_to(Domain::Paging(Arc::clone(&domain) as Arc<dyn PagingDomain<Kernel>>), granule)?;
        trial.reach_all(&stage.to_string(), granule)?;
        trial.check_permissions(&domain)?;
        trial.remap(&domain)?;
    }
    let guest = Guest::new(trial, granule)?;
    trial.move_to(guest.domain(), granule)?;
    guest.switch_stage1_on(trial)?;
    trial.reach_all("stage 1 on stage 2", granule)?;
    // What is mapped goes with the domain: not while the device is still there.
    trial.block()
}

/// Maps a page or block, and sees that it is one.
fn map(domain: &SmmuDomain<Kernel>, leaf: Leaf, access: Access) -> Result<(), String> {
    let Leaf { iova, physical, bytes } = leaf;
    let mapped = domain.map(iova, physical, bytes, access, MemoryType::WriteBack);
    mapped.map_err(|error| error.to_string())?;
    match domain.lookup(iova) {
        Some(found) if found.leaf_bytes() == bytes => Ok(()),
        found => Err(alloc::format!("{bytes:#x} bytes at {iova} became {found:?}")),
    }
}

//! A command that no SMMU knows, in the middle of the command queue, while a disk is being read: whoever sent it is told, and
//! nobody else notices.
//!
//! QEMU's SMMU carries commands out the moment they are published, so that nobody could get at one in between. It is made
//! to wait by a GERRORN that does not agree with GERROR, as after a command error; the timer's interrupt then exchanges the
//! command under the eyes of the driver, which is waiting for it, and lets the SMMU go on.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::time::Duration;

use smmu::addr::Vmid;
use smmu::arch::command::CommandError;
use smmu::device::{DeviceError, Smmu, TranslationTag};

use super::Context;
use super::disk::{Disk, UnderWay};
use super::sabotage::Sabotage;
use super::system::System;
use crate::drivers::DriverKind;
use crate::platform::Kernel;
use crate::power::ExitCode;
use crate::{println, record, timer};

/// How many commands are exchanged, each during another request of the disk's.
const POISONED: usize = 8;
/// How often it is looked whether there is a command to exchange.
const INTERVAL: Duration = Duration::from_millis(1);

pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(show(context))
}

fn show(context: &Context) -> Result<(), String> {
    let mut system = System::discover(context)?;
    let instance = system.smmus.first().ok_or("no SMMU")?;
    let (smmu, sabotage) = (Arc::clone(&instance.smmu), Arc::new(Sabotage::new(instance)?));
    let refused_before = smmu.statistics().refused;
    println!("\n== The disk is read, and {POISONED} commands on the way are none");
    let mut pending = 0;
    let mut disk = Disk::new(system.endpoint(DriverKind::VirtioBlock)?)?;
    disk.read_whole(context, |mut request: UnderWay<'_>| {
        if request.index < POISONED {
            poison(&smmu, &sabotage)?;
            pending += usize::from(request.is_pending());
        }
        Ok(())
    })?;
    let refused = smmu.statistics().refused - refused_before;
    println!("{refused} commands refused, {pending} of them while the disk had not yet answered; all data arrived");
    record!("poisoned-queue", "refused" => refused, "while_pending" => pending);
    if refused == POISONED as u64 { Ok(()) } else { Err(format!("{refused} commands refused instead of {POISONED}")) }
}

/// Has a command refused whose sender asks for an identifier's translations to be dropped; asks again, in vain no more.
fn poison(smmu: &Smmu<Kernel>, sabotage: &Arc<Sabotage>) -> Result<(), String> {
    let asid = smmu.take_asid().map_err(|error| error.to_string())?;
    let tag = TranslationTag::Stage1 { asid, vmid: Vmid::new(0) };
    sabotage.hold_commands();
    poison_when_published(Arc::clone(sabotage));
    match smmu.retire(tag) {
        Err(DeviceError::Command(CommandError::Ill)) => smmu.retire(tag).map_err(|error| error.to_string()),
        Err(error) => Err(format!("the command should have been refused as illegal, but {error}")),
        Ok(()) => Err("the command was none, and yet the driver says that it was carried out".into()),
    }
}

/// Exchanges the next command once it is published, from the timer's interrupt, and lets the SMMU go on.
fn poison_when_published(sabotage: Arc<Sabotage>) {
    let look = move || match sabotage.poison_next_command() {
        true => sabotage.release_commands(),
        false => poison_when_published(sabotage),
    };
    timer::run_after(INTERVAL, Box::new(look));
}

//! A disk that is taken out while it is being read, and put in again. Somebody else has to do both.

use alloc::string::{String, ToString};
use core::time::Duration;

use smmu::iommu::DeviceDescription;

use super::Context;
use super::disk::Disk;
use super::system::{Endpoint, System};
use crate::drivers::DriverKind;
use crate::iommu::IOMMUS;
use crate::pci::{Placement, Slot};
use crate::power::ExitCode;
use crate::timer::{self, wait_for};
use crate::{println, record};

/// How long either is waited for.
const LIMIT: Duration = Duration::from_secs(15);

pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(show(context))
}

fn show(context: &Context) -> Result<(), String> {
    let mut system = System::discover(context)?;
    let mut endpoint = system.take_endpoint(DriverKind::VirtioBlock)?;
    let mut slot = Slot::of(&endpoint.function).ok_or("the disk is in no slot")?;
    let placement = Placement::of(&endpoint.function);
    let device = endpoint.device()?;

    println!("\n== {device} is read until somebody wants it out");
    read_until_unplugged(context, &mut endpoint, &slot)?;
    println!("{device} is let go in the middle of a read");
    IOMMUS.remove_device(&device).map_err(|error| error.to_string())?;
    slot.set_power(false);
    if !wait_for(LIMIT, || !slot.is_occupied()) {
        return Err("nobody has taken the disk out".into());
    }
    println!("it is out; {} faults", device.faults());
    record!("unplugged", "faults" => device.faults());

    println!("\n== It is put in again");
    if !wait_for(LIMIT, || slot.is_occupied()) {
        return Err("nobody has put the disk in again".into());
    }
    slot.set_power(true);
    let mut found = None;
    wait_for(LIMIT, || {
        found = placement.take_up();
        found.is_some()
    });
    let function = found.ok_or("the disk does not answer")?;
    let description = DeviceDescription {
        reserved: device.reserved().to_vec(),
        ..DeviceDescription::new(device.name(), device.fwspec().clone())
    };
    let again = IOMMUS.add_device(description).map_err(|error| error.to_string())?;
    let mut endpoint = Endpoint { driver: DriverKind::VirtioBlock, function, device: Ok(again.clone()) };
    Disk::new(&mut endpoint)?.read_whole(context, |_| Ok(()))?;
    record!("plugged", "faults" => again.faults());
    Ok(())
}

/// Reads again and again; when this returns, the last request has been cut off.
fn read_until_unplugged(context: &Context, endpoint: &mut Endpoint, slot: &Slot) -> Result<(), String> {
    let mut disk = Disk::new(endpoint)?;
    let deadline = timer::now() + LIMIT;
    let mut was_pending = false;
    while timer::now() < deadline {
        let read = disk.read_whole(context, |mut request| {
            was_pending = slot.is_button_pressed() && request.is_pending();
            if was_pending { Err("cut off".into()) } else { Ok(()) }
        });
        if was_pending {
            return Ok(());
        }
        read?;
    }
    Err("nobody wants the disk out".into())
}

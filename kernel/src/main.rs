//! The kernel: the reference integration of the `smmu` crate, on QEMU's `virt` and whatever else describes itself by device
//! tree.
//!
//! What lives here: the order in which a machine comes up. What each part does is said in its module.
#![no_std]
#![no_main]

extern crate alloc;

pub mod arguments;
mod backtrace;
mod boot;
pub mod console;
pub mod devicetree;
pub mod drivers;
mod exceptions;
pub mod inheritance;
pub mod interrupts;
pub mod iommu;
pub mod memory;
pub mod pci;
pub mod platform;
pub mod power;
pub mod psci;
pub mod scenarios;
pub mod sync;
pub mod timer;

use alloc::string::{String, ToString};

use crate::arguments::Arguments;
use crate::devicetree::DeviceTree;
use crate::inheritance::Inheritance;
use crate::power::ExitCode;
use crate::scenarios::Context;

/// Entered from [`boot`] with MMU and caches on; `device_tree` is the address that the loader passed.
fn main(device_tree: usize) -> ! {
    memory::heap::init();
    let inheritance = inheritance::receive();
    let tree = match first_light(device_tree, inheritance.as_ref()) {
        Ok(tree) => tree,
        Err(error) => power::exit_without_console(&error),
    };
    let code = match start(tree, inheritance) {
        Ok(context) => scenarios::run(context.arguments.get("scenario"), &context),
        Err(error) => {
            log::error!("{error}");
            ExitCode::Failure
        }
    };
    power::exit(code)
}

/// Up to where the kernel can speak.
fn first_light(device_tree: usize, inheritance: Option<&Inheritance>) -> Result<DeviceTree, String> {
    let tree = devicetree::open(device_tree).map_err(|error| error.to_string())?;
    let powered = psci::init(&tree);
    memory::init(&tree, inheritance.map_or(&[], |inheritance| &inheritance.reserved))
        .map_err(|error| error.to_string())?;
    console::init(&tree).map_err(|error| error.to_string())?;
    if let Err(error) = powered {
        log::warn!("power-off will not work: {error}");
    }
    Ok(tree)
}

/// Brings up the rest of the machine.
fn start(tree: DeviceTree, inheritance: Option<Inheritance>) -> Result<Context, String> {
    let arguments = Arguments::read(&tree).map_err(|error| error.to_string())?;
    interrupts::init(&tree).map_err(|error| error.to_string())?;
    timer::init(&tree).map_err(|error| error.to_string())?;
    Ok(Context { tree, arguments, inheritance })
}

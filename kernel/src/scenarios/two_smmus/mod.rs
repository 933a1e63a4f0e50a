//! Two SMMUs that come up one after the other, and the devices behind them: each is bound when all of its SMMUs are there,
//! and not before.

mod clients;
mod dual_port;
mod failed_probe;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use smmu::iommu::BindError;

use super::Context;
use super::system::{self, System};
use crate::drivers::DriverKind;
use crate::iommu::describe_all;
use crate::power::ExitCode;
use crate::{println, record};
use clients::Client;
use dual_port::DualPort;

/// Drivers whose devices have to wait, in the order in which they are tried.
type Waiting<'a> = Vec<&'a mut (dyn Client + 'static)>;

pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(show(context))
}

fn show(context: &Context) -> Result<(), String> {
    println!("== The devices; no SMMU is there yet");
    let tree = system::open_tree(context)?;
    let parts = dual_port::ports(&context.tree).map_err(|error| error.to_string())?;
    let mut system = System::without_smmus(context, &parts)?;
    let mut dual_port = DualPort::new(&tree, &parts, &mut system)?;
    system::list(&system.endpoints);
    println!("{}", dual_port.description());
    println!();

    let failing = system.take_endpoint(DriverKind::IommuTestdev)?;
    let mut clients = clients::of(&mut system);
    let mut waiting: Waiting<'_> = clients.iter_mut().map(Box::as_mut).collect();
    waiting.push(&mut dual_port);
    let mut waiting = bind(waiting)?;
    for (number, smmu) in (1..).zip(describe_all(&tree)) {
        println!("\n== SMMU number {number} comes up");
        system.bring_up(smmu, context);
        println!();
        waiting = bind(waiting)?;
    }

    println!("\n== All SMMUs have had their chance");
    let unready = system::finish_boot();
    println!("{unready} devices stay blocked");
    record!("boot-finished", "unready" => unready);
    println!("\n== A driver's probe fails");
    failed_probe::show(failing, &system)
}

/// Binds those whose SMMUs are there, and has them do what they do. Returns those that have to wait on.
fn bind(waiting: Waiting<'_>) -> Result<Waiting<'_>, String> {
    let mut deferred = Vec::new();
    for client in waiting {
        let name = client.name();
        match client.bind() {
            Ok(()) => {
                record!("bound", "device" => name.as_str());
                client.work()?;
            }
            Err(error @ BindError::Deferred(_)) => {
                println!("{name}: {error}");
                record!("deferred", "device" => name.as_str());
                deferred.push(client);
            }
            Err(error) => {
                println!("{name}: refused: {error}");
                record!("refused", "device" => name.as_str(), "reason" => error.to_string().as_str());
            }
        }
    }
    Ok(deferred)
}

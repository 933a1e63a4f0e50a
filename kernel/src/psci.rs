//! Power State Coordination Interface (Arm DEN 0022): turning the machine off.

use core::sync::atomic::{AtomicU8, Ordering};

use smccc::{Hvc, Smc, psci};

use crate::devicetree::{self, DeviceTree, DeviceTreeError, NodeName};

/// How firmware is called, as the device tree says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Conduit {
    /// The tree has not been read, or names none.
    Unknown = 0,
    /// By `hvc`.
    Hvc = 1,
    /// By `smc`.
    Smc = 2,
}

static CONDUIT: AtomicU8 = AtomicU8::new(Conduit::Unknown as u8);

/// Reads the conduit from the tree.
///
/// # Errors
///
/// [`DeviceTreeError`] if there is no PSCI node, or its `method` is neither "hvc" nor "smc".
pub fn init(tree: &DeviceTree) -> Result<Conduit, DeviceTreeError> {
    let node = devicetree::find_compatible(tree, &["arm,psci-1.0", "arm,psci-0.2"])?;
    let conduit = match node.raw_property("method")?.map(|method| method.value) {
        Some(b"hvc\0") => Conduit::Hvc,
        Some(b"smc\0") => Conduit::Smc,
        _ => {
            let expected = "\"hvc\" or \"smc\"";
            return Err(DeviceTreeError::Property { node: NodeName::of(&node), property: "method", expected });
        }
    };
    CONDUIT.store(conduit as u8, Ordering::Relaxed);
    Ok(conduit)
}

/// Turns the machine off. Returns if the conduit is unknown or firmware refuses.
pub fn system_off() {
    let conduit = CONDUIT.load(Ordering::Relaxed);
    let result = if conduit == Conduit::Hvc as u8 {
        psci::system_off::<Hvc>()
    } else if conduit == Conduit::Smc as u8 {
        psci::system_off::<Smc>()
    } else {
        return;
    };
    if let Err(error) = result {
        log::error!("PSCI SYSTEM_OFF: {error}");
    }
}

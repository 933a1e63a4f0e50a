//! Interrupts: a GICv2 or GICv3 found through the device tree, and the handlers of the interrupts that are enabled.
//!
//! What lives here: the choice of controller, specifiers, dispatch. What does not: message-signalled interrupts.

mod gicv2;
mod gicv3;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::fmt;

use aarch64_cpu::registers::{DAIF, ReadWriteable};
use arm_gic::{IntId, Trigger};

use crate::devicetree::{self, DeviceTree, DeviceTreeError};
use crate::memory::MapMmioError;
use crate::sync::IrqMutex;

/// What the interrupt controllers of different versions have in common.
trait Controller: Send {
    /// Sets the trigger of an interrupt, directs it to this CPU, and enables it.
    fn enable(&mut self, interrupt: IntId, trigger: Trigger) -> Result<(), InterruptError>;
    /// Disables an interrupt.
    fn disable(&mut self, interrupt: IntId) -> Result<(), InterruptError>;
    /// Takes the pending interrupt of the highest priority, if there is any.
    fn acknowledge(&mut self) -> Option<IntId>;
    /// Lets an acknowledged interrupt come again.
    fn end(&mut self, interrupt: IntId);
}

/// A function that is called for an interrupt, with interrupts masked, on the exception stack.
pub type Handler = dyn Fn() + Send + Sync;

static CONTROLLER: IrqMutex<Option<Box<dyn Controller>>> = IrqMutex::new(None);
static HANDLERS: IrqMutex<BTreeMap<IntId, Arc<Handler>>> = IrqMutex::new(BTreeMap::new());
/// Interrupts without a handler that have been reported.
static UNEXPECTED: IrqMutex<BTreeSet<IntId>> = IrqMutex::new(BTreeSet::new());

/// Why an interrupt cannot be had.
#[derive(Debug)]
pub enum InterruptError {
    /// The device tree does not say which.
    DeviceTree(DeviceTreeError),
    /// The controller's registers cannot be mapped.
    Map(MapMmioError),
    /// [`init`] has not been called, or has failed.
    NoController,
    /// The specifier's type is neither SPI (0) nor PPI (1), its number beyond them, or its trigger unknown.
    Specifier([u32; 3]),
    /// Another handler is there already.
    Taken(IntId),
    /// The controller has no such interrupt.
    Unsupported(IntId),
    /// No redistributor belongs to this CPU.
    NoRedistributor {
        /// MPIDR_EL1 of this CPU.
        mpidr: u64,
    },
    /// The controller's registers are not what its `compatible` says.
    Version(&'static str),
}

impl From<DeviceTreeError> for InterruptError {
    fn from(error: DeviceTreeError) -> Self {
        Self::DeviceTree(error)
    }
}

impl From<MapMmioError> for InterruptError {
    fn from(error: MapMmioError) -> Self {
        Self::Map(error)
    }
}

impl fmt::Display for InterruptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceTree(error) => error.fmt(f),
            Self::Map(error) => write!(f, "interrupt controller: {error}"),
            Self::NoController => f.write_str("there is no interrupt controller"),
            Self::Specifier(cells) => {
                write!(f, "interrupt specifier {cells:?}: expected <0|1 number trigger>, a GIC's SPI or PPI")
            }
            Self::Taken(interrupt) => write!(f, "{interrupt:?} has a handler already"),
            Self::Unsupported(interrupt) => write!(f, "the interrupt controller has no {interrupt:?}"),
            Self::NoRedistributor { mpidr } => {
                write!(f, "GICv3: no redistributor in the device tree's `reg` belongs to this CPU (MPIDR {mpidr:#x})")
            }
            Self::Version(expected) => write!(f, "interrupt controller: its registers are not those of a {expected}"),
        }
    }
}

impl core::error::Error for InterruptError {}

/// Sets up the interrupt controller and unmasks interrupts.
///
/// # Errors
///
/// [`InterruptError`]; interrupts stay masked.
pub(crate) fn init(tree: &DeviceTree) -> Result<(), InterruptError> {
    let v3 = &["arm,gic-v3"];
    let v2 = &["arm,cortex-a15-gic", "arm,gic-400", "arm,cortex-a9-gic"];
    let controller: Box<dyn Controller> = match devicetree::find_compatible(tree, v3) {
        Ok(node) => Box::new(gicv3::Gicv3::new(&node)?),
        Err(DeviceTreeError::NoNode(_)) => Box::new(gicv2::Gicv2::new(&devicetree::find_compatible(tree, v2)?)?),
        Err(error) => return Err(error.into()),
    };
    *CONTROLLER.lock() = Some(controller);
    DAIF.modify(DAIF::A::Unmasked + DAIF::I::Unmasked);
    Ok(())
}

/// Enables the interrupt of a GIC `specifier` (Linux binding arm,gic-v3: type, number, trigger) and has `handler` called
/// for it.
///
/// The trigger is set before the interrupt is enabled: a pulse on an input that is still level-triggered would be lost.
///
/// # Errors
///
/// [`InterruptError`]; the interrupt is then as it was.
pub fn enable(specifier: [u32; 3], handler: Box<Handler>) -> Result<(), InterruptError> {
    let (interrupt, trigger) = parse(specifier)?;
    {
        let mut handlers = HANDLERS.lock();
        if handlers.contains_key(&interrupt) {
            return Err(InterruptError::Taken(interrupt));
        }
        handlers.insert(interrupt, handler.into());
    }
    let result = with_controller(|controller| controller.enable(interrupt, trigger));
    if result.is_err() {
        HANDLERS.lock().remove(&interrupt);
    }
    result
}

/// Disables the interrupt of `specifier` and forgets its handler.
///
/// # Errors
///
/// [`InterruptError`] if there is no such interrupt.
pub fn disable(specifier: [u32; 3]) -> Result<(), InterruptError> {
    let (interrupt, _) = parse(specifier)?;
    with_controller(|controller| controller.disable(interrupt))?;
    let handler = HANDLERS.lock().remove(&interrupt);
    // Dropped here, without a lock: what it owns may take one.
    drop(handler);
    Ok(())
}

fn with_controller<T>(f: impl FnOnce(&mut dyn Controller) -> Result<T, InterruptError>) -> Result<T, InterruptError> {
    let mut controller = CONTROLLER.lock();
    f(&mut **controller.as_mut().ok_or(InterruptError::NoController)?)
}

fn parse(specifier: [u32; 3]) -> Result<(IntId, Trigger), InterruptError> {
    let bad = InterruptError::Specifier(specifier);
    let [kind, number, flags] = specifier;
    let interrupt = match kind {
        0 if number < IntId::MAX_SPI_COUNT => IntId::spi(number),
        1 if number < IntId::PPI_COUNT => IntId::ppi(number),
        _ => return Err(bad),
    };
    // Bits 8 to 15 of a GICv2 PPI's flags name CPUs.
    match flags & 0xf {
        1 | 2 => Ok((interrupt, Trigger::Edge)),
        4 | 8 => Ok((interrupt, Trigger::Level)),
        _ => Err(bad),
    }
}

/// Handles every interrupt that is pending. Called by the IRQ exception, with interrupts masked.
///
/// No lock is held while a handler runs: it may enable and disable interrupts.
pub(crate) fn handle() {
    while let Some(interrupt) = acknowledge() {
        let handler = HANDLERS.lock().get(&interrupt).cloned();
        match handler {
            Some(handler) => handler(),
            None => report_unexpected(interrupt),
        }
        if let Some(controller) = CONTROLLER.lock().as_mut() {
            controller.end(interrupt);
        }
    }
}

fn acknowledge() -> Option<IntId> {
    CONTROLLER.lock().as_mut()?.acknowledge()
}

/// Disables an interrupt that nobody asked for, and says so once.
fn report_unexpected(interrupt: IntId) {
    if UNEXPECTED.lock().insert(interrupt) {
        log::warn!("unexpected interrupt {interrupt:?}, disabled");
    }
    if let Err(error) = with_controller(|controller| controller.disable(interrupt)) {
        log::warn!("disabling {interrupt:?}: {error}");
    }
}

//! The generic interrupt controller, version 2 (Arm IHI 0048).

use core::ptr::NonNull;

use arm_gic::gicv2::GicV2;
use arm_gic::gicv2::registers::{Gicc, Gicd};
use arm_gic::{IntId, InterruptGroup, Trigger};

use super::{Controller, InterruptError};
use crate::devicetree::{self, Node};
use crate::memory;

/// With one security state interrupts are in group 0, and with two the non-secure one sees its group 1 through the registers of
/// the same name.
const GROUP: InterruptGroup = InterruptGroup::Group0;

pub(super) struct Gicv2 {
    gic: GicV2<'static>,
    interrupts: u32,
}

// SAFETY: the registers are not bound to a thread.
unsafe impl Send for Gicv2 {}

impl Gicv2 {
    /// Sets up the controller that `node` describes; every interrupt is disabled.
    pub(super) fn new(node: &Node) -> Result<Self, InterruptError> {
        let distributor: NonNull<Gicd> = registers(node, 0)?;
        let cpu_interface: NonNull<Gicc> = registers(node, 1)?;
        // SAFETY: the registers were just mapped, and nothing else drives them.
        let mut gic = unsafe { GicV2::new(distributor.as_ptr(), cpu_interface.as_ptr()) };
        let typer = gic.typer();
        gic.enable_all_interrupts(false);
        if typer.cpu_count() > 1 {
            target_this_cpu(distributor, typer.num_irqs());
        }
        gic.setup();
        // Where there are two security states, this bit is what enables the non-secure one's group 1.
        gic.enable_group0(true);
        Ok(Self { gic, interrupts: typer.num_irqs() })
    }

    fn check(&self, interrupt: IntId) -> Result<(), InterruptError> {
        if interrupt.raw_value() < self.interrupts { Ok(()) } else { Err(InterruptError::Unsupported(interrupt)) }
    }
}

/// Directs every SPI to the CPU that runs this (GICD_ITARGETSR, IHI 0048 4.3.12). `arm-gic` leaves them at their reset value,
/// which is "nowhere" if there is more than one CPU.
fn target_this_cpu(distributor: NonNull<Gicd>, interrupts: u32) {
    // SAFETY: the offset is inside the distributor's registers.
    let targets = unsafe { &raw mut (*distributor.as_ptr()).itargetsr }.cast::<u32>();
    // The first registers, those of the SGIs and PPIs, read as the mask of this CPU.
    // SAFETY: register 0 exists.
    let this_cpu = unsafe { targets.read_volatile() };
    for index in 8..interrupts as usize / 4 {
        // SAFETY: `index` is below 256, the number of these registers, as there are at most 1024 interrupts.
        let register = unsafe { targets.add(index) };
        // SAFETY: as above.
        unsafe { register.write_volatile(this_cpu) };
    }
}

fn registers<T>(node: &Node, index: usize) -> Result<NonNull<T>, InterruptError> {
    let (start, size_bytes) = devicetree::reg(node, index)?;
    if !start.is_aligned(align_of::<T>() as u64) {
        return Err(InterruptError::Version("GICv2"));
    }
    Ok(memory::map_mmio(start, size_bytes.max(size_of::<T>()))?.cast())
}

impl Controller for Gicv2 {
    fn enable(&mut self, interrupt: IntId, trigger: Trigger) -> Result<(), InterruptError> {
        self.check(interrupt)?;
        self.gic.set_trigger(interrupt, trigger);
        self.gic.enable_interrupt(interrupt, true).map_err(|_| InterruptError::Unsupported(interrupt))
    }

    fn disable(&mut self, interrupt: IntId) -> Result<(), InterruptError> {
        self.check(interrupt)?;
        self.gic.enable_interrupt(interrupt, false).map_err(|_| InterruptError::Unsupported(interrupt))
    }

    fn acknowledge(&mut self) -> Option<IntId> {
        // 1020 to 1023 are not interrupts; 1023, "none", is the one that `arm-gic` knows.
        self.gic.get_and_acknowledge_interrupt(GROUP).filter(|interrupt| interrupt.raw_value() < 1020)
    }

    fn end(&mut self, interrupt: IntId) {
        self.gic.end_interrupt(interrupt, GROUP);
    }
}

//! The generic interrupt controller, version 3 or 4 (Arm IHI 0069).

use core::ptr::NonNull;

use aarch64_cpu::registers::{MPIDR_EL1, Readable};
use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{GicCpuInterface, GicDistributor, GicRedistributor, GicRedistributorIterator};
use arm_gic::{IntId, InterruptGroup, Trigger, UniqueMmioPointer};

use super::{Controller, InterruptError};
use crate::devicetree::{self, Node};
use crate::memory;

const GROUP: InterruptGroup = InterruptGroup::Group1;

/// MPIDR_EL1.Aff3, Aff2, Aff1 and Aff0.
const AFFINITY: u64 = 0xff_00ff_ffff;

pub(super) struct Gicv3 {
    distributor: GicDistributor<'static>,
    /// This CPU's redistributor.
    redistributor: GicRedistributor<'static>,
    mpidr: u64,
}

// SAFETY: the registers are not bound to a thread, and there is only one CPU.
unsafe impl Send for Gicv3 {}

impl Gicv3 {
    /// Sets up the controller that `node` describes, and this CPU's interface to it; every interrupt is disabled.
    pub(super) fn new(node: &Node) -> Result<Self, InterruptError> {
        let mpidr = MPIDR_EL1.get() & AFFINITY;
        let (start, size_bytes) = devicetree::reg(node, 0)?;
        if size_bytes < size_of::<Gicd>() || !start.is_aligned(align_of::<Gicd>() as u64) {
            return Err(InterruptError::Version("GICv3 distributor"));
        }
        let registers = memory::map_mmio(start, size_bytes)?.cast();
        // SAFETY: these are the distributor's registers, mapped for good, and nothing else drives them.
        let mut distributor = GicDistributor::new(unsafe { UniqueMmioPointer::new(registers) });
        let mut redistributor = find_redistributor(node, mpidr)?;

        GicCpuInterface::enable_system_register_el1();
        redistributor.power_on();
        // It says so if the redistributor is awake already.
        let _ = redistributor.mark_core_awake();
        distributor.enable_all_interrupts(false);
        distributor.configure_default_settings();
        redistributor.configure_default_settings();
        GicCpuInterface::set_priority_mask(0xff);
        GicCpuInterface::enable_group1(true);
        Ok(Self { distributor, redistributor, mpidr })
    }

    /// Registers of SPIs that do not exist ignore writes without a word.
    fn check(&self, interrupt: IntId) -> Result<(), InterruptError> {
        let spis = self.distributor.typer().num_spis() as usize;
        match interrupt.spi_index() {
            Some(index) if index >= spis => Err(InterruptError::Unsupported(interrupt)),
            _ => Ok(()),
        }
    }
}

/// The redistributor of the CPU with this affinity, among the regions that follow the distributor in `reg`.
fn find_redistributor(node: &Node, mpidr: u64) -> Result<GicRedistributor<'static>, InterruptError> {
    let count = node.raw_property("#redistributor-regions").map_err(devicetree::DeviceTreeError::from)?;
    let count = count.and_then(|property| property.as_value::<u32>().ok()).unwrap_or(1);
    for index in 1..=count as usize {
        let (start, size_bytes) = devicetree::reg(node, index)?;
        if size_bytes < size_of::<GicrSgi>() || !start.is_aligned(align_of::<GicrSgi>() as u64) {
            return Err(InterruptError::Version("GICv3 redistributor"));
        }
        let base: NonNull<GicrSgi> = memory::map_mmio(start, size_bytes)?.cast();
        // SAFETY: these are redistributors' registers, mapped for good, and nothing else drives them.
        let all = unsafe { GicRedistributorIterator::new(base) };
        let all = all.map_err(|_| InterruptError::Version("GICv3 redistributor"))?;
        let mut all = all.take(size_bytes / size_of::<GicrSgi>());
        if let Some(found) = all.find(|redistributor| redistributor.typer().core_mpidr() & AFFINITY == mpidr) {
            return Ok(found);
        }
    }
    Err(InterruptError::NoRedistributor { mpidr })
}

impl Controller for Gicv3 {
    fn enable(&mut self, interrupt: IntId, trigger: Trigger) -> Result<(), InterruptError> {
        self.check(interrupt)?;
        let result = if interrupt.is_private() {
            let trigger_set = self.redistributor.set_trigger(interrupt, trigger);
            trigger_set.and_then(|()| self.redistributor.enable_interrupt(interrupt, true))
        } else {
            let trigger_set = self.distributor.set_trigger(interrupt, trigger);
            let routed = trigger_set.and_then(|()| self.distributor.set_routing(interrupt, Some(self.mpidr)));
            routed.and_then(|()| self.distributor.enable_interrupt(interrupt, true))
        };
        result.map_err(|_| InterruptError::Unsupported(interrupt))
    }

    fn disable(&mut self, interrupt: IntId) -> Result<(), InterruptError> {
        let result = if interrupt.is_private() {
            self.redistributor.enable_interrupt(interrupt, false)
        } else {
            self.distributor.enable_interrupt(interrupt, false)
        };
        result.map_err(|_| InterruptError::Unsupported(interrupt))
    }

    fn acknowledge(&mut self) -> Option<IntId> {
        // 1020 to 1023 are not interrupts; 1023, "none", is the one that `arm-gic` knows.
        let interrupt = GicCpuInterface::get_and_acknowledge_interrupt(GROUP);
        interrupt.filter(|interrupt| !(1020..1024).contains(&interrupt.raw_value()))
    }

    fn end(&mut self, interrupt: IntId) {
        GicCpuInterface::end_interrupt(interrupt, GROUP);
    }
}

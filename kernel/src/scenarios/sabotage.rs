//! What goes wrong with an SMMU that no driver can be talked into: its memory and registers, behind the driver's back.
//!
//! All of it is found through the SMMU's own registers, as firmware or another owner of the machine could.

use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicU64, Ordering};

use smmu::addr::{PhysAddr, StreamId};
use smmu::arch::registers::{
    CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR1, CR2, EVENTQ_BASE, EVENTQ_CONS, EVENTQ_PROD, GERROR, GERRORN, IRQ_CTRL,
    STRTAB_BASE, STRTAB_BASE_CFG,
};
use smmu::mmio::Mmio;
use smmu::platform::{Platform, Registers};

use crate::iommu::Instance;
use crate::memory;
use crate::platform::PLATFORM;

/// Size of a command, whose opcode is the lowest byte (IHI 0070, 4.1).
const COMMAND_BYTES: u64 = 16;
/// An opcode that the architecture has given to no command.
const UNKNOWN_OPCODE: u64 = 0xff;

/// A second hand on an SMMU's registers and memory.
pub(super) struct Sabotage {
    registers: Mmio,
}

impl Sabotage {
    /// Lays hand on an SMMU that is up.
    pub(super) fn new(instance: &Instance) -> Result<Self, String> {
        let size_bytes = instance.node.size_bytes as usize;
        let base = memory::map_mmio(instance.node.base, size_bytes).map_err(|error| error.to_string())?;
        // SAFETY: mapped for good. The driver uses them too: each access is whole all the same, and what is written here
        // leads the SMMU to nothing but memory that the kernel has for it.
        let registers = unsafe { Mmio::new(base, size_bytes) }.map_err(|error| error.to_string())?;
        Ok(Self { registers })
    }

    /// The level-1 descriptor of `stream`'s part of a two-level stream table.
    pub(super) fn level1_descriptor(&self, stream: StreamId) -> Result<&'static AtomicU64, String> {
        let config = STRTAB_BASE_CFG.value(self.registers.read32(STRTAB_BASE_CFG.offset()));
        if !config.matches_all(STRTAB_BASE_CFG::FMT::TwoLevel) {
            return Err("the stream table has one level alone".into());
        }
        let base = STRTAB_BASE.value(self.registers.read64(STRTAB_BASE.offset())).read(STRTAB_BASE::ADDR) << 6;
        let index = u64::from(stream.get()) >> config.read(STRTAB_BASE_CFG::SPLIT);
        let limit = 1 << config.read(STRTAB_BASE_CFG::LOG2SIZE).saturating_sub(config.read(STRTAB_BASE_CFG::SPLIT));
        if index >= limit {
            return Err(alloc::format!("the stream table has no part for stream {stream}"));
        }
        Ok(word(PhysAddr::new(base + index * 8)))
    }

    /// Keeps the SMMU from carrying commands out: to QEMU's, a command error that was not raised counts as one that was not
    /// acknowledged.
    pub(super) fn hold_commands(&self) {
        self.toggle_command_error();
    }

    /// Lets it go on.
    pub(super) fn release_commands(&self) {
        self.toggle_command_error();
    }

    /// Has the registers of an SMMU that is off lose what is in them, as it would without power. GBPA does not: an SMMU
    /// whose power comes back with traffic passing through cannot be suspended with its devices at work.
    pub(super) fn lose_registers(&self) {
        let of_32_bits = [CR1.offset(), CR2.offset(), STRTAB_BASE_CFG.offset(), IRQ_CTRL.offset(), GERRORN.offset()];
        let indices = [CMDQ_PROD.offset(), CMDQ_CONS.offset(), EVENTQ_PROD.offset(), EVENTQ_CONS.offset()];
        let of_64_bits = [STRTAB_BASE.offset(), CMDQ_BASE.offset(), EVENTQ_BASE.offset()];
        of_32_bits.into_iter().chain(indices).for_each(|offset| self.registers.write32(offset, 0));
        of_64_bits.into_iter().for_each(|offset| self.registers.write64(offset, 0));
    }

    fn toggle_command_error(&self) {
        let acknowledged = self.registers.read32(GERRORN.offset());
        self.registers.write32(GERRORN.offset(), acknowledged ^ GERROR::CMDQ_ERR::SET.value);
    }

    /// Gives the command that the SMMU would carry out next an opcode that does not exist. Returns whether there is one.
    pub(super) fn poison_next_command(&self) -> bool {
        let register = CMDQ_BASE.value(self.registers.read64(CMDQ_BASE.offset()));
        let producer = CMDQ_PROD.value(self.registers.read32(CMDQ_PROD.offset())).read(CMDQ_PROD::WR);
        let consumer = CMDQ_CONS.value(self.registers.read32(CMDQ_CONS.offset())).read(CMDQ_CONS::RD);
        if producer == consumer {
            return false;
        }
        let index = u64::from(consumer) & ((1 << register.read(CMDQ_BASE::LOG2SIZE)) - 1);
        let slot = word(PhysAddr::new((register.read(CMDQ_BASE::ADDR) << 5) + index * COMMAND_BYTES));
        slot.fetch_or(UNKNOWN_OPCODE.to_le(), Ordering::AcqRel);
        PLATFORM.write_barrier();
        true
    }
}

/// A word of memory that the driver has given its SMMU.
fn word(physical: PhysAddr) -> &'static AtomicU64 {
    // SAFETY: the address was computed from what the driver wrote to registers of an SMMU that is up, so it is in DMA memory
    // that stays allocated.
    let pointer = unsafe { PLATFORM.pointer(physical) }.cast();
    // SAFETY: as above; the driver, too, takes it for an atomic word.
    unsafe { pointer.as_ref() }
}

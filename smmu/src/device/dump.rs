//! What an SMMU looks like at one moment, for people: registers and stream table entries.
//!
//! Nothing here writes, takes a lock or follows a pointer that this driver did not write itself, so it may be called at any
//! time: from an interrupt or panic handler, and while others change what is shown. Then it is a mixture of before and after.

use core::fmt;

use tock_registers::debug::RegisterDebugInfo;

use super::Smmu;
use crate::addr::StreamId;
use crate::arch::fields::Fields;
use crate::arch::registers::{
    AIDR, CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0, CR0ACK, CR1, CR2, EVENTQ_BASE, EVENTQ_CONS, EVENTQ_IRQ_CFG0,
    EVENTQ_IRQ_CFG1, EVENTQ_IRQ_CFG2, EVENTQ_PROD, GBPA, GERROR, GERROR_IRQ_CFG0, GERROR_IRQ_CFG1, GERROR_IRQ_CFG2,
    GERRORN, IDR0, IDR1, IDR3, IDR5, IIDR, IRQ_CTRL, IRQ_CTRLACK, PRIQ_BASE, PRIQ_CONS, PRIQ_IRQ_CFG0, PRIQ_IRQ_CFG1,
    PRIQ_IRQ_CFG2, PRIQ_PROD, Register32, Register64, STRTAB_BASE, STRTAB_BASE_CFG,
};
use crate::platform::Platform;

/// What an SMMU and one of its streams look like; see [`Smmu::dump`]. Its `Display` looks when it is called.
pub struct Dump<'a, P: Platform> {
    smmu: &'a Smmu<P>,
    stream: StreamId,
}

impl<P: Platform> Smmu<P> {
    /// The registers and the stream table entry of `stream`, with all fields in words. Changes nothing and waits for nothing.
    ///
    /// The registers of a suspended SMMU are left alone: it may have no power.
    #[must_use]
    pub fn dump(&self, stream: StreamId) -> Dump<'_, P> {
        Dump { smmu: self, stream }
    }
}

/// A line for each register, then the entry, word by word.
impl<P: Platform> fmt::Display for Dump<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(_held) = self.smmu.lifecycle.hold_registers() {
            self.registers(f)?;
        } else {
            writeln!(f, "registers are not looked at: the SMMU is suspended, or another owner's")?;
        }
        write!(f, "StreamID {}: ", self.stream)?;
        match self.smmu.stream_table_entry(self.stream) {
            Ok(entry) => write!(f, "{entry:#}"),
            Err(error) => write!(f, "{error}"),
        }
    }
}

impl<P: Platform> Dump<'_, P> {
    fn registers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identification(f)?;
        self.word(f, CR0)?;
        self.word(f, CR0ACK)?;
        self.word(f, CR1)?;
        self.word(f, CR2)?;
        self.word(f, GBPA)?;
        self.word(f, GERROR)?;
        self.word(f, GERRORN)?;
        self.double_word(f, STRTAB_BASE)?;
        self.word(f, STRTAB_BASE_CFG)?;
        self.double_word(f, CMDQ_BASE)?;
        self.word(f, CMDQ_PROD)?;
        self.word(f, CMDQ_CONS)?;
        self.double_word(f, EVENTQ_BASE)?;
        self.word(f, EVENTQ_PROD)?;
        self.word(f, EVENTQ_CONS)?;
        if self.smmu.features.page_requests() {
            self.double_word(f, PRIQ_BASE)?;
            self.word(f, PRIQ_PROD)?;
            self.word(f, PRIQ_CONS)?;
        }
        self.interrupts(f)
    }

    fn identification(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.word(f, IDR0)?;
        self.word(f, IDR1)?;
        self.word(f, IDR3)?;
        self.word(f, IDR5)?;
        self.word(f, IIDR)?;
        self.word(f, AIDR)
    }

    fn interrupts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.word(f, IRQ_CTRL)?;
        self.word(f, IRQ_CTRLACK)?;
        if !self.smmu.features.message_interrupts() {
            return Ok(());
        }
        self.double_word(f, GERROR_IRQ_CFG0)?;
        self.word(f, GERROR_IRQ_CFG1)?;
        self.word(f, GERROR_IRQ_CFG2)?;
        self.double_word(f, EVENTQ_IRQ_CFG0)?;
        self.word(f, EVENTQ_IRQ_CFG1)?;
        self.word(f, EVENTQ_IRQ_CFG2)?;
        if self.smmu.features.page_requests() {
            self.double_word(f, PRIQ_IRQ_CFG0)?;
            self.word(f, PRIQ_IRQ_CFG1)?;
            self.word(f, PRIQ_IRQ_CFG2)?;
        }
        Ok(())
    }

    fn word<F: RegisterDebugInfo<u32> + 'static>(
        &self,
        f: &mut fmt::Formatter<'_>,
        register: Register32<F>,
    ) -> fmt::Result {
        let value = self.smmu.control.read(register).get();
        writeln!(f, "{:<15} {value:#010x}{}", register.name(), Fields::<u32, F>::new(value))
    }

    fn double_word<F: RegisterDebugInfo<u64> + 'static>(
        &self,
        f: &mut fmt::Formatter<'_>,
        register: Register64<F>,
    ) -> fmt::Result {
        let value = self.smmu.control.read64(register).get();
        writeln!(f, "{:<15} {value:#018x}{}", register.name(), Fields::<u64, F>::new(value))
    }
}

impl<P: Platform> fmt::Debug for Dump<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dump").field("stream", &self.stream).finish_non_exhaustive()
    }
}

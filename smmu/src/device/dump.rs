//! What an SMMU looks like at one moment, for people: registers, stream table entries, and where those lead.
//!
//! Nothing here writes, takes a lock or follows a pointer that this driver did not write itself, so it may be called at any
//! time: from an interrupt or panic handler, and while others change what is shown. Then it is a mixture of before and after.

use core::fmt;

use tock_registers::debug::RegisterDebugInfo;

use super::{ContextTable, Smmu};
use crate::addr::{Iova, StreamId, SubstreamId};
use crate::arch::context_descriptor::ContextDescriptor;
use crate::arch::fields::Fields;
use crate::arch::registers::{
    AIDR, CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0, CR0ACK, CR1, CR2, EVENTQ_BASE, EVENTQ_CONS, EVENTQ_IRQ_CFG0,
    EVENTQ_IRQ_CFG1, EVENTQ_IRQ_CFG2, EVENTQ_PROD, GBPA, GERROR, GERROR_IRQ_CFG0, GERROR_IRQ_CFG1, GERROR_IRQ_CFG2,
    GERRORN, IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IIDR, IRQ_CTRL, IRQ_CTRLACK, PRIQ_BASE, PRIQ_CONS, PRIQ_IRQ_CFG0,
    PRIQ_IRQ_CFG1, PRIQ_IRQ_CFG2, PRIQ_PROD, Register32, Register64, STRTAB_BASE, STRTAB_BASE_CFG,
};
use crate::arch::stream_table::{Config, StreamTableEntry};
use crate::pgtable::{PageTable, Stage};
use crate::platform::Platform;

/// What an SMMU and one of its streams look like; see [`Smmu::dump`]. Its `Display` looks when it is called.
pub struct Dump<'a, P: Platform> {
    smmu: &'a Smmu<P>,
    stream: StreamId,
    context: Option<(&'a ContextTable<P>, SubstreamId)>,
    /// One for each stage.
    walks: [Option<(&'a PageTable<P>, Iova)>; 2],
}

impl<P: Platform> Smmu<P> {
    /// The registers and the stream table entry of `stream`, with all fields in words. Changes nothing and waits for nothing.
    ///
    /// The registers of a suspended SMMU are left alone: it may have no power. What the entry leads to is shown if whoever owns
    /// it adds it:
    ///
    /// ```
    /// # use smmu::addr::{Iova, StreamId, SubstreamId};
    /// # use smmu::device::{ContextTable, Smmu};
    /// # use smmu::pgtable::PageTable;
    /// # use smmu::platform::Platform;
    /// # fn show<P: Platform>(smmu: &Smmu<P>, contexts: &ContextTable<P>, table: &PageTable<P>) -> String {
    /// let dump = smmu.dump(StreamId::new(5)).context(contexts, SubstreamId::new(0)).walk(table, Iova::new(0x4000_0000));
    /// dump.to_string()
    /// # }
    /// ```
    #[must_use]
    pub fn dump(&self, stream: StreamId) -> Dump<'_, P> {
        Dump { smmu: self, stream, context: None, walks: [None; 2] }
    }
}

impl<'a, P: Platform> Dump<'a, P> {
    /// Shows the context descriptor of a substream (0 for transactions without one), too. One that the stream's entry does not
    /// lead to is said to be none of the stream's.
    #[must_use]
    pub fn context(self, table: &'a ContextTable<P>, substream: SubstreamId) -> Self {
        Self { context: Some((table, substream)), ..self }
    }

    /// Shows the descriptors that a walk for `iova` meets in a table, too: once for each stage, where stage 2 takes an
    /// intermediate physical address. A table that the entry or the context does not lead to is said to be none of theirs.
    #[must_use]
    pub fn walk(self, table: &'a PageTable<P>, iova: Iova) -> Self {
        let [stage1, stage2] = self.walks;
        let walk = Some((table, iova));
        let walks = match table.config().stage {
            Stage::Stage1 => [walk, stage2],
            Stage::Stage2 => [stage1, walk],
        };
        Self { walks, ..self }
    }
}

/// A line for each register, then the entry, the context descriptor and the walks, word by word.
impl<P: Platform> fmt::Display for Dump<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(_held) = self.smmu.lifecycle.hold_registers() {
            self.registers(f)?;
        } else {
            writeln!(f, "registers are not looked at: the SMMU is suspended, or another owner's")?;
        }
        write!(f, "StreamID {}: ", self.stream)?;
        match self.smmu.stream_table_entry(self.stream) {
            Ok(entry) => {
                write!(f, "{entry:#}")?;
                self.tables(f, &entry)
            }
            Err(error) => write!(f, "{error}"),
        }
    }
}

impl<P: Platform> Dump<'_, P> {
    /// What is to be behind an entry, and whether it is.
    fn tables(&self, f: &mut fmt::Formatter<'_>, entry: &StreamTableEntry) -> fmt::Result {
        let config = if entry.is_valid() { entry.config() } else { Config::Abort };
        let stage1 = matches!(config, Config::Stage1 | Config::Nested);
        let stage2 = matches!(config, Config::Stage2 | Config::Nested);
        let mut context = ContextDescriptor::INVALID;
        if let Some((table, substream)) = self.context {
            write!(f, "\ncontext descriptor")?;
            if table.log2_contexts() != 0 {
                write!(f, " of SubstreamID {substream}")?;
            }
            match table.context(substream) {
                _ if !stage1 || entry.context_table() != table.physical() => {
                    write!(f, ": not looked at, the entry does not lead to the table at {}", table.physical())?;
                }
                Ok(found) => {
                    context = found;
                    write!(f, ": {found:#}")?;
                }
                Err(error) => write!(f, ": {error}")?,
            }
        }
        let leads_to = [context.is_valid().then(|| context.table()), stage2.then(|| entry.stage2_table())];
        for ((table, iova), root) in self.walks.iter().zip(leads_to).filter_map(|(walk, root)| Some(((*walk)?, root))) {
            let strange = if root == Some(table.root()) { "" } else { "\nnot of this stream, as far as is known:" };
            write!(f, "{strange}\n{}", table.trace(iova))?;
        }
        Ok(())
    }

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
        self.word(f, IDR2)?;
        self.word(f, IDR3)?;
        writeln!(f, "{:<15} {:#010x}", IDR4.name(), self.smmu.control.read(IDR4).get())?;
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

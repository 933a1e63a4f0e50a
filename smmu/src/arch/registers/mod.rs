//! The registers of the Non-secure programming interface (IHI 0070, chapter 6): where each is, what it is called and
//! which fields it has.
//!
//! Every register is a constant and, under the same name, a module of its fields: `CR0.offset()` is where CR0 is,
//! `CR0::SMMUEN::SET` a value for it. What lives here are positions and codes only; reading and writing belong to
//! [`crate::device`].

mod atos;
mod control;
mod identification;
mod memory;

#[cfg(test)]
mod tests;

use core::fmt;
use core::marker::PhantomData;

use tock_registers::{LocalRegisterCopy, RegisterLongName, UIntLike};

pub use self::atos::{GATOS_ADDR, GATOS_CTRL, GATOS_PAR, GATOS_SID};
pub use self::control::{AGBPA, CR0, CR0ACK, CR1, CR2, GBPA, GERROR, GERRORN, IRQ_CTRL, IRQ_CTRLACK, S2PII, STATUSR};
pub use self::identification::{AIDR, IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IIDR};
pub use self::memory::{
    CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, EVENTQ_BASE, EVENTQ_CONS, EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1, EVENTQ_IRQ_CFG2,
    EVENTQ_PROD, GERROR_IRQ_CFG0, GERROR_IRQ_CFG1, GERROR_IRQ_CFG2, IRQ_CFG0, IRQ_CFG1, IRQ_CFG2, OUTPUT_QUEUE_BASE,
    OUTPUT_QUEUE_CONS, OUTPUT_QUEUE_PROD, PRIQ_BASE, PRIQ_CONS, PRIQ_IRQ_CFG0, PRIQ_IRQ_CFG1, PRIQ_IRQ_CFG2, PRIQ_PROD,
    STRTAB_BASE, STRTAB_BASE_CFG,
};

/// Bytes of register space that every SMMU has: page 0 and page 1, 64 KiB each (IHI 0070, 6.1).
pub const REGISTERS_BYTES: usize = 0x2_0000;

/// One register: a word of type `T` with the fields of `F`, and its name for messages.
pub struct Register<T: UIntLike, F: RegisterLongName> {
    offset: usize,
    name: &'static str,
    fields: PhantomData<fn() -> (T, F)>,
}

/// A 32-bit register.
pub type Register32<F> = Register<u32, F>;

/// A 64-bit register.
pub type Register64<F> = Register<u64, F>;

impl<T: UIntLike, F: RegisterLongName> Register<T, F> {
    /// The register at `offset` bytes from the start of page 0.
    #[must_use]
    pub const fn new(offset: usize, name: &'static str) -> Self {
        Self { offset, name, fields: PhantomData }
    }

    /// Offset in bytes from the start of page 0.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The architecture's name, without the prefix `SMMU_`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// A value of this register, for picking its fields.
    #[must_use]
    pub const fn value(&self, raw: T) -> LocalRegisterCopy<T, F> {
        LocalRegisterCopy::new(raw)
    }
}

impl<T: UIntLike, F: RegisterLongName> Clone for Register<T, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: UIntLike, F: RegisterLongName> Copy for Register<T, F> {}

impl<T: UIntLike, F: RegisterLongName> fmt::Debug for Register<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", self.name, self.offset)
    }
}

impl<T: UIntLike, F: RegisterLongName> fmt::Display for Register<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

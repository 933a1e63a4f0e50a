//! The register block: offsets, access rules, update protocols (IHI 0070, 6).
//!
//! What lives here: what a read returns, and what a write does to registers and when. What does not: what an enabled
//! SMMU does then.

mod file;
pub(super) mod offset;
mod rules;

use std::sync::Arc;

use smmu::platform::Registers;

pub(super) use file::RegisterFile;
pub(super) use rules::enable;

use super::{Shared, lock};

/// The registers of one model, as the driver reaches them.
#[derive(Clone)]
pub struct ModelRegisters(pub(super) Arc<Shared>);

/// A register access by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterAccess {
    /// The offset in bytes from the start of page 0.
    pub offset: usize,
    /// What was written, if it was a write.
    pub written: Option<u64>,
}

/// Looks on after register accesses.
pub(super) type Observer = Box<dyn FnMut(RegisterAccess) + Send>;

impl ModelRegisters {
    fn read(&self, offset: usize, bytes: usize) -> u64 {
        let value = lock(&self.0.machine).read_register(offset, bytes);
        self.observed(RegisterAccess { offset, written: None });
        value
    }

    fn write(&self, offset: usize, bytes: usize, value: u64) {
        lock(&self.0.machine).write_register(offset, bytes, value);
        self.observed(RegisterAccess { offset, written: Some(value) });
    }

    fn observed(&self, access: RegisterAccess) {
        if let Some(observer) = lock(&self.0.observer).as_mut() {
            observer(access);
        }
    }
}

impl Registers for ModelRegisters {
    fn read32(&self, offset: usize) -> u32 {
        self.read(offset, 4) as u32
    }

    fn write32(&self, offset: usize, value: u32) {
        self.write(offset, 4, value.into());
    }

    fn read64(&self, offset: usize) -> u64 {
        self.read(offset, 8)
    }

    fn write64(&self, offset: usize, value: u64) {
        self.write(offset, 8, value);
    }
}

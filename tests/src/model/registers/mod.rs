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

impl Registers for ModelRegisters {
    fn read32(&self, offset: usize) -> u32 {
        lock(&self.0.machine).read_register(offset, 4) as u32
    }

    fn write32(&self, offset: usize, value: u32) {
        lock(&self.0.machine).write_register(offset, 4, value.into());
    }

    fn read64(&self, offset: usize) -> u64 {
        lock(&self.0.machine).read_register(offset, 8)
    }

    fn write64(&self, offset: usize, value: u64) {
        lock(&self.0.machine).write_register(offset, 8, value);
    }
}

//! What is asked of an address space for devices.

use crate::arch::attributes::Granule;
use crate::pgtable::{EmptyTables, Stage, Tracking};

/// What an address space is to be like. What is `None` is the driver's choice, by what its instance can do;
/// [`Default`] leaves it all of that, and asks for nothing special.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainConfig {
    /// The stage that translates. The driver's choice is stage 1 where there is one; stage 2 is for the memory of a virtual
    /// machine.
    pub stage: Option<Stage>,
    /// The granule, which is the least that can be mapped. The driver's choice is the smallest there is.
    pub granule: Option<Granule>,
    /// Bits of an input address. The driver's choice is as many as the instance and the CPUs have, up to 48.
    pub input_bits: Option<u8>,
    /// Bits of an output address: 32, 36, 40, 42, 44 or 48, or 52 with a granule of 64 KiB. The driver's choice is as many as
    /// the instance has.
    pub output_bits: Option<u8>,
    /// Whether neighbouring pages and blocks are marked as groups ([`TableConfig`](crate::pgtable::TableConfig)).
    pub contiguous: bool,
    /// What is recorded of devices' accesses.
    pub tracking: Tracking,
    /// What becomes of tables that an unmap leaves empty.
    pub empty_tables: EmptyTables,
    /// At stage 2: whether what is mapped as write-back is that whatever a guest's stage 1 says.
    pub force_write_back: bool,
}

impl DomainConfig {
    /// For the memory of a virtual machine: stage 2.
    #[must_use]
    pub fn stage2() -> Self {
        Self { stage: Some(Stage::Stage2), ..Self::default() }
    }
}

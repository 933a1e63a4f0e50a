//! How the SMMU is to access its tables and queues, and which of its modes are on (IHI 0070, 6.3.9 to 6.3.12).

use super::Features;
use crate::arch::registers::{CR0, CR1, CR2};

/// Values for control registers that stay the same as long as the SMMU runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Modes {
    /// CR1: attributes of the SMMU's own accesses.
    pub(super) cr1: u32,
    pub(super) cr2: u32,
    /// The bit of CR0 without which a device could pass its own physical addresses off as translated.
    pub(super) atschk: u32,
    /// Whether accesses to queues snoop the CPU's caches.
    pub(super) queues_coherent: bool,
    /// Whether accesses to the stream table do.
    pub(super) tables_coherent: bool,
}

impl Modes {
    /// What this driver wants of an SMMU of these features.
    pub(super) fn new(features: &Features) -> Self {
        let coherent = features.coherent();
        let cr1 = if coherent {
            (CR1::QUEUE_IC::WriteBack
                + CR1::QUEUE_OC::WriteBack
                + CR1::QUEUE_SH::InnerShareable
                + CR1::TABLE_IC::WriteBack
                + CR1::TABLE_OC::WriteBack
                + CR1::TABLE_SH::InnerShareable)
                .value
        } else {
            (CR1::QUEUE_SH::OuterShareable + CR1::TABLE_SH::OuterShareable).value
        };
        let ats_events = if features.ats_configuration_events() { CR2::REC_CFG_ATS::SET.value } else { 0 };
        Self {
            cr1,
            cr2: (CR2::PTM::SET + CR2::RECINVSID::SET).value | ats_events,
            atschk: if features.ats() { CR0::ATSCHK::SET.value } else { 0 },
            queues_coherent: coherent,
            tables_coherent: coherent,
        }
    }
}

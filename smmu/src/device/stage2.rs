//! The stage-2 half of stream table entries: which table, walked how, under which VMID (IHI 0070, 5.2).

use super::{DeviceError, Features, Smmu};
use crate::addr::{PhysAddr, Vmid};
use crate::arch::attributes::{AddressSize, Granule, HardwareUpdate};
use crate::arch::stream_table::{Eats, Stage2Stream};
use crate::pgtable::{PageTable, SharedTable, Stage};
use crate::platform::Platform;

/// What an entry has to say about a page table: from a [`PageTable`] or a [`SharedTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage2Table {
    stage: Stage,
    root: PhysAddr,
    granule: Granule,
    t0sz: u8,
    sl0: u8,
    output_bits: u8,
    hardware_update: HardwareUpdate,
    force_write_back: bool,
}

impl<P: Platform> From<&PageTable<P>> for Stage2Table {
    fn from(table: &PageTable<P>) -> Self {
        let config = table.config();
        Self {
            stage: config.stage,
            root: table.root(),
            granule: config.granule,
            t0sz: table.t0sz(),
            sl0: table.sl0(),
            output_bits: config.output_bits,
            hardware_update: config.tracking.hardware_update(),
            force_write_back: config.force_write_back,
        }
    }
}

impl From<&SharedTable> for Stage2Table {
    fn from(table: &SharedTable) -> Self {
        let config = table.config();
        Self {
            stage: Stage::Stage2,
            root: config.root,
            granule: config.granule,
            t0sz: table.t0sz(),
            sl0: table.sl0(),
            output_bits: config.output_bits,
            hardware_update: HardwareUpdate::None,
            force_write_back: false,
        }
    }
}

impl<P: Platform> Smmu<P> {
    /// The stage-2 half of entries for streams that `table` translates, under a VMID of its own ([`Smmu::take_vmid`]): faults
    /// abort and are recorded, there is no ATS, and stage-1 tables must not be in Device memory (S2PTW). Whoever wants
    /// something else changes it in what is returned.
    ///
    /// The SMMU reads the table as long as an entry leads to it. All entries with this VMID must agree on all of it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::WrongStage`] if the table is one of stage 1, or [`DeviceError::Unsupported`] if the SMMU cannot walk it.
    pub fn stage2_stream(&self, vmid: Vmid, table: impl Into<Stage2Table>) -> Result<Stage2Stream, DeviceError> {
        let table = table.into();
        if table.stage != Stage::Stage2 {
            return Err(DeviceError::WrongStage { table: table.root });
        }
        let output_size = table.check(&self.features)?;
        Ok(Stage2Stream {
            vmid,
            table: table.root,
            t0sz: table.t0sz,
            sl0: table.sl0,
            granule: table.granule,
            output_size,
            walk: self.features.walk_attributes(),
            hardware_update: table.hardware_update,
            access_flag_fault_disabled: false,
            protected_walk: true,
            record_faults: true,
            stall: false,
            force_write_back: table.force_write_back,
            ats: Eats::Off,
            shareability: self.features.incoming_shareability(),
            merge_events: false,
        })
    }
}

impl Stage2Table {
    /// Whether an SMMU can walk it, and STE.S2PS.
    fn check(&self, features: &Features) -> Result<AddressSize, DeviceError> {
        if !features.stage2() {
            return Err(features.lacks("stage 2 (S2P)"));
        }
        if !features.granule(self.granule) {
            return Err(features.idr5_lacks("the page table's granule (GRAN4K, GRAN16K, GRAN64K)"));
        }
        let updates = features.hardware_update();
        if self.hardware_update.ha() > updates.ha() || self.hardware_update.hd() > updates.hd() {
            return Err(features.lacks("the updates of descriptors that the page table counts on (HTTU)"));
        }
        if self.force_write_back && !features.force_write_back() {
            return Err(features.idr3_lacks("stage 2 that decides alone on cacheability (FWB)"));
        }
        AddressSize::holding(self.output_bits)
            .filter(|&size| size <= features.output_size())
            .ok_or_else(|| features.idr5_lacks("output addresses as large as the page table's (OAS)"))
    }
}

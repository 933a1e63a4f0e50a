//! QEMU as what sequences are run against.

use qemu::machine::Iommu;
use qemu::program::Qemu;
use smmu::addr::{Iova, StreamId};
use smmu::iommu::PagingDomain;
use smmu::pgtable::{Access, MemoryType};

use super::machine::QtestMachine;
use super::staging::Staging;
use super::{QtestError, QtestPlatform, QtestRegisters};
use crate::sequence::{Backend, Deviation, signature};

/// A machine with some engines. It lives for many sequences, and is replaced when it broke.
#[derive(Debug)]
pub struct QtestBackend<'q> {
    qemu: &'q Qemu,
    iommu: Iommu,
    machine: QtestMachine,
    /// One for each engine that is attached.
    staging: Vec<Option<Shown>>,
}

/// Where an engine shows what it reads.
#[derive(Debug)]
struct Shown {
    staging: Staging,
    /// Whether the engine is sure to reach it.
    is_reached: bool,
}

/// How many engines a machine has.
const ENGINES: u8 = 3;

impl<'q> QtestBackend<'q> {
    /// Starts a machine with an SMMU as `iommu` says.
    ///
    /// # Errors
    ///
    /// Any [`QtestError`].
    pub fn new(qemu: &'q Qemu, iommu: Iommu) -> Result<Self, QtestError> {
        let machine = QtestMachine::start(qemu, iommu, ENGINES)?;
        Ok(Self { qemu, iommu, machine, staging: no_staging() })
    }

    fn engine(&self, device: usize) -> Result<&super::Edu, QtestError> {
        self.machine.engines().get(device).ok_or(QtestError::Missing { what: "engine" })
    }
}

fn no_staging() -> Vec<Option<Shown>> {
    (0..ENGINES).map(|_| None).collect()
}

impl Backend for QtestBackend<'_> {
    type Platform = QtestPlatform;
    type Error = QtestError;

    fn platform(&self) -> &'static QtestPlatform {
        self.machine.platform()
    }

    fn restore(&mut self) -> Result<(), QtestError> {
        self.staging = no_staging();
        if self.machine.failure().is_some() {
            self.machine = QtestMachine::start(self.qemu, self.iommu, ENGINES)?;
        }
        Ok(())
    }

    fn registers(&self) -> QtestRegisters {
        self.machine.registers()
    }

    fn streams(&self) -> Vec<StreamId> {
        self.machine.engines().iter().map(super::Edu::stream).collect()
    }

    fn attached(&mut self, device: usize, domain: &dyn PagingDomain<QtestPlatform>) -> Result<(), QtestError> {
        let staging = Staging::new(self.machine.platform()).map_err(QtestError::OutOfMemory)?;
        domain
            .map(Staging::IOVA, staging.physical(), Staging::BYTES as u64, Access::ReadWrite, MemoryType::WriteBack)
            .map_err(QtestError::Staging)?;
        *self.staging.get_mut(device).ok_or(QtestError::Missing { what: "engine" })? =
            Some(Shown { staging, is_reached: true });
        Ok(())
    }

    /// The page stays the domain's until the device is detached, but what the device reads cannot be shown any more.
    fn overwriting(&mut self, device: usize) {
        if let Some(Some(staging)) = self.staging.get_mut(device) {
            staging.is_reached = false;
        }
    }

    fn detached(&mut self, device: usize) {
        if let Some(staging) = self.staging.get_mut(device) {
            *staging = None;
        }
    }

    fn word(&self, device: usize, index: u16) -> u32 {
        self.engine(device).map_or(0, |engine| signature(engine.stream(), index))
    }

    fn write(&mut self, device: usize, iova: Iova, index: u16) -> Result<(), QtestError> {
        self.engine(device)?.write_word(iova, index)
    }

    fn read(&mut self, device: usize, iova: Iova) -> Result<Option<u32>, QtestError> {
        let engine = self.engine(device)?;
        match self.staging.get(device).and_then(Option::as_ref) {
            Some(Shown { staging, is_reached: true }) => engine.read_word(iova, staging).map(Some),
            _ => engine.read_word_unseen(iova).map(|()| None),
        }
    }

    fn bytes_in_use(&self) -> Option<u64> {
        Some(self.machine.platform().bytes_in_use())
    }

    fn is_known_for(&self, deviation: Deviation) -> bool {
        match deviation {
            Deviation::CachedStage2Permission
            | Deviation::Stage2InputRange
            | Deviation::ContextPointerFollowed
            | Deviation::IgnoredStage1Fields
            | Deviation::HardwareUpdate => true,
        }
    }
}

//! A QEMU machine without a CPU: memory, an SMMU, and PCI devices that do DMA when told to.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use qemu::device::{Device, DeviceKind};
use qemu::devicetree::Tree;
use qemu::machine::{Iommu, Machine};
use qemu::program::Qemu;
use smmu::addr::Iova;
use smmu::device::{BootPolicy, DeviceError, Smmu};
use smmu::memory::DmaMemory;

use super::QtestError;
use super::connection::Connection;
use super::edu::{self, Direction, Edu, Transfer};
use super::pci::HostBridge;
use super::platform::{QtestPlatform, QtestRegisters};
use super::testdev::{self, IommuTestdev};
use crate::sequence::signature;

/// Memory of a machine, in MiB.
const MEMORY_MIB: u32 = 64;
/// The PCI slot of `iommu-testdev`. The engines follow.
const TESTDEV_SLOT: u8 = 1;
/// The part of an engine's buffer that holds its signature, in bytes: the upper half.
pub const SIGNATURE_OFFSET: u16 = edu::BUFFER_BYTES / 2;
/// How many words of 4 bytes the signature has.
pub const SIGNATURE_WORDS: u16 = SIGNATURE_OFFSET / 4;

/// A machine that lives until this and all [`QtestRegisters`] of it are dropped.
#[derive(Debug)]
pub struct QtestMachine {
    connection: Arc<Connection>,
    platform: &'static QtestPlatform,
    registers: QtestRegisters,
    testdev: IommuTestdev,
    engines: Vec<Edu>,
}

impl QtestMachine {
    /// Starts `qemu` with an SMMU as `iommu` says, an `iommu-testdev` and `engines` (up to 30) `edu`s, all on bus 0. The
    /// SMMU is as after reset: off, and everything passes. The engines' buffers hold their signatures.
    ///
    /// QEMU is killed by the system when the calling thread ends, so that none is left behind by a test that is killed.
    ///
    /// # Errors
    ///
    /// Any [`QtestError`]; QEMU is gone then.
    pub fn start(qemu: &Qemu, iommu: Iommu, engines: u8) -> Result<Self, QtestError> {
        let ram = |error| QtestError::Ram(Arc::new(error));
        let folder = tempfile::tempdir().map_err(ram)?;
        let file = folder.path().join("ram");
        let memory = File::options().read(true).write(true).create_new(true).open(&file).map_err(ram)?;
        memory.set_len(u64::from(MEMORY_MIB) << 20).map_err(ram)?;
        let platform = QtestPlatform::leaked(&memory).map_err(ram)?;

        let machine = machine(iommu, engines);
        let connection = Arc::new(Connection::open(qemu, &machine.arguments(&qemu.capabilities), folder.path())?);
        // Once it answers the machine is complete, its device tree is in memory, and nobody opens the file again.
        connection.ask(|line| line.advance_clock(Duration::from_nanos(1)))?;
        drop(folder);

        let tree = Tree::parse(&platform.device_tree())?;
        let bridge = HostBridge::find(&tree)?;
        let testdev = IommuTestdev {
            registers: bridge.enable(&connection, TESTDEV_SLOT, testdev::IDENTIFICATION)?,
            connection: Arc::clone(&connection),
            slot: TESTDEV_SLOT,
        };
        let engine = |slot| {
            let registers = bridge.enable(&connection, slot, edu::IDENTIFICATION)?;
            Ok(Edu { connection: Arc::clone(&connection), slot, registers })
        };
        let engines = engine_slots(engines).map(engine).collect::<Result<_, QtestError>>()?;
        let registers = registers(&connection, &tree)?;
        let machine = Self { connection, platform, registers, testdev, engines };
        machine.engines.iter().try_for_each(|engine| machine.sign(engine))?;
        Ok(machine)
    }

    /// Fills the upper half of an engine's buffer, by DMA that passes the SMMU by.
    fn sign(&self, engine: &Edu) -> Result<(), QtestError> {
        let page = DmaMemory::allocate(self.platform, SIGNATURE_OFFSET.into(), 8).map_err(QtestError::OutOfMemory)?;
        for (index, word) in (0..).step_by(2).zip(page.words()) {
            let [low, high] = [index, index + 1].map(|index| u64::from(signature(engine.stream(), index)));
            word.store((high << 32 | low).to_le(), Ordering::Relaxed);
        }
        engine.run(&[Transfer {
            direction: Direction::FromMemory,
            iova: Iova::new(page.physical().get()),
            offset: SIGNATURE_OFFSET,
            length_bytes: SIGNATURE_OFFSET,
        }])
    }

    /// The platform for drivers of this machine.
    #[must_use]
    pub fn platform(&self) -> &'static QtestPlatform {
        self.platform
    }

    /// Size of its memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        u64::from(MEMORY_MIB) << 20
    }

    /// The SMMU's registers.
    #[must_use]
    pub fn registers(&self) -> QtestRegisters {
        self.registers.clone()
    }

    /// Brings the SMMU up, with every stream aborted.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]; if it makes no sense, ask [`failure`](Self::failure) too.
    pub fn bring_up(&self) -> Result<Smmu<QtestPlatform>, DeviceError> {
        Smmu::bring_up(self.platform, self.registers(), true, BootPolicy::Abort)
    }

    /// The device that writes a fixed pattern.
    #[must_use]
    pub fn testdev(&self) -> &IommuTestdev {
        &self.testdev
    }

    /// The DMA engines, in the order of their StreamIDs.
    #[must_use]
    pub fn engines(&self) -> &[Edu] {
        &self.engines
    }

    /// Kills QEMU, as a crash would.
    pub fn kill(&self) {
        self.connection.kill();
    }

    /// What broke the connection, if it is broken. QEMU is gone then.
    #[must_use]
    pub fn failure(&self) -> Option<QtestError> {
        self.connection.failure()
    }
}

fn engine_slots(engines: u8) -> impl Iterator<Item = u8> {
    (0..engines).map(|index| TESTDEV_SLOT + 1 + index)
}

/// The machine as QEMU is told about it. It starts in the folder of its memory, whose file is `ram`.
fn machine(iommu: Iommu, engines: u8) -> Machine {
    let mut devices = vec![Device::new(DeviceKind::IommuTestdev).in_slot(TESTDEV_SLOT)];
    devices.extend(engine_slots(engines).map(|slot| Device::new(DeviceKind::Edu).in_slot(slot)));
    let memory = format!("memory-backend-file,id=ram,size={MEMORY_MIB}M,share=on,mem-path=ram");
    let extra_arguments = vec!["-object".into(), memory.into(), "-M".into(), "memory-backend=ram".into()];
    Machine { memory_mib: MEMORY_MIB, iommu, devices, extra_arguments, ..Machine::default() }
}

/// The registers of the SMMU that `tree` describes.
fn registers(connection: &Arc<Connection>, tree: &Tree) -> Result<QtestRegisters, QtestError> {
    let missing = |what| QtestError::Missing { what };
    let node = tree.compatible("arm,smmu-v3").into_iter().next().ok_or(missing("SMMU"))?;
    let reg = tree.cells(&node, "reg")?;
    let &[base_high, base_low, _, length_bytes] = &reg[..] else { return Err(missing("address of the SMMU")) };
    Ok(QtestRegisters {
        connection: Arc::clone(connection),
        base: u64::from(base_high) << 32 | u64::from(base_low),
        length_bytes: length_bytes as usize,
    })
}

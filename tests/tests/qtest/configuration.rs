//! The machine itself: what its parts answer, and what becomes of them when QEMU is gone.

use qemu::machine::{Iommu, Stage};
use smmu::device::DeviceError;
use smmu::platform::{Platform as _, Registers as _};
use tests::qtest::{Direction, QtestError, QtestMachine, Transfer};

use crate::setup::{HERE, QEMU, Setup};

const IDR0: usize = 0x00;
const IDR1: usize = 0x04;

#[test]
fn identification_registers_are_those_of_the_stage() {
    let stages = [(Stage::One, 0x0d44_101a), (Stage::Two, 0x0d44_1019), (Stage::Nested, 0x0d44_101b)];
    for (stage, idr0) in stages {
        let machine = QtestMachine::start(&QEMU, Iommu::SmmuV3Stage(stage), 0).unwrap();
        let registers = machine.registers();
        assert_eq!((registers.read32(IDR0), registers.read32(IDR1)), (idr0, 0x0273_0010), "{stage:?}");
    }
}

#[test]
fn an_access_outside_the_block_does_nothing() {
    let registers = QtestMachine::start(&QEMU, Iommu::SmmuV3, 0).unwrap().registers();
    assert_eq!(registers.read32(0x2_0000), u32::MAX);
    assert_eq!(registers.read32(2), u32::MAX);
    assert_eq!(registers.read64(usize::MAX), u64::MAX);
    assert_eq!(registers.read32(IDR1), 0x0273_0010);
}

#[test]
fn the_driver_gives_all_memory_back() {
    let setup = Setup::new();
    let platform = setup.machine.platform();
    drop(setup.attach(0));
    let in_use = platform.bytes_in_use();
    let Setup { smmu, iommus, machine } = setup;
    let dma_bytes = smmu.statistics().dma_bytes as u64;
    drop((smmu, iommus));
    assert_eq!(in_use - platform.bytes_in_use(), dma_bytes);
    drop(machine);
}

#[test]
fn transfers_that_leave_the_buffer_are_not_tried() {
    let machine = QtestMachine::start(&QEMU, Iommu::SmmuV3, 1).unwrap();
    let engine = &machine.engines()[0];
    let transfer = Transfer { direction: Direction::ToMemory, iova: HERE, offset: 4000, length_bytes: 97 };
    assert!(matches!(
        engine.run(&[transfer]),
        Err(QtestError::OutsideBuffer { slot: 2, offset: 4000, length_bytes: 97 })
    ));
    assert!(machine.failure().is_none());
}

#[test]
fn a_driver_whose_machine_died_ends_with_an_error() {
    let setup = Setup::new();
    setup.machine.kill();
    let device = setup.device(setup.machine.testdev().stream());
    assert!(setup.iommus.configure(&device).is_err());
    let failure = setup.machine.failure().unwrap();
    assert!(matches!(failure, QtestError::Ended { .. }), "{failure}");
    assert!(matches!(setup.machine.bring_up(), Err(DeviceError::PoweredOff { .. })));
}

#[test]
fn pointers_and_physical_addresses_belong_together() {
    let setup = Setup::new();
    let platform = setup.machine.platform();
    let block = platform.allocate(1 << 16, 1 << 14).unwrap();
    assert_eq!(block.physical.get() % (1 << 14), 0);
    // SAFETY: just allocated.
    assert_eq!(unsafe { platform.pointer(block.physical) }, block.pointer);
    assert_eq!(platform.physical(block.pointer), Some(block.physical));
    let elsewhere = 0u8;
    assert_eq!(platform.physical(std::ptr::NonNull::from(&elsewhere)), None);
    // SAFETY: allocated above, freed once.
    unsafe { platform.free(block) }
    assert!(platform.allocate(1 << 30, 8).is_err());
}

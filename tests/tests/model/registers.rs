//! Registers: access rules, guards, and protocols.

use smmu::platform::Registers;
use tests::model::{Config, GlobalError, Law};

use super::bench::{Bench, CR0, CR0ACK, GERROR, GERRORN};

#[test]
fn wrong_accesses_are_noticed() {
    type Access = fn(&Bench);
    let cases: [(Access, Law); 10] = [
        (|b| b.registers.write32(0x0, 1), Law::RegisterAccess),
        (|b| _ = b.registers.read64(0x0), Law::RegisterAccess),
        (|b| _ = b.registers.read32(0x34), Law::RegisterAccess),
        (|b| _ = b.registers.read32(0xa8), Law::RegisterAccess),
        (|b| _ = b.registers.read32(0x100c8), Law::RegisterAccess),
        (|b| b.registers.write32(0x2c, 0), Law::GuardedRegister),
        (|b| b.registers.write64(0x90, 0), Law::GuardedRegister),
        (|b| b.registers.write32(0x100a8, 0), Law::GuardedRegister),
        (|b| b.registers.write32(0x50, 0x8), Law::ReservedBit),
        (|b| b.registers.write32(0x28, 0xd76), Law::GuardedRegister),
    ];
    for (index, (access, law)) in cases.into_iter().enumerate() {
        let bench = Bench::new(Config::qemu());
        access(&bench);
        assert_eq!(bench.broken_laws(), [law], "case {index}");
    }
}

/// Address translation operations, MPAM, device permission tables and more: registers that are there if they are announced.
#[test]
fn registers_of_features_are_there_with_them() {
    // The identification register, its bit, and a register that comes with it.
    for (identification, bit, register) in
        [(0x0, 15, 0x100), (0x0, 20, 0x180), (0x4, 31, 0x190), (0xc, 7, 0x130), (0xc, 15, 0x208), (0xc, 19, 0x30)]
    {
        let bench = Bench::new(Config::qemu());
        let value = bench.registers.read32(identification);
        bench.registers.read32(register);
        assert_eq!(bench.broken_laws(), [Law::RegisterAccess], "{register:#x}");
        let overrides = vec![(identification, value | 1 << bit)];
        let bench = Bench::off(Config { overrides, ..Config::qemu() });
        bench.registers.read32(register);
        assert_eq!(bench.broken_laws(), [], "{register:#x}");
    }
}

#[test]
fn a_write_is_acknowledged_later() {
    let bench = Bench::off(Config { acknowledge_after: 3, ..Config::qemu() });
    bench.registers.write32(CR0, 4);
    assert_eq!([0; 3].map(|_| bench.registers.read32(CR0ACK)), [0, 0, 4]);
    bench.registers.write32(CR0, 0);
    bench.registers.write32(CR0, 4);
    assert_eq!(bench.broken_laws(), [Law::Alignment, Law::UpdateProtocol]);
    bench.registers.write32(CR0, 4);
    let _ = [0; 3].map(|_| bench.registers.read32(CR0ACK));
    let _ = bench.broken_laws();
}

#[test]
fn gbpa_has_an_update_bit() {
    let bench = Bench::off(Config { acknowledge_after: 2, ..Config::qemu() });
    bench.registers.write32(0x44, 0x10_1000);
    assert_eq!(bench.broken_laws(), [Law::UpdateProtocol]);
    assert_eq!(bench.registers.read32(0x44), 0x1000, "ignored");
    bench.registers.write32(0x44, 0x8010_1000);
    assert_eq!([0; 2].map(|_| bench.registers.read32(0x44)), [0x8010_1000, 0x10_1000]);
}

#[test]
fn global_errors_toggle() {
    let bench = Bench::new(Config::qemu());
    bench.model.raise(GlobalError::Sfm);
    bench.model.raise(GlobalError::Sfm);
    assert_eq!(bench.registers.read32(GERROR), 0x100, "active until acknowledged");
    bench.registers.write32(GERRORN, 0x100);
    bench.model.raise(GlobalError::Sfm);
    assert_eq!(bench.registers.read32(GERROR), 0);
    bench.registers.write32(GERRORN, 0x4);
    assert_eq!(bench.broken_laws(), [Law::UpdateProtocol]);
    bench.registers.write32(GERRORN, 0);
    let _ = bench.broken_laws();
}

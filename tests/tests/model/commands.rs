//! Commands: which are legal, what they remove, when they are done.

use smmu::addr::Iova;
use smmu::platform::{Platform, Registers};
use tests::model::{Config, Entry, Interrupt, Law, Opcode, Refused};

use super::bench::{Bench, CD0, CMDQ_CONS, GERROR, GERRORN, STREAM, SYNC, dirty, put, put_cd, stage1_ste, touch};
use super::tables::Tables;

const SID: u64 = (STREAM as u64) << 32;
/// ASID 7 of VMID 0.
const ASID: u64 = 7 << 48;

#[test]
fn an_illegal_command_stops_the_queue_until_it_is_acknowledged() {
    let illegal: [[u64; 2]; 10] = [
        [0x00, 0],
        [0x46 | 1 << 10, 0],
        [0x46 | 3 << 12, 0],
        [0x20, 0],
        [0x40, 0],
        [0x44, 0],
        // TG without NUM, SCALE and TTL; a misaligned block; a reserved bit; a VMID where there is none.
        [0x12, 1 << 10],
        [0x12, 0x1000 | 1 << 10 | 2 << 8],
        [0x30 | 1 << 40, 0],
        [0x03 | 1 << 60, 1],
    ];
    for command in illegal {
        let mut bench = Bench::new(Config::qemu());
        let at = bench.produced;
        bench.send(&[command, SYNC]);
        let read = |offset| bench.registers.read32(offset);
        assert_eq!((read(CMDQ_CONS), read(GERROR)), (at | 1 << 24, 1), "{command:x?}");
        assert_eq!(bench.broken_laws(), [Law::Command]);
        // A harmless command in its place, then the acknowledgement.
        put(&bench.commands, u64::from(at) * 2, 0x46);
        put(&bench.commands, u64::from(at) * 2 + 1, 0);
        bench.model.platform().write_barrier();
        bench.registers.write32(GERRORN, 1);
        assert_eq!(bench.registers.read32(CMDQ_CONS) & 0xf_ffff, bench.produced);
    }
}

#[test]
fn stage1_commands_need_stage1() {
    let mut bench = Bench::new(Config { s1p: false, ..Config::qemu() });
    bench.send(&[[0x11, 0]]);
    assert_eq!(bench.broken_laws(), [Law::Command]);
}

/// A stream whose page at address 0 has been read, and then was unmapped.
fn with_a_stale_page(bench: &mut Bench) -> Vec<tests::model::Buffer> {
    let buffers: Vec<_> = (0..4).map(|_| bench.buffer(4096)).collect();
    let [contexts, table, last, data] = &buffers[..] else { panic!("four") };
    put(table, 0, last.physical().get() | 3);
    put(last, 0, data.physical().get() | 0xf47);
    put_cd(contexts, 0, &[CD0 | 39 | 4 << 32, table.physical().get(), 0, 0xff44]);
    bench.set_ste(STREAM, &stage1_ste(contexts));
    assert_eq!(touch(&bench.device(), 0), Ok(0));
    put(last, 0, 0);
    buffers
}

#[test]
fn a_translation_stays_until_the_right_command() {
    // Command, and whether it removes the leaf of ASID 7 at address 0.
    let cases: [([u64; 2], bool); 12] = [
        ([0x30, 0], true),
        ([0x10, 0], true),
        ([0x11 | ASID, 0], true),
        ([0x11 | 8 << 48, 0], false),
        ([0x12 | ASID, 1], true),
        ([0x12 | ASID, 0x1000 | 1], false),
        ([0x12 | 8 << 48, 1], false),
        ([0x13, 1], true),
        ([0x12 | ASID, 1 << 10 | 3 << 8 | 1], true),
        // TTL 2: only blocks of that level.
        ([0x12 | ASID, 1 << 10 | 2 << 8 | 1], false),
        ([0x28, 0], true),
        ([0x2a, 0], false),
    ];
    for (command, removes) in cases {
        let mut bench = Bench::new(Config::qemu());
        let _buffers = with_a_stale_page(&mut bench);
        assert_eq!(touch(&bench.device(), 0), Ok(0), "stale");
        bench.run(&[command]);
        assert_eq!(touch(&bench.device(), 0).is_err(), removes, "{command:x?}");
        bench.set_ste(STREAM, &[0]);
        bench.run(&[[0x30, 0]]);
    }
}

#[test]
fn a_table_stays_cached_after_a_leaf_invalidation() {
    let leaf_only = |leaf: u64| {
        let mut bench = Bench::new(Config::qemu());
        let buffers = with_a_stale_page(&mut bench);
        let other = bench.buffer(4096);
        put(&other, 0, buffers[3].physical().get() | 0xf47);
        put(&buffers[1], 0, other.physical().get() | 3);
        bench.run(&[[0x12 | ASID, leaf]]);
        let found = touch(&bench.device(), 0);
        bench.set_ste(STREAM, &[0]);
        bench.run(&[[0x30, 0]]);
        found
    };
    assert_eq!(leaf_only(1), Err(Refused::Aborted), "the old table, where nothing is mapped");
    assert_eq!(leaf_only(0), Ok(0));
}

#[test]
fn commands_are_complete_with_the_sync_and_not_before() {
    let mut bench = Bench::new(Config::qemu());
    let _buffers = with_a_stale_page(&mut bench);
    bench.send(&[[0x30, 0]]);
    assert_eq!(bench.registers.read32(CMDQ_CONS) & 0xf_ffff, bench.produced, "consumed");
    assert_eq!(touch(&bench.device(), 0), Ok(0), "not complete");
    bench.send(&[SYNC]);
    assert_eq!(touch(&bench.device(), 0), Err(Refused::Aborted));
    bench.set_ste(STREAM, &[0]);
    bench.run(&[[0x30, 0]]);
}

#[test]
fn configuration_stays_until_its_command() {
    let cases: [([u64; 2], bool); 5] = [
        ([0x03 | SID, 1], true),
        ([0x04 | SID, 1], true),
        ([0x04, 31], true),
        ([0x03 | 9 << 32, 1], false),
        ([0x05 | SID, 1], false),
    ];
    for (command, removes) in cases {
        let mut bench = Bench::new(Config::qemu());
        bench.set_ste(STREAM, &[0b1001, 1 << 44]);
        let data = bench.buffer(4096);
        let device = bench.device();
        assert_eq!(dirty(&device, data.physical().get()), Ok(()), "bypass");
        bench.poke_ste(STREAM, &[1]);
        assert_eq!(dirty(&device, data.physical().get()), Ok(()), "cached");
        bench.run(&[command]);
        assert_eq!(dirty(&device, data.physical().get()).is_err(), removes, "{command:x?}");
    }
}

#[test]
fn a_device_is_not_told_to_forget_while_translation_is_off() {
    let atc_inv = [0x40 | SID, 52];
    for on in [true, false] {
        let mut tables = Tables::new(Config::full(), true);
        tables.set(0b101, 1);
        assert!(tables.request(0).is_ok());
        let device = tables.bench.device();
        assert_eq!(device.write_translated(Iova::new(0), &[1]), Ok(()));
        if on {
            tables.bench.run(&[atc_inv]);
        } else {
            tables.bench.registers_off();
            tables.bench.run(&[atc_inv]);
            tables.bench.registers_on();
        }
        assert_eq!(device.write_translated(Iova::new(0), &[2]).is_err(), on, "SMMUEN {}", u32::from(on));
        let _ = tables.bench.broken_laws();
    }
}

#[test]
fn a_sync_signals() {
    let mut bench = Bench::new(Config { msi: true, sev: true, ..Config::qemu() });
    let word = bench.buffer(4096);
    let mark = bench.model.mark();
    bench.run(&[[0x46 | 1 << 12 | 0xabcd << 32, word.physical().get() + 4], [0x46 | 2 << 12, 0]]);
    assert_eq!(super::bench::word(&word, 0), 0xabcd << 32);
    let log = bench.model.log_since(mark);
    assert_eq!(log.interrupts(), [Interrupt::CmdSync]);
    assert!(log.entries().contains(&Entry::WakeUp));
    assert_eq!(log.commands(), [Opcode::Sync; 3]);
}

#[test]
fn configuration_and_translations_in_one_batch_have_no_order() {
    let stale = |batches: &[&[[u64; 2]]]| {
        let mut bench = Bench::new(Config::qemu());
        let buffers = with_a_stale_page(&mut bench);
        // Another CD under the same ASID, whose tables map nothing. The old ones map the page again.
        let (other, empty) = (bench.buffer(4096), bench.buffer(4096));
        put_cd(&other, 0, &[CD0 | 39 | 4 << 32, empty.physical().get(), 0, 0xff44]);
        put(&buffers[2], 0, buffers[3].physical().get() | 0xf47);
        bench.poke_ste(STREAM, &stage1_ste(&other)[..1]);
        batches.iter().for_each(|batch| bench.run(batch));
        let reached = touch(&bench.device(), 0).is_ok();
        bench.set_ste(STREAM, &[0]);
        bench.run(&[[0x30, 0]]);
        reached
    };
    assert!(stale(&[&[[0x03 | SID, 1], [0x11 | ASID, 0]]]), "the TLB was filled again by the old CD");
    assert!(!stale(&[&[[0x03 | SID, 1]], &[[0x11 | ASID, 0]]]));
}

//! What the model's CPU must have put between memory and registers, and the driver does.

use std::sync::atomic::Ordering::SeqCst;

use smmu::platform::{Platform, Registers};
use tests::model::{Config, Law, Opcode, PageRequest};

use super::bench::{Bench, EVENTQ_CONS, EVENTQ_PROD, GERRORN, SYNC, touch};

/// PRIQ_PROD and PRIQ_CONS.
const PRIQ: [usize; 2] = [0x100c8, 0x100cc];

#[test]
fn records_are_read_between_two_barriers() {
    for (passed, laws) in [(0, vec![Law::Barrier]), (1, vec![Law::Barrier]), (2, vec![])] {
        let bench = Bench::new(Config::full());
        for [producer, consumer] in [[EVENTQ_PROD, EVENTQ_CONS], PRIQ] {
            // Those of before do not count.
            (0..2).for_each(|_| bench.model.platform().read_barrier());
            assert!(touch(&bench.device(), 0).is_err());
            bench.device().request_page(&PageRequest {
                address: 0,
                read: true,
                write: false,
                execute: false,
                last: true,
                group: 1,
            });
            let found = bench.registers.read32(producer);
            (0..passed).for_each(|_| bench.model.platform().read_barrier());
            bench.registers.write32(consumer, found);
            assert_eq!(bench.broken_laws(), laws, "{passed} at {consumer:#x}");
        }
    }
}

#[test]
fn a_queue_without_news_needs_no_barrier() {
    let bench = Bench::new(Config::qemu());
    assert!(touch(&bench.device(), 0).is_err());
    let found = bench.registers.read32(EVENTQ_PROD);
    (0..2).for_each(|_| bench.model.platform().read_barrier());
    bench.registers.write32(EVENTQ_CONS, found);
    assert_eq!(bench.registers.read32(EVENTQ_PROD), found);
    bench.registers.write32(EVENTQ_CONS, found);
    assert_eq!(bench.broken_laws(), []);
}

/// Has the queue stop at a command that is none, and returns the place of its first word.
fn stopped(bench: &mut Bench) -> usize {
    bench.send(&[[0xff, 0]]);
    assert_eq!(bench.broken_laws(), [Law::Command]);
    (bench.produced as usize - 1) * 2
}

#[test]
fn a_command_that_was_put_right_is_in_memory_before_the_queue_goes_on() {
    let mut bench = Bench::new(Config::qemu());
    let slot = stopped(&mut bench);
    bench.commands.words()[slot].store(SYNC[0], SeqCst);
    bench.registers.write32(GERRORN, 1);
    assert_eq!(bench.broken_laws(), [Law::Barrier], "none");
    let slot = stopped(&mut bench);
    bench.model.platform().write_barrier();
    bench.commands.words()[slot].store(SYNC[0], SeqCst);
    bench.registers.write32(GERRORN, 0);
    assert_eq!(bench.broken_laws(), [Law::Barrier], "too early");
    let slot = stopped(&mut bench);
    bench.commands.words()[slot].store(SYNC[0], SeqCst);
    bench.model.platform().write_barrier();
    bench.registers.write32(GERRORN, 1);
    assert_eq!(bench.broken_laws(), []);
    // A command that is sent again as it is.
    bench.model.inject(|faults| faults.refuse = Some((Opcode::CfgiSteRange, 2)));
    bench.send(&[[0x04, 31]]);
    bench.registers.write32(GERRORN, 0);
    assert_eq!(bench.broken_laws(), []);
}

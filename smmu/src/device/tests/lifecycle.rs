//! Phases: asleep, awake, closed, and who waits for whom.

use super::*;
use crate::device::EventDrain;
use crate::platform::Platform;

const PRIQEN: u32 = 2;

#[test]
fn a_resume_that_fails_late_leaves_nothing_switched_on_and_may_be_repeated() {
    let (_, fake, smmu) = running();
    smmu.enable_interrupts().unwrap();
    smmu.suspend().unwrap();
    // By then it translates.
    fake.ignore(|offset, value| offset == IRQ_CTRL && value != 0);
    assert_eq!(timed_out(smmu.resume()), "IRQ_CTRLACK");
    assert!(smmu.is_suspended());
    assert_eq!(fake.get(CR0ACK), 0);
    // As if it had lost its power.
    fake.set(EVENTQ_BASE, 0);
    fake.set(EVENTQ_PROD, 5);
    assert_eq!(smmu.drain_events(|_| {}), EventDrain::default());
    fake.ignore(|_, _| false);
    smmu.resume().unwrap();
    assert_eq!(fake.get(CR0ACK), 0xd);
    assert_ne!(fake.get(EVENTQ_BASE), 0);
}

#[test]
fn page_requests_that_could_not_be_enabled_are_not_taken_for_enabled() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    // ATS and PRI.
    fake.set(IDR0, 0x0d45_141b);
    let smmu = bring_up(platform, &fake).unwrap();
    fake.ignore(|offset, value| offset == CR0 && value & PRIQEN != 0);
    for _ in 0..2 {
        assert_eq!(timed_out(smmu.enable_page_requests()), "CR0ACK");
    }
    fake.ignore(|_, _| false);
    smmu.enable_page_requests().unwrap();
    assert_eq!(fake.get(CR0ACK) & PRIQEN, PRIQEN);
}

#[test]
fn who_switches_on_what_another_cpu_has_closed_is_told() {
    let (_, fake, smmu) = running();
    smmu.close().unwrap();
    assert_eq!(smmu.control.enables.set(&smmu.control, 1), Err(DeviceError::Closed));
    assert_eq!((fake.get(CR0), fake.get(CR0ACK)), (0, 0));
}

#[test]
fn an_smmu_does_not_go_to_sleep_while_somebody_is_at_its_registers() {
    let (_, fake, smmu) = running();
    let held = smmu.lifecycle.hold_running().unwrap();
    assert!(matches!(smmu.suspend(), Err(DeviceError::Busy { .. })));
    assert!(!smmu.is_suspended());
    assert_eq!(fake.get(CR0ACK), 0xd);
    drop(held);
    smmu.suspend().unwrap();
    assert!(smmu.lifecycle.hold_running().is_err() && smmu.lifecycle.hold_registers().is_none());
    smmu.resume().unwrap();
}

/// A change that the SMMU has lost is made again: what one CPU writes while another's change is under way may be ignored.
#[test]
fn a_close_that_was_lost_is_made_good_by_the_next() {
    let (_, fake, smmu) = running();
    let mut lost = 0;
    fake.ignore(move |offset, value| {
        lost += u32::from(offset == CR0 && value == 0);
        offset == CR0 && value == 0 && lost == 1
    });
    assert_eq!(timed_out(smmu.close()), "CR0ACK");
    assert_eq!(fake.get(CR0ACK), 0xd);
    smmu.close().unwrap();
    assert_eq!(fake.get(CR0ACK), 0);
}

#[test]
fn a_change_waits_for_the_one_before() {
    let (platform, fake, smmu) = running();
    let started = platform.now();
    smmu.control.enables.set(&smmu.control, 1).unwrap();
    assert_eq!(platform.now(), started, "nothing is under way");
    // Somebody has switched page requests off, and the SMMU has not got to it.
    fake.set(CR0ACK, 0xf);
    smmu.close().unwrap();
    assert!(platform.now() > started, "in the end it is told all the same");
    assert_eq!(fake.get(CR0ACK), 0);
}

#[test]
fn who_closes_second_waits_for_who_is_at_it() {
    let (platform, _, smmu) = running();
    // Another CPU has got this far.
    let closing = smmu.lifecycle.closing();
    smmu.lifecycle.close();
    let before = platform.now();
    assert_eq!(smmu.close(), Ok(()));
    assert!(platform.now() > before, "it waits for the other");
    drop(closing);
}

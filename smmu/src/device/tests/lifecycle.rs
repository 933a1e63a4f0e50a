//! Phases: asleep, awake, closed, and who waits for whom.

use super::*;
use crate::device::EventDrain;

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

//! GERROR against GERRORN. The fake panics when an error is acknowledged that is not active.

use super::*;

#[test]
fn each_error_is_reported_and_acknowledged_once() {
    let (platform, fake, smmu) = running();
    // EVENTQ_ABT_ERR, MSI_EVENTQ_ABT_ERR, SFM_ERR; then all again, which toggles them back.
    for bits in [1 << 2, 1 << 5 | 1 << 8, 0x1fc, 0x1fc] {
        fake.raise(bits);
        platform.journal();
        assert_eq!(smmu.handle_global_errors().bits(), bits);
        assert_eq!(fake.get(GERROR), fake.get(GERRORN));
        assert!(smmu.handle_global_errors().is_empty());
    }
}

#[test]
fn an_error_that_the_driver_does_not_know_is_left_alone() {
    let (_, fake, smmu) = running();
    fake.raise(1 << 9 | 1 << 10 | 1 << 2);
    assert_eq!(smmu.handle_global_errors().bits(), 1 << 2);
    assert_eq!(fake.get(GERROR) ^ fake.get(GERRORN), 1 << 9 | 1 << 10);
}

//! Random sequences over QEMU's SMMU, one machine for many.
//!
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask for other sequences than the usual ones; a failure names the seed.

use std::cell::RefCell;
use std::env;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use qemu::machine::{Iommu, Stage};
use smmu::addr::{Iova, StreamId};
use smmu::iommu::PagingDomain;
use tests::qtest::{QtestBackend, QtestError, QtestPlatform, QtestRegisters};
use tests::sequence::{Backend, Bench, Deviation, Step, Tally, steps};

use crate::setup::QEMU;

/// Steps of a sequence.
const STEPS: usize = 50;
/// Sequences on each machine: with three machines more than 2000.
const SEQUENCES: u32 = 700;
/// How many shorter or simpler sequences are tried after a failure.
const SHRINKING: u32 = 300;

/// The sequences that follow from `seed`, unless others are asked for.
fn config(seed: u64) -> Config {
    let usual = Config::default();
    let cases = if env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { SEQUENCES };
    let rng_seed = if usual.rng_seed == RngSeed::Random { RngSeed::Fixed(seed) } else { usual.rng_seed };
    Config { cases, rng_seed, failure_persistence: None, max_shrink_iters: SHRINKING, ..usual }
}

/// Runs random sequences, and returns what they brought about, or the shortest sequence that fails, and why.
fn run(backend: impl Backend, config: Config) -> Result<Tally, (String, Vec<Step>)> {
    let bench = RefCell::new(Bench::new(backend));
    let tally = RefCell::new(Tally::default());
    let result = TestRunner::new(config).run(&steps(STEPS), |steps| {
        let result = bench.borrow_mut().run(&steps, &mut tally.borrow_mut());
        result.map_err(|failure| TestCaseError::fail(failure.to_string()))
    });
    match result {
        Ok(()) => Ok(tally.into_inner()),
        Err(TestError::Fail(reason, steps)) => Err((reason.to_string(), steps)),
        Err(TestError::Abort(reason)) => Err((reason.to_string(), Vec::new())),
    }
}

/// Fails unless all goes well and something of everything happened.
#[track_caller]
fn check(stage: Stage, deviations: &[Deviation]) {
    let config = config(stage as u64);
    let (seed, sequences) = (config.rng_seed, u64::from(config.cases));
    let backend = QtestBackend::new(&QEMU, Iommu::SmmuV3Stage(stage)).unwrap();
    let tally = run(backend, config).unwrap_or_else(|(reason, steps)| {
        panic!("stage {}, {seed:?}: {reason}\nthe shortest sequence that fails: {steps:#?}", stage.name())
    });
    println!("{tally:#?}");
    let Tally { attached, mapped, unmapped, refused, reached, stopped, .. } = tally;
    assert!(attached >= 3 * sequences && mapped > 5 * sequences && unmapped > 2 * sequences, "{tally:#?}");
    assert!(refused > sequences && reached > 5 * sequences && stopped > 5 * sequences, "{tally:#?}");
    assert!(tally.deviations.keys().eq(deviations), "{tally:#?}");
}

#[test]
fn an_smmu_with_stage_1() {
    check(Stage::One, &[]);
}

#[test]
fn an_smmu_with_stage_2() {
    check(Stage::Two, &[Deviation::CachedStage2Permission, Deviation::Stage2InputRange]);
}

#[test]
fn an_smmu_with_both_stages() {
    check(Stage::Nested, &[]);
}

#[test]
fn a_seed_makes_the_same_sequences_again() {
    let few = || Config { cases: 5, rng_seed: RngSeed::Fixed(0), ..config(0) };
    let backend = || QtestBackend::new(&QEMU, Iommu::SmmuV3).unwrap();
    assert_eq!(run(backend(), few()).unwrap(), run(backend(), few()).unwrap());
    let others = Config { rng_seed: RngSeed::Fixed(1), ..few() };
    assert_ne!(run(backend(), few()).unwrap(), run(backend(), others).unwrap());
}

/// A machine whose devices, when told to write to the last of 16 words, write to the one before.
struct Astray(QtestBackend<'static>);

impl Backend for Astray {
    type Platform = QtestPlatform;
    type Error = QtestError;

    fn platform(&self) -> &'static QtestPlatform {
        self.0.platform()
    }

    fn restore(&mut self) -> Result<(), QtestError> {
        self.0.restore()
    }

    fn registers(&self) -> QtestRegisters {
        self.0.registers()
    }

    fn streams(&self) -> Vec<StreamId> {
        self.0.streams()
    }

    fn attached(&mut self, device: usize, domain: &PagingDomain<QtestPlatform>) -> Result<(), QtestError> {
        self.0.attached(device, domain)
    }

    fn detached(&mut self, device: usize) {
        self.0.detached(device);
    }

    fn word(&self, device: usize, index: u16) -> u32 {
        self.0.word(device, index)
    }

    fn write(&mut self, device: usize, iova: Iova, index: u16) -> Result<(), QtestError> {
        let astray = if iova.get() % 64 == 60 { Iova::new(iova.get() - 4) } else { iova };
        self.0.write(device, astray, index)
    }

    fn read(&mut self, device: usize, iova: Iova) -> Result<Option<u32>, QtestError> {
        self.0.read(device, iova)
    }

    fn bytes_in_use(&self) -> Option<u64> {
        self.0.bytes_in_use()
    }

    fn is_known_for(&self, deviation: Deviation) -> bool {
        self.0.is_known_for(deviation)
    }
}

#[test]
fn what_goes_wrong_is_found_and_the_sequence_shortened() {
    let backend = Astray(QtestBackend::new(&QEMU, Iommu::SmmuV3).unwrap());
    let (reason, steps) = run(backend, config(0)).unwrap_err();
    assert!(reason.contains("expected"), "{reason}");
    // It is seen in the event if it is stopped, and in memory otherwise, for which the page must be mapped.
    assert!(matches!(steps.last(), Some(Step::Write { .. })) && steps.len() <= 3, "{reason}: {steps:#?}");
}

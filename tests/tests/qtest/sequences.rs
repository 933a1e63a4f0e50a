//! Random sequences over QEMU's SMMU, one machine for many, and over the model beside it.
//!
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask for other sequences than the usual ones, of which nothing is required but that
//! they go well; a failure names the seed and the steps.

use std::fmt::Debug;

use proptest::test_runner::{Config, RngSeed};
use qemu::machine::{Iommu, Stage};
use smmu::addr::{Iova, StreamId};
use smmu::iommu::PagingDomain;
use smmu::pgtable;
use tests::model::{self, ModelBackend};
use tests::qtest::{QtestBackend, QtestError, QtestPlatform, QtestRegisters};
use tests::sequence::{
    Backend, Bench, Counterexample, Deviation, Flaw, Step, Tally, are_usual, config, difference, search,
};

use crate::setup::QEMU;

/// Sequences on each machine: with three machines more than 2000.
const SEQUENCES: u32 = 700;

/// Runs random sequences, and returns what they brought about, or the shortest sequence that fails, and why.
fn run(backend: impl Backend, config: Config) -> Result<Tally, Counterexample> {
    let (mut bench, mut tally) = (Bench::new(backend), Tally::default());
    search(config, |steps| bench.run(steps, &mut tally).map(drop))?;
    Ok(tally)
}

/// Runs random sequences on QEMU and, step by step the same, on a model of `hardware`, and compares what came of each
/// access. Returns what they brought about on QEMU.
fn compare(stage: Stage, hardware: model::Config, config: Config) -> Result<Tally, Counterexample> {
    let backend = QtestBackend::new(&QEMU, Iommu::SmmuV3Stage(stage)).unwrap();
    let model = ModelBackend::new(hardware, backend.streams());
    let (mut qemu, mut model) = (Bench::new(backend), Bench::new(model));
    let (mut tally, mut on_model) = (Tally::default(), Tally::default());
    search(config, |steps| {
        let on_qemu = qemu.run(steps, &mut tally).map_err(|failure| format!("QEMU: {failure}"))?;
        let on_model = model.run(steps, &mut on_model).map_err(|failure| format!("the model: {failure}"))?;
        difference(&on_qemu, &on_model)
            .map_or(Ok(()), |found| Err(format!("QEMU is the one, the model the other: {found}")))
    })?;
    assert_eq!(made(&tally), made(&on_model), "QEMU and the model");
    Ok(tally)
}

/// What came of the steps other than accesses.
fn made(tally: &Tally) -> impl PartialEq + Debug {
    let Tally { skipped, attached, moved, overwritten, mapped, unmapped, refused, .. } = *tally;
    ((skipped, attached, moved, overwritten, mapped, unmapped, refused), tally.flawed.clone())
}

/// Fails unless all goes well and something of everything happened.
#[track_caller]
fn check(stage: Stage, hardware: model::Config, deviations: &[Deviation]) {
    let config = config(SEQUENCES, stage as u64);
    let sequences = u64::from(config.cases);
    let tally = compare(stage, hardware, config).unwrap_or_else(|found| panic!("stage {}: {found}", stage.name()));
    println!("{tally:#?}");
    assert!(tally.deviations.keys().all(|deviation| deviations.contains(deviation)), "{tally:#?}");
    if !are_usual() {
        return;
    }
    let Tally { attached, moved, overwritten, mapped, unmapped, refused, reached, stopped, .. } = tally;
    assert!(attached >= 3 * sequences && mapped > 5 * sequences && unmapped > 2 * sequences, "{tally:#?}");
    assert!(refused > sequences && reached > 4 * sequences && stopped > 5 * sequences, "{tally:#?}");
    assert!(moved > sequences && overwritten > sequences / 3, "{tally:#?}");
    let domain_stage = if stage == Stage::Two { pgtable::Stage::Stage2 } else { pgtable::Stage::Stage1 };
    let flaws = Flaw::ALL.into_iter().filter(|flaw| flaw.matters(domain_stage, stage == Stage::Nested));
    assert!(tally.flawed.keys().copied().eq(flaws), "{tally:#?}");
    assert!(tally.deviations.keys().eq(deviations), "{tally:#?}");
}

#[test]
fn an_smmu_with_stage_1() {
    check(
        Stage::One,
        model::Config { s2p: false, ..model::Config::qemu() },
        &[Deviation::ContextPointerFollowed, Deviation::IgnoredStage1Fields],
    );
}

#[test]
fn an_smmu_with_stage_2() {
    check(
        Stage::Two,
        model::Config { s1p: false, ..model::Config::qemu() },
        &[
            Deviation::CachedStage2Permission,
            Deviation::Stage2InputRange,
            Deviation::IgnoredStage1Fields,
            Deviation::HardwareUpdate,
        ],
    );
}

#[test]
fn an_smmu_with_both_stages() {
    check(Stage::Nested, model::Config::qemu(), &[Deviation::ContextPointerFollowed, Deviation::IgnoredStage1Fields]);
}

#[test]
fn a_seed_makes_the_same_sequences_again() {
    let few = || Config { cases: 5, rng_seed: RngSeed::Fixed(0), ..config(SEQUENCES, 0) };
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

    fn attached(&mut self, device: usize, domain: &dyn PagingDomain<QtestPlatform>) -> Result<(), QtestError> {
        self.0.attached(device, domain)
    }

    fn overwriting(&mut self, device: usize) {
        self.0.overwriting(device);
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
    let Counterexample { reason, steps, .. } = run(backend, config(SEQUENCES, 0)).unwrap_err();
    assert!(reason.contains("expected"), "{reason}");
    // It is seen in the event if it is stopped, and in memory otherwise, for which the page must be mapped.
    assert!(matches!(steps.last(), Some(Step::Write { .. })) && steps.len() <= 3, "{reason}: {steps:#?}");
}

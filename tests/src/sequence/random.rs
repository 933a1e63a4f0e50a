//! The search for a sequence that goes wrong.

use std::cell::RefCell;
use std::env;
use std::fmt;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use super::step::{Step, steps};

/// Steps of a sequence.
const STEPS: usize = 50;
/// How many shorter or simpler sequences are tried after a failure.
const SHRINKING: u32 = 300;

/// The shortest sequence found that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Counterexample {
    /// How it goes wrong.
    pub reason: String,
    /// What it is.
    pub steps: Vec<Step>,
    /// The seed that the sequence it was made from follows from.
    pub seed: RngSeed,
}

/// How many sequences, and the number from which they follow, if it is not the usual ones that are asked for.
const VARIABLES: [&str; 2] = ["PROPTEST_CASES", "PROPTEST_RNG_SEED"];

/// Whether the environment asks for no other sequences than the usual ones: only of those is it known how often what happens.
#[must_use]
pub fn are_usual() -> bool {
    VARIABLES.into_iter().all(|variable| env::var_os(variable).is_none())
}

/// `sequences` sequences, those that follow from `seed`; or as many and from the seed that `PROPTEST_CASES` and
/// `PROPTEST_RNG_SEED` ask for.
///
/// # Panics
///
/// If one of these is not a number.
#[must_use]
pub fn config(sequences: u32, seed: u64) -> Config {
    for variable in VARIABLES {
        let value = env::var(variable).unwrap_or_else(|_| "0".into());
        assert!(value.parse::<u64>().is_ok(), "{variable} is {value:?} instead of a number");
    }
    let usual = Config::default();
    let cases = if env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { sequences };
    let rng_seed = if usual.rng_seed == RngSeed::Random { RngSeed::Fixed(seed) } else { usual.rng_seed };
    Config { cases, rng_seed, failure_persistence: None, max_shrink_iters: SHRINKING, ..usual }
}

/// Makes up sequences of 50 steps and lets `run` run them, until one fails. That one is made as short and simple as it can
/// be, by running others like it.
///
/// # Errors
///
/// [`Counterexample`] if one failed.
pub fn search<E: fmt::Display>(
    config: Config,
    run: impl FnMut(&[Step]) -> Result<(), E>,
) -> Result<(), Counterexample> {
    let (run, seed) = (RefCell::new(run), config.rng_seed);
    let result = TestRunner::new(config).run(&steps(STEPS), |steps| {
        (run.borrow_mut())(&steps).map_err(|failure| TestCaseError::fail(failure.to_string()))
    });
    result.map_err(|error| match error {
        TestError::Fail(reason, steps) => Counterexample { reason: reason.to_string(), steps, seed },
        TestError::Abort(reason) => Counterexample { reason: reason.to_string(), steps: Vec::new(), seed },
    })
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, steps, seed } = self;
        if let RngSeed::Fixed(seed) = seed {
            write!(f, "PROPTEST_RNG_SEED={seed} makes it again: ")?;
        }
        write!(f, "{reason}\nthe shortest sequence that fails: {steps:#?}")
    }
}

//! Random sequences of what a kernel does with the driver and devices do with memory, and what must come of them.
//!
//! What lives here: steps and how they are made up ([`Step`], [`steps`]), what is to be expected of each, in the plainest
//! terms (`expectation`; [`Flaw`] for stream table entries that the test spoils); the [`Bench`] that makes the steps with
//! the real driver over a [`Backend`] and compares; the [`difference`] of two backends; and the [`search`] for a sequence
//! that goes wrong. What does not: the backends, and how many sequences are run (the tests).

mod access;
mod backend;
mod bench;
mod comparison;
mod expectation;
mod failure;
mod flaw;
mod overwrite;
mod random;
mod run;
mod step;

pub use access::Observation;
pub use backend::{Backend, Deviation, signature};
pub use bench::{Bench, Tally};
pub use comparison::{Difference, difference};
pub use expectation::{MapAnswer, UnmapAnswer};
pub use failure::{Failure, Mismatch};
pub use flaw::Flaw;
pub use random::{Counterexample, are_usual, config, search};
pub use step::{Address, Place, Spot, Step, steps};

//! Random sequences over the model, with caches of both extremes.
//!
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask for other sequences than the usual ones, of which nothing is required but that
//! they go well; a failure names the seed and the steps.

use smmu::addr::StreamId;
use tests::model::{Caching, Config, ModelBackend, Pace};
use tests::sequence::{Bench, Tally, are_usual, config, search};

/// Sequences with each kind of caches: with three kinds of SMMUs more than 4000.
const SEQUENCES: u32 = 700;
/// The same on SMMUs that take longer over each.
const FEWER: u32 = 100;
/// Two in one second level of the stream table, one in another.
const STREAMS: [u32; 3] = [8, 16, 0x310];

/// Fails unless all goes well and something of everything happened, with either kind of caches.
#[track_caller]
fn check(hardware: &Config, sequences: u32, streams: [u32; 3]) {
    for (seed, caching) in [(0, Caching::Greedy), (1, Caching::Dropping { percent: 30 })] {
        let config = config(sequences, seed);
        let sequences = u64::from(config.cases);
        let backend = ModelBackend::new(Config { caching, ..hardware.clone() }, streams.map(StreamId::new).into());
        let (mut bench, mut tally) = (Bench::new(backend), Tally::default());
        search(config, |steps| bench.run(steps, &mut tally).map(drop))
            .unwrap_or_else(|found| panic!("{caching:?}: {found}"));
        assert!(tally.deviations.is_empty(), "{tally:#?}");
        if !are_usual() {
            continue;
        }
        let Tally { attached, moved, overwritten, mapped, unmapped, refused, reached, stopped, .. } = tally;
        assert!(attached >= 3 * sequences && mapped > 5 * sequences && unmapped > 2 * sequences, "{tally:#?}");
        assert!(refused > sequences && reached > 4 * sequences && stopped > 5 * sequences, "{tally:#?}");
        assert!(moved > sequences && overwritten > sequences / 3, "{tally:#?}");
    }
}

#[test]
fn an_smmu_with_both_stages() {
    check(&Config::qemu(), SEQUENCES, STREAMS);
}

#[test]
fn an_smmu_with_stage_1() {
    check(&Config { s2p: false, ..Config::qemu() }, SEQUENCES, STREAMS);
}

#[test]
fn an_smmu_with_stage_2() {
    check(&Config { s1p: false, ..Config::qemu() }, SEQUENCES, STREAMS);
}

/// An SMMU for which the flaws are flaws: as wide as QEMU's, without stalls, substreams and updates of descriptors.
fn with_flaws(config: Config) -> Config {
    let Config { oas, stall_model, stall_max, ssidsize, httu, ttendian, stt, .. } = Config::qemu();
    Config { oas, stall_model, stall_max, ssidsize, httu, ttendian, stt, ..config }
}

#[test]
fn the_least_of_smmus() {
    // It has 64 StreamIDs.
    check(&with_flaws(Config::minimal()), FEWER, [8, 16, 0x31]);
}

#[test]
fn an_smmu_with_everything() {
    // A second level of its stream table has 1024 StreamIDs.
    check(&with_flaws(Config { pace: Pace::After(2), ..Config::full() }), FEWER, [8, 16, 0x2310]);
}

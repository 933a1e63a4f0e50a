//! The laws of nested streams, whose contexts lie behind stage 2; and tables that change while hardware updates them.

use tests::model::{Config, Law};

use super::bench::{CD0, STREAM, SYNC, put, touch, word};
use super::tables::Tables;

/// STE.Config of both stages.
const NESTED: u64 = 0b111;

#[test]
fn a_live_context_behind_stage_2_changes_in_one_store() {
    let mut tables = Tables::new(Config::full(), false);
    tables.set(NESTED, 0);
    assert_eq!(touch(&tables.bench.device(), 0), Ok(0));
    // A word at a time is well.
    put(&tables.contexts, 0, word(&tables.contexts, 0) ^ 1 << 45);
    tables.bench.run(&[[0x05 | u64::from(STREAM) << 32, 1]]);
    assert_eq!(tables.bench.broken_laws(), []);
    put(&tables.contexts, 0, CD0 | 38 | 5 << 32);
    put(&tables.contexts, 1, tables.last.physical().get());
    tables.bench.run(&[SYNC]);
    assert_eq!(tables.bench.broken_laws(), [Law::LiveEntry]);
}

#[test]
fn an_illegal_context_behind_stage_2_is_noticed() {
    let mut tables = Tables::new(Config::full(), false);
    // T0SZ 49.
    put(&tables.contexts, 0, CD0 | 49 | 5 << 32);
    tables.set(NESTED, 0);
    assert_eq!(tables.bench.broken_laws(), [Law::IllegalEntry]);
    // Where stage 2 maps nothing there is no context.
    put(&tables.stage2, 2, 0);
    tables.bench.run(&[[0x03 | u64::from(STREAM) << 32, 1], [0x30, 0]]);
    let _ = tables.bench.broken_laws();
    tables.bench.run(&[SYNC]);
    assert_eq!(tables.bench.broken_laws(), []);
}

#[test]
fn what_is_behind_stage_2_is_not_freed() {
    for freed in 0..3 {
        let mut tables = Tables::new(Config::full(), false);
        tables.set(NESTED, 0);
        let other = tables.bench.buffer(4096);
        let place = match freed {
            0 => &mut tables.contexts,
            1 => &mut tables.table,
            _ => &mut tables.data,
        };
        drop(std::mem::replace(place, other));
        assert_eq!(tables.bench.broken_laws(), [Law::FreedWhileReachable], "{freed}");
        tables.bench.set_ste(STREAM, &[0]);
        let _ = tables.bench.broken_laws();
    }
}

#[test]
fn what_a_cpu_stored_first_is_not_lost_to_an_update() {
    // HA: hardware sets the access flag of page 0.
    let mut tables = Tables::new(Config::full(), false);
    put(&tables.contexts, 0, word(&tables.contexts, 0) | 1 << 43);
    tables.set(0b101, 0);
    let device = tables.bench.device();
    let (leaf, place) = (word(&tables.last, 0) & !(1 << 10), tables.last.physical().get());
    put(&tables.last, 0, leaf);
    tables.bench.model.inject(|faults| faults.meanwhile = Some((place, 0)));
    assert!(touch(&device, 0).is_err(), "unmapped meanwhile");
    assert_eq!(word(&tables.last, 0), 0);
    // Another page meanwhile: the walk begins anew, and it is that one's flag that is set.
    let other = tables.bench.buffer(4096);
    put(&other, 0, 0x77);
    let moved = leaf & 0xfff | other.physical().get();
    put(&tables.last, 0, leaf);
    tables.bench.model.inject(|faults| faults.meanwhile = Some((place, moved)));
    assert_eq!(touch(&device, 0), Ok(0x77));
    assert_eq!(word(&tables.last, 0), moved | 1 << 10);
    tables.bench.set_ste(STREAM, &[0]);
    tables.bench.run(&[[0x30, 0]]);
}

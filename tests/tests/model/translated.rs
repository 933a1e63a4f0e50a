//! Translation requests and Translated transactions by the configuration of their stream (IHI 0070, 3.9 and 7.3).

use smmu::addr::Iova;
use tests::model::{AtsRefused, AtsTranslation, Config, Refused};

use super::bench::{Bench, STREAM, put, word};
use super::tables::{HOLE, Tables};

const C_BAD_STE: u8 = 0x04;
const F_BAD_ATS_TREQ: u8 = 0x05;
const F_TRANSL_FORBIDDEN: u8 = 0x07;
const C_BAD_SUBSTREAMID: u8 = 0x08;
const C_BAD_CD: u8 = 0x0a;
const F_WALK_EABT: u8 = 0x0b;
const F_TRANSLATION: u8 = 0x10;

#[test]
fn translated_transactions_go_by_config_and_eats() {
    let forbidden = vec![F_TRANSL_FORBIDDEN];
    for (config, eats, passes, events) in [
        (0b000, 1, false, vec![]),
        (0b100, 1, false, forbidden.clone()),
        (0b101, 0, false, forbidden.clone()),
        (0b101, 1, true, vec![]),
        // Without DPT as good as 0.
        (0b101, 3, false, forbidden.clone()),
        (0b110, 0, false, forbidden),
        (0b110, 1, true, vec![]),
        (0b111, 1, true, vec![]),
    ] {
        for writes in [false, true] {
            let mut tables = Tables::new(Config::full(), true);
            tables.set(config, eats);
            let (device, physical) = (tables.bench.device(), tables.data.physical().get());
            let result = match writes {
                true => device.forge_translated(physical, &[0x5a]),
                false => device.forge_translated_read(physical, &mut [0]),
            };
            assert_eq!(result.is_ok(), passes, "Config {config:03b}, EATS {eats}");
            assert_eq!(word(&tables.data, 0), if passes && writes { 0x5a } else { 0 });
            assert_eq!(tables.bench.event_numbers(), events, "Config {config:03b}, EATS {eats}");
            for record in tables.bench.model.log().events() {
                assert_eq!((record.0[1] >> 35 & 1 == 0, record.input()), (writes, physical));
            }
            let _ = tables.bench.broken_laws();
        }
    }
}

#[test]
fn configuration_errors_are_recorded_for_who_wants_to_know() {
    for recording in [false, true] {
        let events = |numbers: &[u8]| if recording { numbers.to_vec() } else { vec![] };
        let abort = Err(AtsRefused::CompleterAbort);
        let mut tables = Tables::new(Config::full(), recording);
        tables.bench.set_ste(STREAM, &[0]);
        assert_eq!(tables.request(0), abort);
        assert_eq!(tables.bench.device().forge_translated(tables.data.physical().get(), &[1]), Err(Refused::Aborted));
        assert_eq!(tables.bench.event_numbers(), events(&[C_BAD_STE, C_BAD_STE]));
        let mut tables = Tables::new(Config::full(), recording);
        put(&tables.contexts, 0, 0);
        tables.set(0b101, 1);
        assert_eq!(tables.request(0), abort);
        assert_eq!(tables.bench.event_numbers(), events(&[C_BAD_CD]));
        let mut tables = Tables::new(Config::full(), recording);
        tables.set(0b101, 1);
        assert_eq!(tables.bench.device().substream(1).request_translation(Iova::new(0), false), abort);
        assert_eq!(tables.bench.event_numbers(), events(&[C_BAD_SUBSTREAMID]));
        let mut tables = Tables::new(Config::full(), recording);
        tables.set(0b101, 1);
        let table = tables.table.physical().get();
        tables.bench.model.platform().abort_at(table..table + 8);
        assert_eq!(tables.request(0), abort);
        assert_eq!(tables.bench.event_numbers(), events(&[F_WALK_EABT]));
    }
}

#[test]
fn what_is_not_mapped_is_an_answer_and_what_is_not_asked_for_none() {
    for (config, page) in [(0b101, HOLE), (0b111, 0)] {
        let mut tables = Tables::new(Config::full(), true);
        tables.set(config, 1);
        let data = tables.data.physical().get();
        assert_eq!(tables.request(0x123), Ok(AtsTranslation { physical: data, read: true, write: true }));
        assert_eq!(tables.request(0x1000), Ok(AtsTranslation { physical: data, read: true, write: false }));
        let beyond = tables.request(0x2000);
        let hole = AtsTranslation { physical: page, read: page != 0, write: page != 0 };
        assert_eq!(beyond, Ok(hole), "stage 1 alone maps it");
        assert_eq!(tables.request(0x3000), Ok(AtsTranslation { physical: 0, read: false, write: false }));
        let device = tables.bench.device();
        assert_eq!(device.read_translated(Iova::new(0x1000), &mut [0]), Ok(()));
        assert_eq!(device.write_translated(Iova::new(0x1000), &[1]), Err(Refused::Aborted), "the ATC knows");
        assert_eq!(device.read_translated(Iova::new(0x3000), &mut [0]), Err(Refused::Aborted), "nothing there");
        assert!(tables.bench.event_numbers().is_empty());
    }
}

#[test]
fn requests_of_streams_without_ats_are_unsupported() {
    let unsupported = Err(AtsRefused::UnsupportedRequest);
    for (config, events) in [(0b000, vec![]), (0b100, vec![F_BAD_ATS_TREQ]), (0b101, vec![F_BAD_ATS_TREQ])] {
        let mut tables = Tables::new(Config::full(), true);
        tables.set(config, u64::from(config != 0b101));
        assert_eq!(tables.request(0), unsupported);
        assert_eq!(tables.bench.event_numbers(), events, "Config {config:03b}");
        let _ = tables.bench.broken_laws();
    }
    let bench = Bench::new(Config::full());
    bench.registers_off();
    assert_eq!(bench.device().request_translation(Iova::new(0), false), unsupported);
    assert_eq!(bench.device().forge_translated(0x8000_0000, &[1]), Err(Refused::Aborted));
    assert_eq!(bench.event_numbers(), [F_BAD_ATS_TREQ, F_TRANSL_FORBIDDEN]);
}

#[test]
fn split_stage_ats_translates_the_rest_later() {
    let mut tables = Tables::new(Config::full(), true);
    tables.set(0b111, 2);
    let (device, data) = (tables.bench.device(), tables.data.physical().get());
    assert_eq!(tables.request(0), Ok(AtsTranslation { physical: data, read: true, write: true }));
    assert_eq!(tables.request(0x1000), Ok(AtsTranslation { physical: data, read: true, write: false }));
    // Stage 1 alone says where it leads, and stage 2 whether one gets there.
    assert_eq!(tables.request(0x2000), Ok(AtsTranslation { physical: HOLE, read: true, write: true }));
    assert_eq!(device.write_translated(Iova::new(8), &[0x5a]), Ok(()));
    assert_eq!(word(&tables.data, 1), 0x5a);
    assert!(tables.bench.event_numbers().is_empty());
    assert_eq!(device.write_translated(Iova::new(0x2000), &[1]), Err(Refused::Aborted));
    let record = tables.bench.event();
    let (stage2, class, mask) = (record.0[1] >> 39 & 1, record.0[1] >> 40 & 3, 0x00ff_ffff_ffff_f000);
    assert_eq!((record.number(), stage2, class, record.0[3] & mask), (F_TRANSLATION, 1, 2, HOLE));
    assert_eq!(device.forge_translated_read(HOLE, &mut [0]), Err(Refused::Aborted), "made up, and stopped");
    // What the device remembers is no physical address: memory may go as soon as stage 2 has let go of it.
    put(&tables.stage2, 2, 0);
    tables.bench.run(&[[0x30, 0]]);
    let others = tables.bench.buffer(4096);
    drop(std::mem::replace(&mut tables.data, others));
    assert_eq!(tables.bench.broken_laws(), []);
    put(&tables.last, 0, 0);

    let mut tables = Tables::new(Config { ns1ats: true, ..Config::full() }, true);
    tables.set(0b111, 2);
    assert_eq!(tables.request(0), Err(AtsRefused::CompleterAbort), "an illegal entry");
    assert_eq!(tables.bench.event_numbers(), [C_BAD_STE]);
    let _ = tables.bench.broken_laws();
}

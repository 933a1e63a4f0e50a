//! Records against literal words.

extern crate std;

use std::format;
use std::string::String;

use proptest::prelude::*;

use super::*;
use crate::testing::tries;

/// Words of which only the fields of each event count; all reserved bits are set.
const JUNK: u64 = u64::MAX;
const WRITE: Access = Access { direction: AccessDirection::Write, instruction: false, privileged: false };
const NO_ACCESS: RequestedAccess = RequestedAccess { read: false, write: false, execute: false };

fn kind(number: u64, words: [u64; 3]) -> EventKind {
    let [word1, word2, word3] = words;
    Event::decode([number, word1, word2, word3]).kind
}

fn show(words: [u64; 4]) -> String {
    format!("{}", Event::decode(words).kind)
}

/// F_TRANSLATION and the like, of stage 1, with these bits in word 1.
fn translation(number: u64, word1: u64) -> TranslationFault {
    match kind(number, [word1, 0, 0]) {
        EventKind::Translation(fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn r24_source() {
    let source = |word0| Event::decode([word0, 0, 0, 0]).source;
    let stream = StreamId::new(u32::MAX);
    assert_eq!(source(0xffff_ffff_0000_0002), Source { stream, substream: None });
    let nobody = StreamId::new(0);
    assert_eq!(source(0xffff_f004), Source { stream: nobody, substream: None }, "no SSV");
    let substream = Some(SubstreamId::new(0xf_ffff));
    assert_eq!(source(0xffff_f804), Source { stream: nobody, substream });
    assert_eq!(source(0x1804).substream, Some(SubstreamId::new(1)));
    assert_eq!(source(0x1806).substream, None, "F_STREAM_DISABLED has none");
    assert_eq!(source(0x1807).substream, None, "F_TRANSL_FORBIDDEN has none");
    assert_eq!(source(0x1008).substream, Some(SubstreamId::new(1)), "C_BAD_SUBSTREAMID has no SSV");
    assert_eq!(Event::decode([0x0000_0008_0000_00ff, 0, 0, 0]).stream(), StreamId::new(8), "unknown events too");
}

#[test]
fn r24_numbers() {
    let names = [
        (0x01, "F_UUT"),
        (0x02, "C_BAD_STREAMID"),
        (0x03, "F_STE_FETCH"),
        (0x04, "C_BAD_STE"),
        (0x05, "F_BAD_ATS_TREQ"),
        (0x06, "F_STREAM_DISABLED"),
        (0x07, "F_TRANSL_FORBIDDEN"),
        (0x08, "C_BAD_SUBSTREAMID"),
        (0x09, "F_CD_FETCH"),
        (0x0a, "C_BAD_CD"),
        (0x0b, "F_WALK_EABT"),
        (0x10, "F_TRANSLATION"),
        (0x11, "F_ADDR_SIZE"),
        (0x12, "F_ACCESS"),
        (0x13, "F_PERMISSION"),
        (0x20, "F_TLB_CONFLICT"),
        (0x21, "F_CFG_CONFLICT"),
        (0x24, "E_PAGE_REQUEST"),
        (0x25, "F_VMS_FETCH"),
    ];
    for number in 0..=0xff {
        let expected = names.iter().find(|(known, _)| *known == number).map_or("unknown event", |(_, name)| name);
        assert_eq!(kind(number, [JUNK; 3]).name(), expected, "{number:#x}");
        assert_eq!(u64::from(kind(number, [JUNK; 3]).number()), number);
        assert_eq!(kind(number, [0; 3]).name(), expected, "{number:#x}");
    }
}

#[test]
fn r24_translation_fault_word_1() {
    let none = translation(0x10, 0);
    assert_eq!(
        none,
        TranslationFault {
            kind: FaultKind::Translation,
            stall: None,
            access: WRITE,
            stage: Stage::Stage1,
            class: FaultClass::Cd,
            input: Iova::new(0),
            ipa: None,
            table_access: None,
        }
    );
    let changed = |word1| translation(0x10, word1);
    assert_eq!(changed(0xffff), none, "STAG without Stall");
    assert_eq!(changed(0x8000_ffff), TranslationFault { stall: Some(Stag::new(0xffff)), ..none });
    assert_eq!(changed(1 << 33), TranslationFault { access: Access { privileged: true, ..WRITE }, ..none });
    assert_eq!(changed(1 << 34), TranslationFault { access: Access { instruction: true, ..WRITE }, ..none });
    let read = Access { direction: AccessDirection::Read, ..WRITE };
    assert_eq!(changed(1 << 35), TranslationFault { access: read, ..none });
    assert_eq!(changed(1 << 39), TranslationFault { stage: Stage::Stage2, ipa: Some(Iova::new(0)), ..none });
    assert_eq!(changed(1 << 40), TranslationFault { class: FaultClass::Tt, ..none });
    assert_eq!(changed(2 << 40), TranslationFault { class: FaultClass::In, ..none });
    assert_eq!(changed(3 << 40), TranslationFault { class: FaultClass::Reserved, ..none });
    assert_eq!(changed(0xffff_fc71_7fff_ffff), none, "reserved bits, STAG without Stall");
}

#[test]
fn r24_translation_fault_addresses() {
    let EventKind::Translation(fault) = kind(0x11, [1 << 39, 0xfedc_ba98_7654_3210, JUNK]) else { panic!() };
    assert_eq!(fault.input, Iova::new(0xfedc_ba98_7654_3210));
    assert_eq!(fault.ipa, Some(Iova::new(0x00ff_ffff_ffff_f000)));
    let EventKind::Translation(fault) = kind(0x11, [0, 0, JUNK]) else { panic!() };
    assert_eq!(fault.ipa, None, "junk in a stage-1 fault");
}

#[test]
fn r24_table_access_is_known_for_permission_faults_of_tables_only() {
    let table_access = |number, word1| translation(number, word1).table_access;
    assert_eq!(table_access(0x13, 1 << 44 | 1 << 40), Some(AccessDirection::Read));
    assert_eq!(table_access(0x13, 1 << 40), Some(AccessDirection::Write));
    assert_eq!(table_access(0x13, 1 << 44 | 2 << 40), None);
    assert_eq!(table_access(0x10, 1 << 44 | 1 << 40), None);
}

#[test]
fn r24_fetches() {
    for (number, what) in [(0x03, FetchKind::Ste), (0x09, FetchKind::Cd), (0x25, FetchKind::Vms)] {
        let fetch = |reason, granule_protection, address| {
            EventKind::Fetch(FetchFault { kind: what, reason, granule_protection, address: PhysAddr::new(address) })
        };
        assert_eq!(kind(number, [0xffff, 0, 0]), fetch(0xffff, false, 0));
        assert_eq!(kind(number, [1 << 16, JUNK, 0]), fetch(0, true, 0));
        assert_eq!(kind(number, [0xffff_ffff_fffe_0000, 0, JUNK]), fetch(0, false, 0x00ff_ffff_ffff_fff8));
    }
}

#[test]
fn r24_walk_abort() {
    let [word1, input, word3] = [1 << 16 | 1 << 39 | 1 << 40 | 1 << 35 | 7, 0x1234, JUNK];
    let expected = EventKind::WalkEabt {
        reason: 7,
        granule_protection: true,
        access: Access { direction: AccessDirection::Read, ..WRITE },
        stage: Stage::Stage2,
        class: FaultClass::Tt,
        input: Iova::new(0x1234),
        address: PhysAddr::new(0x00ff_ffff_ffff_fff8),
    };
    assert_eq!(kind(0x0b, [word1, input, word3]), expected);
}

#[test]
fn r24_unsupported_and_forbidden_transactions() {
    let instruction = Access { instruction: true, ..WRITE };
    let expected = EventKind::Uut { reason: 0xabcd, access: instruction, input: Iova::new(JUNK) };
    assert_eq!(kind(0x01, [0xabcd | 1 << 34, JUNK, JUNK]), expected);
    let forbidden = |direction| EventKind::TranslForbidden { direction, input: Iova::new(5) };
    assert_eq!(kind(0x07, [1 << 35, 5, JUNK]), forbidden(AccessDirection::Read));
    assert_eq!(kind(0x07, [!(1 << 35), 5, JUNK]), forbidden(AccessDirection::Write));
}

#[test]
fn r24_conflicts() {
    let tlb = |word1, ipa: Option<u64>| {
        let stage = if ipa.is_some() { Stage::Stage2 } else { Stage::Stage1 };
        let ipa = ipa.map(Iova::new);
        let expected =
            EventKind::TlbConflict { reason: 0xffff_ffff, access: WRITE, stage, input: Iova::new(JUNK), ipa };
        assert_eq!(kind(0x20, [word1, JUNK, JUNK]), expected);
    };
    tlb(0xffff_ffff, None);
    tlb(0xffff_ffff | 1 << 39, Some(0x00ff_ffff_ffff_f000));
    assert_eq!(kind(0x21, [0xffff_ffff_8000_0001, JUNK, JUNK]), EventKind::CfgConflict { reason: 0x8000_0001 });
}

#[test]
fn r24_refused_translation_request() {
    let input = Iova::new(0xffff_ffff_ffff_f000);
    let refused = |access, privileged, span| EventKind::BadAtsTreq { access, privileged, span, input: Iova::new(0) };
    let decoded = |word1| kind(0x05, [word1, 0xfff, 0]);
    assert_eq!(decoded(0xf), refused(NO_ACCESS, false, 15));
    assert_eq!(decoded(1 << 28), refused(NO_ACCESS, true, 0));
    assert_eq!(decoded(1 << 29), refused(RequestedAccess { execute: true, ..NO_ACCESS }, false, 0));
    assert_eq!(decoded(1 << 30), refused(RequestedAccess { write: true, ..NO_ACCESS }, false, 0));
    assert_eq!(decoded(1 << 31), refused(RequestedAccess { read: true, ..NO_ACCESS }, false, 0));
    let junk = EventKind::BadAtsTreq { access: NO_ACCESS, privileged: false, span: 0, input };
    assert_eq!(kind(0x05, [0xffff_ffff_0fff_fff0, JUNK, JUNK]), junk);
}

#[test]
fn r24_page_request_hint() {
    let hint = |unprivileged, privileged, span| EventKind::PageRequest {
        unprivileged,
        privileged,
        span,
        input: Iova::new(0xffff_ffff_ffff_f000),
    };
    let decoded = |word1| kind(0x24, [word1, JUNK, JUNK]);
    let execute = RequestedAccess { execute: true, ..NO_ACCESS };
    let write = RequestedAccess { write: true, ..NO_ACCESS };
    let read = RequestedAccess { read: true, ..NO_ACCESS };
    assert_eq!(decoded(1 << 33), hint(execute, NO_ACCESS, 0));
    assert_eq!(decoded(1 << 34), hint(write, NO_ACCESS, 0));
    assert_eq!(decoded(1 << 35), hint(read, NO_ACCESS, 0));
    assert_eq!(decoded(1 << 37), hint(NO_ACCESS, execute, 0));
    assert_eq!(decoded(1 << 38), hint(NO_ACCESS, write, 0));
    assert_eq!(decoded(1 << 39), hint(NO_ACCESS, read, 0));
    assert_eq!(decoded(0xff << 44), hint(NO_ACCESS, NO_ACCESS, 0xff));
    assert_eq!(decoded(0xfff0_0f11_ffff_ffff), hint(NO_ACCESS, NO_ACCESS, 0));
}

#[test]
fn events_in_words() {
    let input = 0x4000_0000;
    assert_eq!(
        show([0x10, 2 << 40, input, JUNK]),
        "F_TRANSLATION: write to 0x40000000, no mapping (stage 1, input address)"
    );
    assert_eq!(
        show([0x13, 1 << 33 | 1 << 35 | 1 << 39 | 1 << 40 | 1 << 31 | 3, input, 0x9000]),
        "F_PERMISSION: privileged read of 0x40000000, not permitted \
         (stage 2, stage 1 table, written, at 0x9000; stalled, stall tag 0x3)"
    );
    assert_eq!(
        show([0x12, 1 << 34 | 1 << 35 | 2 << 40, input, 0]),
        "F_ACCESS: instruction fetch from 0x40000000, Access flag clear (stage 1, input address)"
    );
    assert_eq!(show([0x09, 0, 0, 0x8040]), "F_CD_FETCH: the context descriptor at 0x8040 cannot be read");
    assert_eq!(
        show([0x04, 0, 0, 0]),
        "C_BAD_STE: the stream table entry is invalid or illegal: the stream is not attached"
    );
    assert_eq!(
        show([0xe1, 2, 3, 4]),
        "unknown event 0xe1: 0x00000000000000e1 0x0000000000000002 0x0000000000000003 0x0000000000000004"
    );
    assert_eq!(
        format!("{}", Event::decode([0x8_0000_1802, 0, 0, 0])),
        "stream 0x8, substream 0x1: C_BAD_STREAMID: the stream is not in the stream table"
    );
}

proptest! {
    #![proptest_config(tries(256))]

    #[test]
    fn any_words_decode_and_show(number: u8, words: [u64; 4]) {
        let [word0, word1, word2, word3] = words;
        let event = Event::decode([word0 & !0xff | u64::from(number % 0x28), word1, word2, word3]);
        let shown = format!("{event}");
        prop_assert!(shown.contains(event.kind.name()));
        prop_assert_eq!(event.stream().get(), (word0 >> 32) as u32);
    }
}

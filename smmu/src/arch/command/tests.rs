//! Commands against literal words.

extern crate std;

use std::format;

use proptest::prelude::*;

use super::*;
use crate::testing::tries;

const STREAM: StreamId = StreamId::new(u32::MAX);
const SUBSTREAM: SubstreamId = SubstreamId::new(u32::MAX);
const VMID: Vmid = Vmid::new(0xffff);
const ASID: Asid = Asid::new(0xffff);
/// All 64 bits of the address set: only 63:12 may appear.
const SINGLE: TlbiAddress = TlbiAddress { address: Iova::new(u64::MAX), leaf: false, range: None };

#[track_caller]
fn assert_words(command: Command, word0: u64, word1: u64) {
    let [w0, w1] = command.encode();
    assert_eq!((w0, w1), (word0, word1), "{command}: {w0:#018x} {w1:#018x}");
    assert_eq!(Opcode::of([w0, w1]), Some(command.opcode()));
    assert_eq!(Command::decode([w0, w1], true).map(|again| again.encode()), Ok([w0, w1]), "{command}");
}

#[test]
fn r24_configuration_commands() {
    let sid = 0xffff_ffff_0000_0000;
    assert_words(Command::PrefetchConfig { stream: STREAM, substream: None }, sid | 0x01, 0);
    assert_words(Command::PrefetchConfig { stream: STREAM, substream: Some(SUBSTREAM) }, sid | 0xffff_f801, 0);
    assert_words(Command::CfgiSte { stream: STREAM, leaf: false }, sid | 0x03, 0);
    assert_words(Command::CfgiSte { stream: STREAM, leaf: true }, sid | 0x03, 1);
    assert_words(Command::CfgiSteRange { stream: STREAM, range: 7 }, sid | 0x04, 7);
    assert_eq!(Command::CfgiSteRange { stream: STREAM, range: 0xff }.encode(), [sid | 0x04, 0x1f]);
    assert_words(Command::CfgiAll, 0x04, 31);
    assert_words(Command::CfgiCd { stream: STREAM, substream: SUBSTREAM, leaf: true }, sid | 0xffff_f005, 1);
    assert_words(Command::CfgiCd { stream: STREAM, substream: SubstreamId::new(1), leaf: false }, sid | 0x1005, 0);
    assert_words(Command::CfgiCdAll { stream: STREAM }, sid | 0x06, 0);
}

#[test]
fn r24_translation_commands() {
    let page = 0xffff_ffff_ffff_f000;
    let vmid = 0x0000_ffff_0000_0000;
    let asid = 0xffff_0000_0000_0000;
    assert_words(Command::TlbiNhAll { vmid: VMID }, vmid | 0x10, 0);
    assert_words(Command::TlbiNhAsid { vmid: VMID, asid: ASID }, vmid | asid | 0x11, 0);
    assert_words(Command::TlbiNhVa { vmid: VMID, asid: Asid::new(0), scope: SINGLE }, vmid | 0x12, page);
    assert_words(Command::TlbiNhVa { vmid: Vmid::new(0), asid: ASID, scope: SINGLE }, asid | 0x12, page);
    assert_words(Command::TlbiNhVaa { vmid: VMID, scope: SINGLE }, vmid | 0x13, page);
    assert_words(Command::TlbiEl2All, 0x20, 0);
    assert_words(Command::TlbiEl2Asid { asid: ASID }, asid | 0x21, 0);
    assert_words(Command::TlbiEl2Va { asid: ASID, scope: SINGLE }, asid | 0x22, page);
    assert_words(Command::TlbiEl2Vaa { scope: SINGLE }, 0x23, page);
    assert_words(Command::TlbiS12Vmall { vmid: VMID }, vmid | 0x28, 0);
    assert_words(Command::TlbiS2Ipa { vmid: VMID, scope: SINGLE }, vmid | 0x2a, 0x00ff_ffff_ffff_f000);
    let single = TlbiAddress { address: Iova::new(0x4000_1000), leaf: true, range: None };
    assert_words(Command::TlbiS2Ipa { vmid: Vmid::new(0), scope: single }, 0x2a, 0x4000_1001);
    assert_words(Command::TlbiNsnhAll, 0x30, 0);
}

#[test]
fn r24_range_operands() {
    let words = |leaf, range| {
        let scope = TlbiAddress { address: Iova::new(0), leaf, range: Some(range) };
        Command::TlbiEl2Vaa { scope }.encode()
    };
    let none = TlbiRange { granule: Granule::K4, num: 0, scale: 0, ttl: 0 };
    assert_eq!(words(false, none), [0x23, 1 << 10]);
    assert_eq!(words(true, none), [0x23, 1 << 10 | 1]);
    assert_eq!(words(false, TlbiRange { granule: Granule::K16, ..none }), [0x23, 2 << 10]);
    assert_eq!(words(false, TlbiRange { granule: Granule::K64, ..none }), [0x23, 3 << 10]);
    assert_eq!(words(false, TlbiRange { num: 0xff, ..none }), [0x23 | 0x1f << 12, 1 << 10]);
    assert_eq!(words(false, TlbiRange { scale: 0xff, ..none }), [0x23 | 0x1f << 20, 1 << 10]);
    assert_eq!(words(false, TlbiRange { ttl: 0xff, ..none }), [0x23, 1 << 10 | 3 << 8]);
}

#[test]
fn r24_device_commands() {
    let stream = StreamId::new(0x8000_0001);
    let sid = 0x8000_0001_0000_0000;
    let span = AtcSpan::around(Iova::new(0xffff_0000), 0x4000);
    let atc = |substream, global| Command::AtcInv { stream, substream, global, span };
    assert_words(atc(None, false), sid | 0x40, 0xffff_0002);
    assert_words(atc(Some(SubstreamId::new(5)), false), sid | 0x5840, 0xffff_0002);
    assert_words(atc(Some(SubstreamId::new(5)), true), sid | 0x5a40, 0xffff_0002);
    let all = Command::AtcInv { stream, substream: None, global: false, span: AtcSpan::ALL };
    assert_words(all, sid | 0x40, 52);
    let response = |group, response| Command::PriResp { stream, substream: None, group, response };
    assert_words(response(0xffff, PriResponse::Failure), sid | 0x41, 0x1ff);
    assert_words(response(0, PriResponse::Invalid), sid | 0x41, 0x1000);
    assert_words(response(1, PriResponse::Success), sid | 0x41, 0x2001);
    let with_substream =
        Command::PriResp { stream, substream: Some(SUBSTREAM), group: 0, response: PriResponse::Failure };
    assert_words(with_substream, sid | 0xffff_f841, 0);
    let resume = |action| Command::Resume { stream, stag: Stag::new(0xffff), action };
    assert_words(resume(ResumeAction::Terminate), sid | 0x44, 0xffff);
    assert_words(resume(ResumeAction::Retry), sid | 0x1044, 0xffff);
    assert_words(resume(ResumeAction::Abort), sid | 0x2044, 0xffff);
    assert_words(Command::StallTerm { stream }, sid | 0x45, 0);
}

#[test]
fn r24_sync() {
    let msi = |address, data, memory, shareability| Command::Sync {
        completion: Completion::Msi { address: PhysAddr::new(address), data, memory, shareability },
    };
    assert_words(Command::Sync { completion: Completion::None }, 0x46, 0);
    assert_words(Command::Sync { completion: Completion::Interrupt }, 0x1046, 0);
    assert_words(Command::Sync { completion: Completion::Event }, 0x2046, 0);
    let none = MemAttr::DEVICE_NGNRE;
    assert_words(msi(u64::MAX, 0, none, Shareability::NonShareable), 0x0100_1046, 0x00ff_ffff_ffff_fffc);
    assert_words(msi(4, u32::MAX, none, Shareability::NonShareable), 0xffff_ffff_0100_1046, 4);
    assert_words(
        msi(0x8000_0010, 0, MemAttr::NORMAL_WRITE_BACK, Shareability::InnerShareable),
        0x0fc0_1046,
        0x8000_0010,
    );
}

#[test]
fn r24_opcodes_that_are_none() {
    for code in [0x00, 0x02, 0x07, 0x18, 0x24, 0x29, 0x31, 0x42, 0x47, 0xff] {
        assert_eq!(Opcode::of([code, 0]), None, "{code:#x}");
    }
}

#[test]
fn r24_words_as_commands() {
    let decode = |words| Command::decode(words, true);
    let stream = StreamId::new(8);
    let sid = 8 << 32;
    assert_eq!(
        decode([sid | 0x3000 | 0x05, 1]),
        Ok(Command::CfgiCd { stream, substream: SubstreamId::new(3), leaf: true })
    );
    // Range 31, whatever the stream.
    assert_eq!(decode([sid | 0x04, 31]), Ok(Command::CfgiAll));
    let range = TlbiRange { granule: Granule::K64, num: 31, scale: 5, ttl: 2 };
    let scope = TlbiAddress { address: Iova::new(0x4000_0000), leaf: true, range: Some(range) };
    let words = [0x0003_0002_0000_0012 | 31 << 12 | 5 << 20, 0x4000_0000 | 3 << 10 | 2 << 8 | 1];
    let command = |scope| Command::TlbiNhVa { vmid: Vmid::new(2), asid: Asid::new(3), scope };
    assert_eq!(decode(words), Ok(command(scope)));
    // Without ranges their operands are reserved.
    assert_eq!(Command::decode(words, false), Ok(command(TlbiAddress { range: None, ..scope })));
    let span = AtcSpan::around(Iova::new(0x4000), 0x4000);
    let substream = Some(SubstreamId::new(5));
    assert_eq!(decode([sid | 0x5a40, 0x7002]), Ok(Command::AtcInv { stream, substream, global: true, span }));
    let resume = |action| Ok(Command::Resume { stream, stag: Stag::new(9), action });
    assert_eq!(decode([sid | 0x3044, 9]), resume(ResumeAction::Retry));
    let completion = Completion::Msi {
        address: PhysAddr::new(0x1004),
        data: 7,
        memory: MemAttr::NORMAL_WRITE_BACK,
        shareability: Shareability::InnerShareable,
    };
    assert_eq!(decode([7 << 32 | 0x0fc0_1046, 0x1007]), Ok(Command::Sync { completion }));
}

#[test]
fn r24_words_that_are_no_command() {
    let field = |words| match Command::decode(words, true) {
        Err(IllegalCommand::Operand { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(Command::decode([0x1ff, 0], true), Err(IllegalCommand::Opcode { number: 0xff }));
    assert_eq!(field([1 << 10 | 0x46, 0]), "SSec");
    assert_eq!(field([0x3046, 0]), "CS");
    assert_eq!(field([0x41, 3 << 12]), "Resp");
    assert_eq!(field([0x40, 53]), "Size");
    let tuple = "TG with NUM, SCALE and TTL all 0";
    assert_eq!(field([0x12, 1 << 10]), tuple);
    // TTL 1 with granules of 16 KiB.
    assert_eq!(field([0x13, 2 << 10 | 1 << 8]), tuple);
    assert_eq!(
        format!("{}", Command::decode([0x40, 53], true).unwrap_err()),
        "CMD_ATC_INV with a reserved value: Size"
    );
    assert_eq!(format!("{}", IllegalCommand::Opcode { number: 7 }), "0x07 is no opcode that is known");
}

#[test]
fn command_errors() {
    let errors = [0, 1, 2, 3, 4, 0x7f].map(CommandError::from_code);
    use CommandError::{Abt, AtcInvSync, Ill, None, Unknown};
    assert_eq!(errors, [None, Ill, Abt, AtcInvSync, Unknown(4), Unknown(0x7f)]);
    assert_eq!(format!("{}", Ill), "CERROR_ILL: illegal command");
    assert_eq!(format!("{}", Unknown(4)), "unknown command error 0x4");
}

#[test]
fn commands_in_words() {
    let range = TlbiRange { granule: Granule::K4, num: 16, scale: 1, ttl: 3 };
    let scope = TlbiAddress { address: Iova::new(0x4000), leaf: true, range: Some(range) };
    let commands = [
        Command::CfgiAll,
        Command::CfgiCd { stream: StreamId::new(8), substream: SubstreamId::new(1), leaf: true },
        Command::TlbiNhVa { vmid: Vmid::new(2), asid: Asid::new(3), scope },
        Command::Resume { stream: StreamId::new(8), stag: Stag::new(9), action: ResumeAction::Retry },
    ];
    let words = commands.map(|command| format!("{command}"));
    assert_eq!(
        words,
        [
            "CMD_CFGI_STE_RANGE",
            "CMD_CFGI_CD stream 0x8 substream 0x1",
            "CMD_TLBI_NH_VA VMID 2 ASID 3 address 0x4000, 34 pages of 4 KiB, leaves",
            "CMD_RESUME stream 0x8 stall tag 0x9: Retry",
        ]
    );
}

proptest! {
    #![proptest_config(tries(256))]

    /// Whatever the operands, nothing spills: with one operand set, only its own field's bits differ from zero.
    #[test]
    fn r29_operands_stay_in_their_fields(address: u64, num: u8, scale: u8, ttl: u8, vmid: u16, asid: u16, leaf: bool) {
        let range = TlbiRange { granule: Granule::K4, num, scale, ttl };
        let scope = TlbiAddress { address: Iova::new(address), leaf, range: Some(range) };
        let words = Command::TlbiNhVa { vmid: Vmid::new(vmid), asid: Asid::new(asid), scope }.encode();
        let word0 = 0x12
            | u64::from(num % 32) << 12
            | u64::from(scale % 32) << 20
            | u64::from(vmid) << 32
            | u64::from(asid) << 48;
        let word1 = u64::from(leaf) | u64::from(ttl % 4) << 8 | 1 << 10 | (address >> 12) << 12;
        prop_assert_eq!(words, [word0, word1]);
    }

    /// Whatever the words: what they mean is encoded with no bit that they do not have, and means the same again.
    #[test]
    fn decoding_adds_nothing(opcode in prop_oneof![0..=0xff_u64, Just(0x12), Just(0x40), Just(0x46)], word0: u64, word1: u64) {
        let words = [word0 & !0xff | opcode, word1];
        if let Ok(command) = Command::decode(words, true) {
            let again = command.encode();
            prop_assert_eq!(again[0] & !words[0], 0);
            prop_assert_eq!(again[1] & !words[1], 0);
            prop_assert_eq!(Command::decode(again, true), Ok(command));
        }
    }
}

//! Commands that guests write: what reaches the SMMU, bit by bit, and where a guest's queue stops.

use std::format;

use super::*;
use crate::addr::{StreamId, Vmid};
use crate::arch::command::{CommandError, Completion, IllegalCommand, Opcode};
use crate::arch::stream_table::StreamTableEntry;
use crate::device::{CommandRefusal, Guest, GuestStream, RefusedCommand};

const SYNC: [u64; 2] = [CMD_SYNC, 0];
/// What the host's commands have of VMID 0x2b.
const VMID: u64 = 0x2b << 32;
/// The guest's streams 1 to 3 are the SMMU's 0x11 to 0x13.
const STREAMS: [(u32, u32); 3] = [(1, 0x11), (2, 0x12), (3, 0x13)];
/// IDR0 as QEMU's with ATS and PRI, and an optional stall.
const FULL: u32 = 0x0c45_141b;

/// A guest that notes what is asked of its hypervisor.
#[derive(Default)]
struct Noting {
    reloads: Vec<(u32, u32)>,
    syncs: Vec<Completion>,
    quarantined: Vec<StreamId>,
    /// How reloading entries fails, if it does.
    fails: Option<DeviceError>,
}

impl Guest for Noting {
    fn stream_from(&self, first: StreamId) -> Option<GuestStream> {
        let &(guest, physical) = STREAMS.iter().find(|(guest, _)| *guest >= first.get())?;
        Some(GuestStream { guest: StreamId::new(guest), physical: StreamId::new(physical) })
    }

    fn reload(&mut self, stream: GuestStream) -> Result<(), DeviceError> {
        self.reloads.push((stream.guest.get(), stream.physical.get()));
        self.fails.map_or(Ok(()), Err)
    }

    fn synced(&mut self, completion: Completion) {
        self.syncs.push(completion);
    }

    fn quarantined(&mut self, stream: StreamId) {
        self.quarantined.push(stream);
    }
}

/// An SMMU on which stream 0x12 has ATS.
fn full() -> (&'static TestPlatform, Arc<FakeSmmu>, Smmu<TestPlatform>) {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR0, FULL);
    // Substreams of 4 bits.
    fake.set(IDR1, 0x0273_0110);
    let smmu = bring_up(platform, &fake).unwrap();
    let with_ats = StreamTableEntry::from_words([0xd, 1 << 28, 1 << 51, 0, 0, 0, 0, 0]);
    for (stream, entry) in [(0x11, StreamTableEntry::abort()), (0x12, with_ats)] {
        smmu.attach(StreamId::new(stream), &entry).unwrap();
    }
    platform.journal();
    (platform, fake, smmu)
}

/// Forwards commands on an SMMU, and returns what became of them and what the SMMU got.
fn forward(
    (platform, _, smmu): &(&'static TestPlatform, Arc<FakeSmmu>, Smmu<TestPlatform>),
    guest: &mut Noting,
    sent: &[[u64; 2]],
) -> (Result<(), RefusedCommand>, Vec<[u64; 2]>) {
    platform.journal();
    let result = smmu.forward(guest, Vmid::new(0x2b), sent);
    (result, commands(&platform.journal()))
}

/// What the SMMU gets for commands that a guest may give.
fn forwarded(sent: &[[u64; 2]]) -> Vec<[u64; 2]> {
    let (result, commands) = forward(&full(), &mut Noting::default(), sent);
    assert_eq!(result, Ok(()));
    commands
}

#[test]
fn r25_commands_get_the_guests_vmid_and_the_smmus_streams() {
    let sent = [
        // CFGI_CD of stream 1, substream 5; CFGI_CD_ALL of stream 3.
        ([1 << 32 | 5 << 12 | 0x05, 1], [0x11 << 32 | 5 << 12 | 0x05, 1]),
        ([3 << 32 | 0x06, 0], [0x13 << 32 | 0x06, 0]),
        // TLBI_NH_ALL, TLBI_NSNH_ALL; by ASID 7; by ASID and address; by address.
        ([0x7777 << 32 | 0x10, 0], [VMID | 0x10, 0]),
        ([0x30, 0], [VMID | 0x10, 0]),
        ([7 << 48 | 0x7777 << 32 | 0x11, 0], [7 << 48 | VMID | 0x11, 0]),
        ([7 << 48 | 0x7777 << 32 | 0x12, 0x5001], [7 << 48 | VMID | 0x12, 0x5001]),
        ([0x7777 << 32 | 0x13, 0xffff_ffff_ffff_f000], [VMID | 0x13, 0xffff_ffff_ffff_f000]),
        // The same by range: NUM 31, SCALE 3, TG 4K, TTL 3.
        (
            [31 << 12 | 3 << 20 | 0x13, 0x5000 | 1 << 10 | 3 << 8],
            [31 << 12 | 3 << 20 | VMID | 0x13, 0x5000 | 1 << 10 | 3 << 8],
        ),
        // ATC_INV of stream 2: everything; substream 1, global; Global counts only with a substream.
        ([2 << 32 | 0x40, 52], [0x12 << 32 | 0x40, 52]),
        ([2 << 32 | 1 << 12 | 0xa40, 0x3000], [0x12 << 32 | 1 << 12 | 0xa40, 0x3000]),
        ([2 << 32 | 0x240, 0x3000], [0x12 << 32 | 0x40, 0x3000]),
        // PRI_RESP, RESUME, STALL_TERM.
        ([1 << 32 | 0x41, 2 << 12 | 0x1ff], [0x11 << 32 | 0x41, 2 << 12 | 0x1ff]),
        ([1 << 32 | 0x1044, 0xbeef], [0x11 << 32 | 0x1044, 0xbeef]),
        ([1 << 32 | 0x45, 0], [0x11 << 32 | 0x45, 0]),
    ];
    for (command, expected) in sent {
        assert_eq!(forwarded(&[command]), [expected, SYNC], "{command:#x?}");
    }
    let all = sent.map(|(command, _)| command);
    let (invalidations, answers) = sent.split_at(11);
    let expected = |pairs: &[([u64; 2], [u64; 2])]| pairs.iter().map(|(_, expected)| *expected).collect::<Vec<_>>();
    let expected = [expected(invalidations), vec![SYNC], expected(answers), vec![SYNC]].concat();
    assert_eq!(forwarded(&all), expected, "in batches, answers behind what devices may not obey");
}

#[test]
fn what_does_not_concern_the_smmu_does_not_reach_it() {
    let nothing: [[u64; 2]; 8] = [
        // Hints; streams that the guest has not got; ATC_INV of a stream without ATS; a CMD_SYNC with nothing before it.
        [1 << 32 | 0x01, 0],
        [1 << 32 | 0x02, 0x5000],
        [9 << 32 | 0x05, 1],
        [0x11 << 32 | 0x06, 0],
        [9 << 32 | 0x40, 52],
        [9 << 32 | 0x41, 0],
        [1 << 32 | 0x40, 52],
        SYNC,
    ];
    assert_eq!(forwarded(&nothing), [[0; 2]; 0]);
    assert_eq!(forwarded(&[]), [[0; 2]; 0]);
}

#[test]
fn reserved_bits_do_not_reach_the_smmu() {
    let junk = |word0: u64, word1: u64| forwarded(&[[word0, word1]])[0];
    assert_eq!(junk(0xffff_ffff_ffff_fb10, u64::MAX), [VMID | 0x10, 0]);
    assert_eq!(junk(0x0001_ffff_ffff_fb11, u64::MAX), [1 << 48 | VMID | 0x11, 0]);
    assert_eq!(junk(0x0000_0001_ffff_fb06, u64::MAX), [0x11 << 32 | 0x06, 0]);
    // Without range invalidation its operands are reserved, too.
    let smmu = full();
    smmu.1.set(IDR3, 0x1014);
    let (platform, fake, running) = smmu;
    drop(running);
    let again = bring_up(platform, &fake).unwrap();
    let (_, commands) = forward(&(platform, fake, again), &mut Noting::default(), &[[0x1f1_f013, 0x5f01]]);
    assert_eq!(commands, [[VMID | 0x13, 0x5001], SYNC]);
}

#[test]
fn entries_are_the_hypervisors_to_reload() {
    let reloads = |command| {
        let mut guest = Noting::default();
        let (result, commands) = forward(&full(), &mut guest, &[command]);
        assert_eq!(result, Ok(()));
        // The SMMU forgets their contexts even if the entries are as they were.
        let expected = guest.reloads.iter().map(|(_, physical)| [u64::from(*physical) << 32 | CMD_CFGI_STE, 1]);
        let sync = (!guest.reloads.is_empty()).then_some(SYNC);
        assert_eq!(commands, expected.chain(sync).collect::<Vec<_>>());
        guest.reloads
    };
    assert_eq!(reloads([2 << 32 | 0x03, 1]), [(2, 0x12)]);
    assert_eq!(reloads([9 << 32 | 0x03, 1]), []);
    // CFGI_STE_RANGE of 2^1 and 2^2 streams around 3, CFGI_ALL.
    assert_eq!(reloads([3 << 32 | 0x04, 0]), [(2, 0x12), (3, 0x13)]);
    assert_eq!(reloads([3 << 32 | 0x04, 1]), STREAMS);
    assert_eq!(reloads([0x04, 31]), STREAMS);
    let not_attached = DeviceError::StreamNotAttached { stream: StreamId::new(0x11) };
    let mut guest = Noting { fails: Some(not_attached), ..Noting::default() };
    let (result, commands) = forward(&full(), &mut guest, &[[0x30, 0], [0x04, 31], [0x30, 0]]);
    let error = DeviceError::StreamNotAttached { stream: StreamId::new(0x11) };
    assert_eq!(result, Err(RefusedCommand { index: 1, reason: CommandRefusal::Device(error) }));
    assert_eq!((commands, guest.reloads.len()), ([[VMID | 0x10, 0], SYNC].to_vec(), 1));
}

#[test]
fn syncs_keep_their_order_and_are_signalled() {
    let mut guest = Noting::default();
    let message = [7 << 32 | 0x1046, 0x1000];
    let (result, commands) = forward(&full(), &mut guest, &[[0x05 | 1 << 32, 1], message, [0x30, 0], SYNC, SYNC]);
    assert_eq!(result, Ok(()));
    assert_eq!(commands, [[0x05 | 0x11 << 32, 1], SYNC, [VMID | 0x10, 0], SYNC]);
    let Completion::Msi { address, data, .. } = guest.syncs[0] else { panic!("{:?}", guest.syncs) };
    assert_eq!((address.get(), data, &guest.syncs[1..]), (0x1000, 7, &[Completion::None; 2][..]));
}

#[test]
fn up_to_64_commands_share_a_sync() {
    let sent: Vec<_> = (0..130).map(|page: u64| [0x13, page << 12]).collect();
    let commands = forwarded(&sent);
    let syncs: Vec<_> =
        commands.iter().enumerate().filter(|(_, command)| **command == SYNC).map(|(at, _)| at).collect();
    assert_eq!((syncs, commands.len()), ([64, 129, 132].to_vec(), 133));
}

#[test]
fn r25_a_bad_command_stops_the_guests_queue_and_nothing_else() {
    let forbidden = |opcode| CommandRefusal::Forbidden { opcode };
    let number = |number| CommandRefusal::Illegal(IllegalCommand::Opcode { number });
    let operand = |opcode, field| CommandRefusal::Illegal(IllegalCommand::Operand { opcode, field });
    let bad = [
        ([0x20, 0], forbidden(Opcode::TlbiEl2All)),
        ([0x21, 0], forbidden(Opcode::TlbiEl2Asid)),
        ([0x22, 0], forbidden(Opcode::TlbiEl2Va)),
        ([0x23, 0], forbidden(Opcode::TlbiEl2Vaa)),
        ([0x28, 0], forbidden(Opcode::TlbiS12Vmall)),
        ([0x2a, 0], forbidden(Opcode::TlbiS2Ipa)),
        ([0x00, 0], number(0x00)),
        ([0x18, 0], number(0x18)),
        ([0x50, 0], number(0x50)),
        ([0xff, 0], number(0xff)),
        ([1 << 10 | 0x10, 0], operand(Opcode::TlbiNhAll, "SSec")),
        ([0x3046, 0], operand(Opcode::Sync, "CS")),
    ];
    for (words, reason) in bad {
        let mut guest = Noting::default();
        let (result, commands) = forward(&full(), &mut guest, &[[0x30, 0], words, [0x06 | 1 << 32, 0], SYNC]);
        assert_eq!(result, Err(RefusedCommand { index: 1, reason }));
        assert_eq!((commands, guest.syncs.len()), ([[VMID | 0x10, 0], SYNC].to_vec(), 0), "what was before it");
        assert_eq!(reason.command_error(), Some(CommandError::Ill));
    }
    // What the SMMU has not got: ATS, PRI, stalls, ASIDs of 16 bits.
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR0, 0x0d44_001b);
    let smmu = bring_up(platform, &fake).unwrap();
    let qemu = (platform, fake, smmu);
    for (words, reason) in [
        ([0x40, 0], forbidden(Opcode::AtcInv)),
        ([0x41, 0], forbidden(Opcode::PriResp)),
        ([0x44, 0], forbidden(Opcode::Resume)),
        ([0x45, 0], forbidden(Opcode::StallTerm)),
        ([0x100 << 48 | 0x11, 0], operand(Opcode::TlbiNhAsid, "ASID")),
        ([0x100 << 48 | 0x12, 0], operand(Opcode::TlbiNhVa, "ASID")),
    ] {
        let (result, commands) = forward(&qemu, &mut Noting::default(), &[words]);
        assert_eq!((result, commands.len()), (Err(RefusedCommand { index: 0, reason }), 0));
    }
    let refused = RefusedCommand { index: 3, reason: forbidden(Opcode::TlbiEl2All) };
    let words = "the guest's command 3: CMD_TLBI_EL2_ALL is not for guests, or the SMMU has not got it";
    assert_eq!(format!("{refused}"), words);
}

#[test]
fn a_device_that_does_not_obey_its_guest_is_quarantined() {
    let smmu = deaf();
    let mut guest = Noting::default();
    let sent = [[0x30, 0], [2 << 32 | 0x40, 52], [0x13, 0x5000], SYNC];
    let atc_last = [sent[0], sent[2], sent[1], SYNC];
    let (result, commands) = forward(&smmu, &mut guest, &atc_last);
    let refused = |index| Err(RefusedCommand { index, reason: CommandRefusal::AtcInvSync });
    assert_eq!(result, refused(3));
    assert_eq!((guest.quarantined, guest.syncs.len()), ([StreamId::new(0x12)].to_vec(), 0));
    assert!(!smmu.2.stream_table_entry(StreamId::new(0x12)).unwrap().ats_enabled());
    let opcodes: Vec<_> = commands.iter().map(|[word, _]| word & 0xff).collect();
    assert_eq!(
        opcodes,
        [0x10, 0x13, 0x40, 0x46, 0x10, 0x13, 0x46, 0x40, 0x46, 0x03, 0x46],
        "all but the device is done"
    );
    // It is not asked again.
    let (result, commands) = forward(&smmu, &mut Noting::default(), &[sent[1], SYNC]);
    assert_eq!((result, commands.len()), (Ok(()), 0));
}

/// Stream 0x12 belongs to a device that obeys no CMD_ATC_INV.
fn deaf() -> (&'static TestPlatform, Arc<FakeSmmu>, Smmu<TestPlatform>) {
    let smmu = full();
    // The SMMU stops at the CMD_SYNC behind a CMD_ATC_INV to it.
    let mut asked = false;
    smmu.1.on_command(move |[word, _]| match word & 0xff {
        CMD_SYNC if std::mem::take(&mut asked) => Outcome::Refused(3),
        opcode => {
            asked |= opcode == CMD_ATC_INV && word >> 32 == 0x12;
            Outcome::Done
        }
    });
    smmu
}

#[test]
fn an_answer_reaches_the_smmu_behind_a_device_that_does_not_obey() {
    let resume = [1 << 32 | 0x1044, 0xbeef];
    let sent = [[2 << 32 | 0x40, 52], [0x30, 0], [0x30, 0], resume, SYNC];
    let (result, commands) = forward(&deaf(), &mut Noting::default(), &sent);
    assert_eq!(result, Err(RefusedCommand { index: 4, reason: CommandRefusal::AtcInvSync }));
    let answers = commands.iter().filter(|command| command[0] == 0x11 << 32 | 0x1044);
    assert_eq!(answers.count(), 1);
}

#[test]
fn a_guest_hears_of_its_device_before_it_hears_of_a_bad_command() {
    let smmu = deaf();
    let guest = &mut Noting::default();
    let (result, _) = forward(&smmu, guest, &[[2 << 32 | 0x40, 52], [0xff, 0], SYNC]);
    assert_eq!(result, Err(RefusedCommand { index: 1, reason: CommandRefusal::AtcInvSync }));
    let (result, _) = forward(&smmu, guest, &[[0xff, 0], SYNC]);
    assert!(matches!(result, Err(RefusedCommand { index: 0, reason: CommandRefusal::Illegal(_) })), "{result:?}");
    assert_eq!(forward(&smmu, guest, &[SYNC]).0, Ok(()));
}

#[test]
fn a_device_that_does_not_obey_its_hypervisor_is_not_the_smmus_failure() {
    let guest = &mut Noting { fails: Some(DeviceError::Command(CommandError::AtcInvSync)), ..Noting::default() };
    assert_eq!(forward(&full(), guest, &[[2 << 32 | 0x03, 0], SYNC]).0, Ok(()));
    assert_eq!(guest.quarantined, [StreamId::new(0x12)]);
}

#[test]
fn a_device_that_forgets_nothing_gets_no_ats() {
    let (_, _, smmu) = deaf();
    let with_ats = StreamTableEntry::from_words([0xd, 1 << 28, 1 << 51, 0, 0, 0, 0, 0]);
    let refused = smmu.replace_nested(StreamId::new(0x11), &with_ats);
    assert_eq!(refused, Ok(()), "0x11 obeys");
    let stream = StreamId::new(0x12);
    smmu.replace(stream, &StreamTableEntry::INVALID).unwrap();
    assert_eq!(smmu.replace_nested(stream, &with_ats), Err(DeviceError::Command(CommandError::AtcInvSync)));
    assert!(!smmu.stream_table_entry(stream).unwrap().ats_enabled());
}

#[test]
fn an_smmu_that_sleeps_is_not_the_guests_fault() {
    let smmu = full();
    smmu.2.suspend().unwrap();
    let mut guest = Noting::default();
    let (result, commands) = forward(&smmu, &mut guest, &[[0x30, 0], SYNC, [0x30, 0]]);
    let reason = CommandRefusal::Device(DeviceError::Suspended);
    assert_eq!(result, Err(RefusedCommand { index: 0, reason }), "the first of those that were to go in one batch");
    assert_eq!((commands.len(), guest.syncs.len(), reason.command_error()), (0, 0, None));
    smmu.2.resume().unwrap();
    assert_eq!(forward(&smmu, &mut guest, &[[0x30, 0], SYNC]).0, Ok(()));
}

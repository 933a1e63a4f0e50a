//! From reset, or from what firmware left, to an SMMU that aborts every stream; and back.

use super::*;
use crate::addr::StreamId;

const ABORT: u32 = 1 << 20;

/// Where in a journal a register was first written with a value, counted in steps.
#[track_caller]
fn written(journal: &[Step], offset: usize, value: u64) -> usize {
    let wanted = Step::Write("A", offset, value);
    journal.iter().position(|step| *step == wanted).unwrap_or_else(|| panic!("{wanted:x?} is not in {journal:x?}"))
}

fn first_write(journal: &[Step], offset: usize) -> usize {
    let of_register = |step: &Step| matches!(step, Step::Write(_, written, _) if *written == offset);
    journal.iter().position(of_register).expect("a write of the register")
}

/// A journal of bringing up what `prepare` made of the SMMU.
fn journal(prepare: impl FnOnce(&FakeSmmu)) -> Vec<Step> {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    prepare(&fake);
    platform.journal();
    let smmu = bring_up(platform, &fake).unwrap();
    assert_eq!(fake.get(CR0ACK), 0xd, "SMMUEN, EVENTQEN, CMDQEN");
    assert!(smmu.aborts_while_disabled());
    platform.journal()
}

#[test]
fn r17_traffic_aborts_before_anything_is_switched() {
    let of_reset = journal(|_| ());
    // UPDATE, ABORT and what was there.
    assert_eq!(of_reset[0], Step::Write("A", GBPA, 0x8010_1000));
    assert_eq!(of_reset[1], Step::Write("A", CR0, 0));
    assert!(written(&of_reset, CR0, 0xc) < written(&of_reset, CR0, 0xd), "EVENTQEN before SMMUEN");
}

#[test]
fn r21_what_firmware_left_enabled_is_quiesced_first() {
    let of_firmware = journal(|fake| {
        fake.set(CR0, 0xd);
        fake.set(CR0ACK, 0xd);
        fake.set(IRQ_CTRL, 5);
        fake.set(IRQ_CTRLACK, 5);
        fake.raise(0x1fd);
    });
    assert_eq!(of_firmware[..2], [Step::Write("A", GBPA, 0x8010_1000), Step::Write("A", CR0, 0)]);
    assert_eq!(of_firmware[2], Step::Write("A", IRQ_CTRL, 0));
    assert_eq!(written(&of_firmware, GERRORN, 0x1fd), 3, "its errors are acknowledged");
}

#[test]
fn r05_queues_and_tables_are_there_before_they_are_switched_on() {
    let journal = journal(|_| ());
    let cmdqen = written(&journal, CR0, 8);
    for register in [CR1, CR2, STRTAB_BASE, STRTAB_BASE_CFG, CMDQ_BASE] {
        assert!(first_write(&journal, register) < cmdqen, "{register:#x}");
    }
    let eventqen = written(&journal, CR0, 0xc);
    for register in [EVENTQ_BASE, EVENTQ_PROD, EVENTQ_CONS] {
        assert!(first_write(&journal, register) < eventqen, "{register:#x}");
    }
    assert!(written(&journal, CMDQ_PROD, 0) < cmdqen && written(&journal, CMDQ_CONS, 0) < cmdqen);
    assert_eq!(journal[first_write(&journal, CR2)], Step::Write("A", CR2, 6), "PTM, RECINVSID");
    assert_eq!(journal[first_write(&journal, CR1)], Step::Write("A", CR1, 0xd75));
}

#[test]
fn r15_configuration_is_forgotten_before_translations() {
    let of_reset = journal(|_| ());
    assert_eq!(commands(&of_reset), [[CMD_CFGI_ALL, 31], [CMD_SYNC, 0], [CMD_TLBI_NSNH_ALL, 0], [CMD_SYNC, 0]]);
    let last = of_reset.iter().rposition(|step| matches!(step, Step::Command(..))).unwrap();
    assert!(last < written(&of_reset, CR0, 0xd));
    let with_hyp = journal(|fake| fake.set(IDR0, 0x0d44_101b | 1 << 9));
    assert_eq!(opcodes(&with_hyp), [CMD_CFGI_ALL, CMD_SYNC, 0x20, CMD_TLBI_NSNH_ALL, CMD_SYNC]);
}

#[test]
fn r18_interrupts_stay_off_until_there_are_handlers() {
    let (platform, fake, smmu) = running();
    assert_eq!(fake.get(IRQ_CTRLACK), 0);
    platform.journal();
    smmu.enable_interrupts().unwrap();
    assert_eq!(fake.get(IRQ_CTRLACK), 5);
    fake.ignore(|offset, _| offset == IRQ_CTRL);
    fake.set(IRQ_CTRLACK, 0);
    assert_eq!(timed_out(smmu.enable_interrupts()), "IRQ_CTRLACK");
}

#[test]
fn r09_r10_bases_are_aligned_to_sizes_that_the_hardware_has() {
    // IDR0, IDR1 and the expected log2 of: commands, events, StreamIDs, bytes of the stream table's top.
    for (idr0, idr1, commands, events, streams, table_bytes) in [
        (0x0d44_101b, 0x0273_0010, 8, 10, 16, 11),
        (0x0d44_101b, (4 << 16) | (3 << 21) | 9, 3, 4, 9, 6),
        (0x0544_101b, 7, 0, 0, 7, 13),
        (0x0544_101b, 0x0273_0010, 8, 10, 10, 16),
        (0x0d44_101b, 0x0273_0020, 8, 10, 27, 20),
    ] {
        let platform = TestPlatform::leaked();
        let fake = FakeSmmu::new(platform, "A");
        fake.set(IDR0, idr0);
        fake.set(IDR1, idr1);
        let smmu = bring_up(platform, &fake).unwrap();
        let base =
            |register: usize| u64::from(fake.get(register)) | u64::from(fake.get(register + 4) & 0xff_ffff) << 32;
        let aligned = |address: u64, log2_bytes: u32| assert_eq!(address & ((1 << log2_bytes) - 1), 0, "{idr1:#x}");
        let (cmdq, eventq) = (base(CMDQ_BASE), base(EVENTQ_BASE));
        assert_eq!((cmdq & 0x1f, eventq & 0x1f), (commands, events), "{idr1:#x}");
        aligned(cmdq & !0x1f, (commands as u32 + 4).max(5));
        aligned(eventq & !0x1f, events as u32 + 5);
        aligned(base(STRTAB_BASE), table_bytes);
        assert_eq!(fake.get(STRTAB_BASE_CFG) & 0x3f, streams, "{idr1:#x}");
        let two_level = idr0 >> 27 & 1;
        assert_eq!(fake.get(STRTAB_BASE_CFG) >> 6, (two_level << 10) | (two_level * if streams > 20 { 10 } else { 8 }));
        drop(smmu);
        assert_eq!(platform.blocks(), 0);
    }
}

#[test]
fn r13_an_smmu_without_power_is_told() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR0, u32::MAX);
    platform.journal();
    assert_eq!(bring_up(platform, &fake).unwrap_err(), DeviceError::PoweredOff { register: "IDR0" });
    assert_eq!((platform.journal(), platform.blocks()), (Vec::new(), 0), "nothing was touched");
}

#[test]
fn r20_six_bits_of_sidsize_and_a_newer_version() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(IDR1, 0x0273_0020);
    fake.set(AIDR, 0x0f);
    let smmu = bring_up(platform, &fake).unwrap();
    assert_eq!(smmu.features().stream_id_bits(), 32);
}

#[test]
fn what_has_no_fallback_is_refused() {
    for (register, value) in [
        (IDR0, 0x0d44_1017),
        (IDR0, 0x0d64_101b),
        (IDR0, 0x0e44_101b),
        (IDR0, 0x0d44_1018),
        (IDR1, 0x4273_0010),
        (IDR1, 0x2273_0010),
        (IDR5, 0x04),
    ] {
        let platform = TestPlatform::leaked();
        let fake = FakeSmmu::new(platform, "A");
        fake.set(register, value);
        fake.set(CR0, 0xd);
        fake.set(CR0ACK, 0xd);
        let refused = bring_up(platform, &fake).unwrap_err();
        assert!(matches!(refused, DeviceError::Unsupported { found, .. } if found == value), "{refused:?}");
        assert_eq!(platform.blocks(), 0);
        assert_eq!((fake.get(CR0ACK), fake.get(GBPA)), (0, 0x10_1000), "off, with everything aborted");
    }
}

#[test]
fn r17_an_smmu_that_firmware_uses_is_not_switched_off_without_gbpa() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(CR0, 0xd);
    fake.set(CR0ACK, 0xd);
    fake.ignore(|register, _| register == GBPA);
    let refused = bring_up(platform, &fake).unwrap_err();
    assert!(matches!(refused, DeviceError::Timeout { register: "GBPA", .. }), "{refused:?}");
    assert_eq!(fake.get(CR0ACK), 0xd, "it goes on aborting what firmware has it abort");
}

/// Brings up an SMMU that ignores a register's write of a value, and says which register timed out.
fn without(register: usize, value: u32) -> (&'static str, usize) {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(CR0ACK, 0xd);
    fake.set(IRQ_CTRLACK, 5);
    fake.ignore(move |offset, written| (offset, written) == (register, value));
    (timed_out(bring_up(platform, &fake)), platform.blocks())
}

#[test]
fn r11_every_missing_acknowledgement_ends_the_wait() {
    assert_eq!(without(CR0, 0), ("CR0ACK", 0));
    assert_eq!(without(IRQ_CTRL, 0), ("IRQ_CTRLACK", 0));
    for enabled in [8, 0xc, 0xd] {
        assert_eq!(without(CR0, enabled), ("CR0ACK", 0), "{enabled:#x}");
    }
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.set(GBPA, 1 << 31);
    platform.journal();
    assert_eq!(timed_out(bring_up(platform, &fake)), "GBPA");
    assert_eq!((platform.journal(), platform.blocks()), (Vec::new(), 0));
}

#[test]
fn memory_that_hardware_may_still_read_is_kept() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    let mut enabled = false;
    fake.ignore(move |offset, value| {
        enabled |= (offset, value) == (CR0, 0xc);
        enabled && offset == CR0 && value != 0xc
    });
    assert_eq!(timed_out(bring_up(platform, &fake)), "CR0ACK");
    assert_eq!(platform.blocks(), 3, "two queues and the stream table");
}

#[test]
fn a_stopped_smmu_gives_all_memory_back() {
    let (platform, fake, smmu) = running();
    smmu.attach(StreamId::new(8), &super::streams::entry()).unwrap();
    platform.journal();
    drop(smmu);
    let journal = platform.journal();
    let off = journal.iter().rposition(|step| *step == Step::Write("A", IRQ_CTRL, 0)).unwrap();
    assert!(journal[..off].iter().all(|step| !matches!(step, Step::Free(_))), "off before anything is freed");
    assert_eq!((fake.get(CR0ACK), fake.get(GBPA) & ABORT, platform.blocks()), (0, ABORT, 0));
}

#[test]
fn an_smmu_that_cannot_abort_while_off_stays_on() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    fake.ignore(|offset, _| offset == GBPA);
    let smmu = bring_up(platform, &fake).unwrap();
    assert!(!smmu.aborts_while_disabled());
    assert_eq!(timed_out(smmu.suspend()), "GBPA");
    assert!(!smmu.is_suspended() && !smmu.is_closed());
    smmu.attach(StreamId::new(8), &super::streams::entry()).unwrap();
    assert_eq!(timed_out(smmu.close()), "GBPA");
    assert_eq!(fake.get(CR0ACK), 0xd);
    drop(smmu);
    assert_eq!((fake.get(CR0ACK), platform.blocks()), (0xd, 4), "two queues, two levels of the stream table");
}

#[test]
fn an_smmu_that_says_it_is_off_without_having_been_told_is_told() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    let smmu = bring_up(platform, &fake).unwrap();
    fake.ignore(|offset, _| offset == GBPA);
    fake.set(GBPA, 0x1000);
    assert!(matches!(smmu.close(), Err(DeviceError::Timeout { register: "GBPA", .. })));
    fake.set(CR0ACK, 0);
    assert!(matches!(smmu.close(), Err(DeviceError::Timeout { register: "GBPA", .. })));
    assert_eq!(fake.get(CR0), 0xd, "it stays on while its traffic would pass");
    fake.set(GBPA, ABORT);
    smmu.close().unwrap();
    assert_eq!(fake.get(CR0), 0, "it must not come back");
}

#[test]
fn a_lack_of_memory_leaves_nothing_behind() {
    for count in 0.. {
        let platform = TestPlatform::leaked();
        let fake = FakeSmmu::new(platform, "A");
        platform.allow_allocations(count);
        let result = bring_up(platform, &fake);
        if result.is_ok() {
            assert_eq!(count, 5, "queues, stream table, ASIDs, VMIDs");
            break;
        }
        assert!(matches!(result, Err(DeviceError::OutOfDmaMemory(_))));
        assert_eq!((platform.blocks(), fake.get(CR0ACK), fake.get(GBPA) & ABORT), (0, 0, ABORT));
    }
}

#[test]
fn an_smmu_that_does_not_snoop_finds_its_tables_in_memory() {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    let smmu = Smmu::bring_up(platform, Arc::clone(&fake), false, BootPolicy::Abort).unwrap();
    assert!(!smmu.features().coherent());
    assert_eq!(fake.get(CR1), 0x820, "non-cacheable, outer shareable");
    for base in [STRTAB_BASE, EVENTQ_BASE] {
        let first = crate::addr::PhysAddr::new(u64::from(fake.get(base) & !0x1f));
        assert_eq!(platform.memory_word(first), 0, "{base:#x}");
    }
}

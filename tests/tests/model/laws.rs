//! The laws: each is broken once, and noticed.

use std::sync::atomic::Ordering::SeqCst;

use smmu::addr::StreamId;
use smmu::platform::{DmaBlock, Platform, Registers};
use tests::model::{Config, Law, Model};

use super::bench::{Bench, CD0, CMDQ_PROD, CR0, STREAM, SYNC, put, put_cd, stage1_ste, touch};

#[test]
#[should_panic(expected = "GuardedRegister: STRTAB_BASE_CFG")]
fn a_broken_law_fails_the_test() {
    let bench = Bench::new(Config::qemu());
    bench.registers.write32(0x88, 5);
}

/// A stream with one page at address 0: its CD, its tables, the page.
fn with_a_page(bench: &mut Bench) -> [tests::model::Buffer; 3] {
    let (contexts, table, data) = (bench.buffer(4096), bench.buffer(4096), bench.buffer(4096));
    // T0SZ 39: the walk starts at level 2, where a table of 16 entries is in use.
    let last = bench.buffer(4096);
    put(&table, 0, last.physical().get() | 3);
    put(&last, 0, data.physical().get() | 0xf47);
    put_cd(&contexts, 0, &[CD0 | 39 | 4 << 32, table.physical().get(), 0, 0xff44]);
    bench.set_ste(STREAM, &stage1_ste(&contexts));
    std::mem::forget(last);
    [contexts, table, data]
}

#[test]
fn what_hardware_reaches_is_not_freed() {
    for freed in 0..3 {
        let mut bench = Bench::new(Config::qemu());
        let mut buffers = Vec::from(with_a_page(&mut bench));
        drop(buffers.remove(freed));
        assert_eq!(bench.broken_laws(), [Law::FreedWhileReachable], "buffer {freed}");
        bench.set_ste(STREAM, &[0]);
        bench.run(&[[0x30, 0]]);
        drop(buffers);
    }
}

#[test]
fn what_hardware_remembers_is_not_freed() {
    let mut bench = Bench::new(Config::qemu());
    let [contexts, table, data] = with_a_page(&mut bench);
    assert_eq!(touch(&bench.device(), 0), Ok(0));
    bench.set_ste(STREAM, &[0]);
    // Unreachable by now, but no TLBI was sent.
    drop(data);
    assert_eq!(bench.broken_laws(), [Law::FreedWhileReachable]);
    bench.run(&[[0x30, 0]]);
    drop((contexts, table));
    assert_eq!(bench.broken_laws(), []);
}

#[test]
fn hardware_that_reads_freed_memory_is_noticed() {
    let mut bench = Bench::new(Config::qemu());
    let [_contexts, table, _data] = with_a_page(&mut bench);
    drop(table);
    let _ = bench.broken_laws();
    assert!(touch(&bench.device(), 0).is_err());
    assert_eq!(bench.broken_laws(), [Law::UseAfterFree]);
    bench.set_ste(STREAM, &[0]);
    bench.run(&[[0x30, 0]]);
    // Speculation went there once more, until the entry was gone.
    let _ = bench.broken_laws();
}

#[test]
fn a_live_entry_changes_in_one_store() {
    let mut bench = Bench::new(Config::qemu());
    let [contexts, table, data] = with_a_page(&mut bench);
    // From invalid to valid in one go, without a CFGI in between.
    let other = STREAM + 1;
    bench.poke_ste(other, &stage1_ste(&contexts));
    bench.run(&[[0x03 | u64::from(other) << 32, 1]]);
    assert_eq!(bench.broken_laws(), [Law::LiveEntry]);
    bench.set_ste(other, &[0]);
    bench.poke_ste(STREAM, &[0]);
    bench.run(&[[0x03 | u64::from(STREAM) << 32, 1]]);
    let mut words = stage1_ste(&contexts);
    words[1] |= 1 << 19;
    bench.poke_ste(STREAM, &words);
    bench.model.check_entries();
    assert_eq!(bench.broken_laws(), [Law::LiveEntry]);
    // Two words of a live CD.
    bench.run(&[[0x03 | u64::from(STREAM) << 32, 1]]);
    put_cd(&contexts, 0, &[CD0 | 38 | 4 << 32, data.physical().get()]);
    bench.run(&[SYNC]);
    assert_eq!(bench.broken_laws(), [Law::LiveEntry]);
    bench.set_ste(STREAM, &[0]);
    bench.run(&[[0x30, 0]]);
    drop((contexts, table, data));
}

#[test]
fn an_entry_that_becomes_invalid_keeps_its_other_words_until_that_is_synced() {
    let mut bench = Bench::new(Config::qemu());
    let [contexts, table, data] = with_a_page(&mut bench);
    let cfgi = [0x03 | u64::from(STREAM) << 32, 1];
    bench.poke_ste(STREAM, &[0; 8]);
    bench.model.check_entries();
    assert_eq!(bench.broken_laws(), [Law::LiveEntry]);
    // Even if they are back by the time of the next command: who looked in between saw them.
    bench.run(&[cfgi]);
    bench.set_ste(STREAM, &stage1_ste(&contexts));
    let [word0, word1, ..] = stage1_ste(&contexts);
    // S1CSH 2 for 3.
    bench.poke_ste(STREAM, &[word0, word1 ^ 1 << 6]);
    bench.model.platform().write_barrier();
    bench.poke_ste(STREAM, &stage1_ste(&contexts));
    bench.poke_ste(STREAM, &[0]);
    bench.run(&[cfgi]);
    assert_eq!(bench.broken_laws(), [Law::LiveEntry]);
    // One after the other is how it is done, and what is wiped needs no sync until it counts again.
    bench.set_ste(STREAM, &stage1_ste(&contexts));
    bench.poke_ste(STREAM, &[0]);
    bench.run(&[cfgi]);
    bench.poke_ste(STREAM, &[0; 8]);
    bench.model.check_entries();
    assert_eq!(bench.broken_laws(), []);
    bench.poke_ste(STREAM, &[0b1001, 1 << 44]);
    bench.run(&[cfgi]);
    assert_eq!(bench.broken_laws(), [Law::LiveEntry], "bypass before SHCFG was synced");
    bench.set_ste(STREAM, &[0]);
    bench.run(&[[0x30, 0]]);
    drop((contexts, table, data));
}

#[test]
fn illegal_entries_reserved_bits_and_alignment() {
    let cases: [(&[u64], &[Law]); 4] = [
        // Stage 2 with a granule that does not exist, out of range besides.
        (&[0b1101, 0, 3 << 46 | 1 << 51, 0], &[Law::IllegalEntry]),
        // A bit above S1ContextPtr.
        (&[0b0001 | 1 << 58, 0, 0, 0], &[Law::ReservedBit]),
        (&[0b0001, 1 << 41, 0, 0], &[Law::ReservedBit]),
        (&[0b0001, 0, 0, 0, 1], &[Law::ReservedBit]),
    ];
    for (words, laws) in cases {
        let mut bench = Bench::new(Config::qemu());
        bench.set_ste(STREAM, words);
        bench.run(&[SYNC]);
        assert_eq!(bench.broken_laws(), laws, "{words:x?}");
        bench.set_ste(STREAM, &[0]);
        let _ = bench.broken_laws();
    }
    let bench = Bench::off(Config::qemu());
    bench.registers.write64(0x90, (bench.commands.physical().get() + 32) | 5);
    bench.registers.write32(CMDQ_PROD, 0);
    bench.registers.write32(0x9c, 0);
    bench.registers.write32(CR0, 8);
    assert_eq!(bench.broken_laws(), [Law::Alignment]);
}

#[test]
fn an_entry_that_a_test_writes_is_not_judged_until_the_driver_has_it_back() {
    let mut bench = Bench::new(Config::qemu());
    let stream = StreamId::new(STREAM);
    bench.model.judge_entries_of(stream, false);
    bench.set_ste(STREAM, &[0b1101, 0, 3 << 46, 0]);
    bench.run(&[SYNC]);
    assert_eq!(bench.broken_laws(), []);
    bench.model.judge_entries_of(stream, true);
    bench.run(&[SYNC]);
    assert_eq!(bench.broken_laws(), [Law::IllegalEntry]);
    bench.set_ste(STREAM, &[0]);
}

#[test]
fn a_published_command_stays_as_it_is() {
    let mut bench = Bench::new(Config::qemu());
    bench.model.set_pace(tests::model::Pace::Stepped);
    bench.send(&[SYNC, SYNC]);
    let slot = (bench.produced as usize - 1) * 2;
    bench.commands.words()[slot].store(0x30, SeqCst);
    while bench.model.step() {}
    assert_eq!(bench.broken_laws(), [Law::PublishedSlot]);
}

#[test]
fn commands_are_published_behind_a_barrier_and_not_beyond_the_queue() {
    let mut bench = Bench::new(Config::qemu());
    bench.registers.write32(CMDQ_PROD, bench.produced);
    bench.run(&[]);
    assert_eq!(bench.broken_laws(), [Law::Barrier]);
    bench.model.set_pace(tests::model::Pace::Stepped);
    bench.model.platform().write_barrier();
    bench.registers.write32(CMDQ_PROD, (bench.produced + 33) & 63);
    assert_eq!(bench.broken_laws(), [Law::QueueIndex]);
    bench.registers.write32(CMDQ_PROD, bench.produced);
    let _ = bench.broken_laws();
}

#[test]
fn bring_up_forgets_what_reset_left() {
    let bench = Bench::off(Config::qemu());
    let r = &bench.registers;
    r.write64(0x80, bench.streams.physical().get());
    r.write32(0x88, 6);
    r.write32(0x28, 0xd75);
    r.write32(0x2c, 2);
    r.write32(CR0, 1);
    assert_eq!(bench.broken_laws(), [Law::LiveEntry]);
}

#[test]
fn misuse_of_memory() {
    let model = Model::new(Config::qemu());
    let platform = model.platform();
    let block = platform.allocate(4096, 4096).unwrap();
    // SAFETY: allocated above.
    unsafe { platform.free(block) }
    // SAFETY: it is not safe, but the model keeps freed memory.
    unsafe { platform.free(block) }
    // SAFETY: likewise.
    unsafe { block.pointer.cast::<u64>().write(1) }
    let laws: Vec<_> = model.take_violations().into_iter().map(|violation| violation.law).collect();
    assert_eq!(laws, [Law::Memory, Law::Memory]);
    // Put it right, or it is reported again.
    // SAFETY: as above.
    unsafe { block.pointer.cast::<u64>().write(0xdead_f4ee_dead_f4ee) }
    let DmaBlock { size_bytes, .. } = block;
    assert_eq!((size_bytes, platform.block_count()), (4096, 0));
}

#[test]
fn a_dirty_line_would_overwrite_what_hardware_wrote() {
    let mut bench = Bench::new(Config { cohacc: true, ..Config::qemu() });
    // Queues read and written without snooping, while the CPU has the event queue's zeroes in its caches.
    bench.registers.write32(CR0, 0);
    bench.registers.write32(0x28, 0xd40);
    bench.commands.words().iter().for_each(|word| word.store(0, SeqCst));
    let start = bench.commands.pointer().cast();
    bench.model.platform().clean_cache(start, 4096);
    bench.registers.write32(CMDQ_PROD, 0);
    bench.registers.write32(0x9c, 0);
    bench.produced = 0;
    bench.registers.write32(CR0, 0xd);
    assert!(touch(&bench.device(), 0).is_err());
    assert_eq!(bench.broken_laws(), [Law::DirtyLine]);
}

#[test]
fn descriptors_of_first_levels_are_whole() {
    for (descriptor, law) in [(0x9_u64 | 1 << 60, Law::ReservedBit), (0x9 | 0x1000, Law::Alignment)] {
        let mut bench = Bench::new(Config::qemu());
        bench.registers_off();
        let (first, second) = (bench.buffer(4096), bench.buffer(16384));
        bench.program_streams(&first, 16 | 8 << 6 | 1 << 16);
        put(&first, 0, second.physical().get() | descriptor);
        bench.registers_on();
        assert!(touch(&bench.device(), 0).is_err());
        assert_eq!(bench.broken_laws(), [law]);
        bench.registers_off();
    }
}

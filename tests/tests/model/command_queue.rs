//! The driver's command queue over the model: many CPUs, errors among them, messages and events, a full queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use smmu::addr::{Asid, Iova, Vmid};
use smmu::arch::attributes::Granule;
use smmu::arch::command::CommandError;
use smmu::arch::range::Stale;
use smmu::device::{DeviceError, Smmu, StaleRange, TranslationTag};
use smmu::platform::Platform;
use tests::model::{Config, Entry, GlobalError, Law, Model, ModelPlatform, Opcode, Pace};

use super::system::bring_up;

const CMDQ_CONS: usize = 0x9c;
/// The CPUs.
const THREADS: u16 = 4;

fn tag(asid: u16) -> TranslationTag {
    TranslationTag::Stage1 { asid: Asid::new(asid), vmid: Vmid::new(0) }
}

/// Forgets `pages` pages, without range commands: as many CMD_TLBIs.
fn invalidate(smmu: &Smmu<ModelPlatform>, asid: u16, pages: u64) -> Result<(), DeviceError> {
    let stale = Stale::Leaves { level: Some(3) };
    let range = StaleRange { start: Iova::new(0x10_0000), size_bytes: pages << 12, granule: Granule::K4, stale };
    smmu.invalidate(tag(asid), &range)
}

/// The ASIDs of the stage-1 invalidations that were carried out, in order, and how many CMD_SYNCs.
fn carried_out(model: &Model) -> (Vec<u16>, usize) {
    let log = model.log();
    let asid = |entry: &Entry| match entry {
        Entry::Command { opcode: Opcode::TlbiNhVa, words } => Some((words[0] >> 48) as u16),
        _ => None,
    };
    let syncs = log.commands().iter().filter(|opcode| **opcode == Opcode::Sync).count();
    (log.entries().iter().filter_map(asid).collect(), syncs)
}

/// All kinds of completion, fast and slow, in long queues and short ones. Time passes slowly, because it does so while the
/// host has a thread wait, too.
fn configurations() -> impl Iterator<Item = Config> {
    let features = [(false, false), (false, true), (true, false)];
    let paces = [Pace::Immediate, Pace::After(2)];
    let queues = [0, 1, 3, 8];
    features.into_iter().flat_map(move |(msi, sev)| {
        let relax = Duration::from_nanos(100);
        let of_pace =
            move |pace| queues.map(|cmdqs| Config { msi, sev, pace, cmdqs, relax, ril: false, ..Config::qemu() });
        paces.into_iter().flat_map(of_pace)
    })
}

#[test]
fn many_cpus_send_batches_of_all_sizes() {
    for config in configurations() {
        let model = Model::new(config);
        let smmu = bring_up(&model).unwrap();
        model.clear_log();
        let pages_of_round = |round: u64| 1 + round * 7 % 60;
        thread::scope(|scope| {
            for asid in 1..=THREADS {
                let smmu = &smmu;
                scope.spawn(move || (0..10).for_each(|round| invalidate(smmu, asid, pages_of_round(round)).unwrap()));
            }
        });
        let (asids, syncs) = carried_out(&model);
        let commands: u64 = (0..10).map(pages_of_round).sum();
        for asid in 1..=THREADS {
            assert_eq!(asids.iter().filter(|found| **found == asid).count() as u64, commands, "none lost, none twice");
        }
        assert_eq!(syncs, usize::from(THREADS) * 10);
        let batches = asids.chunk_by(|a, b| a == b).count();
        assert!(batches >= usize::from(THREADS), "{batches}");
    }
}

#[test]
fn r08_among_many_cpus_only_the_sender_of_a_bad_command_is_told() {
    const BAD_ASID: u16 = 0x1ff;
    for config in configurations() {
        // With 8-bit ASIDs the model refuses a wider one.
        let model = Model::new(Config { asid16: false, ..config });
        let smmu = bring_up(&model).unwrap();
        let done = AtomicBool::new(false);
        let told = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (smmu, done, told) = (&smmu, &done, &told);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    smmu.handle_global_errors();
                    thread::yield_now();
                }
            });
            let _done = SetOnDrop(done);
            thread::scope(|scope| {
                scope.spawn(move || {
                    for _ in 0..8 {
                        let refused = Err(DeviceError::Command(CommandError::Ill));
                        assert_eq!(invalidate(smmu, BAD_ASID, 1), refused);
                        told.fetch_add(1, Ordering::SeqCst);
                    }
                });
                for asid in 1..THREADS {
                    scope.spawn(move || (0..30).for_each(|_| invalidate(smmu, asid, 2).unwrap()));
                }
            });
        });
        assert_eq!((told.into_inner(), smmu.statistics().refused), (8, 8));
        // The model calls every bad command a broken law.
        assert!(model.take_violations().iter().all(|violation| violation.law == Law::Command));
    }
}

/// Sets a flag when dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn r11_a_full_queue_that_stands_still_is_given_up_by_everybody() {
    for config in configurations() {
        let model = Model::new(Config { relax: Duration::from_micros(20), ..config });
        let smmu = bring_up(&model).unwrap();
        model.inject(|faults| faults.hang = Some(Opcode::TlbiNhVa));
        let started = model.platform().now();
        thread::scope(|scope| {
            for asid in 1..=THREADS {
                let smmu = &smmu;
                scope.spawn(move || {
                    let given_up = invalidate(smmu, asid, 60).unwrap_err();
                    assert!(matches!(given_up, DeviceError::Timeout { .. }), "{given_up}");
                });
            }
        });
        // Each for one second, but one thread may begin only when another has done.
        let waited = model.platform().now() - started;
        assert!((1..=8).contains(&waited.as_secs()), "{waited:?}");
        model.inject(|faults| faults.hang = None);
    }
}

/// Counts the reads of CMDQ_CONS from here on.
fn count_reads(model: &Model) -> Arc<AtomicUsize> {
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reads);
    model.observe(move |access| {
        if access.offset == CMDQ_CONS && access.written.is_none() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    reads
}

#[test]
fn messages_spare_the_register_and_a_lost_one_does_no_harm() {
    let model = Model::new(Config { msi: true, ..Config::qemu() });
    let smmu = bring_up(&model).unwrap();
    let (mark, reads) = (model.mark(), count_reads(&model));
    (0..300).for_each(|_| smmu.invalidate_all(tag(1)).unwrap());
    assert_eq!(reads.load(Ordering::SeqCst), 0);
    let words = model.log_since(mark).entries().iter().find_map(|entry| match entry {
        Entry::Command { opcode: Opcode::Sync, words } => Some(*words),
        _ => None,
    });
    let address = words.unwrap()[1];
    model.platform().abort_at(address & !0x7ff..(address | 0x7ff) + 1);
    smmu.invalidate_all(tag(1)).unwrap();
    assert_ne!(reads.load(Ordering::SeqCst), 0);
    assert_eq!(smmu.handle_global_errors().bits(), 1 << GlobalError::MsiCmdq as u32);
    model.platform().abort_nowhere();
}

#[test]
fn an_event_wakes_whoever_waits_where_the_smmu_sends_one() {
    for (sev, pace, expected) in
        [(true, Pace::After(3), true), (true, Pace::Immediate, false), (false, Pace::After(3), false)]
    {
        let model = Model::new(Config { sev, pace, ..Config::qemu() });
        let smmu = bring_up(&model).unwrap();
        let (mark, waits) = (model.mark(), model.platform().waits_for_event());
        smmu.invalidate_all(tag(1)).unwrap();
        assert_eq!(model.log_since(mark).entries().contains(&Entry::WakeUp), sev);
        assert_eq!(model.platform().waits_for_event() > waits, expected, "{sev} {pace:?}");
    }
}

#[test]
fn r02_a_message_that_does_not_come_is_a_timeout() {
    let model = Model::new(Config { msi: true, ..Config::qemu() });
    let smmu = bring_up(&model).unwrap();
    // Every word has had its message, more than once.
    (0..600).for_each(|_| smmu.invalidate_all(tag(1)).unwrap());
    model.inject(|faults| faults.hang = Some(Opcode::Sync));
    let given_up = smmu.invalidate_all(tag(1)).unwrap_err();
    assert!(matches!(given_up, DeviceError::Timeout { register: "CMDQ_CONS", .. }), "{given_up}");
    model.inject(|faults| faults.hang = None);
    smmu.invalidate_all(tag(1)).unwrap();
}

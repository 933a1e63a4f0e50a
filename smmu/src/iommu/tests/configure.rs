//! All of a device's IOMMUs or none, and back.

use alloc::string::ToString;

use super::*;
use crate::addr::StreamId;
use crate::device::DeviceError;
use crate::device::tests::{CMD_CFGI_STE, CMD_SYNC, CMD_TLBI_NH_ASID, IDR0, IDR1, IDR5, Outcome, commands, opcodes};
use crate::testing::Step;

/// V, Config 5: stage 1.
const STAGE1: u64 = 0xb;

#[test]
fn r32_a_device_waits_for_all_of_its_iommus() {
    let system = System::new();
    let device = system.device();
    assert_eq!(deferred(system.iommus.configure(&device)), [A, B]);
    system.register(A);
    let blocks = system.platform.blocks();
    system.platform.journal();
    assert_eq!(deferred(system.iommus.configure(&device)), [B]);
    // No memory, no command, no register write, no entry.
    assert_eq!((system.platform.blocks(), system.platform.journal()), (blocks, Vec::new()));
    assert_eq!((system.a.word0(0x11), device.is_attached()), (0, false));
    system.register(B);
    let attachment = system.configured(&device);
    assert_eq!((system.a.word0(0x11) & 0xf, system.b.word0(0x22) & 0xf), (STAGE1, STAGE1));
    assert_eq!((system.a.word0(0x22), system.b.word0(0x11)), (0, 0), "each its own StreamIDs");
    assert!(device.is_attached());
    drop(attachment);
    assert_eq!((system.a.word0(0x11), system.b.word0(0x22), device.is_attached()), (0, 0, false));
}

#[test]
fn r23_every_stream_id_of_a_device_is_attached() {
    let system = System::new().registered();
    let device = system.add("many", &[(A, 1), (A, 2), (B, 1), (A, 0x300)]).unwrap();
    let attachment = system.configured(&device);
    let at_a = [1, 2, 0x300].map(|stream| system.a.word0(stream));
    assert_eq!(at_a, [at_a[0]; 3], "one context for all of an instance");
    assert_eq!((at_a[0] & 0xf, system.b.word0(1) & 0xf), (STAGE1, STAGE1));
    drop(attachment);
    assert_eq!([1, 2, 0x300].map(|stream| system.a.word0(stream)), [0; 3]);
}

/// Attaches and detaches once, so that second-level stream tables exist.
fn warm(system: &System, device: &Arc<Device>) -> usize {
    drop(system.configured(device));
    system.platform.blocks()
}

/// Nothing of a failed configuration is left, and it can be made good.
#[track_caller]
fn assert_undone(system: &System, device: &Arc<Device>, blocks: usize) {
    assert_eq!((system.platform.blocks(), system.a.word0(0x11), system.b.word0(0x22)), (blocks, 0, 0));
    let next = [&system.a, &system.b].map(|instance| instance.smmu.take_asid().unwrap().get());
    assert_eq!(next, [1, 1], "no ASID is lost");
    drop(system.configured(device));
    assert_eq!(system.platform.blocks(), blocks);
}

#[test]
fn r38_a_refusal_by_the_second_iommu_undoes_the_first() {
    for refused in [0, 1] {
        let system = System::new().registered();
        let device = system.device();
        let blocks = warm(&system, &device);
        let mut count = 0;
        system.b.fake.on_command(move |[word, _]| {
            count += usize::from(word & 0xff == CMD_CFGI_STE);
            if count == refused + 1 && word & 0xff == CMD_CFGI_STE { Outcome::Refused(1) } else { Outcome::Done }
        });
        let error = system.refused(&device);
        assert!(
            matches!(error, IommuError::Device { iommu: B, error: DriverError::Smmu(DeviceError::Command(_)) }),
            "{error}"
        );
        assert_undone(&system, &device, blocks);
    }
}

#[test]
fn r38_an_iommu_that_may_hold_on_to_an_entry_is_closed() {
    let system = System::new().registered();
    let device = system.device();
    let blocks = warm(&system, &device);
    // Leaf-only: the second one, and all that are to undo it. TLBI and SYNC work.
    system.b.fake.on_command(|[word, leaf]| {
        if word & 0xff == CMD_CFGI_STE && leaf == 1 { Outcome::Refused(1) } else { Outcome::Done }
    });
    let error = system.refused(&device);
    assert!(
        matches!(error, IommuError::Device { iommu: B, error: DriverError::Smmu(DeviceError::StreamStuck { .. }) }),
        "{error}"
    );
    assert!(!system.b.is_on(), "it must not go on with tables that are freed");
    assert_eq!((system.a.word0(0x11), system.a.is_on(), system.platform.blocks()), (0, true, blocks));
}

#[test]
fn r38_tables_are_kept_for_an_iommu_that_does_not_even_close() {
    let system = System::new().registered();
    let device = system.device();
    let blocks = warm(&system, &device);
    let attachment = system.configured(&device);
    let attached = system.platform.blocks();
    system.b.fake.on_command(|_| Outcome::Stuck);
    system.b.fake.ignore(|_, _| true);
    drop(attachment);
    assert!(system.b.is_on());
    // A's context is freed; B's, and the page table that it leads to, is not.
    assert_eq!(system.platform.blocks(), attached - 1);
    assert!(system.platform.blocks() > blocks);
}

#[test]
fn r27_lack_of_asids_in_the_second_iommu_undoes_the_first() {
    let system = System::with(|_| (), |fake| fake.set(IDR0, 0x0d44_001b)).registered();
    let device = system.device();
    let blocks = warm(&system, &device);
    while system.b.smmu.take_asid().is_ok() {}
    let error = system.refused(&device);
    assert!(matches!(
        error,
        IommuError::Device { iommu: B, error: DriverError::Smmu(DeviceError::OutOfIds { kind: "ASID", .. }) }
    ));
    assert_eq!((system.platform.blocks(), system.a.word0(0x11)), (blocks, 0));
    assert_eq!(system.a.smmu.take_asid().unwrap().get(), 1, "no ASID is lost");
}

#[test]
fn a_lack_of_memory_anywhere_undoes_everything() {
    for count in 0.. {
        let system = System::new().registered();
        let device = system.device();
        let blocks = warm(&system, &device);
        system.platform.allow_allocations(count);
        if system.iommus.configure(&device).is_ok() {
            assert_eq!(count, 3, "a page table, a context in each");
            break;
        }
        system.platform.allow_allocations(usize::MAX);
        assert_undone(&system, &device, blocks);
    }
}

#[test]
fn r36_a_device_is_bound_and_unbound_at_will() {
    let system = System::new().registered();
    let device = system.device();
    let blocks = warm(&system, &device);
    let mut journals = Vec::new();
    for _ in 0..20 {
        system.platform.journal();
        let attachment = system.configured(&device);
        assert!(matches!(system.iommus.configure(&device), Err(IommuError::AlreadyAttached { .. })));
        drop(attachment);
        assert_eq!(system.platform.blocks(), blocks);
        journals.push(commands(&system.platform.journal()));
    }
    assert!(journals.windows(2).all(|pair| pair[0] == pair[1]), "the same ASIDs, the same commands");
}

#[test]
fn unreachable_invalidated_synced_and_only_then_freed() {
    let system = System::new().registered();
    let device = system.add("one", &[(A, 0x11)]).unwrap();
    let attachment = system.configured(&device);
    system.platform.journal();
    drop(attachment);
    let journal = system.platform.journal();
    assert_eq!(opcodes(&journal), [CMD_CFGI_STE, CMD_SYNC, CMD_TLBI_NH_ASID, CMD_SYNC]);
    let last_command = journal.iter().rposition(|step| matches!(step, Step::Command(..))).unwrap();
    let freed: Vec<_> = journal.iter().map(|step| matches!(step, Step::Free(_))).collect();
    assert_eq!(freed.iter().filter(|freed| **freed).count(), 2, "context and page table");
    assert!(!freed[..last_command].contains(&true));
}

#[test]
fn r22_devices_with_one_stream_id_share_a_domain() {
    let system = System::new().registered();
    let first = system.add("first", &[(A, 0x11), (B, 0x11)]).unwrap();
    let second = system.add("second", &[(A, 0x12), (B, 0x11)]).unwrap();
    let [one, two] = [&first, &second].map(|device| system.configured(device));
    assert_eq!(one.domain(), two.domain());
    assert_ne!([system.a.word0(0x11), system.a.word0(0x12), system.b.word0(0x11)], [0; 3]);
    drop(one);
    assert_eq!((system.a.word0(0x11), system.b.word0(0x11) & 0xf), (0, STAGE1), "the other still needs it");
    drop(two);
    assert_eq!((system.a.word0(0x12), system.b.word0(0x11)), (0, 0));
    // Neither is in the other's way any more.
    system.iommus.remove_device(&first).unwrap();
    drop(system.configured(&second));
    assert!(matches!(system.refused(&first), IommuError::UnknownDevice { .. }));
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_done() {
    // B: outputs of 40 bits where A has 44; no stage 1 where A has both.
    for (register, value) in [(IDR5, 0x72), (IDR0, 0x0d44_1019)] {
        let system = System::with(|_| (), |fake| fake.set(register, value)).registered();
        let device = system.device();
        let blocks = system.platform.blocks();
        system.platform.journal();
        assert!(matches!(system.refused(&device), IommuError::Incompatible { iommu: B, .. }));
        assert_eq!((commands(&system.platform.journal()), system.platform.blocks()), (Vec::new(), blocks));
    }
    let system = System::new().registered();
    let device = system.add("far", &[(A, 0x11), (B, 0x1_0000)]).unwrap();
    let blocks = system.platform.blocks();
    assert!(matches!(system.refused(&device), IommuError::StreamIdTooLarge(error) if error.entry.iommu == B));
    assert_eq!((system.platform.blocks(), system.a.word0(0x11)), (blocks, 0));
}

#[test]
fn a_device_without_iommus_and_an_instance_twice() {
    let system = System::new().registered();
    let device = system.add("free", &[]).unwrap();
    assert!(matches!(system.iommus.configure(&device), Ok(Configuration::NoIommu)));
    let again = system.iommus.register(A, Arc::clone(&system.b.smmu));
    assert_eq!(again.unwrap_err(), IommuError::AlreadyRegistered { iommu: A });
}

#[test]
fn stage_2_serves_where_there_is_no_stage_1() {
    let system = System::with(|fake| fake.set(IDR0, 0x0d44_1019), |_| ());
    system.register(A);
    let device = system.add("one", &[(A, 0x11)]).unwrap();
    let attachment = system.configured(&device);
    let words = system.a.smmu.stream_table_entry(StreamId::new(0x11)).unwrap().words();
    // V, Config 6; VMID 1; S2T0SZ 20 for the 44 bits of IDR5.OAS; S2AA64, S2R.
    assert_eq!((words[0], words[2] & 0xffff, words[2] >> 32 & 0x3f), (0xd, 1, 20));
    assert_eq!((words[2] >> 51 & 1, words[2] >> 58 & 1), (1, 1));
    drop(attachment);
    assert_eq!(system.a.smmu.take_vmid().unwrap().get(), 1, "retired");
}

#[test]
fn a_stream_id_beyond_the_stream_table_is_refused_with_the_remedy() {
    // SIDSIZE 32 at B.
    let wide = |fake: &FakeSmmu| fake.set(IDR1, 0x0273_0020);
    let system = System::with(|_| (), wide).registered();
    let device = system.add("far", &[(A, 0x11), (B, 0xffff_0000)]).unwrap();
    let refused = system.refused(&device);
    let stream = StreamId::new(0xffff_0000);
    let expected = DeviceError::StreamOutOfRange { stream, stream_id_bits: 27 };
    assert!(matches!(refused, IommuError::Device { iommu: B, error } if error == expected.into()), "{refused}");
    assert!(refused.to_string().contains("let Platform::stream_id_bits return 32"), "{refused}");
    assert_eq!(system.a.word0(0x11), 0);
    // An SMMU that is brought up with it serves the device.
    system.platform.set_stream_id_bits(stream.bits());
    let b = Instance::new(system.platform, "B with more", wide);
    let iommus = Iommus::new(system.platform);
    iommus.register(B, Arc::clone(&b.smmu)).unwrap();
    let device = iommus.add_device(DeviceDescription::new("far", fwspec(&[(B, stream.get())]))).unwrap();
    let configured = iommus.configure(&device).unwrap();
    assert_eq!(b.word0(stream.get()) & 0xf, STAGE1);
    drop(configured);
}

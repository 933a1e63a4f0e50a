//! Isolation as QEMU sees it: what its SMMU and its configuration space were asked for during one demonstration.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::boot::{Boot, Booted, DISK, demo_machine};
use crate::demo::assert_complete;
use crate::log::{CONFIGURATION_WRITES, RegisterWrite, Step};

/// StreamIDs of the machine's devices, and their functions.
const DISK_STREAM: u64 = 0x8;
const ENTROPY_STREAM: u64 = 0x10;
const EDU_STREAM: u64 = 0x18;
pub(crate) const TESTDEV_STREAM: u64 = 0x20;
const FUNCTIONS: [(&str, u64); 3] = [("00:01.0", DISK_STREAM), ("00:02.0", ENTROPY_STREAM), ("00:03.0", EDU_STREAM)];

/// Register offsets (IHI 0070, section 6.3).
pub(crate) const CR0: u64 = 0x20;
const GBPA: u64 = 0x44;
pub(crate) const CR0_SMMUEN: u64 = 1 << 0;
const GBPA_ABORT: u64 = 1 << 20;

/// The demonstration with everything logged that bears on isolation.
static DEMO: LazyLock<Booted> = LazyLock::new(|| {
    let complaints = ["-d", "guest_errors,unimp"];
    let booted = Boot::new("demo", demo_machine()).logged(&CONFIGURATION_WRITES).logged(&complaints).run();
    assert_complete(&booted, &DISK);
    booted
});

#[test]
fn nothing_bypasses_the_smmu() {
    assert!(DEMO.log.lines_of("smmuv3_translate_success").count() > 0);
    assert_eq!(DEMO.log.lines_of("smmuv3_translate_bypass").next(), None);
    assert_eq!(DEMO.log.lines_of("smmuv3_translate_disable").next(), None);
}

#[test]
fn attached_devices_alone_get_translations_each_by_its_own_stream() {
    assert_eq!(DEMO.log.translated_streams(), FUNCTIONS.map(|(_, stream)| stream).into());
}

#[test]
fn rogues_alone_cause_events() {
    let expected = [("SMMU_EVT_F_TRANSLATION", EDU_STREAM), ("SMMU_EVT_C_BAD_STE", TESTDEV_STREAM)];
    assert_eq!(DEMO.log.events(), expected.into());
}

#[test]
fn traffic_is_aborted_from_the_first_register_write_on() {
    let first = DEMO.log.register_writes().next().unwrap();
    assert_eq!(first.offset, GBPA, "{first:?}");
    assert_ne!(first.value & GBPA_ABORT, 0, "{first:?}");
}

#[test]
fn the_smmu_is_enabled_once_and_stays_on() {
    let enabled = |write: RegisterWrite| (write.offset == CR0).then_some(write.value & CR0_SMMUEN != 0);
    let enabled: Vec<bool> = DEMO.log.register_writes().filter_map(enabled).collect();
    assert_eq!(enabled.iter().filter(|&&on| on).count(), 1, "{enabled:?}");
    assert_eq!(enabled.last(), Some(&true), "{enabled:?}");
}

#[test]
fn caches_are_emptied_before_the_smmu_is_enabled() {
    let position = |wanted: &str| DEMO.log.lines().position(|line| line.starts_with(wanted)).unwrap();
    let enabled = DEMO.log.lines().position(|line| line.starts_with("smmuv3_write_mmio addr: 0x20 val:0xd ")).unwrap();
    assert!(position("smmuv3_cmdq_cfgi_ste_range start=0x0 - end=0xffffffff") < enabled);
    assert!(position("smmuv3_cmdq_tlbi_nsnh") < enabled);
}

#[test]
fn a_function_is_bus_master_only_while_its_stream_is_attached() {
    let mut masters = BTreeMap::new();
    for step in DEMO.log.steps() {
        match step {
            Step::BusMaster(function, on) => {
                if let Some((_, stream)) = FUNCTIONS.iter().find(|(known, _)| *known == function) {
                    masters.insert(*stream, on);
                } else {
                    assert!(!on, "{function} was made bus master");
                }
            }
            Step::StreamTableEntryChanged(stream) => {
                assert_ne!(masters.get(&stream), Some(&true), "stream {stream:#x} changed under its running device");
            }
            Step::Translated(stream) => {
                assert_eq!(masters.get(&stream), Some(&true), "stream {stream:#x} translated while it was off");
            }
        }
    }
    assert_eq!(masters, FUNCTIONS.map(|(_, stream)| (stream, false)).into(), "all are off at the end");
}

#[test]
fn everything_unmapped_is_invalidated_and_waited_for() {
    let unmapped = DEMO.record("summary")["unmapped"].as_u64().unwrap() as usize;
    let invalidations = DEMO.log.lines_of("smmuv3_range_inval ").count();
    let syncs = DEMO.log.lines_of("smmuv3_cmdq_opcode <--- SMMU_CMD_SYNC").count();
    assert!(invalidations >= unmapped, "{invalidations} invalidations, {unmapped} ranges unmapped");
    assert!(syncs >= unmapped, "{syncs} syncs, {unmapped} ranges unmapped");
}

#[test]
fn qemu_complains_of_nothing_but_the_stream_that_is_not_attached() {
    let is_event =
        |line: &&str| ["smmu", "pci_cfg_write ", "runstate_set "].iter().any(|start| line.starts_with(start));
    let mut complaints: Vec<&str> = DEMO.log.lines().filter(|line| !is_event(line)).collect();
    complaints.sort_unstable();
    complaints.dedup();
    assert_eq!(complaints, ["invalid STE"]);
}

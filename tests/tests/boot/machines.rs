//! The demonstration on machines that differ in one thing.

use qemu::machine::{ExceptionLevel, Gic, Iommu, Machine, Stage};
use qemu::outcome::Outcome;

use crate::boot::{Boot, DISK, demo_machine};
use crate::demo::{assert_complete, shows_everything};

/// What `IDR0` says about stages is in the kernel's words for it, and the stage that translates is the one that QEMU walks.
fn with_stage(stage: Stage, in_words: &str, walked: &str) {
    let machine = Machine { iommu: Iommu::SmmuV3Stage(stage), ..demo_machine() };
    let booted = Boot::new("demo", machine).logged(&[]).run();
    assert_complete(&booted, &DISK);
    booted.assert_shows(in_words);
    assert!(booted.log.lines_of("smmuv3_translate_success").all(|line| line.ends_with(walked)));
}

#[test]
fn stage_1_alone() {
    with_stage(Stage::One, "  stage 1; ", " stage=1");
}

#[test]
fn stage_2_alone() {
    with_stage(Stage::Two, "  stage 2; ", " stage=2");
}

#[test]
fn nested_stages() {
    with_stage(Stage::Nested, "  stage 1 and 2, nested; ", " stage=1");
}

#[test]
fn started_at_el2() {
    let machine = Machine { start: ExceptionLevel::El2, ..demo_machine() };
    let booted = Boot::new("demo", machine).logged(&["-d", "int"]).run();
    assert_complete(&booted, &DISK);
    let drops = booted.log.lines_of("Exception return from AArch64 EL2 to AArch64 EL1").count();
    assert_eq!(drops, 1, "the kernel leaves EL2 once and for all");
}

#[test]
fn memory_of_256_mib() {
    shows_everything(Machine { memory_mib: 256, ..demo_machine() });
    assert!((200..256).contains(&dma_mib(256)));
}

#[test]
fn memory_of_4_gib() {
    shows_everything(Machine { memory_mib: 4096, ..demo_machine() });
    assert!((4000..4096).contains(&dma_mib(4096)));
}

/// The DMA memory, in MiB, that the kernel finds on a machine with `memory_mib` MiB.
fn dma_mib(memory_mib: u32) -> u64 {
    let booted = Boot::new("hello", Machine { memory_mib, ..Machine::default() }).run();
    booted.assert_outcome(Outcome::Success);
    booted.record("hello")["dma_bytes"].as_u64().unwrap() >> 20
}

#[test]
fn cpu_cortex_a57() {
    shows_everything(Machine { cpu: "cortex-a57".to_owned(), ..demo_machine() });
    assert_eq!(part_number("cortex-a57"), 0xd07);
}

#[test]
fn cpu_neoverse_n1() {
    shows_everything(Machine { cpu: "neoverse-n1".to_owned(), ..demo_machine() });
    assert_eq!(part_number("neoverse-n1"), 0xd0c);
}

/// `MIDR_EL1.PartNum` as the kernel reads it.
fn part_number(cpu: &str) -> u64 {
    let booted = Boot::new("hello", Machine { cpu: cpu.to_owned(), ..Machine::default() }).run();
    booted.assert_outcome(Outcome::Success);
    booted.record("hello")["midr"].as_u64().unwrap() >> 4 & 0xfff
}

#[test]
fn gic_v2() {
    shows_everything(Machine { gic: Gic::V2, ..demo_machine() });
}

#[test]
fn gic_v2_started_at_el2() {
    shows_everything(Machine { gic: Gic::V2, start: ExceptionLevel::El2, ..demo_machine() });
}

#[test]
fn two_cpus() {
    shows_everything(Machine { cpus: 2, ..demo_machine() });
}

/// With two, GICv2 leaves it to software which CPU an interrupt goes to.
#[test]
fn two_cpus_with_gic_v2() {
    shows_everything(Machine { cpus: 2, gic: Gic::V2, ..demo_machine() });
}

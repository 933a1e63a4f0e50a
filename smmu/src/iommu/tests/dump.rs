//! What a dump says, to the letter.

use alloc::string::ToString;

use super::*;
use crate::addr::{Iova, PhysAddr};
use crate::device::tests::{IDR0, opcodes};
use crate::pgtable::{Access, MemoryType};
use crate::testing::Step;

#[test]
fn a_dump_says_it_all() {
    let system = System::with(|_| (), |fake| fake.set(IDR0, 0x0d44_101b | 1 << 10)).registered();
    let device = system.device();
    let attachment = system.configured(&device);
    let iova = Iova::new(0x4020_3000);
    attachment
        .paging()
        .unwrap()
        .map(iova, PhysAddr::new(0x9000_1000), 0x1000, Access::Read, MemoryType::WriteBack)
        .unwrap();
    let dump = attachment.dump(Iova::new(0x4020_3abc)).to_string();
    assert_eq!(steady(&dump), include_str!("dump.txt"));
}

/// What of a dump does not depend on how many commands there were, and where memory was allocated.
fn steady(dump: &str) -> String {
    let is_counter = |line: &&str| line.starts_with("CMDQ_PROD") || line.starts_with("CMDQ_CONS");
    let mut steady = String::new();
    for mut line in dump.lines().filter(|line| !is_counter(line)) {
        // Allocations are of whole pages and begin at 0x8000_0000.
        while let Some((before, address)) = line.split_once("800").filter(|(_, address)| address.len() >= 5) {
            let is_address = address[..5].bytes().all(|digit| digit.is_ascii_hexdigit());
            let (digits, skipped) = if is_address { ("__", 2) } else { ("", 0) };
            steady.extend([before, "800", digits]);
            line = &address[skipped..];
        }
        steady.extend([line, "\n"]);
    }
    steady
}

#[test]
fn a_dump_changes_nothing() {
    let system = System::new().registered();
    let attachment = system.configured(&system.device());
    system.platform.journal();
    assert!(attachment.dump(Iova::new(0)).to_string().contains("invalid"));
    assert!(system.a.smmu.dump(StreamId::new(0x77)).to_string().ends_with("StreamID 0x77: invalid"));
    let out_of_range = system.a.smmu.dump(StreamId::new(u32::MAX)).to_string();
    assert!(out_of_range.contains("StreamID 0xffffffff does not fit"), "{out_of_range}");
    let journal = system.platform.journal();
    assert!(opcodes(&journal).is_empty() && !journal.iter().any(|step| matches!(step, Step::Write(..))));
}

#[test]
fn a_suspended_smmu_is_not_touched() {
    let system = System::new().registered();
    let attachment = system.configured(&system.device());
    system.a.smmu.suspend().unwrap();
    let dump = system.a.smmu.dump(StreamId::new(0x11)).to_string();
    assert!(dump.starts_with("registers are not looked at") && dump.contains("stage 1 by context table"), "{dump}");
    system.a.smmu.resume().unwrap();
    drop(attachment);
}

//! Dumps, taken while what they show changes.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use smmu::addr::{Iova, PhysAddr, StreamId};
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{Configuration, DeviceDescription};
use smmu::pgtable::{Access, MemoryType};
use tests::model::{Config, Model};

use super::system::System;

const IOVA: Iova = Iova::new(0x4000_0000);
/// A whole table of pages, so that it comes and goes.
const SIZE: u64 = 2 << 20;

#[test]
fn a_dump_may_be_taken_at_any_time() {
    let model = Model::new(Config::full());
    let system = System::new(&model);
    let mut fwspec = Fwspec::new();
    fwspec.push(Phandle::new(1), StreamId::new(5));
    let device = system.iommus.add_device(DeviceDescription::new("disk", fwspec)).unwrap();
    let Configuration::Configured(attachment) = system.iommus.configure(&device).unwrap() else {
        panic!("one is enough")
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                let domain = attachment.paging().unwrap();
                // Not aligned to a block.
                domain.map(IOVA, PhysAddr::new(0x9000_1000), SIZE, Access::Read, MemoryType::WriteBack).unwrap();
                domain.unmap(IOVA, SIZE).unwrap();
            }
            done.store(true, SeqCst);
        });
        while !done.load(SeqCst) {
            let dump = attachment.dump(IOVA).to_string();
            assert!(dump.contains("stage 1 by context table") && dump.contains("ASID 1"), "{dump}");
        }
    });
    let mark = model.mark();
    let dump = attachment.dump(IOVA).to_string();
    assert!(dump.ends_with("invalid"), "{dump}");
    assert!(model.log_since(mark).entries().is_empty(), "hardware has not noticed");
}

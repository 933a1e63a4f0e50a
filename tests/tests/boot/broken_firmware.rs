//! Device trees that are wrong about the SMMU: the kernel names node and property, gives no device DMA, and ends orderly.

use qemu::devicetree::{Tree, TreeError};
use qemu::outcome::Outcome;

use crate::boot::{Boot, Booted, demo_machine};
use crate::log::CONFIGURATION_WRITES;
use crate::missing_devices::assert_failed_closed;

const SMMU: &str = "/smmuv3@9050000";
const HOST_BRIDGE: &str = "/pcie@10000000";

/// Boots the demonstration with the machine's own device tree, edited.
fn boot(edit: impl FnOnce(&mut Tree) -> Result<(), TreeError>) -> Booted {
    Boot::new("demo", demo_machine()).logged(&CONFIGURATION_WRITES).device_tree(edit).run()
}

/// The SMMU is left out because of `complaint`, and without it there is no DMA.
#[track_caller]
fn assert_smmu_left_out(booted: &Booted, complaint: &str) {
    assert_failed_closed(booted, "no SMMU that works");
    booted.assert_shows(&format!("SMMU left out: {SMMU}: {complaint}"));
    let touched = booted.log.register_writes().next();
    assert!(touched.is_none(), "the SMMU was written to: {touched:?}");
}

#[test]
fn an_unedited_tree_works() {
    let booted = boot(|_| Ok(()));
    crate::demo::assert_complete(&booted, &crate::boot::DISK);
}

#[test]
fn a_register_window_too_small() {
    let booted = boot(|tree| tree.set_property(SMMU, "reg", [0_u32, 0x905_0000, 0, 0x1000]));
    assert_smmu_left_out(
        &booted,
        "property `reg`, byte 0: the window is 0x1000 bytes, but an SMMUv3 has at least 0x20000",
    );
}

#[test]
fn a_register_window_cut_short() {
    let booted = boot(|tree| tree.set_property(SMMU, "reg", [0_u32, 0x905_0000, 0]));
    assert_smmu_left_out(&booted, "property `reg`, byte 0: its length of 12 bytes is not a positive multiple of 16");
}

#[test]
fn no_register_window() {
    let booted = boot(|tree| tree.remove_property(SMMU, "reg"));
    assert_smmu_left_out(&booted, "property `reg`, byte 0: is missing");
}

#[test]
fn a_register_window_outside_the_address_space() {
    let booted = boot(|tree| tree.set_property(SMMU, "reg", [0xffff_ffff_u32, 0xffff_0000, 0, 0x2_0000]));
    assert_smmu_left_out(&booted, "property `reg`, byte 0: 0x20000 bytes from 0xffffffffffff0000 run past the 64-bit");
}

#[test]
fn registers_at_an_odd_address() {
    let booted = boot(|tree| tree.set_property(SMMU, "reg", [0_u32, 0x905_0001, 0, 0x2_0000]));
    assert_smmu_left_out(&booted, "property `reg`: no register can be at 0x9050001");
}

#[test]
fn no_iommu_cells() {
    let booted = boot(|tree| tree.remove_property(SMMU, "#iommu-cells"));
    assert_smmu_left_out(&booted, "property `#iommu-cells`, byte 0: is missing");
}

#[test]
fn a_disabled_smmu() {
    let booted = boot(|tree| tree.disable(SMMU));
    assert_failed_closed(&booted, "no SMMU: the device tree has no enabled node compatible with arm,smmu-v3");
    assert_eq!(booted.log.register_writes().next(), None);
}

#[test]
fn a_dangling_phandle_in_iommu_map() {
    let booted = boot(|tree| {
        let mut map = tree.cells(HOST_BRIDGE, "iommu-map")?;
        map[1] = 0x7777;
        tree.set_property(HOST_BRIDGE, "iommu-map", map.as_slice())
    });
    let complaint = format!("{HOST_BRIDGE}: property `iommu-map`, byte 4: no node has phandle 0x7777");
    assert_failed_closed(&booted, &complaint);
    booted.assert_shows(&format!("blocked: {complaint}"));
    booted.assert_shows("up: every stream aborts");
}

#[test]
fn an_iommu_map_cut_short() {
    let booted = boot(|tree| {
        let map = tree.cells(HOST_BRIDGE, "iommu-map")?;
        tree.set_property(HOST_BRIDGE, "iommu-map", &map[..3])
    });
    assert_failed_closed(&booted, &format!("{HOST_BRIDGE}: property `iommu-map`, byte 0: its length of 12 bytes"));
}

#[test]
fn no_iommu_map() {
    let booted = boot(|tree| tree.remove_property(HOST_BRIDGE, "iommu-map"));
    assert_failed_closed(&booted, "behind no IOMMU: it could reach all memory, so it stays off");
}

#[test]
fn a_window_for_devices_at_an_odd_address() {
    let booted = boot(|tree| {
        let mut ranges = tree.cells(HOST_BRIDGE, "ranges")?;
        // The second entry's address as the CPU sees it: memory below 4 GiB.
        ranges[11] += 1;
        tree.set_property(HOST_BRIDGE, "ranges", ranges.as_slice())
    });
    booted.assert_outcome(Outcome::Failed);
    booted.assert_shows(&format!("host bridge left out: PCI host bridge {HOST_BRIDGE}: property `ranges`: expected "));
    booted.assert_shows("FAILED: no virtio-blk on this machine");
}

#[test]
fn an_smmu_without_interrupts_is_polled() {
    let booted = boot(|tree| {
        tree.remove_property(SMMU, "interrupts")?;
        tree.remove_property(SMMU, "interrupt-names")
    });
    booted.assert_outcome(Outcome::Success);
    booted.assert_shows("events have to be polled for");
    booted.assert_shows("DMA stopped: 00:03.0 edu");
}

/// Of the lines that an SMMU calls by, all are connected or none.
#[test]
fn an_interrupt_that_cannot_be_had_leaves_none_connected() {
    let machine = Boot::new("demo", demo_machine()).logged(&["-trace", "gicv3_dist_write"]);
    let booted = machine
        .device_tree(|tree| {
            let mut interrupts = tree.cells(SMMU, "interrupts")?;
            // The type of the last, the global errors' line: neither an SPI nor a PPI.
            interrupts[9] = 7;
            tree.set_property(SMMU, "interrupts", interrupts.as_slice())
        })
        .run();
    booted.assert_outcome(Outcome::Success);
    booted.assert_shows("events have to be polled for: interrupt specifier [7, 77, 1]");
    booted.assert_shows("DMA stopped: 00:03.0 edu");
    // SPI 74, the event queue's line, is interrupt 106: bit 10 of the fourth register (Arm IHI 0069, GICD_I[SC]ENABLER).
    let writes: Vec<&str> = booted.log.lines_of("gicv3_dist_write ").collect();
    let position = |register: &str| {
        let write = format!("offset {register} data 0x400 ");
        writes.iter().rposition(|line| line.contains(&write)).unwrap_or_else(|| booted.fail(&format!("no {write}")))
    };
    assert!(position("0x10c") < position("0x18c"), "it stays enabled");
}

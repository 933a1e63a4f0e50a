//! What the kernel can be told to show, and on which machine.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use crate::device::{Device, DeviceKind};
use crate::machine::{Iommu, Machine, Stage};
use crate::two_smmus;

/// One scenario of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name in the kernel's argument `scenario=`.
    pub name: &'static str,
    /// What it shows, in one line.
    pub shows: &'static str,
    /// The devices of the machine it runs on.
    pub devices: Devices,
    /// Whether the kernel reads the whole disk and reports its SHA-256.
    pub reads_disk: bool,
}

/// The devices of a scenario's machine, all of them behind an SMMUv3, or each behind one of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// A disk, a source of random bytes, and two devices that do what they should not.
    Demo,
    /// A disk, and a source of random bytes that does at once what it is told to, as often as it is told.
    Storm,
    /// A disk, a USB controller whose DMA never ends, and two devices that do what they should not.
    Adoption,
    /// An `edu`, an `iommu-testdev`, and another one on a bus of its own.
    Strays,
    /// Random bytes, an `edu` and half of a device behind each of two SMMUs, and an `iommu-testdev` behind the second.
    Pair,
    /// An `edu` alone, two behind a bridge to conventional PCI, and two that are functions of one device.
    Groups,
    /// None; and the clock goes on by a nanosecond an instruction, so that the kernel can count them.
    Counted,
}

impl Devices {
    /// The devices themselves, in the order of their slots, with the file `disk` on the disk.
    pub fn list(self, disk: &Path) -> Vec<Device> {
        match self {
            Self::Demo => Machine::demo(disk).devices,
            Self::Storm => {
                // With an event file descriptor, many notifications in a row may count as one.
                let eager = "virtio-rng-pci,iommu_platform=on,disable-legacy=on,ioeventfd=off".to_owned();
                vec![Device::virtio_blk(disk), Device::new(DeviceKind::Other(eager))]
            }
            Self::Adoption => vec![
                Device::virtio_blk(disk),
                Device::new(DeviceKind::Other("pci-ohci".to_owned())),
                Device::new(DeviceKind::IommuTestdev),
                Device::new(DeviceKind::IommuTestdev),
            ],
            Self::Strays => vec![
                Device::new(DeviceKind::Edu),
                Device::new(DeviceKind::IommuTestdev),
                Device::root_port("port1", 1),
                Device::new(DeviceKind::IommuTestdev).on_bus("port1"),
            ],
            Self::Pair => two_smmus::devices(),
            Self::Groups => {
                let other = |device: &str| Device::new(DeviceKind::Other(device.to_owned()));
                let function = |address| other(&format!("edu,dma_mask=0xffffffffffffffff,addr={address}"));
                vec![
                    Device::new(DeviceKind::Edu).in_slot(2),
                    function("4.0,multifunction=on"),
                    function("4.1"),
                    Device::root_port("root", 1),
                    other("pcie-pci-bridge,id=conventional").on_bus("root"),
                    Device::new(DeviceKind::Edu).on_bus("conventional").in_slot(5),
                    Device::new(DeviceKind::Edu).on_bus("conventional").in_slot(6),
                ]
            }
            Self::Counted => vec![Device::new(DeviceKind::Edu)],
        }
    }

    /// What they are behind.
    fn iommu(self) -> Iommu {
        match self {
            Self::Pair => Iommu::TwoSmmuV3([Stage::Nested; 2]),
            _ => Iommu::SmmuV3,
        }
    }

    /// What else QEMU is told.
    fn arguments(self) -> Vec<OsString> {
        match self {
            Self::Counted => vec!["-icount".into(), "shift=0,sleep=off".into()],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Demo => "disk, random bytes, edu and iommu-testdev behind an SMMUv3",
            Self::Storm => "disk and random bytes behind an SMMUv3",
            Self::Adoption => "disk, USB controller and two iommu-testdevs behind an SMMUv3",
            Self::Counted => "edu behind an SMMUv3, and instructions counted",
            Self::Pair => "random bytes and edu behind each of two SMMUv3, a device behind both, iommu-testdev",
            Self::Groups => "five edu behind an SMMUv3, two of them on a conventional bus, two in one slot",
            Self::Strays => "edu, and an iommu-testdev on each of two buses, behind an SMMUv3",
        })
    }
}

/// All scenarios; the first is the default.
pub const SCENARIOS: [Scenario; 22] = [
    Scenario {
        name: "demo",
        shows: "the SMMU found, a disk read through it, devices that stray stopped and named",
        devices: Devices::Demo,
        reads_disk: true,
    },
    Scenario {
        name: "events",
        shows: "every event that QEMU's SMMU can raise, raised by a device and decoded",
        devices: Devices::Strays,
        reads_disk: false,
    },
    Scenario {
        name: "event-storm",
        shows: "a virtio device whose queue is not mapped, told to use it again and again while a disk is being read",
        devices: Devices::Storm,
        reads_disk: true,
    },
    Scenario {
        name: "suspend",
        shows: "the SMMU switched off and on again in the middle of a disk read, and what devices can do meanwhile",
        devices: Devices::Demo,
        reads_disk: true,
    },
    Scenario {
        name: "adopt",
        shows: "the kernel starts over, takes the running SMMU over, and a device's DMA goes on all the time",
        devices: Devices::Adoption,
        reads_disk: true,
    },
    Scenario {
        name: "poisoned-queue",
        shows: "commands that are none in the SMMU's queue, and the disk read that goes on all the same",
        devices: Devices::Demo,
        reads_disk: true,
    },
    Scenario {
        name: "two-smmus",
        shows: "two SMMUs, one of them late: its devices wait for it, one device waits for both",
        devices: Devices::Pair,
        reads_disk: false,
    },
    Scenario {
        name: "groups",
        shows: "devices that no IOMMU can tell apart, or whose bus does not keep them apart, share an address space",
        devices: Devices::Groups,
        reads_disk: false,
    },
    Scenario {
        name: "translation-kinds",
        shows: "stage 1, stage 2 and a guest's in front of the same device, by pages and blocks of every size, remapped under DMA",
        devices: Devices::Strays,
        reads_disk: false,
    },
    Scenario {
        name: "bench-page-tables",
        shows: "how many instructions it takes to map, unmap and look up in page tables",
        devices: Devices::Counted,
        reads_disk: false,
    },
    Scenario {
        name: "bench-invalidation",
        shows: "how many instructions it takes until an SMMU has forgotten a page, a block or an address space",
        devices: Devices::Counted,
        reads_disk: false,
    },
    Scenario {
        name: "bench-dma",
        shows: "how many instructions and commands it takes to attach a device, to map, and to lend a buffer",
        devices: Devices::Counted,
        reads_disk: false,
    },
    Scenario {
        name: "hello",
        shows: "boot: where the image and its heap are, and how much memory there is",
        devices: Devices::Demo,
        reads_disk: false,
    },
    Scenario {
        name: "timer",
        shows: "three interrupts of the architected timer",
        devices: Devices::Demo,
        reads_disk: false,
    },
    Scenario {
        name: "memory",
        shows: "memory for devices taken by size and alignment, and given back",
        devices: Devices::Demo,
        reads_disk: false,
    },
    Scenario {
        name: "exception",
        shows: "the kernel faults on purpose: register dump, decoded syndrome, backtrace (exit status 102)",
        devices: Devices::Demo,
        reads_disk: false,
    },
    Scenario {
        name: "guard-page",
        shows: "the kernel overflows its stack on purpose and is stopped by the guard page (exit status 102)",
        devices: Devices::Demo,
        reads_disk: false,
    },
    Scenario {
        name: "write-text",
        shows: "the kernel writes to its own code on purpose and is stopped (exit status 102)",
        devices: Devices::Demo,
        reads_disk: false,
    },
    Scenario {
        name: "execute-data",
        shows: "the kernel jumps into data on purpose and is stopped (exit status 102)",
        devices: Devices::Demo,
        reads_disk: false,
    },
    Scenario {
        name: "panic",
        shows: "the kernel panics on purpose: message and backtrace (exit status 101)",
        devices: Devices::Demo,
        reads_disk: false,
    },
    Scenario {
        name: "handler-fault",
        shows: "the kernel faults on purpose in an interrupt handler (exit status 102)",
        devices: Devices::Demo,
        reads_disk: false,
    },
    Scenario {
        name: "stale-translation",
        shows: "an invalidation is left out on purpose, and the stale translation is seen",
        devices: Devices::Demo,
        reads_disk: false,
    },
];

impl Scenario {
    /// The scenario called `name`.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// The machine it runs on, with the file `disk` on its disk.
    pub fn machine(&self, disk: &Path) -> Machine {
        let (devices, extra_arguments) = (self.devices.list(disk), self.devices.arguments());
        Machine { devices, iommu: self.devices.iommu(), extra_arguments, ..Machine::default() }
    }
}

//! What the kernel can be told to show.

/// One scenario of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name in the kernel's argument `scenario=`.
    pub name: &'static str,
    /// What it shows, in one line.
    pub shows: &'static str,
    /// The machine it runs on, in one line.
    pub machine: &'static str,
    /// Whether the kernel reads the whole disk and reports its SHA-256.
    pub reads_disk: bool,
}

const DEMO_MACHINE: &str = "disk, random bytes, edu and iommu-testdev behind an SMMUv3";

/// All scenarios; the first is the default.
pub const SCENARIOS: [Scenario; 11] = [
    Scenario {
        name: "demo",
        shows: "the SMMU found, a disk read through it, devices that stray stopped and named",
        machine: DEMO_MACHINE,
        reads_disk: true,
    },
    Scenario {
        name: "hello",
        shows: "boot: where the image and its heap are, and how much memory there is",
        machine: DEMO_MACHINE,
        reads_disk: false,
    },
    Scenario {
        name: "timer",
        shows: "three interrupts of the architected timer",
        machine: DEMO_MACHINE,
        reads_disk: false,
    },
    Scenario {
        name: "memory",
        shows: "memory for devices taken by size and alignment, and given back",
        machine: DEMO_MACHINE,
        reads_disk: false,
    },
    Scenario {
        name: "exception",
        shows: "the kernel faults on purpose: register dump, decoded syndrome, backtrace (exit status 102)",
        machine: DEMO_MACHINE,
        reads_disk: false,
    },
    Scenario {
        name: "guard-page",
        shows: "the kernel overflows its stack on purpose and is stopped by the guard page (exit status 102)",
        machine: DEMO_MACHINE,
        reads_disk: false,
    },
    Scenario {
        name: "write-text",
        shows: "the kernel writes to its own code on purpose and is stopped (exit status 102)",
        machine: DEMO_MACHINE,
        reads_disk: false,
    },
    Scenario {
        name: "execute-data",
        shows: "the kernel jumps into data on purpose and is stopped (exit status 102)",
        machine: DEMO_MACHINE,
        reads_disk: false,
    },
    Scenario {
        name: "panic",
        shows: "the kernel panics on purpose: message and backtrace (exit status 101)",
        machine: DEMO_MACHINE,
        reads_disk: false,
    },
    Scenario {
        name: "handler-fault",
        shows: "the kernel faults on purpose in an interrupt handler (exit status 102)",
        machine: DEMO_MACHINE,
        reads_disk: false,
    },
    Scenario {
        name: "stale-translation",
        shows: "an invalidation is left out on purpose, and the stale translation is seen",
        machine: DEMO_MACHINE,
        reads_disk: false,
    },
];

impl Scenario {
    /// The scenario called `name`.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }
}

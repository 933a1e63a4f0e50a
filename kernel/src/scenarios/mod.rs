//! Scenarios: what the kernel does once it has booted, chosen by `scenario=NAME` on its command line.
//!
//! What lives here: the table of them, and those that try out the kernel itself.

mod adopt;
mod base;
mod bench_dma;
mod benchmarks;
mod demo;
mod disk;
mod engine;
mod entropy;
mod event_storm;
mod events;
mod faults;
mod groups;
mod hotplug;
mod poisoned_queue;
mod probe;
mod sabotage;
mod stale_translation;
mod suspend;
mod system;
mod translation_kinds;
mod two_smmus;
mod watch;

use alloc::string::String;
use alloc::vec::Vec;

use crate::arguments::Arguments;
use crate::devicetree::DeviceTree;
use crate::inheritance::{Inheritance, InheritedDevice};
use crate::power::ExitCode;
use crate::{println, record};

/// What a scenario gets to work with.
pub struct Context {
    /// The device tree.
    pub tree: DeviceTree,
    /// The command line.
    pub arguments: Arguments,
    /// What the run before has left, if the kernel was started by itself.
    pub inheritance: Option<Inheritance>,
}

impl Context {
    /// Devices that have been at work since the run before.
    fn inherited_devices(&self) -> &[InheritedDevice] {
        self.inheritance.as_ref().map_or(&[], |inheritance| &inheritance.devices)
    }

    /// Their Requester IDs.
    fn working(&self) -> Vec<u16> {
        self.inherited_devices().iter().map(|device| device.requester_id).collect()
    }
}

/// One scenario.
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows, in one line.
    pub description: &'static str,
    /// Runs it.
    pub run: fn(&Context) -> ExitCode,
}

/// All scenarios; the first is the default.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "demo", description: "DMA through an SMMU, and devices that stray stopped", run: demo::run },
    Scenario {
        name: "stale-translation",
        description: "an invalidation left out on purpose, and what a device can do then",
        run: stale_translation::run,
    },
    Scenario { name: "events", description: "every event that QEMU's SMMU can raise, decoded", run: events::run },
    Scenario {
        name: "event-storm",
        description: "a device that faults without end, while a disk is being read",
        run: event_storm::run,
    },
    Scenario {
        name: "suspend",
        description: "the SMMU off and on again, in the middle of a disk read",
        run: suspend::run,
    },
    Scenario { name: "adopt", description: "the kernel starts over, and a device's DMA goes on", run: adopt::run },
    Scenario {
        name: "poisoned-queue",
        description: "commands that are none, while a disk is being read",
        run: poisoned_queue::run,
    },
    Scenario {
        name: "two-smmus",
        description: "two SMMUs, one of them late, and a device behind both",
        run: two_smmus::run,
    },
    Scenario {
        name: "hotplug",
        description: "a disk taken out during a read, by others, and put in again",
        run: hotplug::run,
    },
    Scenario { name: "groups", description: "devices that cannot be told apart share a domain", run: groups::run },
    Scenario {
        name: "translation-kinds",
        description: "stage 1, stage 2 and a guest's, by pages and blocks of every size",
        run: translation_kinds::run,
    },
    Scenario {
        name: "bench-page-tables",
        description: "instructions that map, unmap and lookup take",
        run: benchmarks::page_tables,
    },
    Scenario {
        name: "bench-invalidation",
        description: "instructions that one invalidation takes",
        run: benchmarks::invalidation,
    },
    Scenario {
        name: "bench-dma",
        description: "instructions and commands that attaching, mapping and lending buffers take",
        run: bench_dma::run,
    },
    Scenario { name: "hello", description: "boot, say what was found, and exit", run: base::run },
    Scenario { name: "timer", description: "three interrupts of the architected timer", run: base::timer },
    Scenario { name: "memory", description: "DMA memory taken and given back", run: base::memory },
    Scenario { name: "exception", description: "read an unmapped address: a dump, exit 102", run: faults::exception },
    Scenario { name: "guard-page", description: "overflow the stack: a dump, exit 102", run: faults::guard_page },
    Scenario { name: "write-text", description: "write to code: a dump, exit 102", run: faults::write_text },
    Scenario { name: "execute-data", description: "execute data: a dump, exit 102", run: faults::execute_data },
    Scenario { name: "panic", description: "panic: a backtrace, exit 101", run: faults::panic },
    Scenario { name: "handler-fault", description: "fault in an interrupt handler: exit 102", run: faults::in_handler },
];

/// The end of a scenario that went well or says what went wrong.
fn exit_code(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::Success,
        Err(error) => {
            println!("\nFAILED: {error}");
            record!("failure", "message" => error.as_str());
            ExitCode::Failure
        }
    }
}

/// Runs the scenario called `name`, or the default one.
pub fn run(name: Option<&str>, context: &Context) -> ExitCode {
    let found = match name {
        Some(name) => SCENARIOS.iter().find(|scenario| scenario.name == name),
        None => SCENARIOS.first(),
    };
    if let Some(scenario) = found {
        return (scenario.run)(context);
    }
    println!("there is no scenario `{}`; there are:", name.unwrap_or_default());
    for scenario in SCENARIOS {
        println!("  {:<16} {}", scenario.name, scenario.description);
    }
    ExitCode::Failure
}

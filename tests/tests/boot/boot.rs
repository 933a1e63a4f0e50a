//! One boot: a machine, what the kernel is told, and what came of it.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process;
use std::sync::LazyLock;

use qemu::console;
use qemu::devicetree::{Tree, TreeError};
use qemu::disk::Disk;
use qemu::kernel::Kernel;
use qemu::locate::{self, ADVICE};
use qemu::machine::{Iommu, Machine};
use qemu::outcome::Outcome;
use qemu::program::Qemu;
use qemu::run::{Run, RunResult};
use qemu::scenario::Scenario;
use serde_json::Value;
use tempfile::TempDir;

use crate::log::Log;

/// The QEMU of all tests, located once. A private copy may be downloaded for it, which says so on standard error.
pub(crate) static QEMU: LazyLock<Qemu> = LazyLock::new(|| {
    let qemu = locate::locate(None).unwrap_or_else(|error| give_up(&error.to_string()));
    if !qemu.capabilities.is_full() {
        give_up(&format!("{} cannot build every machine of the tests. {ADVICE}", qemu.version));
    }
    qemu
});

/// The kernel of all tests, built once.
pub(crate) static KERNEL: LazyLock<Kernel> =
    LazyLock::new(|| Kernel::build().unwrap_or_else(|error| give_up(&error.to_string())));

/// The disk of all machines for which nothing else is said; only read.
pub(crate) static DISK: LazyLock<Disk> =
    LazyLock::new(|| Disk::seeded().unwrap_or_else(|error| give_up(&error.to_string())));

/// Ends all tests: what every one of them needs is not there. Said once, instead of by each of them.
fn give_up(message: &str) -> ! {
    // Not by `eprintln!`, whose text the test harness would keep to itself.
    let _ = writeln!(io::stderr(), "\nerror: no test can boot the kernel: {message}");
    process::exit(1)
}

/// The machine of the demonstration.
pub(crate) fn demo_machine() -> Machine {
    Machine::demo(&DISK.path)
}

/// A boot to be made.
pub(crate) struct Boot {
    machine: Machine,
    bootargs: String,
    is_logged: bool,
    /// Holds this boot's own files.
    folder: TempDir,
}

impl Boot {
    /// A boot of `machine` into the scenario `scenario`.
    pub(crate) fn new(scenario: &str, machine: Machine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { machine, bootargs: format!("scenario={scenario}"), is_logged: false, folder }
    }

    /// A boot into the scenario `scenario` on its own machine.
    pub(crate) fn of(scenario: &str) -> Self {
        Self::new(scenario, Scenario::by_name(scenario).unwrap().machine(&DISK.path))
    }

    /// Puts the machine's devices behind `iommu`.
    pub(crate) fn on(mut self, iommu: Iommu) -> Self {
        self.machine.iommu = iommu;
        self
    }

    /// Tells the kernel `argument` as well.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.bootargs += " ";
        self.bootargs += argument;
        self
    }

    /// Keeps QEMU's log of the run, with `more` of QEMU's arguments for what it should hold besides the SMMU's events.
    pub(crate) fn logged(mut self, more: &[&str]) -> Self {
        self.is_logged = true;
        self.machine.extra_arguments.extend(more.iter().map(Into::into));
        self
    }

    /// Gives the machine its own device tree, edited.
    pub(crate) fn device_tree(mut self, edit: impl FnOnce(&mut Tree) -> Result<(), TreeError>) -> Self {
        let mut tree = Tree::of_machine(&QEMU, &self.machine).unwrap();
        edit(&mut tree).unwrap();
        let file = self.folder.path().join("edited.dtb");
        tree.write(&file).unwrap();
        self.machine.device_tree = Some(file);
        self
    }

    /// Makes it.
    pub(crate) fn run(self) -> Booted {
        let is_described = self.machine.device_tree.is_some() || !matches!(self.machine.iommu, Iommu::TwoSmmuV3(_));
        let this = if is_described { self } else { self.device_tree(|_| Ok(())) };
        this.run_as_described()
    }

    fn run_as_described(self) -> Booted {
        let trace: Option<PathBuf> = self.is_logged.then(|| self.folder.path().join("log"));
        let run = Run { trace: trace.clone(), ..Run::new(&QEMU, &self.machine, &KERNEL.image, &self.bootargs) };
        let result = run.execute().unwrap();
        Booted { result, log: Log::read(trace.as_deref()) }
    }
}

/// What came of a boot.
pub(crate) struct Booted {
    pub(crate) result: RunResult,
    /// What QEMU logged; empty where it was not asked to.
    pub(crate) log: Log,
}

impl Booted {
    /// Fails the test unless the run ended with `outcome`.
    #[track_caller]
    pub(crate) fn assert_outcome(&self, outcome: Outcome) {
        if self.result.outcome != outcome {
            self.fail(&format!("expected: {outcome}; but {}", self.result.outcome));
        }
    }

    /// Fails the test unless the console shows `text`.
    #[track_caller]
    pub(crate) fn assert_shows(&self, text: &str) {
        if !self.result.console.contains(text) {
            self.fail(&format!("the console does not show {text:?}"));
        }
    }

    /// Fails the test if the console shows `text`.
    #[track_caller]
    pub(crate) fn assert_never_shows(&self, text: &str) {
        if self.result.console.contains(text) {
            self.fail(&format!("the console shows {text:?}"));
        }
    }

    /// The records of kind `kind`.
    pub(crate) fn records<'a>(&'a self, kind: &'a str) -> Vec<&'a Value> {
        console::of_kind(&self.result.records, kind).collect()
    }

    /// The only record of kind `kind`.
    #[track_caller]
    pub(crate) fn record<'a>(&'a self, kind: &'a str) -> &'a Value {
        match self.records(kind)[..] {
            [record] => record,
            ref records => self.fail(&format!("{} records {kind:?} instead of one", records.len())),
        }
    }

    /// Fails the test and shows what happened.
    #[track_caller]
    pub(crate) fn fail(&self, why: &str) -> ! {
        let RunResult { console, records, messages, command_line, .. } = &self.result;
        let command_line = command_line.join(" ".as_ref());
        let records: Vec<String> = records.iter().map(Value::to_string).collect();
        panic!(
            "{why}\n--- command line\n{}\n--- console\n{console}--- records\n{}\n--- QEMU's messages\n{messages}",
            command_line.display(),
            records.join("\n"),
        )
    }
}

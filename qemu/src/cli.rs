//! The launcher's command line.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, RangedU64ValueParser, StringValueParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::{Parser, ValueEnum};
use qemu::disk::SEEDED_BYTES;
use qemu::gdb::Stub;
use qemu::machine::{ExceptionLevel, Gic, Iommu, Machine, Stage};
use qemu::run::DEFAULT_TIMEOUT;
use qemu::scenario::{SCENARIOS, Scenario};
use qemu::two_smmus;

/// Those CPU models of QEMU's board `virt` that start and never come to the kernel's first instruction.
const CPUS_OF_32_BITS: [&str; 2] = ["cortex-a7", "cortex-a15"];

/// Exit status for careless input.
pub(crate) const USAGE: u8 = 2;

/// Builds the kernel, starts it in QEMU and watches it.
#[derive(Debug, Parser)]
#[command(
    name = "cargo run --",
    bin_name = "cargo run --",
    version,
    after_help = "Exit status: 0 success, 1 the scenario failed, 2 wrong use, 101 the kernel panicked, 102 it took an \
                  unexpected exception, 124 it hung, 125 QEMU refused or crashed, 130 interrupted.\n\
                  QEMU is taken from --qemu, $QEMU, PATH, or (on Debian and Ubuntu) a private copy under the target folder."
)]
pub(crate) struct Arguments {
    /// What the kernel shows; --list explains the choices
    #[arg(default_value = SCENARIOS[0].name, value_parser = scenario_parser(), hide_possible_values = true)]
    pub(crate) scenario: &'static Scenario,
    /// List the scenarios
    #[arg(long)]
    pub(crate) list: bool,
    /// Translation stages of the SMMU [default: as the board has them]
    #[arg(long, value_enum)]
    stage: Option<StageArgument>,
    /// Start the kernel at EL2
    #[arg(long)]
    el2: bool,
    /// CPU model, by QEMU's name
    #[arg(long, value_name = "MODEL", default_value = "max", value_parser = StringValueParser::new().try_map(cpu))]
    cpu: String,
    /// Memory in MiB, or with the suffix M or G
    #[arg(long, value_name = "SIZE", default_value = "512", value_parser = memory_mib)]
    memory: u32,
    /// Number of CPUs
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = RangedU64ValueParser::<u32>::new().range(1..=255))]
    smp: u32,
    /// Version of the interrupt controller
    #[arg(long, value_enum, default_value = "3")]
    gic: GicArgument,
    /// Disk of the machine, only read [default: 16 MiB made from a seed]
    #[arg(long, value_name = "FILE")]
    pub(crate) disk: Option<PathBuf>,
    /// Stop before the first instruction and wait for gdb on a TCP port or a Unix socket
    #[arg(long, value_name = "PORT|SOCKET", num_args = 0..=1, require_equals = true, default_missing_value = "1234", value_parser = Stub::parse)]
    pub(crate) gdb: Option<Stub>,
    /// Write QEMU's smmu_* and smmuv3_* trace events to a file [default: in the target folder]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "clap's way to tell `--trace` from `--trace=FILE`")]
    pub(crate) trace: Option<Option<PathBuf>>,
    /// Print the QEMU command line and run nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// Seconds after which the kernel counts as hung [default: 60, more for large disks, none with --gdb]
    #[arg(long, value_name = "SECONDS", value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000_000))]
    timeout: Option<u64>,
    /// Write the results to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The QEMU to use
    #[arg(long, value_name = "PATH")]
    pub(crate) qemu: Option<PathBuf>,
    /// Start this kernel instead of building one
    #[arg(long, value_name = "ELF")]
    pub(crate) kernel: Option<PathBuf>,
    /// More arguments for QEMU
    #[arg(last = true, value_name = "ARGS")]
    extra: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StageArgument {
    #[value(name = "1")]
    One,
    #[value(name = "2")]
    Two,
    Nested,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum GicArgument {
    #[value(name = "2")]
    V2,
    #[value(name = "3")]
    V3,
}

impl Arguments {
    /// The arguments of this process; ends it where they are wrong or help was asked for.
    pub(crate) fn read() -> Self {
        let words: Vec<OsString> = env::args_os().collect();
        let arguments = Self::try_parse_from(&words).unwrap_or_else(|error| {
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
                error.exit();
            }
            let hint = detached_value(&words).unwrap_or_default();
            refuse(&format!("{}{hint}", one_line(&error.to_string())))
        });
        if arguments.gic == GicArgument::V2 && arguments.smp > 8 {
            refuse("error: GICv2 has at most 8 CPUs, so --smp must be 1 to 8 with --gic 2");
        }
        arguments
    }

    /// The machine for the scenario over the disk file `disk`.
    pub(crate) fn machine(&self, disk: &Path) -> Machine {
        let mut machine = self.scenario.machine(disk);
        machine.cpu.clone_from(&self.cpu);
        machine.cpus = self.smp;
        machine.memory_mib = self.memory;
        machine.gic = match self.gic {
            GicArgument::V2 => Gic::V2,
            GicArgument::V3 => Gic::V3,
        };
        machine.start = if self.el2 { ExceptionLevel::El2 } else { ExceptionLevel::El1 };
        let stage = self.stage.map(|stage| match stage {
            StageArgument::One => Stage::One,
            StageArgument::Two => Stage::Two,
            StageArgument::Nested => Stage::Nested,
        });
        machine.iommu = match (machine.iommu, stage) {
            (iommu, None) => iommu,
            (Iommu::TwoSmmuV3(_), Some(stage)) => Iommu::TwoSmmuV3([stage; 2]),
            (_, Some(stage)) => Iommu::SmmuV3Stage(stage),
        };
        if let Iommu::TwoSmmuV3(_) = machine.iommu {
            machine.device_tree = Some(two_smmus::tree_path());
        }
        machine.extra_arguments.extend(self.extra.iter().cloned());
        machine
    }

    /// The time limit of a run that reads a disk of `disk_bytes` bytes.
    pub(crate) fn time_limit(&self, disk_bytes: u64) -> Option<Duration> {
        // An emulated CPU hashes more than one MiB in a second.
        let larger_mib = disk_bytes.saturating_sub(SEEDED_BYTES) >> 20;
        let default = DEFAULT_TIMEOUT + Duration::from_secs(larger_mib);
        match self.timeout {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => self.gdb.is_none().then_some(default),
        }
    }
}

/// Says what is wrong and ends the process.
pub(crate) fn refuse(message: &str) -> ! {
    qemu::tell!("{message}");
    process::exit(USAGE.into())
}

/// Says that `error` is in the way, and ends the process.
pub(crate) fn refuse_error(error: &dyn std::error::Error) -> ! {
    refuse(&format!("error: {error}"))
}

/// The first paragraph of a message of clap's, as one line.
fn one_line(message: &str) -> String {
    let paragraph = message.lines().take_while(|line| !line.is_empty()).map(str::trim);
    paragraph.collect::<Vec<_>>().join(" ")
}

/// A hint for those who wrote `--gdb PORT` or `--trace FILE`: the word after such an option is taken for the scenario.
fn detached_value(words: &[OsString]) -> Option<String> {
    let own = words.iter().take_while(|word| *word != "--").collect::<Vec<_>>();
    own.windows(2).find_map(|pair| match pair {
        [option, value] if *option == "--gdb" || *option == "--trace" => {
            let (option, value) = (option.display(), value.to_str()?);
            (!value.starts_with('-') && Scenario::by_name(value).is_none())
                .then(|| format!("; a value of {option} is joined to it: {option}={value}"))
        }
        _ => None,
    })
}

fn scenario_parser() -> impl clap::builder::TypedValueParser<Value = &'static Scenario> {
    let names = SCENARIOS.iter().map(|scenario| scenario.name);
    PossibleValuesParser::new(names).try_map(|name| Scenario::by_name(&name).ok_or("no such scenario"))
}

fn cpu(name: String) -> Result<String, String> {
    let model = name.split(',').next().unwrap_or_default();
    if model.is_empty() {
        return Err("a CPU model is wanted, such as max or cortex-a57".to_owned());
    }
    if CPUS_OF_32_BITS.contains(&model) {
        return Err(format!("{model} has 32 bits, and the kernel needs an AArch64 CPU, such as max or cortex-a57"));
    }
    Ok(name)
}

/// Parses `512`, `512M`, `4G`.
fn memory_mib(text: &str) -> Result<u32, String> {
    let (digits, factor) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let size = digits.parse::<u32>().ok().and_then(|size| size.checked_mul(factor));
    match size {
        Some(size @ 16..=1_048_576) => Ok(size),
        _ => Err("16 MiB to 1024 GiB are possible, written like 512, 512M or 4G".to_owned()),
    }
}

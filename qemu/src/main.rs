//! The launcher: what `cargo run` runs.

mod cli;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use qemu::devicetree::Tree;
use qemu::disk::{Disk, SEEDED_BYTES};
use qemu::kernel::Kernel;
use qemu::locate;
use qemu::machine::{Machine, Part};
use qemu::program::Qemu;
use qemu::report::Report;
use qemu::run::{Run, RunResult};
use qemu::{console, scenario, symbols, terminal, workspace};

use crate::cli::{Arguments, refuse, refuse_error};

/// How many lines of the console are repeated after a failure.
const LAST_LINES: usize = 20;

type AnyError = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments = Arguments::read();
    let done = if arguments.list {
        list();
        Ok(0)
    } else if arguments.print {
        print(&arguments)
    } else {
        launch(&arguments)
    };
    done.map_or_else(
        |error| {
            qemu::tell!("error: {error}");
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}

fn list() {
    for scenario in scenario::SCENARIOS {
        qemu::show!("{:18} {}\n{:18} on: {}", scenario.name, scenario.shows, "", scenario.devices);
    }
}

/// Prints QEMU's command line; neither a kernel nor a QEMU need be there.
fn print(arguments: &Arguments) -> Result<u8, AnyError> {
    let qemu = locate::locate_at_once(arguments.qemu.as_deref()).unwrap_or_else(|error| refuse_error(&error));
    let image = match &arguments.kernel {
        Some(elf) => Kernel::beside(elf).image,
        None => Kernel::expected().image,
    };
    let disk = match &arguments.disk {
        Some(file) => Disk::file(file).unwrap_or_else(|error| refuse_error(&error)),
        None => Disk { path: Disk::seeded_path(), bytes: SEEDED_BYTES, sha256: String::new() },
    };
    let (machine, left_out) = machine_for(arguments, &qemu, &disk)?;
    let run = prepare(arguments, &qemu, &machine, &image, &disk, &left_out);
    qemu::show!("{}", shell_line(&qemu.command_line(&run.arguments()))?);
    Ok(0)
}

fn launch(arguments: &Arguments) -> Result<u8, AnyError> {
    let disk = match &arguments.disk {
        Some(file) => Disk::file(file).unwrap_or_else(|error| refuse_error(&error)),
        None => Disk::seeded()?,
    };
    let json = arguments.json.as_deref().map(|path| create("--json", path));
    if let Some(path) = trace_file(arguments) {
        create("--trace", &path);
    }
    let qemu = match locate::locate(arguments.qemu.as_deref()) {
        Err(error @ (locate::LocateError::NotFound { .. } | locate::LocateError::Probe(_))) => refuse_error(&error),
        located => located?,
    };
    let kernel = match &arguments.kernel {
        Some(elf) => Kernel::from_elf(elf).unwrap_or_else(|error| refuse_error(&error)),
        None => Kernel::build()?,
    };
    let (machine, left_out) = machine_for(arguments, &qemu, &disk)?;
    for part in &left_out {
        qemu::tell!("left out, because {} has no such thing: {part}", qemu.version);
    }
    if let Some(file) = &machine.device_tree {
        Tree::of_machine(&qemu, &machine)?.write(file)?;
    }

    let mut run = prepare(arguments, &qemu, &machine, &kernel.image, &disk, &left_out);
    run.shown = true;
    if let Some(stub) = &run.gdb {
        qemu::tell!(
            "The machine waits for a debugger; in another terminal:\n  {}",
            shell_line(&stub.debugger_command(&kernel.elf))?
        );
    }
    let result = run.execute()?;
    judge(arguments, &run, &result, &kernel, &disk, &left_out, json)
}

/// The machine that was asked for, less what `qemu` cannot provide, and what that is.
fn machine_for(arguments: &Arguments, qemu: &Qemu, disk: &Disk) -> Result<(Machine, Vec<Part>), AnyError> {
    let machine = arguments.machine(&disk.path);
    let missing = machine.missing_parts(&qemu.capabilities);
    match missing.iter().find(|part| matches!(part, Part::Stage(_) | Part::SecondSmmu)) {
        Some(smmu) => Err(format!("{} does not have {smmu}. {}", qemu.version, locate::ADVICE).into()),
        None => Ok((machine.without(&missing), missing)),
    }
}

/// The run that was asked for.
fn prepare<'a>(
    arguments: &Arguments,
    qemu: &'a Qemu,
    machine: &'a Machine,
    image: &'a Path,
    disk: &Disk,
    left_out: &[Part],
) -> Run<'a> {
    let scenario = format!("scenario={}", arguments.scenario.name);
    let without = left_out.iter().map(|part| format!("without={}", part.name()));
    let bootargs: Vec<String> = std::iter::once(scenario).chain(disk.bootargs()).chain(without).collect();
    Run {
        timeout: arguments.time_limit(disk.bytes),
        trace: trace_file(arguments),
        gdb: arguments.gdb.clone(),
        ..Run::new(qemu, machine, image, &bootargs.join(" "))
    }
}

/// Where trace events go, if they are wanted.
fn trace_file(arguments: &Arguments) -> Option<PathBuf> {
    let default = || workspace::target_directory().join(format!("{}.trace", arguments.scenario.name));
    arguments.trace.clone().map(|file| file.unwrap_or_else(default))
}

/// Creates the file `path` that `option` names, before anything that takes time.
fn create(option: &str, path: &Path) -> File {
    File::create(path).unwrap_or_else(|error| refuse(&format!("error: {option} {}: {error}", path.display())))
}

/// Says how the run ended, writes the report, and returns the exit status.
fn judge(
    arguments: &Arguments,
    run: &Run<'_>,
    result: &RunResult,
    kernel: &Kernel,
    disk: &Disk,
    left_out: &[Part],
    json: Option<File>,
) -> Result<u8, AnyError> {
    let mut report = Report::new(arguments.scenario.name, run.qemu, result);
    let mut message = result.outcome.to_string();
    if report.exit_status == 0 && arguments.scenario.reads_disk {
        match disk.check(&result.records) {
            Ok(()) => qemu::show!("{}: SHA-256 {}, the same on the host", disk.path.display(), disk.sha256),
            Err(error) => {
                message = error.to_string();
                (report.outcome, report.exit_status) = ("wrong-result", 1);
            }
        }
    }
    report.message = &message;
    report.left_out = left_out;
    for record in console::of_kind(&result.records, "backtrace") {
        qemu::tell!("backtrace, resolved:");
        for line in symbols::resolve(&kernel.elf, &symbols::addresses(record)) {
            qemu::tell!("{line}");
        }
    }
    if report.exit_status != 0 {
        tell_last_lines(result);
    }
    if let Some(trace) = &run.trace {
        qemu::tell!("trace events: {}", trace.display());
    }
    let prefix = if report.exit_status == 0 { "" } else { "error: " };
    qemu::tell!("{prefix}{message} ({:.1} s)", result.wall.as_secs_f64());
    if let Some(file) = json {
        serde_json::to_writer_pretty(file, &report)?;
    }
    Ok(report.exit_status)
}

/// Repeats the end of the console on standard error, unless that is where all of it went already.
fn tell_last_lines(result: &RunResult) {
    if result.console.trim().is_empty() {
        qemu::tell!("the console shows nothing");
    } else if !terminal::outputs_are_one() {
        qemu::tell!("last lines of the console:");
        for line in result.last_lines(LAST_LINES) {
            qemu::tell!("  | {line}");
        }
    }
}

/// `words` quoted for a shell.
fn shell_line(words: &[OsString]) -> Result<String, AnyError> {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    Ok(shlex::try_join(words.iter().map(AsRef::as_ref))?)
}

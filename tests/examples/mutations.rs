//! Breaks the driver in every way that `tests::mutations` knows and shows which test notices.
//!
//! `cargo run -p tests --example mutations [-- NAME...]` prints a table; with names, only of the mutations that contain
//! one of them. It works on a copy of the files that git tracks, in `target/mutations`, and fails if a mutation survives.
//! Progress goes to standard error.

use std::error::Error;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, process, thread};

use clap::{Parser, ValueEnum};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tests::mutations::{Mutation, mutations};

/// Breaks the driver in many ways, one at a time, and shows which test notices each.
#[derive(Parser)]
struct Arguments {
    /// Only mutations whose names contain one of these words
    names: Vec<String>,
    /// Lists the mutations, and runs nothing
    #[arg(long)]
    list: bool,
    /// Runs these tests alone. Otherwise the driver's own, then those under shuttle, then those on the model: each set for
    /// what those before let through
    #[arg(long, value_name = "SET")]
    only: Option<TestSet>,
}

/// Tests that may notice.
#[derive(Clone, Copy, ValueEnum)]
enum TestSet {
    /// The driver's own tests.
    Driver,
    /// The core on several CPUs.
    Shuttle,
    /// The driver on the software model.
    Model,
}

/// The process group that is running tests, if any; 0 otherwise.
static RUNNING: AtomicI32 = AtomicI32::new(0);
/// What a shell says of a program that SIGINT ended.
const INTERRUPTED: i32 = 130;
/// How long the compiler may take.
const BUILD_LIMIT: Duration = Duration::from_secs(900);
/// How long a test set may take, also on a machine that has other things to do. A broken driver may wait for ever, which is
/// noticed too.
const TEST_LIMIT: Duration = Duration::from_secs(120);

/// What became of one run of cargo.
struct Run {
    succeeded: bool,
    in_time: bool,
    /// Standard output and standard error, as they came.
    output: String,
}

/// The copy of the workspace that is broken.
struct Copy {
    root: PathBuf,
    target: PathBuf,
    /// What notices, the cheaper tests first: each set runs only for what those before let through.
    sets: Vec<TestSet>,
}

fn main() -> ExitCode {
    match check(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The mutations that `names` select: all of them if there are none.
fn select(names: &[String]) -> Result<Vec<&'static Mutation>, String> {
    let matches = |mutation: &Mutation, name: &String| mutation.name.contains(name.as_str());
    if let Some(name) = names.iter().find(|name| !mutations().any(|mutation| matches(mutation, name))) {
        return Err(format!("no mutation's name contains `{name}`; --list shows them all"));
    }
    let selected = |mutation: &&Mutation| names.is_empty() || names.iter().any(|name| matches(mutation, name));
    Ok(mutations().filter(selected).collect())
}

/// Checks what `arguments` select. Returns whether each mutation was noticed.
fn check(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let selected = select(&arguments.names)?;
    if arguments.list {
        selected.iter().for_each(|mutation| println!("{:32} {}", mutation.name, mutation.breaks));
        return Ok(true);
    }
    ctrlc::set_handler(|| {
        // Cargo and what it runs are a group of their own, which the terminal does not reach.
        let group = RUNNING.load(Ordering::SeqCst);
        if group != 0 {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        process::exit(INTERRUPTED);
    })?;
    let sets = arguments.only.map_or(vec![TestSet::Driver, TestSet::Shuttle, TestSet::Model], |set| vec![set]);
    let copy = Copy::new(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")), sets)?;
    eprintln!("the driver as it is: compiling and testing ...");
    if let Some(test) = copy.caught()? {
        return Err(format!("the driver fails before anything is broken: {test}").into());
    }
    println!("| Mutation | The broken driver | In | Caught by |\n|---|---|---|---|");
    let mut caught = 0;
    for (number, mutation) in (1..).zip(&selected) {
        eprintln!("{number} of {}: {} ...", selected.len(), mutation.name);
        let test = copy.with(mutation)?;
        caught += usize::from(test.is_some());
        println!("{}{} |", mutation.row(), test.as_deref().unwrap_or("**nothing**"));
    }
    println!("\n{caught} of {} caught", selected.len());
    Ok(caught == selected.len())
}

impl TestSet {
    /// What `cargo test` is told.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["-p", "smmu", "--lib"],
            Self::Shuttle => &["-p", "tests", "--test", "shuttle"],
            Self::Model => &["-p", "tests", "--test", "model"],
        }
    }
}

impl Copy {
    /// Copies the files that git tracks in the workspace at `root`, as they are now. What an earlier copy built stays.
    fn new(root: &Path, sets: Vec<TestSet>) -> Result<Self, Box<dyn Error>> {
        let folder = root.join("target/mutations");
        let copy = Self { root: folder.join("workspace"), target: folder.join("target"), sets };
        if copy.root.exists() {
            fs::remove_dir_all(&copy.root)?;
        }
        let listing = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output()?;
        if !listing.status.success() {
            return Err(format!("git ls-files: {}", String::from_utf8_lossy(&listing.stderr)).into());
        }
        for file in str::from_utf8(&listing.stdout)?.split_terminator('\0') {
            let to = copy.root.join(file);
            fs::create_dir_all(to.parent().unwrap_or(&copy.root))?;
            fs::copy(root.join(file), to).map_err(|error| format!("{file}: {error}"))?;
        }
        Ok(copy)
    }

    /// What notices `mutation`, if anything does. The copy is whole again afterwards.
    fn with(&self, mutation: &Mutation) -> Result<Option<String>, Box<dyn Error>> {
        let broken = mutation.apply(&self.root)?;
        let file = self.root.join(mutation.file);
        let whole = fs::read(&file)?;
        fs::write(&file, broken)?;
        let caught = self.caught().map_err(|error| format!("mutation `{}`: {error}", mutation.name));
        fs::write(&file, whole)?;
        Ok(caught?)
    }

    /// What fails in the copy as it is, if anything does.
    fn caught(&self) -> Result<Option<String>, Box<dyn Error>> {
        for set in self.sets.iter().map(|set| set.arguments()) {
            let build = self.cargo_test(set, &["--no-run"], BUILD_LIMIT)?;
            if !build.succeeded {
                return Err(format!("it does not compile:\n{}", build.output).into());
            }
            let run = self.cargo_test(set, &[], TEST_LIMIT)?;
            if !run.succeeded {
                return Ok(Some(run.culprit(set)));
            }
        }
        Ok(None)
    }

    /// Runs `cargo test` with a time limit. Nothing that it started outlives it.
    fn cargo_test(&self, set: &[&str], more: &[&str], limit: Duration) -> io::Result<Run> {
        let (mut reader, writer) = io::pipe()?;
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .arg("test")
            .args(set)
            .args(more)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            // Each set is built anew for each mutation, and nobody debugs it.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()?;
        let group = cargo.id().cast_signed();
        RUNNING.store(group, Ordering::SeqCst);
        let (sender, receiver) = mpsc::channel();
        let collector = thread::spawn(move || {
            let mut output = Vec::new();
            let result = reader.read_to_end(&mut output);
            // The receiver waits at most as long as the limit: nobody may be listening any more.
            let _ = sender.send(());
            result.map(|_| String::from_utf8_lossy(&output).into_owned())
        });
        let in_time = receiver.recv_timeout(limit).is_ok();
        if !in_time {
            killpg(Pid::from_raw(group), Signal::SIGKILL)?;
        }
        let succeeded = cargo.wait()?.success();
        RUNNING.store(0, Ordering::SeqCst);
        let output = collector.join().map_err(|_| io::Error::other("the output of cargo was lost"))??;
        Ok(Run { succeeded, in_time, output })
    }
}

impl Run {
    /// What failed in `set`: the first failed test by name, and how many others.
    fn culprit(&self, set: &[&str]) -> String {
        let mut failed: Vec<_> =
            self.output.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")).collect();
        failed.sort_unstable();
        let tests = set.join(" ");
        match failed.as_slice() {
            [] if self.in_time => format!("`{tests}`: it crashed"),
            [] => format!("`{tests}`: no end within {} s", TEST_LIMIT.as_secs()),
            [only] => format!("`{tests}`: {only}"),
            [first, others @ ..] => format!("`{tests}`: {first} and {} more", others.len()),
        }
    }
}

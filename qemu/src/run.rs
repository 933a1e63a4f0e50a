//! One run of a kernel on a machine: started, watched, and stopped when its time is up.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use wait_timeout::ChildExt as _;

use crate::console::Splitter;
use crate::gdb::Stub;
use crate::machine::Machine;
use crate::outcome::{MachineLife, Outcome};
use crate::program::Qemu;
use crate::trace;

/// Time that a run gets where nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the watcher looks whether Ctrl-C was pressed.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);

/// A run to be made.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The QEMU that runs it.
    pub qemu: &'a Qemu,
    /// The machine.
    pub machine: &'a Machine,
    /// The kernel's raw image.
    pub image: &'a Path,
    /// The kernel's command line (`/chosen/bootargs`): `scenario=NAME key=value ...`.
    pub bootargs: String,
    /// After this long the kernel hangs and QEMU is killed; without it the run may take for ever.
    pub timeout: Option<Duration>,
    /// The file that QEMU's `smmu_*` and `smmuv3_*` trace events go to.
    pub trace: Option<PathBuf>,
    /// Where a stopped machine waits for gdb.
    pub gdb: Option<Stub>,
    /// Whether console and QEMU's messages are also shown on standard output and standard error as they come.
    pub shown: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// How it ended.
    pub outcome: Outcome,
    /// The console's text, records taken out.
    pub console: String,
    /// The records found in the console, in order.
    pub records: Vec<Value>,
    /// QEMU's own messages.
    pub messages: String,
    /// How long it took.
    pub wall: Duration,
    /// QEMU's command line, word for word.
    pub command_line: Vec<OsString>,
}

impl<'a> Run<'a> {
    /// A run of `image` on `machine` with the default time limit, not shown, neither traced nor debugged.
    pub fn new(qemu: &'a Qemu, machine: &'a Machine, image: &'a Path, bootargs: &str) -> Self {
        let timeout = Some(DEFAULT_TIMEOUT);
        Self { qemu, machine, image, bootargs: bootargs.to_owned(), timeout, trace: None, gdb: None, shown: false }
    }

    /// QEMU's arguments.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        arguments.extend(["-kernel".into(), self.image.into(), "-append".into(), self.bootargs.clone().into()]);
        arguments.extend(["-serial", "stdio", "-trace", trace::LIFE_EVENT].map(OsString::from));
        if let Some(file) = &self.trace {
            for events in trace::SMMU_EVENTS {
                arguments.extend(["-trace", events].map(OsString::from));
            }
            arguments.extend(["-D".into(), file.into()]);
        }
        if let Some(stub) = &self.gdb {
            arguments.extend(["-S".into(), "-gdb".into(), stub.qemu_argument().into()]);
        }
        let mut machine = self.machine.arguments(&self.qemu.capabilities);
        machine.append(&mut arguments);
        machine
    }

    /// Makes the run. However it ends, QEMU is gone afterwards.
    ///
    /// # Errors
    ///
    /// If QEMU cannot be started at all.
    pub fn execute(&self) -> io::Result<RunResult> {
        watch_for_interrupt();
        let arguments = self.arguments();
        let started = Instant::now();
        let child = self.qemu.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut process = Process(child);
        let (stdout, stderr) = (process.0.stdout.take(), process.0.stderr.take());
        let shown = self.shown;
        let console = thread::spawn(move || read_console(stdout, shown));
        let messages = thread::spawn(move || read_messages(stderr, shown));

        let end = process.watch(started, self.timeout)?;
        let wall = started.elapsed();
        drop(process);
        let (console, records) = console.join().unwrap_or_default();
        let (messages, mut life) = messages.join().unwrap_or_default();
        if let Some(file) = &self.trace {
            trace::note_life(file, &mut life)?;
        }
        let outcome = match end {
            End::Exited(status) => Outcome::classify(status, life),
            End::TimeUp(after) => Outcome::Hang { after },
            End::Interrupted => Outcome::Interrupted,
        };
        let command_line = self.qemu.command_line(&arguments);
        Ok(RunResult { outcome, console, records, messages, wall, command_line })
    }
}

impl RunResult {
    /// The last `count` lines of the console.
    pub fn last_lines(&self, count: usize) -> Vec<&str> {
        let lines: Vec<&str> = self.console.lines().collect();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }
}

/// Why watching ended.
enum End {
    Exited(ExitStatus),
    TimeUp(Duration),
    Interrupted,
}

/// A QEMU that is killed, with all that a wrapper script may have started, when this is dropped.
struct Process(Child);

impl Process {
    fn watch(&mut self, started: Instant, timeout: Option<Duration>) -> io::Result<End> {
        loop {
            if INTERRUPTED.load(Ordering::Relaxed) {
                return Ok(End::Interrupted);
            }
            let left = timeout.map(|timeout| (timeout, timeout.saturating_sub(started.elapsed())));
            let slice = left.map_or(INTERRUPT_INTERVAL, |(_, left)| left.min(INTERRUPT_INTERVAL));
            if let Some(status) = self.0.wait_timeout(slice)? {
                return Ok(End::Exited(status));
            }
            if let Some((timeout, Duration::ZERO)) = left {
                return Ok(End::TimeUp(timeout));
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It leads its own process group. That fails only if nothing of the group is left.
        if let Ok(group) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C and SIGTERM end runs, the present and all later ones, rather than this process.
fn watch_for_interrupt() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only where the process has its own handler, which then decides.
        let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
    });
}

/// Reads the console to its end.
fn read_console(stdout: Option<impl Read>, shown: bool) -> (String, Vec<Value>) {
    let mut splitter = Splitter::default();
    let mut console = Vec::new();
    let mut buffer = [0; 4096];
    if let Some(mut stdout) = stdout {
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            let text = splitter.push(&buffer[..count]);
            if shown {
                // Without anybody who looks (a closed pipe) the run goes on.
                let mut terminal = io::stdout().lock();
                let _ = terminal.write_all(&text).and_then(|()| terminal.flush());
            }
            console.extend(text);
        }
    }
    splitter.finish();
    (String::from_utf8_lossy(&console).replace('\r', ""), splitter.records)
}

/// Reads QEMU's messages to their end.
fn read_messages(stderr: Option<impl Read>, shown: bool) -> (String, MachineLife) {
    let mut life = MachineLife::default();
    let mut messages = String::new();
    if let Some(stderr) = stderr {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if life.note(&line) {
                continue;
            }
            if shown {
                crate::tell!("{line}");
            }
            messages += &line;
            messages.push('\n');
        }
    }
    (messages, life)
}

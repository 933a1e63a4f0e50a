//! The line to a QEMU without a CPU: its qtest protocol, and the process at the other end.
//!
//! QEMU carries a line out completely before it answers it: when a write returns, the device has acted on it.

use std::ffi::OsString;
use std::fmt::{Arguments, Write as _};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use qemu::program::Qemu;

use super::QtestError;

/// How long QEMU may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of QEMU's standard error an error quotes, in bytes.
const QUOTED_BYTES: usize = 2000;

/// Lines for QEMU that go out together, so that they cost one round trip.
#[derive(Debug, Default)]
pub(super) struct Batch(String);

impl Batch {
    pub(super) fn read32(&mut self, address: u64) {
        self.line(format_args!("readl {address:#x}"));
    }

    pub(super) fn read64(&mut self, address: u64) {
        self.line(format_args!("readq {address:#x}"));
    }

    pub(super) fn write32(&mut self, address: u64, value: u32) {
        self.line(format_args!("writel {address:#x} {value:#x}"));
    }

    pub(super) fn write64(&mut self, address: u64, value: u64) {
        self.line(format_args!("writeq {address:#x} {value:#x}"));
    }

    /// Lets the machine's clock, which stands still otherwise, run on.
    pub(super) fn advance_clock(&mut self, time: Duration) {
        self.line(format_args!("clock_step {}", time.as_nanos()));
    }

    fn line(&mut self, line: Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}

/// A running QEMU. It is killed when this is dropped, when it gives no answer, and when the thread ends that started it.
#[derive(Debug)]
pub(super) struct Connection {
    wire: Mutex<Wire>,
    process: Process,
}

#[derive(Debug)]
struct Wire {
    stream: BufReader<UnixStream>,
    /// QEMU's standard error.
    messages: File,
    /// The first error; nothing works any more after it.
    failure: Option<QtestError>,
}

impl Connection {
    /// Starts `qemu` in `folder` with `arguments` for a machine, and the qtest protocol on its standard input.
    pub(super) fn open(qemu: &Qemu, arguments: &[OsString], folder: &Path) -> Result<Self, QtestError> {
        let start = |source| QtestError::Start { program: qemu.program.clone(), source: Arc::new(source) };
        let (ours, theirs) = UnixStream::pair().map_err(start)?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(start)?;
        ours.set_write_timeout(Some(PATIENCE)).map_err(start)?;
        let messages = tempfile::tempfile().map_err(start)?;
        let mut command = qemu.command(arguments);
        command.current_dir(folder);
        command.args(["-accel", "qtest", "-chardev", "socket,id=qtest,fd=0", "-qtest", "chardev:qtest"]);
        command.args(["-qtest-log", "none", "-run-with", "exit-with-parent=on"]);
        // A pair of sockets has no name that another machine could take, and its end is seen at once.
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        command.stderr(messages.try_clone().map_err(start)?);
        let process = Process(command.spawn().map_err(start)?);
        // `command` holds their end open.
        drop(command);
        let wire = Wire { stream: BufReader::new(ours), messages, failure: None };
        Ok(Self { wire: Mutex::new(wire), process })
    }

    /// Sends a batch and returns what each line of it answered, 0 where that is no number.
    pub(super) fn request(&self, batch: &Batch) -> Result<Vec<u64>, QtestError> {
        let mut wire = self.wire();
        if let Some(failure) = &wire.failure {
            return Err(failure.clone());
        }
        wire.exchange(batch).inspect_err(|error| {
            self.process.kill();
            wire.failure = Some(error.clone());
        })
    }

    /// Sends a batch of one line and returns its answer.
    pub(super) fn ask(&self, line: impl FnOnce(&mut Batch)) -> Result<u64, QtestError> {
        let mut batch = Batch::default();
        line(&mut batch);
        Ok(self.request(&batch)?.into_iter().next().unwrap_or_default())
    }

    /// Kills QEMU.
    pub(super) fn kill(&self) {
        self.process.kill();
    }

    /// The first error, if there was one.
    pub(super) fn failure(&self) -> Option<QtestError> {
        self.wire().failure.clone()
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    fn exchange(&mut self, batch: &Batch) -> Result<Vec<u64>, QtestError> {
        let first = batch.0.lines().next().unwrap_or_default();
        let sent = self.stream.get_mut().write_all(batch.0.as_bytes());
        sent.map_err(|source| self.broken(first, source))?;
        let mut answers = Vec::new();
        for line in batch.0.lines() {
            let mut answer = String::new();
            let length = self.stream.read_line(&mut answer).map_err(|source| self.broken(line, source))?;
            if length == 0 {
                return Err(self.broken(line, ErrorKind::UnexpectedEof.into()));
            }
            let wrong = || QtestError::Answer { command: line.to_owned(), answer: answer.trim_end().to_owned() };
            answers.push(number(&answer).ok_or_else(wrong)?);
        }
        Ok(answers)
    }

    fn broken(&mut self, command: &str, source: io::Error) -> QtestError {
        let command = command.to_owned();
        match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => QtestError::Silent { command, limit: PATIENCE },
            _ => QtestError::Ended { command, source: Arc::new(source), messages: self.messages() },
        }
    }

    /// The end of what QEMU wrote to standard error.
    fn messages(&mut self) -> String {
        let mut text = Vec::new();
        let read = self.messages.seek(SeekFrom::Start(0)).and_then(|_| self.messages.read_to_end(&mut text));
        match read {
            Ok(length) => String::from_utf8_lossy(&text[length.saturating_sub(QUOTED_BYTES)..]).trim().to_owned(),
            Err(error) => format!("(unreadable: {error})"),
        }
    }
}

/// The number in an answer `OK`, `OK 0x12` or `OK 18`.
fn number(answer: &str) -> Option<u64> {
    let value = answer.strip_prefix("OK")?.trim();
    match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if value.is_empty() => Some(0),
        None => value.parse().ok(),
    }
}

/// A QEMU that is killed, with all that a wrapper script may have started, when this is dropped.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn kill(&self) {
        // It leads its own process group. That fails only if nothing of the group is left.
        if let Ok(group) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_numbers_or_nothing() {
        assert_eq!(number("OK\n"), Some(0));
        assert_eq!(number("OK 0x0000000000000012\n"), Some(0x12));
        assert_eq!(number("OK 100000000\n"), Some(100_000_000));
        assert_eq!(number("FAIL Unknown command 'x'\n"), None);
        assert_eq!(number("OK what\n"), None);
    }
}

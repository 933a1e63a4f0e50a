//! How a run ended, told from QEMU's exit status and what QEMU logged about itself.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel reported success through semihosting.
    Success,
    /// The kernel reported that the scenario failed (exit code 1).
    Failed,
    /// The kernel panicked (exit code 101).
    Panicked,
    /// The kernel took an exception that it did not expect (exit code 102).
    Exception,
    /// The kernel reported an exit code that has no meaning here.
    UnknownExit(i32),
    /// The kernel had not come to an end when the time was up; QEMU was killed.
    Hang {
        /// The time limit.
        after: Duration,
    },
    /// The machine was powered off or reset without a report from the kernel.
    PoweredOff,
    /// QEMU did not get as far as starting the machine: it refused its command line.
    NotStarted {
        /// QEMU's exit status.
        exit_status: i32,
    },
    /// QEMU itself died of a signal.
    QemuCrashed {
        /// The signal's number.
        signal: i32,
    },
    /// The run was interrupted from the keyboard.
    Interrupted,
}

/// What QEMU's own log told about the machine's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineLife {
    /// The machine began to run.
    pub started: bool,
    /// The machine was shut down from within (power-off, reset) or from outside (a signal): not through semihosting.
    pub shut_down: bool,
}

impl MachineLife {
    /// Takes note of one line that QEMU logged; true if it is one of the lines that are meant for this (event
    /// `runstate_set`) and need not be shown.
    pub fn note(&mut self, line: &str) -> bool {
        let Some(change) = line.split("runstate_set ").nth(1) else { return false };
        let new_state = change.split("new_state").nth(1).unwrap_or_default();
        self.started |= new_state.contains("(running)");
        self.shut_down |= new_state.contains("(shutdown)");
        true
    }
}

impl Outcome {
    /// Classifies the end of a QEMU that ended by itself.
    ///
    /// QEMU exits with status 0 also when the machine is powered off, reset, or QEMU is told to terminate; only `life`
    /// tells that from a kernel that reported success.
    pub fn classify(status: ExitStatus, life: MachineLife) -> Self {
        let Some(code) = status.code() else {
            return Self::QemuCrashed { signal: status.signal().unwrap_or_default() };
        };
        match code {
            _ if !life.started => Self::NotStarted { exit_status: code },
            _ if life.shut_down => Self::PoweredOff,
            0 => Self::Success,
            1 => Self::Failed,
            101 => Self::Panicked,
            102 => Self::Exception,
            other => Self::UnknownExit(other),
        }
    }

    /// One word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Panicked => "panic",
            Self::Exception => "exception",
            Self::UnknownExit(_) => "unknown-exit",
            Self::Hang { .. } => "hang",
            Self::PoweredOff => "powered-off",
            Self::NotStarted { .. } => "not-started",
            Self::QemuCrashed { .. } => "qemu-crashed",
            Self::Interrupted => "interrupted",
        }
    }

    /// The exit status of the launcher: 0 for success alone.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed | Self::UnknownExit(_) | Self::PoweredOff => 1,
            Self::Panicked => 101,
            Self::Exception => 102,
            Self::Hang { .. } => 124,
            Self::NotStarted { .. } | Self::QemuCrashed { .. } => 125,
            Self::Interrupted => 130,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => write!(f, "the kernel reported success"),
            Self::Failed => write!(f, "the kernel reported that the scenario failed"),
            Self::Panicked => write!(f, "the kernel panicked"),
            Self::Exception => write!(f, "the kernel took an unexpected exception"),
            Self::UnknownExit(code) => write!(f, "the kernel exited with the unknown code {code}"),
            Self::Hang { after } => {
                write!(
                    f,
                    "the kernel hung: no end after {} s, so QEMU was killed (--timeout allows more)",
                    after.as_secs()
                )
            }
            Self::PoweredOff => write!(f, "the machine was powered off or reset without a report from the kernel"),
            Self::NotStarted { exit_status } => {
                write!(f, "QEMU did not start the machine (exit status {exit_status}); its message is above")
            }
            Self::QemuCrashed { signal } => write!(f, "QEMU itself crashed (signal {signal})"),
            Self::Interrupted => write!(f, "interrupted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "runstate_set current_run_state 6 (prelaunch) new_state 9 (running)";
    const SHUTDOWN: &str = "runstate_set current_run_state 9 (running) new_state 11 (shutdown)";

    fn classify(wait_status: i32, lines: &[&str]) -> Outcome {
        let mut life = MachineLife::default();
        assert!(lines.iter().all(|line| life.note(line)));
        Outcome::classify(ExitStatus::from_raw(wait_status), life)
    }

    fn exited(code: i32, lines: &[&str]) -> Outcome {
        classify(code << 8, lines)
    }

    #[test]
    fn exit_codes_of_the_kernel_are_told_apart() {
        assert_eq!(exited(0, &[RUNNING]), Outcome::Success);
        assert_eq!(exited(1, &[RUNNING]), Outcome::Failed);
        assert_eq!(exited(101, &[RUNNING]), Outcome::Panicked);
        assert_eq!(exited(102, &[RUNNING]), Outcome::Exception);
        assert_eq!(exited(7, &[RUNNING]), Outcome::UnknownExit(7));
    }

    #[test]
    fn status_0_without_a_report_is_no_success() {
        assert_eq!(exited(0, &[RUNNING, SHUTDOWN]), Outcome::PoweredOff);
        assert_eq!(exited(0, &[]), Outcome::NotStarted { exit_status: 0 });
    }

    #[test]
    fn a_refused_command_line_is_not_the_kernel_s_failure() {
        assert_eq!(exited(1, &[]), Outcome::NotStarted { exit_status: 1 });
    }

    #[test]
    fn a_signal_is_a_crash_of_qemu() {
        assert_eq!(classify(6, &[RUNNING]), Outcome::QemuCrashed { signal: 6 });
    }

    #[test]
    fn only_success_exits_with_0() {
        let after = Duration::from_secs(1);
        let failures = [Outcome::Failed, Outcome::PoweredOff, Outcome::Hang { after }, Outcome::UnknownExit(256)];
        assert!(failures.iter().all(|outcome| outcome.exit_status() != 0));
        assert_eq!(Outcome::Success.exit_status(), 0);
    }

    #[test]
    fn other_messages_are_left_alone() {
        let mut life = MachineLife::default();
        assert!(!life.note("qemu-system-aarch64: terminating on signal 15"));
        assert_eq!(life, MachineLife::default());
    }
}

//! A run's results for programs.

use std::ffi::OsStr;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::machine::Part;
use crate::program::Qemu;
use crate::run::RunResult;

/// What `--json` writes.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// The scenario's name.
    pub scenario: &'a str,
    /// How the run ended, in one word ([`Outcome::name`](crate::outcome::Outcome::name)), or `wrong-result` where the
    /// kernel reported success and the launcher found its result wrong.
    pub outcome: &'a str,
    /// How the run ended, in a sentence.
    pub message: &'a str,
    /// The launcher's exit status.
    pub exit_status: u8,
    /// The first line of QEMU's `--version`.
    pub qemu_version: &'a str,
    /// The QEMU that was executed.
    pub qemu_program: String,
    /// The parts of the scenario that this QEMU cannot show.
    #[serde(serialize_with = "names")]
    pub left_out: &'a [Part],
    /// How long the run took, in seconds.
    pub wall_seconds: f64,
    /// QEMU's command line, word for word.
    pub command_line: Vec<String>,
    /// What the kernel recorded.
    pub records: &'a [Value],
}

impl<'a> Report<'a> {
    /// The report of `result`, as judged by the caller.
    pub fn new(scenario: &'a str, qemu: &'a Qemu, result: &'a RunResult) -> Self {
        Self {
            scenario,
            outcome: result.outcome.name(),
            message: "",
            exit_status: result.outcome.exit_status(),
            qemu_version: &qemu.version,
            qemu_program: qemu.program.display().to_string(),
            left_out: &[],
            wall_seconds: result.wall.as_secs_f64(),
            command_line: result.command_line.iter().map(|word| lossy(word)).collect(),
            records: &result.records,
        }
    }
}

fn lossy(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}

fn names<S: Serializer>(parts: &&[Part], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(parts.iter().map(|part| part.name()))
}

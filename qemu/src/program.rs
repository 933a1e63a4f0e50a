//! A QEMU executable: how it is started and what it can do.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use wait_timeout::ChildExt as _;

use crate::machine::Stage;

/// The executable's usual name.
pub const NAME: &str = "qemu-system-aarch64";

/// How long a QEMU may take to answer a question about itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A `qemu-system-aarch64` and its capabilities.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// What is executed.
    pub program: PathBuf,
    /// Arguments before all others.
    pub leading_arguments: Vec<OsString>,
    /// Environment variables that it needs.
    pub environment: Vec<(OsString, OsString)>,
    /// The first line of `--version`.
    pub version: String,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// What a QEMU can do, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// It has the device `iommu-testdev`.
    pub iommu_testdev: bool,
    /// `-device arm-smmuv3` works.
    pub user_creatable_smmu: bool,
    /// Its SMMU has the property `stage`.
    pub smmu_stage_property: bool,
    /// It has the board `virt-9.1`, on which the property `stage` is heeded.
    pub board_virt_9_1: bool,
}

impl Capabilities {
    /// All of them.
    pub const FULL: Self =
        Self { iommu_testdev: true, user_creatable_smmu: true, smmu_stage_property: true, board_virt_9_1: true };

    /// Whether every machine can be built.
    pub fn is_full(&self) -> bool {
        self.iommu_testdev && self.user_creatable_smmu
    }

    /// Whether an SMMU with `stage` can be had. Before the property there was stage 1 alone.
    pub fn has_stage(&self, stage: Stage) -> bool {
        self.user_creatable_smmu || self.smmu_stage_property || stage == Stage::One
    }
}

/// Why an executable is no usable QEMU.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It does not start.
    #[error("{} does not run: {source}", program.display())]
    Start {
        /// The executable.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It started and gave no answer in time.
    #[error("{} {question} gave no answer within {} s", program.display(), ANSWER_TIMEOUT.as_secs())]
    Silent {
        /// The executable.
        program: PathBuf,
        /// The arguments it was called with.
        question: String,
    },
    /// It is something else.
    #[error("{} is no QEMU for AArch64, which is called {NAME} as a rule: {why}", program.display())]
    NotQemu {
        /// The executable.
        program: PathBuf,
        /// What gives it away.
        why: String,
    },
}

impl Qemu {
    /// Asks the executable `program` what it is.
    ///
    /// # Errors
    ///
    /// If it does not run or is no QEMU with a `virt` board.
    pub fn probe(program: &Path) -> Result<Self, ProbeError> {
        Self::probe_with(program, Vec::new(), Vec::new())
    }

    /// Asks a QEMU that is started with `leading_arguments` before all others, in an `environment`, what it is.
    ///
    /// # Errors
    ///
    /// If it does not run or is no QEMU with a `virt` board.
    pub fn probe_with(
        program: &Path,
        leading_arguments: Vec<OsString>,
        environment: Vec<(OsString, OsString)>,
    ) -> Result<Self, ProbeError> {
        let mut qemu = Self::unprobed(program);
        (qemu.leading_arguments, qemu.environment) = (leading_arguments, environment);
        let version = qemu.answer(&["--version"])?;
        let not_qemu = |why| ProbeError::NotQemu { program: program.to_path_buf(), why };
        qemu.version = version.lines().next().unwrap_or_default().to_owned();
        if !qemu.version.starts_with("QEMU emulator version") {
            let start: String = qemu.version.chars().take(120).collect();
            return Err(not_qemu(format!("its --version begins with {start:?}")));
        }
        let boards = qemu.answer(&["-machine", "help"])?;
        let has_board = |name: &str| boards.lines().any(|line| line.split_whitespace().next() == Some(name));
        if !has_board("virt") {
            return Err(not_qemu("its -machine help lists no board `virt`".to_owned()));
        }
        let devices = qemu.answer(&["-device", "help"])?;
        let has_device = |name: &str| devices.contains(&format!("name \"{name}\""));
        qemu.capabilities = Capabilities {
            iommu_testdev: has_device("iommu-testdev"),
            user_creatable_smmu: has_device("arm-smmuv3"),
            smmu_stage_property: qemu.answer(&["-device", "arm-smmuv3,help"])?.contains(" stage="),
            board_virt_9_1: has_board("virt-9.1"),
        };
        Ok(qemu)
    }

    /// The executable `program`, not asked and taken to be able to do everything.
    pub fn unprobed(program: &Path) -> Self {
        Self {
            program: program.to_path_buf(),
            leading_arguments: Vec::new(),
            environment: Vec::new(),
            version: "not asked".to_owned(),
            capabilities: Capabilities::FULL,
        }
    }

    /// The command that starts it with `arguments`, in a process group of its own so that it gets no Ctrl-C.
    pub fn command(&self, arguments: &[OsString]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.leading_arguments).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    /// The command that starts it with `arguments`, as words of a shell's command line (not yet quoted).
    pub fn command_line(&self, arguments: &[OsString]) -> Vec<OsString> {
        let environment = self.environment.iter().map(|(name, value)| {
            let mut word = name.clone();
            word.push("=");
            word.push(value);
            word
        });
        let env = (!self.environment.is_empty()).then(|| OsString::from("env"));
        let program = std::iter::once(self.program.clone().into_os_string());
        env.into_iter()
            .chain(environment)
            .chain(program)
            .chain(self.leading_arguments.iter().chain(arguments).cloned())
            .collect()
    }

    /// What it prints when called with `question`, on either output.
    fn answer(&self, question: &[&str]) -> Result<String, ProbeError> {
        let start = |source| ProbeError::Start { program: self.program.clone(), source };
        let arguments: Vec<OsString> = question.iter().map(OsString::from).collect();
        let mut command = self.command(&arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(start)?;
        let stdout = child.stdout.take();
        let reader = thread::spawn(move || {
            let mut answer = Vec::new();
            // What cannot be read is missing from the answer, and the caller judges by that.
            let _ = stdout.map(|mut stdout| stdout.read_to_end(&mut answer));
            answer
        });
        if child.wait_timeout(ANSWER_TIMEOUT).map_err(start)?.is_none() {
            child.kill().map_err(start)?;
            child.wait().map_err(start)?;
            return Err(ProbeError::Silent { program: self.program.clone(), question: question.join(" ") });
        }
        Ok(String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned())
    }
}

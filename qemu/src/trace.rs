//! QEMU's trace events: which are asked for, and what is read from them afterwards.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use crate::outcome::MachineLife;

/// The event that tells when the machine starts and stops.
pub const LIFE_EVENT: &str = "runstate_set";

/// The events of QEMU's SMMU model.
pub const SMMU_EVENTS: [&str; 2] = ["smmuv3_*", "smmu_*"];

/// How many lines of the trace `file` are events whose name begins with `event`.
///
/// # Errors
///
/// If the file cannot be read.
pub fn count(file: &Path, event: &str) -> io::Result<usize> {
    let mut count = 0;
    for_each_line(file, |line| count += usize::from(line.split_whitespace().any(|word| word.starts_with(event))))?;
    Ok(count)
}

/// How many commands the SMMU of the trace `file` was given, of the kind that QEMU calls `opcode`
/// (`SMMU_CMD_SYNC`, `SMMU_CMD_TLBI_NH_VA`, ...).
///
/// # Errors
///
/// If the file cannot be read.
pub fn count_commands(file: &Path, opcode: &str) -> io::Result<usize> {
    let mut count = 0;
    for_each_line(file, |line| {
        let is_command = line.contains("smmuv3_cmdq_opcode");
        count += usize::from(is_command && line.split_whitespace().last() == Some(opcode));
    })?;
    Ok(count)
}

/// Takes from the trace `file` what it says about the machine's life.
pub(crate) fn note_life(file: &Path, life: &mut MachineLife) -> io::Result<()> {
    for_each_line(file, |line| {
        life.note(line);
    })
}

fn for_each_line(file: &Path, mut each: impl FnMut(&str)) -> io::Result<()> {
    for line in BufReader::new(File::open(file)?).split(b'\n') {
        each(&String::from_utf8_lossy(&line?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_commands_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trace");
        let trace = "runstate_set current_run_state 6 (prelaunch) new_state 9 (running)\n\
                     smmuv3_cmdq_opcode <--- SMMU_CMD_SYNC\n\
                     smmuv3_cmdq_opcode <--- SMMU_CMD_CFGI_STE\n\
                     smmu_iotlb_insert IOTLB ++ asid=1\n\
                     smmuv3_cmdq_opcode <--- SMMU_CMD_SYNC\n";
        std::fs::write(&file, trace).unwrap();
        assert_eq!(count_commands(&file, "SMMU_CMD_SYNC").unwrap(), 2);
        assert_eq!(count(&file, "smmuv3_cmdq").unwrap(), 3);
        assert_eq!(count(&file, "smmu_iotlb_insert").unwrap(), 1);
        let mut life = MachineLife::default();
        note_life(&file, &mut life).unwrap();
        assert_eq!(life, MachineLife { started: true, shut_down: false });
    }
}

//! Commands on their way into the queue: encoded before any slot is reserved, so that slots are empty no longer than it takes
//! to copy them, and nothing that a caller's iterator does can hold up other CPUs.

use arrayvec::ArrayVec;

use crate::arch::command::Command;

/// Most commands that share a CMD_SYNC.
pub(super) const COMMANDS_MAX: usize = 64;

/// Some commands, encoded.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) commands: ArrayVec<[u64; 2], COMMANDS_MAX>,
    /// Whether a CMD_ATC_INV is among them: only the CMD_SYNC behind it tells whether the device obeyed.
    pub(super) invalidates_atc: bool,
}

impl Batch {
    pub(super) const fn new() -> Self {
        Self { commands: ArrayVec::new_const(), invalidates_atc: false }
    }

    /// Adds a command, for which there is room.
    #[inline]
    pub(super) fn push(&mut self, command: Command) {
        self.invalidates_atc |= matches!(command, Command::AtcInv { .. });
        let is_full = self.commands.try_push(command.encode()).is_err();
        debug_assert!(!is_full);
    }

    /// Starts over.
    pub(super) fn clear(&mut self) {
        self.commands.clear();
        self.invalidates_atc = false;
    }
}

//! Carrying commands out: what was accepted becomes complete with the next CMD_SYNC, and no sooner (IHI 0070, 4.8).

use super::super::Machine;
use super::super::events::GlobalError;
use super::super::log::{Entry, Interrupt};
use super::super::registers::enable;
use super::queue::CERROR_ATC_INV_SYNC;
use super::{Command, Opcode};
use crate::model::bits::bits;

impl Machine {
    /// Accepts a command, or says why the queue stops (CMDQ_CONS.ERR).
    pub(super) fn execute(&mut self, command: Command) -> Result<(), u32> {
        match command {
            Command::Prefetch => {}
            Command::CfgiSte { .. } | Command::CfgiCd { .. } | Command::CfgiCdAll { .. } | Command::Tlbi(_) => {
                self.commands.unsynced.push(command);
            }
            Command::AtcInv { stream, .. } => {
                // Ignored otherwise (IHI 0070, 4.5.1): nobody is told anything.
                if self.registers.enabled(enable::SMMUEN) {
                    self.log.push(Entry::Endpoint { stream, opcode: Opcode::AtcInv });
                    self.commands.unsynced.push(command);
                }
            }
            Command::PriResp { stream, substream, group, response } => {
                self.log.push(Entry::Endpoint { stream, opcode: Opcode::PriResp });
                self.respond(stream, substream, group, response);
            }
            Command::Resume { stream, tag, retry, abort } => self.resume(stream, tag, retry, abort),
            Command::StallTerm { stream } => self.terminate_stalls(|stalled| stalled == stream),
            Command::Sync { .. } => {
                let is_atc = |command: &Command| matches!(command, Command::AtcInv { .. });
                let silent = self.faults.silent;
                let unanswered =
                    |command: &Command| matches!(command, Command::AtcInv { stream, .. } if silent.includes(*stream));
                if self.commands.unsynced.iter().any(unanswered) {
                    // Which of them were lost, nobody says: all.
                    self.commands.unsynced.retain(|command| !is_atc(command));
                    return Err(CERROR_ATC_INV_SYNC);
                }
                self.complete();
            }
        }
        Ok(())
    }

    /// Carries out what was accepted so far. Translations go before configuration, and the TLB is filled again in
    /// between: the commands of one batch have no order among each other, and this one shows a driver that relied on
    /// another.
    fn complete(&mut self) {
        let unsynced = std::mem::take(&mut self.commands.unsynced);
        let is_configuration = |command: &&Command| {
            matches!(command, Command::CfgiSte { .. } | Command::CfgiCd { .. } | Command::CfgiCdAll { .. })
        };
        for command in unsynced.iter().filter(|command| !is_configuration(command)) {
            match *command {
                Command::Tlbi(tlbi) => self.caches.invalidate_translations(&tlbi),
                Command::AtcInv { stream, substream, global, first, last } => {
                    self.invalidate_endpoint(stream, substream, global, first..=last);
                }
                _ => {}
            }
        }
        self.speculate();
        let split = self.stream_table().split;
        for command in unsynced.iter().filter(is_configuration) {
            self.caches.invalidate_configuration(command, split);
            self.settle(command);
        }
        // What was forgotten may come back, as memory has it now.
        self.speculate();
    }

    /// What a consumed CMD_SYNC signals (IHI 0070, 4.7.3).
    pub(super) fn after_sync(&mut self, words: [u64; 2]) {
        let Ok(Command::Sync { signal, message_address, message }) = Command::decode(words, &self.config, 0) else {
            return;
        };
        debug_assert_eq!(bits(words[0], 7, 0), 0x46);
        match signal {
            1 => {
                if self.config.msi && message_address != 0 && self.send_message(message_address, message).is_err() {
                    self.raise(GlobalError::MsiCmdq);
                }
                self.log.push(Entry::Interrupt(Interrupt::CmdSync));
            }
            2 if self.config.sev => self.log.push(Entry::WakeUp),
            _ => {}
        }
    }
}

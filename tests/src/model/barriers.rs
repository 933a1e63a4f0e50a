//! Barriers: what a CPU must have put between its accesses to memory and to registers (IHI 0070, 3.5 and 7.1).
//!
//! Loads and stores cannot be watched, only what comes before and after them. So each thread is judged by the barriers that
//! it has passed between two accesses that can be: of registers.

use std::collections::{HashMap, HashSet};
use std::thread::{self, ThreadId};

use super::Machine;
use super::events::GlobalError;
use super::laws::Law;
use super::registers::offset;

/// A record is read after the index that announced it, and before its slot is given back.
const READ_BARRIERS: u32 = 2;

/// The barriers of the CPUs, each thread being one.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    /// Threads that have passed a write barrier since they last wrote CMDQ_PROD.
    published: HashSet<ThreadId>,
    /// The command at which the queue stands, as it was at a thread's last write barrier since the error.
    repaired: HashMap<ThreadId, [u64; 2]>,
    /// Read barriers that a thread has passed since it found news in a PROD.
    since_news: HashMap<(ThreadId, usize), u32>,
}

impl Machine {
    /// The calling thread passes a write barrier.
    pub(super) fn pass_write_barrier(&mut self) {
        let thread = thread::current().id();
        self.barriers.published.insert(thread);
        if self.registers.active_errors() & GlobalError::Cmdq.bit() != 0
            && let Some(words) = self.next_command()
        {
            self.barriers.repaired.insert(thread, words);
        }
    }

    /// The calling thread passes a read barrier.
    pub(super) fn pass_read_barrier(&mut self) {
        let thread = thread::current().id();
        let mine = self.barriers.since_news.iter_mut().filter(|((whose, _), _)| *whose == thread);
        mine.for_each(|(_, passed)| *passed += 1);
    }

    /// The calling thread publishes commands: the slots come first.
    pub(super) fn check_publishing(&mut self) {
        if !self.barriers.published.remove(&thread::current().id()) {
            self.violation(Law::Barrier, "CMDQ_PROD was written without a barrier after the commands");
        }
    }

    /// The command queue has stopped: whatever barriers there were, the repair comes after them.
    pub(super) fn await_repair(&mut self) {
        self.barriers.repaired.clear();
    }

    /// The calling thread has the command queue go on: if it has put another command there, that comes first. `published` is
    /// the command at which the queue has stopped.
    pub(super) fn check_repair(&mut self, published: [u64; 2]) {
        let seen = self.barriers.repaired.remove(&thread::current().id());
        let now = self.next_command();
        if now != Some(published) && now != seen {
            let details = "GERRORN.CMDQ_ERR was written without a barrier after the command that was put right";
            self.violation(Law::Barrier, details);
        }
    }

    /// The calling thread has read a PROD that the SMMU writes, and with it that there are records, or none.
    pub(super) fn note_news(&mut self, register: usize) {
        let consumer = if register == offset::EVENTQ_PROD { offset::EVENTQ_CONS } else { offset::PRIQ_CONS };
        let key = (thread::current().id(), consumer);
        if self.registers.get(register) == self.registers.get(consumer) {
            self.barriers.since_news.remove(&key);
        } else {
            self.barriers.since_news.insert(key, 0);
        }
    }

    /// The calling thread gives slots back, by writing the CONS at `register`.
    pub(super) fn check_consuming(&self, register: usize) {
        match self.barriers.since_news.get(&(thread::current().id(), register)) {
            Some(&passed) if passed < READ_BARRIERS => {
                let details = format!(
                    "CONS at {register:#x} was written with {passed} read barriers since PROD was read: one is due \
                     before the records are read, one after"
                );
                self.violation(Law::Barrier, details);
            }
            _ => {}
        }
    }
}

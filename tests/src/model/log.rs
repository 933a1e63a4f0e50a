//! What a model did, in order, so that a test can say "between these two points exactly one TLBI and one CMD_SYNC".

use super::commands::Opcode;
use super::events::Record;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A register was written, by its offset in the register block.
    Write {
        /// The offset in bytes.
        offset: usize,
        /// The value.
        value: u64,
    },
    /// A command was consumed.
    Command {
        /// What it is.
        opcode: Opcode,
        /// Its two words.
        words: [u64; 2],
    },
    /// The command queue stopped at a command, with this CMDQ_CONS.ERR.
    CommandError(u32),
    /// A structure or a descriptor was read from memory.
    Fetch {
        /// What was read.
        what: Fetched,
        /// Its physical address.
        physical: u64,
    },
    /// A record was put into the event queue.
    Event(Record),
    /// A record was dropped because the event queue was full, off or broken.
    EventDropped(Record),
    /// A page request was put into the PRI queue.
    PageRequest([u64; 2]),
    /// An interrupt was raised.
    Interrupt(Interrupt),
    /// A device's transaction came to an end.
    Transaction {
        /// Its stream.
        stream: u32,
        /// The address that the device put on the bus.
        address: u64,
        /// Where it ended up, or `None` if it did not reach memory.
        physical: Option<u64>,
    },
    /// An endpoint was told to forget translations, or how its page requests fared.
    Endpoint {
        /// Its stream.
        stream: u32,
        /// The command.
        opcode: Opcode,
    },
    /// The send-event of a CMD_SYNC.
    WakeUp,
}

/// What the SMMU reads of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// A first-level stream table descriptor.
    L1Std,
    /// A stream table entry.
    Ste,
    /// A first-level context descriptor.
    L1Cd,
    /// A context descriptor.
    Cd,
    /// A stage 1 descriptor of a level.
    Stage1(i8),
    /// A stage 2 descriptor of a level.
    Stage2(i8),
}

/// The sources of interrupts (IHI 0070, 3.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interrupt {
    /// A global error.
    Gerror,
    /// The event queue became non-empty.
    Eventq,
    /// The PRI queue became non-empty, or a group's last request came.
    Priq,
    /// A CMD_SYNC that asked for it.
    CmdSync,
}

/// A point in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(usize);

/// The log of one model.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
}

impl Log {
    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.entries.len())
    }

    pub(super) fn since(&self, mark: Mark) -> Self {
        Self { entries: self.entries.get(mark.0..).unwrap_or_default().to_vec() }
    }

    /// Everything, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The commands that were consumed.
    #[must_use]
    pub fn commands(&self) -> Vec<Opcode> {
        let opcode = |entry: &Entry| if let Entry::Command { opcode, .. } = entry { Some(*opcode) } else { None };
        self.entries.iter().filter_map(opcode).collect()
    }

    /// The event records that reached the queue.
    #[must_use]
    pub fn events(&self) -> Vec<Record> {
        let record = |entry: &Entry| if let Entry::Event(record) = entry { Some(*record) } else { None };
        self.entries.iter().filter_map(record).collect()
    }

    /// The interrupts that were raised.
    #[must_use]
    pub fn interrupts(&self) -> Vec<Interrupt> {
        let raised = |entry: &Entry| if let Entry::Interrupt(source) = entry { Some(*source) } else { None };
        self.entries.iter().filter_map(raised).collect()
    }

    /// How often something was read from memory.
    #[must_use]
    pub fn fetches(&self, wanted: Fetched) -> usize {
        self.entries.iter().filter(|entry| matches!(entry, Entry::Fetch { what, .. } if *what == wanted)).count()
    }
}

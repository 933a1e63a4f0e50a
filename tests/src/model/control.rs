//! The state of one SMMU, what enabling and disabling it does, and what can be made to go wrong with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::barriers::Barriers;
use super::caches::Caches;
use super::commands::{CommandQueue, Opcode};
use super::config::Config;
use super::dma::{AtcEntry, PageResponse, Stalled, Transaction};
use super::events::Record;
use super::laws::Law;
use super::live::Seen;
use super::log::Log;
use super::memory::{BusError, View};
use super::platform::ModelPlatform;
use super::registers::{RegisterFile, enable, offset};
use super::ring::Ring;

/// What goes wrong at the moment. Nothing, by default.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each goes wrong by itself")]
pub struct Faults {
    /// Registers read as all ones and take no writes, and nothing passes: no power, no clock.
    pub registers_read_ones: bool,
    /// CR0ACK, IRQ_CTRLACK and GBPA.Update never follow.
    pub never_acknowledge: bool,
    /// The queue stops for good at the first command of this kind, without an error.
    pub hang: Option<Opcode>,
    /// The next command of this kind is refused, once, with this CMDQ_CONS.ERR.
    pub refuse: Option<(Opcode, u32)>,
    /// Endpoints that answer no ATC invalidation: the next CMD_SYNC fails with CERROR_ATC_INV_SYNC.
    pub silent: Silent,
    /// The event queue is full whatever its indices say.
    pub event_queue_full: bool,
    /// The queue of page requests is full whatever its indices say.
    pub page_request_queue_full: bool,
    /// What a CPU stores at the descriptor at this physical address just before hardware would update it, once: the address
    /// and the word.
    pub meanwhile: Option<(u64, u64)>,
    /// Service failure mode: nothing is processed, every transaction aborts.
    pub service_failure: bool,
}

/// Endpoints that do not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silent {
    /// None.
    #[default]
    Nobody,
    /// That of one stream.
    Stream(u32),
    /// All.
    Everybody,
}

impl Silent {
    pub(super) fn includes(self, stream: u32) -> bool {
        match self {
            Self::Nobody => false,
            Self::Stream(silent) => silent == stream,
            Self::Everybody => true,
        }
    }
}

/// The state of one SMMU.
pub(super) struct Machine {
    pub(super) platform: &'static ModelPlatform,
    pub(super) config: Config,
    pub(super) registers: RegisterFile,
    /// CR2 as it was when SMMUEN became 1.
    pub(super) active_cr2: u32,
    pub(super) commands: CommandQueue,
    pub(super) barriers: Barriers,
    pub(super) caches: Caches,
    pub(super) random: fastrand::Rng,
    pub(super) faults: Faults,
    pub(super) log: Log,
    /// Records of stalls for which the event queue had no space.
    pub(super) waiting_events: Vec<Record>,
    pub(super) stalls: Vec<Stalled>,
    /// The latest transactions.
    pub(super) recent: VecDeque<Transaction>,
    pub(super) atcs: Vec<AtcEntry>,
    /// Answers to page requests, by stream.
    pub(super) responses: Vec<(u32, PageResponse)>,
    /// Streams whose entries are watched.
    pub(super) watched: BTreeSet<u32>,
    /// Those of them whose entries a test has written itself.
    pub(super) unjudged: BTreeSet<u32>,
    /// Contexts of streams that are watched, beyond the first.
    pub(super) watched_contexts: BTreeSet<(u32, u32)>,
    /// What hardware may have seen of watched entries.
    pub(super) seen_stes: BTreeMap<u32, Seen>,
    pub(super) seen_cds: BTreeMap<(u32, u32), Seen>,
}

impl Machine {
    pub(super) fn new(platform: &'static ModelPlatform, config: Config) -> Self {
        Self {
            platform,
            registers: RegisterFile::new(&config),
            active_cr2: 0,
            commands: CommandQueue::default(),
            barriers: Barriers::default(),
            caches: Caches::new(config.caching),
            random: fastrand::Rng::with_seed(config.seed),
            faults: Faults::default(),
            log: Log::default(),
            waiting_events: Vec::new(),
            stalls: Vec::new(),
            recent: VecDeque::new(),
            atcs: Vec::new(),
            responses: Vec::new(),
            watched: BTreeSet::new(),
            unjudged: BTreeSet::new(),
            watched_contexts: BTreeSet::new(),
            seen_stes: BTreeMap::new(),
            seen_cds: BTreeMap::new(),
            config,
        }
    }

    /// Loses everything but what is in memory.
    pub(super) fn power_off(&mut self) {
        self.terminate_stalls(|_| true);
        self.registers = RegisterFile::new(&self.config);
        self.caches = Caches::new(self.caches.caching());
        self.commands = CommandQueue::default();
        self.waiting_events.clear();
        self.seen_stes.clear();
        self.seen_cds.clear();
        self.faults.registers_read_ones = true;
    }

    pub(super) fn violation(&self, law: Law, details: impl Into<String>) {
        self.platform.report(law, details);
    }

    /// Junk for fields that mean nothing, if the model is to be that way.
    pub(super) fn junk(&mut self) -> [u64; 4] {
        if self.config.junk { std::array::from_fn(|_| self.random.u64(..)) } else { [0; 4] }
    }

    /// How an access with these attributes sees memory: inner and outer cacheability, then shareability, as CR1 has them.
    pub(super) fn view(&self, attributes: u32) -> View {
        let cacheable = attributes & 0xf != 0;
        let shared = attributes >> 4 & 3 >= 2;
        if self.config.cohacc && cacheable && shared { View::Snooping } else { View::Behind }
    }

    /// Reads a word for the SMMU itself.
    pub(super) fn read_memory(&self, physical: u64, view: View) -> Result<u64, BusError> {
        let read = self.platform.memory().read(physical, view);
        self.check_bus(physical, read)
    }

    /// Writes a word for the SMMU itself, under a mask.
    pub(super) fn write_memory(&self, physical: u64, value: u64, mask: u64, view: View) -> Result<(), BusError> {
        let written = self.platform.memory().write(physical, value, mask, view);
        if let Some(details) = self.check_bus(physical, written)? {
            self.violation(Law::DirtyLine, details);
        }
        Ok(())
    }

    /// Updates a descriptor in one step, if it is still what it was.
    pub(super) fn exchange_memory(&self, physical: u64, old: u64, new: u64, view: View) -> Result<bool, BusError> {
        let exchanged = self.platform.memory().exchange(physical, old, new, view);
        self.check_bus(physical, exchanged)
    }

    /// Reads a word for a device. Devices snoop.
    pub(super) fn read_data(&self, physical: u64) -> Result<u64, BusError> {
        self.read_memory(physical, View::Snooping)
    }

    pub(super) fn write_data(&self, physical: u64, value: u64, mask: u64) -> Result<(), BusError> {
        self.write_memory(physical, value, mask, View::Snooping)
    }

    fn check_bus<T>(&self, physical: u64, result: Result<T, BusError>) -> Result<T, BusError> {
        if matches!(result, Err(BusError::Freed)) {
            self.violation(Law::UseAfterFree, format!("hardware reached {physical:#x}, which has been freed"));
        }
        result
    }

    /// CR0 took effect (IHI 0070, 6.3.9).
    pub(super) fn enables_changed(&mut self, old: u32, new: u32) {
        let (set, cleared) = (new & !old, old & !new);
        if cleared & enable::SMMUEN != 0 {
            self.terminate_stalls(|_| true);
        }
        for (enabled, base, entry_bytes, limit) in self.queues() {
            if set & enabled != 0 {
                self.check_queue_base(base, entry_bytes, limit);
            }
        }
        if set & enable::CMDQEN != 0 {
            self.restart_commands();
        }
        if set & enable::SMMUEN != 0 {
            self.start_translating();
        }
    }

    /// The enable, base register, entry size and limit of each queue.
    pub(super) fn queues(&self) -> [(u32, usize, u64, u32); 3] {
        [
            (enable::CMDQEN, offset::CMDQ_BASE, 16, self.config.cmdqs),
            (enable::EVENTQEN, offset::EVENTQ_BASE, 32, self.config.eventqs),
            (enable::PRIQEN, offset::PRIQ_BASE, 16, self.config.priqs),
        ]
    }

    fn check_queue_base(&self, register: usize, entry_bytes: u64, limit: u32) {
        let value = self.registers.get64(register);
        let ring = Ring::of_base(value, limit);
        let written = value & 0x000f_ffff_ffff_ffe0;
        if ring.base(value, entry_bytes) != written || (value & 0x1f) as u32 > limit {
            let details = format!("queue base {value:#x}: not aligned to its size, or larger than 2^{limit} entries");
            self.violation(Law::Alignment, details);
        }
        if written >> self.config.oas_bits() != 0 {
            self.violation(Law::Alignment, format!("queue base {value:#x} is beyond the output size"));
        }
    }

    fn start_translating(&mut self) {
        self.active_cr2 = self.registers.get(offset::CR2);
        if !self.caches.known(self.config.hyp) {
            let details = "SMMUEN was set before configuration and then translations left by reset were invalidated";
            self.violation(Law::LiveEntry, details);
        }
        let table = self.stream_table();
        if table.written_base != table.base || table.base >> self.config.oas_bits() != 0 {
            self.violation(Law::Alignment, format!("STRTAB_BASE {:#x} is not aligned to its size", table.written_base));
        }
        self.settle_everything();
    }
}

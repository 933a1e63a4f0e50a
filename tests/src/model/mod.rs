//! A software SMMUv3 that is nastier than hardware: it caches configuration and translations until told to forget, does
//! what it accepted as late as it may, completes late, reads tables behind the CPU's caches, writes junk where nothing is
//! promised, and watches over the laws that software owes it.
//!
//! It is written from the architecture (Arm IHI 0070 and the Arm ARM, whose sections the files name) and shares no code
//! with the driver's own description of it, so that a wrong bit cannot agree with itself.
//!
//! ```
//! use smmu::addr::StreamId;
//! use smmu::device::{BootPolicy, Smmu};
//! use tests::model::{Config, Model};
//!
//! let model = Model::new(Config::qemu());
//! let smmu = Smmu::bring_up(model.platform(), model.registers(), true, BootPolicy::Abort).unwrap();
//! let disk = model.device(StreamId::new(8));
//! assert!(disk.write(smmu::addr::Iova::new(0x1000), b"stray").is_err());
//! assert_eq!(model.log().events().len(), 1);
//! # drop(smmu);
//! ```
//!
//! Not modelled: 52-bit addresses, AArch32 and big-endian tables, Secure and Realm state, MPAM, ATOS, ECMDQ, permission
//! indirection, broadcast TLB maintenance.

mod backend;
mod barriers;
pub(crate) mod bits;
mod caches;
mod commands;
mod config;
mod control;
mod dma;
mod events;
mod laws;
mod live;
mod log;
mod memory;
mod platform;
mod reach;
mod registers;
mod ring;
mod structures;
mod walk;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smmu::addr::StreamId;

pub use backend::{BrokenLaws, ModelBackend};
pub use commands::Opcode;
pub use config::{Caching, Config, Pace};
pub use control::{Faults, Silent};
pub use dma::{AtsRefused, AtsTranslation, Device, PageRequest, PageResponse, Refused, Stall};
pub use events::{EventKind, GlobalError, Record};
pub use laws::{Law, Violation};
pub use log::{Entry, Fetched, Interrupt, Log, Mark};
pub use platform::{Buffer, ModelPlatform};
pub use registers::{ModelRegisters, RegisterAccess};
pub use structures::Meaning;
pub use walk::{Cacheability, MemoryType};

use control::Machine;
use registers::Observer;

/// What registers, devices and the platform share of one SMMU.
pub(crate) struct Shared {
    machine: Mutex<Machine>,
    observer: Mutex<Option<Observer>>,
}

/// One software SMMU. Dropping it panics if a law was broken and nobody took the violation out.
///
/// The driver's objects over it are dropped first, so declare them after it. All of it may be used from several threads.
pub struct Model {
    shared: Arc<Shared>,
    platform: &'static ModelPlatform,
}

impl Model {
    /// An SMMU as after reset, on a platform of its own.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::on(ModelPlatform::leaked(), config)
    }

    /// One more SMMU on a platform.
    #[must_use]
    pub fn on(platform: &'static ModelPlatform, config: Config) -> Self {
        let relax = config.relax;
        let shared =
            Arc::new(Shared { machine: Mutex::new(Machine::new(platform, config)), observer: Mutex::new(None) });
        platform.add(&shared, relax);
        Self { shared, platform }
    }

    /// The system that the SMMU is in.
    #[must_use]
    pub fn platform(&self) -> &'static ModelPlatform {
        self.platform
    }

    /// The registers, for the driver.
    #[must_use]
    pub fn registers(&self) -> ModelRegisters {
        ModelRegisters(Arc::clone(&self.shared))
    }

    /// A device with a StreamID.
    #[must_use]
    pub fn device(&self, stream: StreamId) -> Device {
        Device::new(Arc::clone(&self.shared), stream)
    }

    /// Everything that happened so far.
    #[must_use]
    pub fn log(&self) -> Log {
        self.machine().log.clone()
    }

    /// This point in the log.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.machine().log.mark()
    }

    /// What happened since a point.
    #[must_use]
    pub fn log_since(&self, mark: Mark) -> Log {
        self.machine().log.since(mark)
    }

    /// Forgets what happened so far, which frees memory. Marks from before are of no use any more.
    pub fn clear_log(&self) {
        self.machine().log = Log::default();
    }

    /// Lets things go wrong from here on, or no longer.
    pub fn inject(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.machine().faults);
    }

    /// Raises a global error.
    pub fn raise(&self, error: GlobalError) {
        self.machine().raise(error);
    }

    /// Puts a record into the event queue as it is: of an event that the model has no occasion for.
    pub fn raise_event(&self, words: [u64; 4]) {
        self.machine().record(Record(words));
    }

    /// Changes what the caches keep.
    pub fn set_caching(&self, caching: Caching) {
        self.machine().caches.set_caching(caching);
    }

    /// Changes when commands are consumed.
    pub fn set_pace(&self, pace: Pace) {
        self.machine().config.pace = pace;
    }

    /// Consumes one command, at whatever pace. Whether there was one.
    pub fn step(&self) -> bool {
        self.machine().consume_command()
    }

    /// Looks at every watched entry now, and not only when commands are published.
    pub fn check_entries(&self) {
        self.machine().sample_live_entries();
    }

    /// Calls `observer` after every register access from here on. It may use devices, but no registers.
    pub fn observe(&self, observer: impl FnMut(RegisterAccess) + Send + 'static) {
        *lock(&self.shared.observer) = Some(Box::new(observer));
    }

    /// Calls nobody any more.
    pub fn stop_observing(&self) {
        *lock(&self.shared.observer) = None;
    }

    /// Takes the power away: registers and caches are lost, and nothing passes.
    pub fn power_off(&self) {
        self.machine().power_off();
    }

    /// Gives it power again: it is as after reset.
    pub fn power_on(&self) {
        self.inject(|faults| faults.registers_read_ones = false);
    }

    /// Whether laws are seen to in the entries of a stream. They are, unless a test says otherwise because it has written
    /// something there that is against them; from the next command on again, once it has said that the driver has them back.
    pub fn judge_entries_of(&self, stream: StreamId, judge: bool) {
        let unjudged = &mut self.machine().unjudged;
        if judge {
            unjudged.remove(&stream.get())
        } else {
            unjudged.insert(stream.get())
        };
    }

    /// Takes out what laws were broken so far.
    #[must_use]
    pub fn take_violations(&self) -> Vec<Violation> {
        self.platform.take_violations()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        lock(&self.shared.machine)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let violations = self.take_violations();
        if !violations.is_empty() && !std::thread::panicking() {
            let lines: Vec<_> = violations.iter().map(|violation| format!("  {violation}")).collect();
            panic!("{} laws were broken:\n{}", lines.len(), lines.join("\n"));
        }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("platform", &self.platform).finish_non_exhaustive()
    }
}

/// Locks, also after a test has panicked with the lock held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

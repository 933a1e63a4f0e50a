//! A machine, its driver, and devices attached to it.

use std::io::{self, Write as _};
use std::process;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use qemu::locate::{self, ADVICE};
use qemu::machine::{Iommu, Stage};
use qemu::program::Qemu;
use smmu::addr::{Iova, PhysAddr, StreamId};
use smmu::arch::event::{AccessDirection, Event, EventKind, FaultKind, TranslationFault};
use smmu::device::Smmu;
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{Attachment, Configuration, Device, DeviceDescription, Iommus};
use smmu::memory::DmaMemory;
use smmu::pgtable::{self, Access, MemoryType};
use tests::qtest::{Edu, QtestMachine, QtestPlatform, Staging};
use tests::sequence::Deviation;

/// The SMMU's name in firmware.
pub(crate) const IOMMU: Phandle = Phandle::new(1);
/// A page, in bytes.
pub(crate) const PAGE: u64 = 4096;
/// An address at which tests map.
pub(crate) const HERE: Iova = Iova::new(0x10_0000);
/// Another, in another last-level table.
pub(crate) const THERE: Iova = Iova::new(0x40_0000);

/// The QEMU of all tests, located once.
pub(crate) static QEMU: LazyLock<Qemu> = LazyLock::new(|| {
    let qemu = locate::locate(None).unwrap_or_else(|error| give_up(&error.to_string()));
    if !qemu.capabilities.is_full() {
        give_up(&format!("{} cannot build every machine of the tests. {ADVICE}", qemu.version));
    }
    qemu
});

/// Ends all tests: what every one of them needs is not there. Said once, instead of by each of them.
fn give_up(message: &str) -> ! {
    // Not by `eprintln!`, whose text the test harness would keep to itself.
    let _ = writeln!(io::stderr(), "\nerror: no test can reach an SMMU: {message}");
    process::exit(1)
}

/// Machines with each of the stages that an SMMU can have.
pub(crate) const ALL_STAGES: [Iommu; 3] =
    [Iommu::SmmuV3Stage(Stage::One), Iommu::SmmuV3Stage(Stage::Two), Iommu::SmmuV3Stage(Stage::Nested)];

/// A machine with two engines and a driver that is up.
pub(crate) struct Setup {
    pub(crate) smmu: Arc<Smmu<QtestPlatform>>,
    pub(crate) iommus: Iommus<QtestPlatform>,
    pub(crate) machine: QtestMachine,
}

/// A device that is attached to a domain of its own.
pub(crate) struct Attached {
    pub(crate) attachment: Attachment<QtestPlatform>,
    pub(crate) engine: Edu,
    staging: Staging,
}

impl Setup {
    /// On the board's own SMMU, which has both stages.
    pub(crate) fn new() -> Self {
        Self::with(Iommu::SmmuV3)
    }

    pub(crate) fn with(iommu: Iommu) -> Self {
        let machine = QtestMachine::start(&QEMU, iommu, 2).unwrap();
        let smmu = Arc::new(machine.bring_up().unwrap());
        let iommus = Iommus::new(machine.platform());
        iommus.register(IOMMU, Arc::clone(&smmu)).unwrap();
        Self { smmu, iommus, machine }
    }

    /// Makes a stream known as a device.
    pub(crate) fn device(&self, stream: StreamId) -> Arc<Device> {
        let mut fwspec = Fwspec::new();
        fwspec.push(IOMMU, stream);
        self.iommus.add_device(DeviceDescription::new(format!("device {stream}"), fwspec)).unwrap()
    }

    /// Attaches a device to a domain of its own.
    pub(crate) fn configure(&self, device: &Arc<Device>) -> Attachment<QtestPlatform> {
        match self.iommus.configure(device).unwrap() {
            Configuration::Configured(attachment) => attachment,
            other => panic!("{device} was not configured: {other:?}"),
        }
    }

    /// Attaches engine `index`, with a page through which it shows what it reads.
    pub(crate) fn attach(&self, index: usize) -> Attached {
        let engine = self.machine.engines()[index].clone();
        let attachment = self.configure(&self.device(engine.stream()));
        let staging = Staging::new(self.machine.platform()).unwrap();
        let attached = Attached { attachment, engine, staging };
        attached.map(Staging::IOVA, attached.staging.physical(), PAGE, Access::ReadWrite);
        attached
    }

    /// A page of memory, zeroed.
    pub(crate) fn page(&self) -> DmaMemory<QtestPlatform> {
        DmaMemory::allocate(self.machine.platform(), PAGE as usize, PAGE as usize).unwrap()
    }

    /// The events since the last look.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let drain = self.smmu.drain_events(|event| events.push(event));
        assert_eq!((drain.events as usize, drain.overflowed, drain.inconsistent), (events.len(), false, false));
        events
    }

    #[track_caller]
    pub(crate) fn assert_no_event(&self) {
        assert_eq!(self.events(), []);
    }

    /// Fails unless exactly one event was recorded since the last look, a translation fault at this.
    #[track_caller]
    pub(crate) fn assert_fault(&self, kind: FaultKind, stream: StreamId, direction: AccessDirection, iova: Iova) {
        Self::check_fault(&self.events(), kind, stream, direction, iova);
    }

    /// The same, or no event at all where QEMU is known for `deviation`.
    #[track_caller]
    pub(crate) fn assert_fault_but_for(
        &self,
        deviation: Option<Deviation>,
        kind: FaultKind,
        stream: StreamId,
        direction: AccessDirection,
        iova: Iova,
    ) {
        let events = self.events();
        if deviation.is_none() || !events.is_empty() {
            Self::check_fault(&events, kind, stream, direction, iova);
        }
    }

    #[track_caller]
    fn check_fault(events: &[Event], kind: FaultKind, stream: StreamId, direction: AccessDirection, iova: Iova) {
        let &[Event { source, kind: EventKind::Translation(fault) }] = events else {
            panic!("expected one {kind:?} of {stream} at {iova}, found {events:?}")
        };
        let TranslationFault { kind: found, access, input, stall, .. } = fault;
        assert_eq!((found, source.stream, source.substream), (kind, stream, None));
        assert_eq!((access.direction, input, stall), (direction, iova, None));
    }
}

impl Attached {
    pub(crate) fn stream(&self) -> StreamId {
        self.engine.stream()
    }

    /// `deviation` if the device is behind stage 2 alone.
    pub(crate) fn at_stage2(&self, deviation: Deviation) -> Option<Deviation> {
        (self.attachment.paging().unwrap().stage() == pgtable::Stage::Stage2).then_some(deviation)
    }

    pub(crate) fn map(&self, iova: Iova, physical: PhysAddr, size_bytes: u64, access: Access) {
        self.attachment.paging().unwrap().map(iova, physical, size_bytes, access, MemoryType::WriteBack).unwrap();
    }

    pub(crate) fn unmap(&self, iova: Iova, size_bytes: u64) {
        self.attachment.paging().unwrap().unmap(iova, size_bytes).unwrap();
    }

    pub(crate) fn write(&self, iova: Iova, index: u16) {
        self.engine.write_word(iova, index).unwrap();
    }

    pub(crate) fn read(&self, iova: Iova) -> u32 {
        self.engine.read_word(iova, &self.staging).unwrap()
    }
}

/// The word of 4 bytes at a multiple of 8 bytes in `memory`.
pub(crate) fn word(memory: &DmaMemory<QtestPlatform>, offset: usize) -> u32 {
    u64::from_le(memory.words()[offset / 8].load(Ordering::Relaxed)) as u32
}

/// Sets the word at a multiple of 8 bytes.
pub(crate) fn set_word(memory: &DmaMemory<QtestPlatform>, offset: usize, value: u32) {
    memory.words()[offset / 8].store(u64::from(value).to_le(), Ordering::Relaxed);
}

/// `iova` plus `bytes`.
pub(crate) fn plus(iova: Iova, bytes: u64) -> Iova {
    iova.checked_add(bytes).unwrap()
}

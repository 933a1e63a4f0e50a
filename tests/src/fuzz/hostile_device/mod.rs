//! The whole driver, up to the DMA API, over an SMMU that does what the input says: it lies in any register, stops
//! consuming commands, refuses them, writes events of its own and moves indices at will.
//!
//! Whatever it does, the driver does not panic, ends every call after a bounded number of register reads, and frees no
//! memory that the hardware, for all that the driver was told, may still reach.

mod reach;
mod registers;

use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use smmu::addr::StreamId;
use smmu::arch::command::PriResponse;
use smmu::arch::stream_table::{Shcfg, StreamTableEntry};
use smmu::device::{BootPolicy, DeviceError, Handover, Smmu, TranslationTag};
use smmu::dma::{CoherentBuffer, Direction, Dma, Mapping};
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{Configuration, DeviceDescription, Iommus};

use super::platform::FuzzPlatform;

pub(super) use registers::{Hardware, HostileRegisters};

const IOMMU: Phandle = Phandle::new(1);
/// The streams of devices and of bare attachments: in one second level, in another, at the end of 16 bits, and outside.
const STREAMS: [u32; 5] = [0, 9, 0x108, 0xffff, 0x1_0000];
const OPERATIONS_MAX: usize = 40;
/// Fills a table of pages, 2 MiB, from wherever it starts: only then does unmapping it free a table. Odd, so that it is
/// bounced.
const LONG_BYTES: usize = (4 << 20) - 1;

/// One call of the driver.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    Configure { stream: u8 },
    Allocate { dma: u8, pages: u8 },
    Map { dma: u8, length: u16, direction: u8 },
    Release { which: u8 },
    DropDma { dma: u8 },
    DrainEvents,
    HandleGlobalErrors,
    EnableInterrupts,
    EnablePageRequests,
    AnswerPageRequests,
    TerminateStalled { stream: u8 },
    Suspend,
    Resume,
    Shutdown { running: bool },
    Attach { stream: u8, bypass: bool },
    Detach { stream: u8 },
    TakeIdentifiers,
    Close,
}

/// What a device's driver holds until it lets go.
enum Held {
    Coherent(#[expect(dead_code, reason = "held to be dropped")] CoherentBuffer<FuzzPlatform>),
    Mapped(
        #[expect(dead_code, reason = "held to be dropped")] Mapping<FuzzPlatform>,
        #[expect(dead_code, reason = "lent to the mapping")] Vec<u8>,
    ),
}

/// Takes `data` for what the SMMU is, what is asked of the driver, and what the SMMU does.
///
/// # Panics
///
/// If the driver breaks one of the three promises above.
pub fn run(data: &[u8]) {
    let platform = FuzzPlatform::of_this_thread();
    let mut input = Unstructured::new(data);
    let Ok((identification, operations)) = plan(&mut input) else { return };
    platform.begin(identification, input.take_rest());
    let registers = HostileRegisters(platform);
    let coherent = identification[0] & 1 << 4 != 0;
    if let Ok(smmu) = Smmu::bring_up(platform, registers, coherent, BootPolicy::Abort) {
        let mut system = System::new(platform, Arc::new(smmu));
        for operation in operations {
            platform.begin_call();
            system.run(operation);
        }
        platform.begin_call();
        // In whatever order the fields have: every one of them may be the last to hold the SMMU.
        drop(system);
    }
    platform.end();
}

/// The identification registers and the operations.
fn plan(input: &mut Unstructured<'_>) -> Result<([u32; 3], Vec<Operation>)> {
    let idr0 = match input.int_in_range(0..=4)? {
        0 => 0x0d44_101b,
        1 => 0x0544_1019,
        2 => 0x0000_000a,
        // ATS, page requests and stalls.
        3 => 0x0c45_141b,
        _ => input.arbitrary()?,
    };
    // Queues of up to 16 entries fill up; StreamIDs of up to 17 bits need both kinds of table.
    let queues = input.int_in_range(0..=4)? << 21 | input.int_in_range(0..=4)? << 16 | input.int_in_range(0..=4)? << 11;
    let idr1 = queues | input.int_in_range(0..=17)?;
    let idr3 = if input.arbitrary()? { 0x1414 } else { 0 };
    let count = input.int_in_range(0..=OPERATIONS_MAX)?;
    let operations = (0..count).map(|_| input.arbitrary()).collect::<Result<_>>()?;
    Ok(([idr0, idr1, idr3], operations))
}

struct System {
    platform: &'static FuzzPlatform,
    smmu: Arc<Smmu<FuzzPlatform>>,
    iommus: Iommus<FuzzPlatform>,
    dmas: Vec<Dma<FuzzPlatform>>,
    held: Vec<Held>,
    tags: Vec<TranslationTag>,
}

impl System {
    fn new(platform: &'static FuzzPlatform, smmu: Arc<Smmu<FuzzPlatform>>) -> Self {
        let iommus = Iommus::new(platform);
        iommus.register(IOMMU, Arc::clone(&smmu)).expect("the first");
        Self { platform, smmu, iommus, dmas: Vec::new(), held: Vec::new(), tags: Vec::new() }
    }

    /// Calls the driver. That it fails is fine; its errors are printed, which must not panic either.
    fn run(&mut self, operation: Operation) {
        let error = match operation {
            Operation::Configure { stream } => self.configure(pick_stream(stream)).err(),
            Operation::Allocate { dma, pages } => self.allocate(dma, pages).err(),
            Operation::Map { dma, length, direction } => self.map(dma, length, direction).err(),
            Operation::Release { which } => {
                if let Some(index) = usize::from(which).checked_rem(self.held.len()) {
                    drop(self.held.swap_remove(index));
                }
                None
            }
            Operation::DropDma { dma } => {
                if let Some(index) = usize::from(dma).checked_rem(self.dmas.len()) {
                    drop(self.dmas.swap_remove(index));
                }
                None
            }
            Operation::DrainEvents => {
                let drain = self.smmu.drain_events(|event| {
                    assert!(!self.iommus.attribute(IOMMU, event).to_string().is_empty());
                });
                assert!(drain.events <= 1 << 10, "more events than any queue holds");
                None
            }
            Operation::HandleGlobalErrors => Some(self.smmu.handle_global_errors().to_string()),
            Operation::EnableInterrupts => text(self.smmu.enable_interrupts()),
            Operation::EnablePageRequests => text(self.smmu.enable_page_requests()),
            Operation::AnswerPageRequests => self.answer_page_requests().err(),
            Operation::TerminateStalled { stream } => text(self.smmu.terminate_stalled(pick_stream(stream))),
            Operation::Suspend => text(self.smmu.suspend()),
            Operation::Resume => text(self.smmu.resume()),
            Operation::Shutdown { running } => {
                text(self.smmu.shutdown(if running { Handover::Running } else { Handover::Abort }))
            }
            Operation::Attach { stream, bypass } => {
                let bypass = bypass.then(|| StreamTableEntry::bypass(Shcfg::UseIncoming));
                let entry = bypass.unwrap_or_else(StreamTableEntry::abort);
                text(self.smmu.attach(pick_stream(stream), &entry))
            }
            Operation::Detach { stream } => {
                let stream = pick_stream(stream);
                // What a device is attached to is its own to detach.
                let entry = self.smmu.stream_table_entry(stream);
                let bare = entry.is_ok_and(|entry| entry.config() as u64 & 0b011 == 0);
                text(if bare { self.smmu.detach(stream) } else { Ok(()) })
            }
            Operation::TakeIdentifiers => self.take_identifiers().err(),
            Operation::Close => text(self.smmu.close()),
        };
        assert!(error.is_none_or(|error| !error.is_empty()));
    }

    fn configure(&mut self, stream: StreamId) -> std::result::Result<(), String> {
        let mut fwspec = Fwspec::new();
        fwspec.push(IOMMU, stream);
        let device = self
            .iommus
            .add_device(DeviceDescription::new(format!("device {stream}"), fwspec))
            .map_err(|error| error.to_string())?;
        match self.iommus.configure(&device).map_err(|error| error.to_string())? {
            Configuration::Configured(attachment) => {
                self.dmas.push(Dma::new(self.platform, attachment, u64::MAX).unwrap());
                Ok(())
            }
            Configuration::Deferred(_) | Configuration::NoIommu => panic!("its SMMU is there"),
        }
    }

    fn allocate(&mut self, dma: u8, pages: u8) -> std::result::Result<(), String> {
        let Some(index) = usize::from(dma).checked_rem(self.dmas.len()) else { return Ok(()) };
        let buffer = self.dmas[index].allocate_coherent(usize::from(pages % 5) * 4096);
        self.held.push(Held::Coherent(buffer.map_err(|error| error.to_string())?));
        Ok(())
    }

    fn map(&mut self, dma: u8, length: u16, direction: u8) -> std::result::Result<(), String> {
        let Some(index) = usize::from(dma).checked_rem(self.dmas.len()) else { return Ok(()) };
        let directions = [Direction::ToDevice, Direction::FromDevice, Direction::Bidirectional];
        let direction = directions[usize::from(direction) % directions.len()];
        let mut memory = vec![0; if length == u16::MAX { LONG_BYTES } else { length.into() }];
        // SAFETY: the memory is kept beside the mapping, which is dropped first, and nobody touches it until then.
        let mapping = unsafe { self.dmas[index].map(memory.as_mut_slice().into(), direction) };
        self.held.push(Held::Mapped(mapping.map_err(|error| error.to_string())?, memory));
        Ok(())
    }

    fn answer_page_requests(&self) -> std::result::Result<(), String> {
        let mut groups = Vec::new();
        let drain = self.smmu.drain_page_requests(|request| groups.extend(Some(request).filter(|last| last.last)));
        assert!(drain.requests <= 1 << 10, "more page requests than any queue holds");
        let answers = groups.iter().map(|last| self.smmu.answer_page_requests(last, PriResponse::Invalid));
        answers.collect::<std::result::Result<(), _>>().map_err(|error| error.to_string())
    }

    fn take_identifiers(&mut self) -> std::result::Result<(), String> {
        let result = match self.tags.pop() {
            Some(tag) => self.smmu.retire(tag),
            None => self.smmu.take_vmid().map(|vmid| self.tags.push(TranslationTag::Stage2 { vmid })),
        };
        result.map_err(|error| error.to_string())
    }
}

fn text(result: std::result::Result<(), DeviceError>) -> Option<String> {
    result.err().map(|error| error.to_string())
}

fn pick_stream(stream: u8) -> StreamId {
    StreamId::new(STREAMS[usize::from(stream) % STREAMS.len()])
}

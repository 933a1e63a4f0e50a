//! Every event that QEMU's SMMU can raise, raised by a device's DMA: each once, decoded, in words and as a record.
//!
//! Most of them come of entries that are wrong in one way, which the driver takes from its caller as they are; for the rest
//! the stream table is damaged behind its back.

mod details;
mod structures;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use smmu::addr::{Iova, StreamId};
use smmu::arch::event::Event;
use smmu::arch::stream_table::{L1StreamTableDescriptor, StreamTableEntry};
use smmu::device::Smmu;
use smmu::iommu::FaultReport;

use super::Context;
use super::sabotage::Sabotage;
use super::system::{Endpoint, System};
use crate::drivers::DriverKind;
use crate::drivers::edu::Edu;
use crate::drivers::iommu_testdev::{IommuTestdev, Outcome};
use crate::platform::Kernel;
use crate::power::ExitCode;
use crate::sync::IrqMutex;
use crate::timer::wait_for;
use crate::{iommu, println};
use structures::{Case, NOT_MEMORY, Structures, UNMAPPED};

/// QEMU raises one event for each access of up to this many bytes.
const ACCESS_BYTES: usize = 4;
/// How long an event may take to be reported.
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// Events that nobody has asked about yet.
static SEEN: IrqMutex<Vec<Event>> = IrqMutex::new(Vec::new());

pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(show(context))
}

fn show(context: &Context) -> Result<(), String> {
    let mut system = System::discover(context)?;
    let smmu = system.smmus.first().map(|instance| Arc::clone(&instance.smmu)).ok_or("no SMMU")?;
    for device in system.endpoints.iter().filter_map(|endpoint| endpoint.device().ok()) {
        device.on_fault(Some(Arc::new(|report: &FaultReport| SEEN.lock().push(report.event))));
    }
    println!("\n== A stream that is in no table");
    outside_the_table(&mut system)?;

    println!("\n== Entries, descriptors and tables that are wrong");
    let structures = Structures::new(&smmu)?;
    let mut writer = Writer::new(system.endpoint(DriverKind::IommuTestdev)?)?;
    let cases = structures.cases();
    for case in &cases {
        attached(&smmu, &structures, writer.stream, &case.entry, || writer.write(case.name, case.iova))?;
    }
    writer.write("not attached", UNMAPPED)?;

    println!("\n== A read");
    let Some(Case { entry, .. }) = cases.last() else { return Err("this SMMU translates nothing".into()) };
    read(system.endpoint(DriverKind::Edu)?, |stream, read| attached(&smmu, &structures, stream, entry, read))?;
    structures.retire(&smmu)
}

/// A device on a bus of which the stream table has no part yet: nothing there has ever been attached.
fn outside_the_table(system: &mut System) -> Result<(), String> {
    let sabotage = Sabotage::new(system.smmus.first().ok_or("no SMMU")?)?;
    let is_far =
        |endpoint: &&mut Endpoint| endpoint.driver == DriverKind::IommuTestdev && endpoint.function.address.bus != 0;
    let endpoint = system.endpoints.iter_mut().find(is_far).ok_or("no iommu-testdev behind a root port")?;
    let mut writer = Writer::new(endpoint)?;
    writer.write("no second level", UNMAPPED)?;
    let descriptor = sabotage.level1_descriptor(writer.stream)?;
    let before = descriptor.swap(L1StreamTableDescriptor::new(NOT_MEMORY, 9).word().to_le(), Ordering::AcqRel);
    let written = writer.write("second level outside memory", UNMAPPED);
    descriptor.store(before, Ordering::Release);
    written
}

/// What `access` does while `stream` has the meaning of `entry`.
fn attached(
    smmu: &Smmu<Kernel>,
    structures: &Structures,
    stream: StreamId,
    entry: &StreamTableEntry,
    access: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    smmu.attach(stream, entry).map_err(|error| error.to_string())?;
    let accessed = access();
    let detached = smmu.detach(stream).inspect_err(|_| structures.keep());
    accessed.and(detached.map_err(|error| error.to_string()))
}

/// Has an `edu` read what its table does not map; `attached` does something while its stream is attached.
fn read(
    endpoint: &mut Endpoint,
    attached: impl FnOnce(StreamId, &mut dyn FnMut() -> Result<(), String>) -> Result<(), String>,
) -> Result<(), String> {
    let stream = endpoint.stream()?;
    let mut edu = Edu::new(&mut endpoint.function).map_err(|error| error.to_string())?;
    attached(stream, &mut || {
        endpoint.function.bus_master().set(true);
        let done = edu.copy_from_memory(UNMAPPED, 0, ACCESS_BYTES);
        endpoint.function.bus_master().set(false);
        done.map_err(|error| error.to_string())?;
        take("a read", stream)
    })
}

/// An `iommu-testdev`, which writes whatever it is told to, wherever that is.
struct Writer {
    testdev: IommuTestdev,
    stream: StreamId,
}

impl Writer {
    fn new(endpoint: &mut Endpoint) -> Result<Self, String> {
        let stream = endpoint.stream()?;
        Ok(Self { testdev: IommuTestdev::new(&mut endpoint.function).map_err(|error| error.to_string())?, stream })
    }

    /// Has it write at `iova`, and reports the event that comes of it.
    fn write(&mut self, case: &str, iova: Iova) -> Result<(), String> {
        match self.testdev.write_through(iova, ACCESS_BYTES as u32, NOT_MEMORY) {
            Outcome::Stopped => take(case, self.stream),
            outcome => Err(format!("{case}: the device says of its write: {outcome}")),
        }
    }
}

/// Takes the one event that has come of `case` and reports it.
fn take(case: &str, stream: StreamId) -> Result<(), String> {
    let arrived = || {
        iommu::poll();
        !SEEN.lock().is_empty()
    };
    if !wait_for(REPORT_LIMIT, arrived) {
        return Err(format!("{case}: no event within {REPORT_LIMIT:?}"));
    }
    let events = core::mem::take(&mut *SEEN.lock());
    match events[..] {
        [event] if event.source.stream == stream => {
            println!("{case}:\n  {event}");
            details::record(case, &event);
            Ok(())
        }
        _ => Err(format!("{case}: expected one event of stream {stream}, found {events:?}")),
    }
}

//! The SMMU is switched off and on again in the middle of a disk read, with its registers lost meanwhile: no DMA passes while
//! it is off, and all of it works afterwards without anybody being attached anew.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use core::time::Duration;

use smmu::addr::{PhysAddr, StreamId};
use smmu::arch::stream_table::StreamTableEntry;
use smmu::device::{DeviceError, Smmu};
use smmu::dma::{CoherentBuffer, PAGE_BYTES};
use smmu::iommu::Device;
use smmu::platform::Platform;

use super::Context;
use super::disk::{Disk, UnderWay};
use super::sabotage::Sabotage;
use super::system::{Endpoint, System};
use crate::drivers::DriverKind;
use crate::drivers::iommu_testdev::{IommuTestdev, Outcome, PATTERN};
use crate::iommu::{self, Bound, NO_LIMIT};
use crate::platform::{Kernel, PLATFORM};
use crate::power::ExitCode;
use crate::timer::wait_for;
use crate::{println, record};

/// How many times, each while another piece of the disk is being read.
const TIMES: usize = 4;
/// How long the disk may take to answer a request.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long the report of a stopped write may take.
const REPORT_LIMIT: Duration = Duration::from_secs(2);

pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(show(context))
}

fn show(context: &Context) -> Result<(), String> {
    let mut system = System::discover(context)?;
    let instance = system.smmus.first().ok_or("no SMMU")?;
    let (smmu, sabotage) = (instance.smmu.clone(), Sabotage::new(instance)?);
    let mut disk = system.take_endpoint(DriverKind::VirtioBlock)?;
    let mut endpoint = system.take_endpoint(DriverKind::IommuTestdev)?;
    let mut probe = Probe::new(&mut endpoint)?;
    println!("\n== The disk is read, and the SMMU suspended {TIMES} times on the way");
    Disk::new(&mut disk)?.read_whole(context, |mut request: UnderWay<'_>| {
        if request.index >= TIMES {
            return Ok(());
        }
        // As before any suspension, devices come to rest first. What they were lent, they keep.
        if !wait_for(ANSWER_LIMIT, || !request.is_pending()) {
            return Err(format!("the disk gave no answer within {ANSWER_LIMIT:?}"));
        }
        probe.expect(Outcome::Written, "before")?;
        smmu.suspend().map_err(|error| error.to_string())?;
        asleep(&smmu, &mut probe, &sabotage)?;
        smmu.resume().map_err(|error| error.to_string())?;
        probe.expect(Outcome::Written, "after")
    })?;
    let events = iommu::counts().events;
    if events != 0 {
        return Err(format!("{events} events, where everything was either permitted or off"));
    }
    let reported = probe.strays()?;
    record!("suspend", "times" => TIMES, "reported" => reported);
    if reported { Ok(()) } else { Err("the SMMU no longer reports a device that strays".into()) }
}

/// What holds while the SMMU is suspended.
fn asleep(smmu: &Smmu<Kernel>, probe: &mut Probe<'_>, sabotage: &Sabotage) -> Result<(), String> {
    probe.expect(Outcome::Stopped, "while the SMMU is suspended")?;
    match smmu.attach(StreamId::new(0), &StreamTableEntry::abort()) {
        Err(DeviceError::Suspended) => {}
        other => return Err(format!("attaching to a suspended SMMU should be refused, but: {other:?}")),
    }
    sabotage.lose_registers();
    probe.expect(Outcome::Stopped, "while the SMMU has lost its registers")
}

/// An attached `iommu-testdev`, and the page that it may write.
struct Probe<'a> {
    device: Arc<Device>,
    testdev: IommuTestdev,
    page: CoherentBuffer<Kernel>,
    /// Last: bus mastering goes off after everything else.
    _bound: Bound<'a>,
}

impl<'a> Probe<'a> {
    fn new(endpoint: &'a mut Endpoint) -> Result<Self, String> {
        let device = endpoint.device()?;
        let testdev = IommuTestdev::new(&mut endpoint.function).map_err(|error| error.to_string())?;
        let bound = Bound::new(&mut endpoint.function, &device, NO_LIMIT).map_err(|error| error.to_string())?;
        let page = bound.dma.allocate_coherent(PAGE_BYTES).map_err(|error| error.to_string())?;
        Ok(Self { device, testdev, page, _bound: bound })
    }

    /// Has the device fill its page, which should come to `outcome`.
    fn expect(&mut self, outcome: Outcome, when: &str) -> Result<(), String> {
        self.page.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let physical = PLATFORM.physical(self.page.pointer()).ok_or("the page is not in memory")?;
        let found = self.testdev.write_through(self.page.iova(), PAGE_BYTES as u32, physical);
        let pattern = u64::from(PATTERN) << 32 | u64::from(PATTERN);
        let written = self.page.words().iter().filter(|word| word.load(Ordering::Relaxed) == pattern).count();
        let expected = if outcome == Outcome::Written { self.page.words().len() } else { 0 };
        println!("  {when}: {found}, {written} words arrived");
        if found == outcome && written == expected {
            return Ok(());
        }
        Err(format!("a write {when} was to be {outcome}"))
    }

    /// Has the device write behind its page. Returns whether that is reported.
    fn strays(&mut self) -> Result<bool, String> {
        let behind = self.page.iova().checked_add(PAGE_BYTES as u64).ok_or("there is nothing behind the page")?;
        let outcome = self.testdev.write_through(behind, 4, PhysAddr::new(0));
        println!("  behind its page: {outcome}");
        let reported = || {
            iommu::poll();
            self.device.faults() == 1
        };
        Ok(outcome == Outcome::Stopped && wait_for(REPORT_LIMIT, reported))
    }
}

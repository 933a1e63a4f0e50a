//! The SMMU is switched off and on again in the middle of a disk read, with its registers lost meanwhile: no DMA passes while
//! it is off, and all of it works afterwards without anybody being attached anew.

use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use smmu::addr::StreamId;
use smmu::arch::stream_table::StreamTableEntry;
use smmu::device::{DeviceError, Smmu};
use smmu::dma::PAGE_BYTES;

use super::Context;
use super::disk::{Disk, UnderWay};
use super::probe::Probe;
use super::sabotage::Sabotage;
use super::system::System;
use crate::drivers::DriverKind;
use crate::drivers::iommu_testdev::Outcome;
use crate::iommu;
use crate::platform::Kernel;
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
    let reported = strays(&mut probe)?;
    record!("suspend", "times" => TIMES, "reported" => reported);
    if reported { Ok(()) } else { Err("the SMMU no longer reports a device that strays".into()) }
}

/// What holds while the SMMU is suspended.
fn asleep(smmu: &Smmu<Kernel>, probe: &mut Probe, sabotage: &Sabotage) -> Result<(), String> {
    probe.expect(Outcome::Stopped, "while the SMMU is suspended")?;
    match smmu.attach(StreamId::new(0), &StreamTableEntry::abort()) {
        Err(DeviceError::Suspended) => {}
        other => return Err(format!("attaching to a suspended SMMU should be refused, but: {other:?}")),
    }
    sabotage.lose_registers();
    probe.expect(Outcome::Stopped, "while the SMMU has lost its registers")
}

/// Has the device write behind its page. Returns whether that is stopped, and reported.
fn strays(probe: &mut Probe) -> Result<bool, String> {
    let behind = probe.iova().checked_add(PAGE_BYTES as u64).ok_or("there is nothing behind the page")?;
    let outcome = probe.write(behind)?;
    println!("  behind its page: {outcome}");
    let reported = || {
        iommu::poll();
        probe.device.faults() != 0
    };
    Ok(outcome == Outcome::Stopped && wait_for(REPORT_LIMIT, reported))
}

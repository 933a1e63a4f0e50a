//! One SMMU against a fake one.

mod atc;
mod bring_up;
mod command_queue;
mod completion;
mod contexts;
mod dump;
mod events;
mod fake;
mod global_errors;
mod guest_commands;
mod guest_entries;
mod invalidation;
mod lifecycle;
mod replace;
mod streams;

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

pub(crate) use fake::*;

use super::{BootPolicy, DeviceError, Smmu};
use crate::testing::{Step, TestPlatform};

pub(crate) const CMD_CFGI_STE: u64 = 0x03;
pub(crate) const CMD_CFGI_ALL: u64 = 0x04;
pub(crate) const CMD_CFGI_CD: u64 = 0x05;
pub(crate) const CMD_TLBI_NH_ASID: u64 = 0x11;
pub(crate) const CMD_TLBI_NH_VA: u64 = 0x12;
pub(crate) const CMD_TLBI_S12_VMALL: u64 = 0x28;
pub(crate) const CMD_TLBI_S2_IPA: u64 = 0x2a;
pub(crate) const CMD_TLBI_NSNH_ALL: u64 = 0x30;
pub(crate) const CMD_ATC_INV: u64 = 0x40;
pub(crate) const CMD_SYNC: u64 = 0x46;

/// Brings `fake` up; firmware says that it is coherent.
pub(crate) fn bring_up(
    platform: &'static TestPlatform,
    fake: &Arc<FakeSmmu>,
) -> Result<Smmu<TestPlatform>, DeviceError> {
    Smmu::bring_up(platform, Arc::clone(fake), true, BootPolicy::Abort)
}

/// A platform, a fake with QEMU's features, and the driver that runs it.
fn running() -> (&'static TestPlatform, Arc<FakeSmmu>, Smmu<TestPlatform>) {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    let smmu = bring_up(platform, &fake).unwrap();
    (platform, fake, smmu)
}

/// The commands in a journal.
pub(crate) fn commands(journal: &[Step]) -> Vec<[u64; 2]> {
    let command = |step: &Step| if let Step::Command(_, words) = step { Some(*words) } else { None };
    journal.iter().filter_map(command).collect()
}

/// The opcodes of the commands in a journal.
pub(crate) fn opcodes(journal: &[Step]) -> Vec<u64> {
    commands(journal).iter().map(|[word, _]| word & 0xff).collect()
}

/// What `result` says did not happen in time: the register.
#[track_caller]
pub(crate) fn timed_out<T>(result: Result<T, DeviceError>) -> &'static str {
    match result {
        Err(DeviceError::Timeout { register, .. }) => register,
        Err(error) => panic!("not a timeout: {error}"),
        Ok(_) => panic!("it went well"),
    }
}

/// Does something when it goes, whatever happens: so that other threads end when one has failed.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

//! What a device reaches through the DMA API, and what it does not.

mod addresses;
mod coherent;
mod granules;
mod streaming;

use alloc::sync::Arc;

use super::{Dma, DmaError};
use crate::addr::{Iova, PhysAddr, StreamId};
use crate::device::tests::{CMD_SYNC, CR0ACK, FakeSmmu, Outcome, bring_up};
use crate::iommu::fwspec::{Fwspec, Phandle};
use crate::iommu::{Configuration, DeviceDescription, Iommus};
use crate::testing::TestPlatform;

/// A device with 32 address lines, and its DMA.
fn attached() -> (&'static TestPlatform, Arc<FakeSmmu>, Dma<TestPlatform>) {
    attached_below(1 << 32)
}

/// A device that can put addresses below `limit` on the bus.
fn attached_below(limit: u64) -> (&'static TestPlatform, Arc<FakeSmmu>, Dma<TestPlatform>) {
    attached_to(limit, |_| ())
}

/// The same behind an SMMU that has been prepared.
fn attached_to(
    limit: u64,
    prepare: impl FnOnce(&FakeSmmu),
) -> (&'static TestPlatform, Arc<FakeSmmu>, Dma<TestPlatform>) {
    let platform = TestPlatform::leaked();
    let fake = FakeSmmu::new(platform, "A");
    prepare(&fake);
    let iommus = Iommus::new(platform);
    let phandle = Phandle::new(1);
    iommus.register(phandle, Arc::new(bring_up(platform, &fake).unwrap())).unwrap();
    let mut fwspec = Fwspec::new();
    fwspec.push(phandle, StreamId::new(0x11));
    let device = iommus.add_device(DeviceDescription::new("device", fwspec)).unwrap();
    let Ok(Configuration::Configured(attachment)) = iommus.configure(&device) else { panic!("not configured") };
    (platform, fake, Dma::new(platform, attachment, limit).unwrap())
}

/// Where `bytes` bytes from an I/O virtual address on are in physical memory.
fn physical(dma: &Dma<TestPlatform>, iova: Iova, bytes: u64) -> Option<PhysAddr> {
    dma.domain().lookup(iova.checked_add(bytes)?).map(|translation| translation.physical)
}

/// Makes invalidations fail, one way or another.
fn refuse_invalidations(fake: &FakeSmmu) {
    fake.on_command(|[word, _]| if word & 0xff == CMD_SYNC { Outcome::Done } else { Outcome::Refused(1) });
}

#[test]
fn the_device_is_attached_for_as_long_as_somebody_uses_its_dma() {
    let (_, _, dma) = attached();
    let device = Arc::clone(dma.device());
    let buffer = dma.clone().allocate_coherent(1).unwrap();
    drop(dma);
    assert!(device.is_attached());
    drop(buffer);
    assert!(!device.is_attached());
}

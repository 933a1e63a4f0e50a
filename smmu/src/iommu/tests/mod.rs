//! Devices behind one SMMU or two.

mod ats;
mod configure;
mod domains;
mod dump;
mod faults;
mod unmap;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::fwspec::{Fwspec, Phandle};
use super::{Attachment, Configuration, Device, DeviceDescription, DriverError, IommuError, Iommus};
use crate::addr::StreamId;
use crate::device::Smmu;
use crate::device::tests::{CR0ACK, FakeSmmu, bring_up};
use crate::testing::TestPlatform;

const A: Phandle = Phandle::new(0x8004);
const B: Phandle = Phandle::new(0x8005);

/// One SMMU: its hardware and its driver.
struct Instance {
    fake: Arc<FakeSmmu>,
    smmu: Arc<Smmu<TestPlatform>>,
}

impl Instance {
    fn new(platform: &'static TestPlatform, name: &'static str, prepare: impl FnOnce(&FakeSmmu)) -> Self {
        let fake = FakeSmmu::new(platform, name);
        prepare(&fake);
        let smmu = Arc::new(bring_up(platform, &fake).unwrap());
        Self { fake, smmu }
    }

    /// Word 0 of a stream's entry.
    fn word0(&self, stream: u32) -> u64 {
        self.smmu.stream_table_entry(StreamId::new(stream)).unwrap().words()[0]
    }

    fn is_on(&self) -> bool {
        self.fake.get(CR0ACK) & 1 != 0
    }
}

/// Two SMMUs and a registry.
struct System {
    platform: &'static TestPlatform,
    a: Instance,
    b: Instance,
    iommus: Iommus<TestPlatform>,
}

impl System {
    /// Both SMMUs are up, neither is registered.
    fn new() -> Self {
        Self::with(|_| (), |_| ())
    }

    fn with(prepare_a: impl FnOnce(&FakeSmmu), prepare_b: impl FnOnce(&FakeSmmu)) -> Self {
        let platform = TestPlatform::leaked();
        let (a, b) = (Instance::new(platform, "A", prepare_a), Instance::new(platform, "B", prepare_b));
        Self { platform, a, b, iommus: Iommus::new(platform) }
    }

    fn register(&self, iommu: Phandle) {
        let instance = if iommu == A { &self.a } else { &self.b };
        self.iommus.register(iommu, Arc::clone(&instance.smmu)).unwrap();
    }

    fn registered(self) -> Self {
        self.register(A);
        self.register(B);
        self
    }

    fn add(&self, name: &str, streams: &[(Phandle, u32)]) -> Result<Arc<Device>, IommuError> {
        self.iommus.add_device(DeviceDescription::new(String::from(name), fwspec(streams)))
    }

    /// A device with stream 0x11 at A and 0x22 at B.
    fn device(&self) -> Arc<Device> {
        self.add("both", &[(A, 0x11), (B, 0x22)]).unwrap()
    }

    #[track_caller]
    fn configured(&self, device: &Arc<Device>) -> Attachment<TestPlatform> {
        match self.iommus.configure(device) {
            Ok(Configuration::Configured(attachment)) => attachment,
            Ok(_) => panic!("not configured"),
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn refused(&self, device: &Arc<Device>) -> IommuError {
        let result = self.iommus.configure(device);
        assert!(!device.is_attached());
        result.err().expect("an error")
    }
}

fn fwspec(streams: &[(Phandle, u32)]) -> Fwspec {
    let mut fwspec = Fwspec::new();
    for &(iommu, stream) in streams {
        fwspec.push(iommu, StreamId::new(stream));
    }
    fwspec
}

/// The IOMMUs that a configuration waits for.
#[track_caller]
fn deferred(configuration: Result<Configuration<TestPlatform>, IommuError>) -> Vec<Phandle> {
    match configuration {
        Ok(Configuration::Deferred(missing)) => missing.into_iter().map(|missing| missing.iommu).collect(),
        Ok(_) => panic!("not deferred"),
        Err(error) => panic!("{error}"),
    }
}

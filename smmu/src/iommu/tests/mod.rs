//! Devices behind one SMMU or two, or behind instances of [another driver](other).

mod ats;
mod binding;
mod configure;
mod domains;
mod drivers;
mod dump;
mod every_step;
mod faults;
mod groups;
mod leaving;
mod nested;
mod other;
mod registration;
mod reserved;
mod unmap;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::fwspec::{Fwspec, Phandle};
use super::{
    Attachment, Configuration, Device, DeviceDescription, DomainConfig, DomainPolicy, DriverError, IommuError, Iommus,
    MissingReason, Registration,
};
use crate::addr::StreamId;
use crate::device::Smmu;
use crate::device::tests::{CR0ACK, FakeSmmu, bring_up};
use crate::testing::TestPlatform;
use other::{Other, Script};

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
        result.expect_err("an error")
    }
}

/// Two instances of the other driver, and a registry.
struct Others {
    platform: &'static TestPlatform,
    script: Arc<Script>,
    a: Arc<Other<TestPlatform>>,
    b: Arc<Other<TestPlatform>>,
    iommus: Iommus<TestPlatform>,
}

impl Others {
    /// Neither is registered. Leaked, so that what happens in the middle of a call can use it.
    fn new() -> &'static Self {
        let (platform, script) = (TestPlatform::leaked(), Arc::default());
        let [a, b] = ["A", "B"].map(|name| Other::new(name, platform, &script));
        Box::leak(Box::new(Self { platform, script, a, b, iommus: Iommus::new(platform) }))
    }

    fn registered() -> &'static Self {
        let others = Self::new();
        others.register(A);
        others.register(B);
        others
    }

    fn register(&self, iommu: Phandle) -> Registration {
        let instance = if iommu == A { &self.a } else { &self.b };
        self.iommus.register(iommu, Arc::clone(instance)).unwrap()
    }

    fn add(&self, name: &str, streams: &[(Phandle, u32)]) -> Arc<Device> {
        self.add_with(name, streams, |_| ())
    }

    fn add_with(
        &self,
        name: &str,
        streams: &[(Phandle, u32)],
        describe: impl FnOnce(&mut DeviceDescription),
    ) -> Arc<Device> {
        let mut description = DeviceDescription::new(name, fwspec(streams));
        describe(&mut description);
        self.iommus.add_device(description).unwrap()
    }

    #[track_caller]
    fn configured(&self, device: &Arc<Device>) -> Attachment<TestPlatform> {
        match self.iommus.configure(device) {
            Ok(Configuration::Configured(attachment)) => attachment,
            other => panic!("{other:?}"),
        }
    }

    /// What the instances have of streams.
    fn streams(&self) -> [Vec<(u32, usize, String)>; 2] {
        [self.a.streams(), self.b.streams()]
    }

    /// Where a stream at A and one at B are.
    fn places(&self, at_a: u32, at_b: u32) -> [String; 2] {
        [self.a.place(at_a), self.b.place(at_b)]
    }
}

/// The names of devices.
fn names(devices: &[Arc<Device>]) -> Vec<&str> {
    devices.iter().map(|device| device.name()).collect()
}

/// What a configuration waits for, and why.
#[track_caller]
fn missing(configuration: Result<Configuration<TestPlatform>, IommuError>) -> Vec<(Phandle, MissingReason)> {
    match configuration {
        Ok(Configuration::Deferred(missing)) => {
            missing.into_iter().map(|missing| (missing.iommu, missing.reason)).collect()
        }
        other => panic!("{other:?}"),
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

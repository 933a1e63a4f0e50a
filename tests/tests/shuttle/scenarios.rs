//! What happens at once when a system comes up, changes, and goes down.

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread::{self, JoinHandle};
use shuttle::{Config, Runner};
use smmu::addr::StreamId;
use smmu::arch::event::Event;
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{
    Attachment, BindError, BusDevice, Configuration, Device, DeviceDescription, Iommu, IommuError, Iommus,
};

use crate::other::{Other, Script};
use crate::platform::{Cpus, Platform};

const A: Phandle = Phandle::new(0xa);
const B: Phandle = Phandle::new(0xb);
const C: Phandle = Phandle::new(0xc);

/// Runs a scenario in as many orders, half of them at random and half with few changes of CPU at odd moments.
fn explore(orders: usize, scenario: impl Fn() + Send + Sync + Copy + 'static) {
    let config = || {
        let mut config = Config::new();
        config.failure_persistence = shuttle::FailurePersistence::Print;
        config
    };
    Runner::new(RandomScheduler::new_from_seed(0x5eed, orders / 2), config()).run(scenario);
    Runner::new(PctScheduler::new_from_seed(0x5eed, 4, orders / 2), config()).run(scenario);
}

/// Instances A and B of one driver, C of another; none is registered.
struct System {
    platform: &'static Cpus,
    script: Arc<Script>,
    a: Arc<Other<Cpus>>,
    b: Arc<Other<Cpus>>,
    c: Arc<Other<Cpus>>,
    iommus: Iommus<Cpus>,
}

impl System {
    fn new() -> Arc<Self> {
        let (platform, script) = (Cpus::leaked(), Arc::default());
        let [a, b] = ["A", "B"].map(|name| Other::new(name, platform, &script));
        let c = Other::of("third", "C", platform, &script);
        Arc::new(Self { platform, script, a, b, c, iommus: Iommus::new(platform) })
    }

    fn registered() -> Arc<Self> {
        let system = Self::new();
        [A, B].into_iter().for_each(|iommu| system.register(iommu));
        system
    }

    fn instance(&self, iommu: Phandle) -> &Arc<Other<Cpus>> {
        match iommu {
            A => &self.a,
            B => &self.b,
            _ => &self.c,
        }
    }

    fn register(&self, iommu: Phandle) {
        let registration = self.iommus.register(iommu, Arc::clone(self.instance(iommu))).unwrap();
        assert!(registration.refused.is_empty(), "{registration:?}");
    }

    fn add(&self, name: &str, streams: &[(Phandle, u32)]) -> Arc<Device> {
        let mut fwspec = Fwspec::new();
        for &(iommu, stream) in streams {
            fwspec.push(iommu, StreamId::new(stream));
        }
        self.iommus.add_device(DeviceDescription::new(name, fwspec)).unwrap()
    }

    /// Configures a device if nothing is in the way. What may be is only that somebody else is at it, or an IOMMU missing.
    fn try_configure(&self, device: &Arc<Device>) -> Option<Attachment<Cpus>> {
        match self.iommus.configure(device) {
            Ok(Configuration::Configured(attachment)) => Some(attachment),
            Ok(Configuration::Deferred(missing)) => {
                assert!(!missing.is_empty());
                None
            }
            Err(IommuError::Busy { .. } | IommuError::UnknownDevice { .. }) => None,
            other => panic!("{other:?}"),
        }
    }

    /// Configures a device as soon as that is possible.
    fn configure(&self, device: &Arc<Device>) -> Attachment<Cpus> {
        loop {
            if let Some(attachment) = self.try_configure(device) {
                return attachment;
            }
            self.platform.relax();
        }
    }

    /// How often a stream was probed.
    fn probes(&self, iommu: Phandle, stream: u32) -> usize {
        let streams = self.instance(iommu).streams();
        streams.iter().find(|(id, ..)| *id == stream).map_or(0, |(_, probes, _)| *probes)
    }

    /// All streams abort, and each was probed as often as told.
    #[track_caller]
    fn assert_at_rest(&self, probes: &[(Phandle, u32, usize)]) {
        for iommu in [A, B, C] {
            let expected = probes.iter().filter(|(at, ..)| *at == iommu);
            let expected: Vec<_> = expected.map(|&(_, id, probes)| (id, probes, "blocked".into())).collect();
            assert_eq!(self.instance(iommu).streams(), expected, "at {iommu}: {:?}", self.script.journal());
        }
    }

    /// Has a CPU of its own do something.
    fn spawn(self: &Arc<Self>, act: impl FnOnce(&Self) + Send + 'static) -> JoinHandle<()> {
        let system = Arc::clone(self);
        thread::spawn(move || act(&system))
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn history_1_two_iommus_one_deferred() {
    explore(4000, || {
        let system = System::new();
        let device = system.add("both", &[(A, 1), (B, 2)]);
        let registering = [A, B].map(|iommu| system.spawn(move |system| system.register(iommu)));
        let bound = Arc::clone(&device);
        let binding = system.spawn(move |system| {
            let attachment = system.configure(&bound);
            let places = [system.a.place(1), system.b.place(2)];
            assert!(places[0] == places[1] && places[0] != "blocked", "{places:?}");
            drop(attachment);
        });
        join(registering.into_iter().chain([binding]));
        system.assert_at_rest(&[(A, 1, 1), (B, 2, 1)]);
        assert!(system.iommus.finish_boot().is_empty());
    });
}

#[test]
fn history_2_bind_while_registering() {
    explore(4000, || {
        let system = System::new();
        system.register(B);
        let waiting = [1, 2, 3].map(|stream| system.add("waiting", &[(A, stream)]));
        let second = system.add("second", &[(B, 9), (A, 9)]);
        let registering = system.spawn(|system| system.register(A));
        let binding = [Arc::clone(&waiting[2]), second].map(|device| {
            system.spawn(move |system| {
                let attachment = system.configure(&device);
                // Whoever is bound finds the walk behind it.
                assert_eq!([1, 2, 3, 9].map(|stream| system.probes(A, stream)), [1; 4]);
                drop(attachment);
            })
        });
        let adding = system.spawn(|system| {
            let added = system.add("added", &[(A, 4)]);
            drop(system.configure(&added));
        });
        join([registering, adding].into_iter().chain(binding));
        let at_a = [1, 2, 3, 4, 9].map(|stream| (A, stream, 1));
        system.assert_at_rest(&[&at_a[..], &[(B, 9, 1)]].concat());
    });
}

#[test]
fn history_3_several_drivers_and_instances() {
    explore(3000, || {
        let system = System::new();
        let mixed = system.add("two drivers", &[(A, 7), (C, 7)]);
        let early = [A, B, C].map(|iommu| system.add("early", &[(iommu, 1)]));
        let registering = [A, B, C].map(|iommu| system.spawn(move |system| system.register(iommu)));
        let binding = early.map(|device| {
            system.spawn(move |system| {
                let attachment = system.configure(&device);
                let iommu = device.fwspec().iommus().next().unwrap();
                let instance = system.instance(iommu);
                assert_eq!(attachment.paging().unwrap().driver(), Iommu::driver(&**instance));
                drop(attachment);
            })
        });
        let refused = system.spawn(move |system| {
            let refused = loop {
                match system.iommus.configure(&mixed) {
                    Ok(Configuration::Deferred(_)) | Err(IommuError::Busy { .. }) => system.platform.relax(),
                    other => break other,
                }
            };
            assert!(matches!(refused, Err(IommuError::ForeignDomain { .. })), "{refused:?}");
        });
        let adding = system.spawn(|system| {
            let added = system.add("added", &[(B, 3), (A, 3)]);
            drop(system.configure(&added));
        });
        join(registering.into_iter().chain(binding).chain([refused, adding]));
        let at = |iommu, streams: &[u32]| streams.iter().map(|&stream| (iommu, stream, 1)).collect::<Vec<_>>();
        system.assert_at_rest(&[at(A, &[1, 3, 7]), at(B, &[1, 3]), at(C, &[1, 7])].concat());
    });
}

/// A device on a bus that switches nothing.
struct Bus;

impl BusDevice for Bus {
    fn set_bus_master(&mut self, _: bool) {}
}

#[test]
fn history_4_probe_failure_undone() {
    explore(3000, || {
        let system = System::registered();
        let device = system.add("device", &[(A, 1), (B, 1)]);
        let binding = ["no answer", ""].map(|failure| {
            let device = Arc::clone(&device);
            system.spawn(move |system| {
                for _ in 0..2 {
                    let bound = system.iommus.bind(&device, Bus, |_, attachment| {
                        assert!(attachment.device().is_attached());
                        system.platform.relax();
                        if failure.is_empty() { Ok(()) } else { Err(failure) }
                    });
                    match bound {
                        Ok(bound) => drop(bound),
                        Err(BindError::Probe(error)) => assert_eq!(error, failure),
                        Err(BindError::Deferred(_)) => {}
                        Err(BindError::Iommu(IommuError::AlreadyAttached { .. } | IommuError::Busy { .. })) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
        });
        let replacing = system.spawn(|system| {
            system.iommus.unregister(A).unwrap();
            assert_eq!(system.a.streams(), []);
            system.register(A);
        });
        join(binding.into_iter().chain([replacing]));
        drop(system.configure(&device));
        system.assert_at_rest(&[(A, 1, 1), (B, 1, 1)]);
    });
}

/// An F_TRANSLATION: a write to 0x1000.
fn write_by(stream: u64) -> Event {
    Event::decode([stream << 32 | 0x10, 2 << 40, 0x1000, 0])
}

#[test]
fn unbind_hot_add_unplug_and_faults_at_once() {
    explore(4000, || {
        let system = System::registered();
        let device = system.add("device", &[(A, 1), (B, 1)]);
        let first = Arc::clone(&device);
        let binding = system.spawn(move |system| {
            for _ in 0..2 {
                drop(system.configure(&first));
            }
        });
        // With the same StreamID at A: in the same group.
        let plugging = system.spawn(|system| {
            let alias = system.add("alias", &[(A, 1)]);
            drop(system.try_configure(&alias));
            while let Err(error) = system.iommus.remove_device(&alias) {
                assert!(matches!(error, IommuError::Busy { .. }), "{error}");
                system.platform.relax();
            }
        });
        let faulting = system.spawn(|system| {
            for _ in 0..3 {
                let report = system.iommus.attribute(A, write_by(1));
                assert_eq!(report.device().unwrap().name(), "device");
                assert!(report.suspects().len() <= 2);
            }
        });
        let replacing = system.spawn(|system| {
            system.iommus.unregister(A).unwrap();
            assert_eq!(system.a.streams(), []);
            system.register(A);
        });
        join([binding, plugging, faulting, replacing]);
        assert_eq!(device.faults(), 3);
        drop(system.configure(&device));
        system.assert_at_rest(&[(A, 1, 1), (B, 1, 1)]);
    });
}

#[test]
fn a_group_has_one_kind_of_owner() {
    explore(3000, || {
        let system = System::registered();
        let [one, two] = [&[(A, 1), (B, 1)][..], &[(A, 1)]].map(|streams| system.add("alias", streams));
        let driver = Arc::clone(&two);
        let binding = system.spawn(move |system| match system.iommus.configure(&driver) {
            Ok(Configuration::Configured(attachment)) => {
                assert_ne!(system.a.place(1), "identity");
                drop(attachment);
            }
            Ok(Configuration::Deferred(_)) => {}
            Err(IommuError::AlreadyAttached { .. } | IommuError::Busy { .. } | IommuError::GroupOwned { .. }) => {}
            other => panic!("{other:?}"),
        });
        let owning = system.spawn(move |system| match system.iommus.own_group(&one, smmu::iommu::Domain::Identity) {
            Ok(owned) => drop(owned),
            Err(IommuError::AlreadyAttached { .. } | IommuError::Busy { .. } | IommuError::GroupOwned { .. }) => {}
            Err(other) => panic!("{other}"),
        });
        let replacing = system.spawn(|system| {
            system.iommus.unregister(B).unwrap();
            assert_eq!(system.b.streams(), []);
            system.register(B);
        });
        join([binding, owning, replacing]);
        drop(system.configure(&two));
        system.assert_at_rest(&[(A, 1, 2), (B, 1, 1)]);
    });
}

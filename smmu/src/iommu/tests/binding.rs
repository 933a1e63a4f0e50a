//! A driver comes after its device's DMA, and goes before it.

use super::*;
use crate::iommu::{BindError, Binding, BusDevice};

/// A device on a bus, or a driver, that tells the journal what becomes of it.
struct Noted(&'static Script, &'static str);

impl BusDevice for Noted {
    fn set_bus_master(&mut self, on: bool) {
        self.0.note(if on { "bus mastering on" } else { "bus mastering off" });
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.note(std::format!("{} gone", self.1));
    }
}

type Bound = Result<Binding<TestPlatform, Noted, Noted>, BindError<&'static str>>;

fn bind(others: &'static Others, device: &Arc<Device>, probe: Result<(), &'static str>) -> Bound {
    others.iommus.bind(device, Noted(&others.script, "bus device"), |_, attachment| {
        assert!(attachment.device().is_attached());
        others.script.note("probe");
        probe.map(|()| Noted(&others.script, "driver"))
    })
}

const CONFIGURED: [&str; 4] = ["A: allocate", "A: accepts", "A: 0x1 blocked -> 0", "bus mastering on"];

#[test]
fn r36_dma_bus_mastering_driver_and_back() {
    let others = Others::registered();
    let device = others.add("device", &[(A, 1)]);
    others.script.journal();
    let bound = bind(others, &device, Ok(())).unwrap();
    assert_eq!(others.script.journal(), [&CONFIGURED[..], &["probe"]].concat());
    assert!(matches!(bind(others, &device, Ok(())), Err(BindError::Iommu(IommuError::AlreadyAttached { .. }))));
    assert_eq!(others.script.journal(), ["bus device gone"]);
    drop(bound);
    let undone = ["driver gone", "bus mastering off", "bus device gone", "A: 0x1 0 -> blocked"];
    assert_eq!((others.script.journal(), device.is_attached()), (undone.map(String::from).into(), false));
}

#[test]
fn history_4_probe_failure_undone() {
    let others = Others::registered();
    let device = others.add("device", &[(A, 1)]);
    let streams = others.streams();
    others.script.journal();
    assert!(matches!(bind(others, &device, Err("no answer")), Err(BindError::Probe("no answer"))));
    let undone = ["probe", "bus mastering off", "bus device gone", "A: 0x1 0 -> blocked"];
    assert_eq!(others.script.journal(), [&CONFIGURED[..], &undone].concat());
    assert_eq!((others.streams(), device.is_attached()), (streams, false));
    // The same again, with another domain, and nothing twice.
    for domain in 1..4 {
        drop(bind(others, &device, Ok(())).unwrap());
        assert!(others.script.journal().contains(&std::format!("A: 0x1 blocked -> {domain}")));
        assert_eq!(others.a.streams(), [(1, 1, "blocked".into())]);
    }
}

#[test]
fn a_device_that_cannot_be_configured_never_gets_to_the_bus() {
    let others = Others::new();
    let device = others.add("device", &[(A, 1)]);
    let free = others.add("free", &[]);
    let blocked = others.add_with("blocked", &[(A, 2)], |description| description.domain = DomainPolicy::Blocked);
    assert!(matches!(bind(others, &device, Ok(())), Err(BindError::Deferred(missing)) if missing.len() == 1));
    assert!(matches!(bind(others, &free, Ok(())), Err(BindError::NoIommu)));
    others.register(A);
    assert!(matches!(bind(others, &blocked, Ok(())), Err(BindError::Iommu(IommuError::BlockedByPolicy { .. }))));
    assert!(!others.script.journal().iter().any(|line| line.starts_with("bus mastering") || line == "probe"));
}

//! PCI devices of a machine, and where they are plugged in.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A PCI device and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is.
    pub kind: DeviceKind,
    /// The bus it sits on: `pcie.0`, where none is named, or the identifier of a root port.
    pub bus: Option<String>,
    /// Its slot on that bus, 0 to 31; the next free one where none is named.
    pub slot: Option<u8>,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A virtio disk over a file that is only read. Its DMA goes through the IOMMU.
    VirtioBlk {
        /// The file.
        image: PathBuf,
    },
    /// A virtio source of random bytes. Its DMA goes through the IOMMU.
    VirtioRng,
    /// QEMU's educational device: a DMA engine with a 4 KiB buffer. It may address all 64 bits.
    Edu,
    /// QEMU's device for IOMMU tests: it writes where it is told to.
    IommuTestdev,
    /// A PCI Express root port; other devices name it as their bus.
    RootPort {
        /// Its identifier.
        identifier: String,
        /// Its chassis number, different for each root port.
        chassis: u8,
    },
    /// Anything else, as QEMU's `-device` takes it.
    Other(String),
}

impl Device {
    /// The device `kind` on the next free slot of `pcie.0`.
    pub fn new(kind: DeviceKind) -> Self {
        Self { kind, bus: None, slot: None }
    }

    /// A virtio disk over the file `image`.
    pub fn virtio_blk(image: &Path) -> Self {
        Self::new(DeviceKind::VirtioBlk { image: image.to_path_buf() })
    }

    /// A root port that devices name as their bus.
    pub fn root_port(identifier: &str, chassis: u8) -> Self {
        Self::new(DeviceKind::RootPort { identifier: identifier.to_owned(), chassis })
    }

    /// The same device on bus `bus`.
    #[must_use]
    pub fn on_bus(mut self, bus: &str) -> Self {
        self.bus = Some(bus.to_owned());
        self
    }

    /// The same device in slot `slot`, 0 to 31.
    #[must_use]
    pub fn in_slot(mut self, slot: u8) -> Self {
        self.slot = Some(slot);
        self
    }

    /// The arguments that give a machine this device as its `index`-th.
    pub(crate) fn arguments(&self, index: usize) -> Vec<OsString> {
        let virtio = "iommu_platform=on,disable-legacy=on";
        let mut arguments = Vec::new();
        let mut device = match &self.kind {
            DeviceKind::VirtioBlk { image } => {
                let mut drive = OsString::from(format!("if=none,id=disk{index},format=raw,readonly=on,file.filename="));
                drive.push(escaped(image));
                drive.push(",file.driver=file");
                arguments.extend(["-drive".into(), drive]);
                format!("virtio-blk-pci,drive=disk{index},{virtio}")
            }
            DeviceKind::VirtioRng => format!("virtio-rng-pci,{virtio}"),
            DeviceKind::Edu => "edu,dma_mask=0xffffffffffffffff".to_owned(),
            DeviceKind::IommuTestdev => "iommu-testdev".to_owned(),
            DeviceKind::RootPort { identifier, chassis } => format!("pcie-root-port,id={identifier},chassis={chassis}"),
            DeviceKind::Other(device) => device.clone(),
        };
        if let Some(bus) = &self.bus {
            device += &format!(",bus={bus}");
        }
        if let Some(slot) = self.slot {
            device += &format!(",addr={slot:#x}");
        }
        arguments.extend(["-device".into(), device.into()]);
        arguments
    }
}

/// `path` as a value among QEMU's comma-separated options, where a comma is written twice.
pub(crate) fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let doubled = path.as_os_str().as_bytes().iter().flat_map(|&byte| {
        let times = if byte == b',' { 2 } else { 1 };
        std::iter::repeat_n(byte, times)
    });
    OsString::from_vec(doubled.collect())
}

//! Machines described as types, and turned into QEMU's command line.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::device::{Device, DeviceKind};
use crate::program::Capabilities;

/// QEMU's `virt` board in one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The CPU model, by QEMU's name: `max`, `cortex-a57`, `neoverse-n1`.
    pub cpu: String,
    /// How many CPUs, 1 or more.
    pub cpus: u32,
    /// Memory in MiB, 1 or more.
    pub memory_mib: u32,
    /// The interrupt controller.
    pub gic: Gic,
    /// The exception level the kernel starts at.
    pub start: ExceptionLevel,
    /// The IOMMU in front of the PCI host bridge.
    pub iommu: Iommu,
    /// PCI devices, in the order in which QEMU creates them and gives them slots.
    pub devices: Vec<Device>,
    /// A device tree to pass to the kernel in place of QEMU's own.
    pub device_tree: Option<PathBuf>,
    /// More arguments for QEMU, as they are.
    pub extra_arguments: Vec<OsString>,
}

/// Version of the Generic Interrupt Controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gic {
    /// GICv2; at most 8 CPUs.
    V2,
    /// GICv3.
    V3,
}

/// Where the kernel starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExceptionLevel {
    /// EL1; the machine has no EL2.
    El1,
    /// EL2.
    El2,
}

/// The IOMMU of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// None: devices reach all of memory.
    None,
    /// An SMMUv3 with the translation stages that the board gives it.
    SmmuV3,
    /// An SMMUv3 with these translation stages.
    SmmuV3Stage(Stage),
}

/// Translation stages that an SMMUv3 implements (`IDR0.S1P`, `IDR0.S2P`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Stage 1 alone.
    One,
    /// Stage 2 alone.
    Two,
    /// Both.
    Nested,
}

impl Stage {
    /// QEMU's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Two => "2",
            Self::Nested => "nested",
        }
    }
}

/// A part of a machine that an older QEMU does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The device `iommu-testdev`.
    IommuTestdev,
    /// An SMMU with these stages.
    Stage(Stage),
}

impl Part {
    /// Its name in the kernel's argument `without=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::IommuTestdev => "iommu-testdev",
            Self::Stage(Stage::One) => "stage-1",
            Self::Stage(Stage::Two) => "stage-2",
            Self::Stage(Stage::Nested) => "stage-nested",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IommuTestdev => write!(f, "the device iommu-testdev"),
            Self::Stage(stage) => write!(f, "an SMMU with stage {}", stage.name()),
        }
    }
}

impl Default for Machine {
    /// One CPU of model `max`, 512 MiB, GICv3, EL1, an SMMUv3 and no devices.
    fn default() -> Self {
        Self {
            cpu: "max".to_owned(),
            cpus: 1,
            memory_mib: 512,
            gic: Gic::V3,
            start: ExceptionLevel::El1,
            iommu: Iommu::SmmuV3,
            devices: Vec::new(),
            device_tree: None,
            extra_arguments: Vec::new(),
        }
    }
}

impl Machine {
    /// The machine of the demonstration: a disk over the file `disk`, a source of random bytes, and two devices that
    /// do what they should not.
    pub fn demo(disk: &Path) -> Self {
        let devices = vec![
            Device::virtio_blk(disk),
            Device::new(DeviceKind::VirtioRng),
            Device::new(DeviceKind::Edu),
            Device::new(DeviceKind::IommuTestdev),
        ];
        Self { devices, ..Self::default() }
    }

    /// The parts of this machine that a QEMU with `capabilities` cannot provide.
    pub fn missing_parts(&self, capabilities: &Capabilities) -> Vec<Part> {
        let mut missing = Vec::new();
        if !capabilities.iommu_testdev && self.devices.iter().any(|device| device.kind == DeviceKind::IommuTestdev) {
            missing.push(Part::IommuTestdev);
        }
        if let Iommu::SmmuV3Stage(stage) = self.iommu
            && !capabilities.has_stage(stage)
        {
            missing.push(Part::Stage(stage));
        }
        missing
    }

    /// This machine without the devices among `parts`. A stage cannot be left out.
    #[must_use]
    pub fn without(mut self, parts: &[Part]) -> Self {
        self.devices.retain(|device| !(device.kind == DeviceKind::IommuTestdev && parts.contains(&Part::IommuTestdev)));
        self
    }

    /// QEMU's arguments for this machine, the kernel and what watches it aside.
    pub fn arguments(&self, capabilities: &Capabilities) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        arguments.extend(["-M".into(), self.board(capabilities).into()]);
        arguments.extend(["-cpu".into(), self.cpu.clone().into()]);
        arguments.extend(["-smp".into(), self.cpus.to_string().into()]);
        arguments.extend(["-m".into(), format!("{}M", self.memory_mib).into()]);
        arguments.extend(["-display", "none", "-nodefaults", "-no-reboot", "-monitor", "none"].map(OsString::from));
        arguments.extend(["-semihosting-config", "enable=on,target=native"].map(OsString::from));
        if let Iommu::SmmuV3Stage(stage) = self.iommu {
            let stage = stage.name();
            if capabilities.user_creatable_smmu {
                arguments.extend(["-device".into(), format!("arm-smmuv3,primary-bus=pcie.0,stage={stage}").into()]);
            } else if capabilities.smmu_stage_property {
                arguments.extend(["-global".into(), format!("arm-smmuv3.stage={stage}").into()]);
            }
        }
        for (index, device) in self.devices.iter().enumerate() {
            arguments.extend(device.arguments(index));
        }
        if let Some(tree) = &self.device_tree {
            arguments.extend(["-dtb".into(), tree.into()]);
        }
        arguments.extend(self.extra_arguments.iter().cloned());
        arguments
    }

    /// The value of `-M`.
    fn board(&self, capabilities: &Capabilities) -> String {
        let by_board = matches!(self.iommu, Iommu::SmmuV3Stage(_)) && !capabilities.user_creatable_smmu;
        // From 9.2 on the board overrides the SMMU's stage, except in the form it had before.
        let mut board = if by_board && capabilities.board_virt_9_1 { "virt-9.1" } else { "virt" }.to_owned();
        board += match self.gic {
            Gic::V2 => ",gic-version=2",
            Gic::V3 => ",gic-version=3",
        };
        board += ",dtb-randomness=off";
        if self.start == ExceptionLevel::El2 {
            board += ",virtualization=on";
        }
        if by_board || self.iommu == Iommu::SmmuV3 {
            board += ",iommu=smmuv3";
        }
        board
    }
}

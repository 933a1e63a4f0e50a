//! Machines described as types, and turned into QEMU's command line.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::device::{Device, DeviceKind};
use crate::program::Capabilities;
use crate::two_smmus;

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
    /// Two SMMUv3 with these translation stages, one in front of `pcie.0`, one in front of `pcie.1`, which begins with bus 8
    /// and takes nothing but bridges. QEMU's own device tree describes the first alone: see [`two_smmus`].
    TwoSmmuV3([Stage; 2]),
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
    /// A second SMMU.
    SecondSmmu,
}

impl Part {
    /// Its name in the kernel's argument `without=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::IommuTestdev => "iommu-testdev",
            Self::Stage(Stage::One) => "stage-1",
            Self::Stage(Stage::Two) => "stage-2",
            Self::Stage(Stage::Nested) => "stage-nested",
            Self::SecondSmmu => "second-smmu",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IommuTestdev => write!(f, "the device iommu-testdev"),
            Self::Stage(stage) => write!(f, "an SMMU with stage {}", stage.name()),
            Self::SecondSmmu => write!(f, "a second SMMU"),
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
        if matches!(self.iommu, Iommu::TwoSmmuV3(_)) && !capabilities.user_creatable_smmu {
            missing.push(Part::SecondSmmu);
        }
        missing
    }

    /// This machine without the devices among `parts`. SMMUs cannot be left out.
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
        match self.iommu {
            Iommu::SmmuV3Stage(stage) if capabilities.user_creatable_smmu => {
                let smmu = format!("arm-smmuv3,primary-bus=pcie.0,stage={}", stage.name());
                arguments.extend(["-device".into(), smmu.into()]);
            }
            Iommu::SmmuV3Stage(stage) if capabilities.smmu_stage_property => {
                arguments.extend(["-global".into(), format!("arm-smmuv3.stage={}", stage.name()).into()]);
            }
            Iommu::TwoSmmuV3(stages) => arguments.extend(two_smmus::arguments(stages)),
            Iommu::SmmuV3Stage(_) | Iommu::SmmuV3 | Iommu::None => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU 10: the board decides the stages.
    const OLDER: Capabilities = Capabilities { iommu_testdev: false, user_creatable_smmu: false, ..Capabilities::FULL };
    /// A QEMU 7.2: stage 1 alone.
    const OLDEST: Capabilities = Capabilities { smmu_stage_property: false, board_virt_9_1: false, ..OLDER };

    /// The command line for a machine, as one string.
    fn line(machine: &Machine, capabilities: &Capabilities) -> String {
        machine.arguments(capabilities).join(" ".as_ref()).into_string().unwrap()
    }

    fn staged(stage: Stage) -> Machine {
        Machine { iommu: Iommu::SmmuV3Stage(stage), ..Machine::default() }
    }

    #[test]
    fn the_default_machine_has_the_board_s_smmu() {
        assert_eq!(
            line(&Machine::default(), &Capabilities::FULL),
            "-M virt,gic-version=3,dtb-randomness=off,iommu=smmuv3 -cpu max -smp 1 -m 512M -display none -nodefaults \
             -no-reboot -monitor none -semihosting-config enable=on,target=native"
        );
    }

    #[test]
    fn every_choice_reaches_the_command_line() {
        let machine = Machine {
            cpu: "cortex-a57".to_owned(),
            cpus: 2,
            memory_mib: 4096,
            gic: Gic::V2,
            start: ExceptionLevel::El2,
            iommu: Iommu::None,
            device_tree: Some("a b.dtb".into()),
            extra_arguments: vec!["-d".into(), "int".into()],
            ..Machine::default()
        };
        let line = line(&machine, &Capabilities::FULL);
        assert!(line.starts_with(
            "-M virt,gic-version=2,dtb-randomness=off,virtualization=on -cpu cortex-a57 -smp 2 -m 4096M "
        ));
        assert!(line.ends_with(" -dtb a b.dtb -d int"));
        assert!(!line.contains("smmu"));
    }

    #[test]
    fn a_stage_is_asked_for_in_the_way_that_qemu_knows() {
        let newest = line(&staged(Stage::Two), &Capabilities::FULL);
        assert!(newest.contains("-device arm-smmuv3,primary-bus=pcie.0,stage=2"));
        assert!(!newest.contains("iommu=smmuv3"));
        let older = line(&staged(Stage::Two), &OLDER);
        assert!(older.contains("-M virt-9.1,") && older.contains("iommu=smmuv3 "));
        assert!(older.contains("-global arm-smmuv3.stage=2"));
        let oldest = line(&staged(Stage::One), &OLDEST);
        assert!(oldest.contains("-M virt,") && !oldest.contains("stage"));
    }

    #[test]
    fn the_second_smmu_has_a_root_bus_of_its_own() {
        let machine = Machine { iommu: Iommu::TwoSmmuV3([Stage::One, Stage::Nested]), ..Machine::default() };
        let line = line(&machine, &Capabilities::FULL);
        assert!(line.ends_with(
            " -device pxb-pcie,id=pcie.1,bus_nr=8,bus=pcie.0,addr=0x1f \
             -device arm-smmuv3,primary-bus=pcie.0,stage=1 -device arm-smmuv3,primary-bus=pcie.1,stage=nested"
        ));
        assert!(!line.contains("iommu=smmuv3"));
        assert_eq!(machine.missing_parts(&OLDER), [Part::SecondSmmu]);
    }

    #[test]
    fn parts_that_qemu_lacks_are_named() {
        let demo = Machine::demo(Path::new("disk"));
        assert_eq!(demo.missing_parts(&Capabilities::FULL), []);
        assert_eq!(demo.missing_parts(&OLDER), [Part::IommuTestdev]);
        assert_eq!(staged(Stage::Nested).missing_parts(&OLDER), []);
        assert_eq!(staged(Stage::Nested).missing_parts(&OLDEST), [Part::Stage(Stage::Nested)]);
        assert_eq!(staged(Stage::One).missing_parts(&OLDEST), []);
        let lesser = demo.clone().without(&[Part::IommuTestdev]);
        assert_eq!(lesser.devices, demo.devices[..3]);
    }

    #[test]
    fn devices_keep_their_order_and_place() {
        let devices = vec![
            Device::root_port("port0", 1).in_slot(31),
            Device::new(DeviceKind::Edu).on_bus("port0"),
            Device::virtio_blk(Path::new("/with space/and,comma")),
        ];
        let machine = Machine { devices, ..Machine::default() };
        let line = line(&machine, &Capabilities::FULL);
        assert!(line.ends_with(
            "-device pcie-root-port,id=port0,chassis=1,addr=0x1f \
             -device edu,dma_mask=0xffffffffffffffff,bus=port0 \
             -drive if=none,id=disk2,format=raw,readonly=on,file.filename=/with space/and,,comma,file.driver=file \
             -device virtio-blk-pci,drive=disk2,iommu_platform=on,disable-legacy=on"
        ));
    }
}

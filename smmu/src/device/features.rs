//! What one SMMU can do, read once from its identification registers (IHI 0070, 6.3.1 to 6.3.7).

use core::fmt;

use tock_registers::LocalRegisterCopy;

use super::DeviceError;
use super::control::Control;
use crate::arch::attributes::{AddressSize, Granule, HardwareUpdate, WalkAttributes};
use crate::arch::registers::{AIDR, IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IIDR};
use crate::arch::stream_table::Shcfg;
use crate::platform::Platform;

/// What every register reads as when nothing answers.
const ALL_ONES: u32 = u32::MAX;

/// The features of one SMMU. Fields keep the architecture's names; sizes are in bits.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    idr0: LocalRegisterCopy<u32, IDR0::Register>,
    idr1: LocalRegisterCopy<u32, IDR1::Register>,
    idr2: u32,
    idr3: LocalRegisterCopy<u32, IDR3::Register>,
    idr4: u32,
    idr5: LocalRegisterCopy<u32, IDR5::Register>,
    iidr: u32,
    aidr: u32,
    /// Whether memory accesses of the SMMU snoop the CPU's caches: firmware and IDR0.COHACC both say so.
    coherent: bool,
}

impl Features {
    /// Reads the identification registers, and writes none. `firmware_coherent` is what the firmware table says about the
    /// SMMU's own accesses (`dma-coherent`).
    ///
    /// # Errors
    ///
    /// [`DeviceError::PoweredOff`] if nothing answers, [`DeviceError::Unsupported`] if it is no SMMUv3.
    pub(super) fn read<P: Platform>(control: &Control<P>, firmware_coherent: bool) -> Result<Self, DeviceError> {
        check_power(control)?;
        let (idr0, aidr) = (control.read(IDR0), control.read(AIDR));
        if aidr.read(AIDR::ArchMajorRev) != 0 {
            let needed = "an SMMUv3 (ArchMajorRev 0)";
            return Err(DeviceError::Unsupported { register: AIDR.name(), found: aidr.get(), needed });
        }
        Ok(Self {
            idr0,
            idr1: control.read(IDR1),
            idr2: control.read(IDR2).get(),
            idr3: control.read(IDR3),
            idr4: control.read(IDR4).get(),
            idr5: control.read(IDR5),
            iidr: control.read(IIDR).get(),
            aidr: aidr.get(),
            coherent: firmware_coherent && idr0.is_set(IDR0::COHACC),
        })
    }

    /// Refuses what has no fallback. A newer AIDR is no reason: versions only add.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] for hardware that this driver cannot drive.
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        let idr0 = |needed| Err(self.lacks(needed));
        let idr1 = |needed| Err(DeviceError::Unsupported { register: IDR1.name(), found: self.idr1.get(), needed });
        let idr5 = |needed| Err(self.idr5_lacks(needed));
        if self.idr0.read(IDR0::TTF) & 0b10 == 0 {
            return idr0("AArch64 translation tables (TTF 2 or 3)");
        }
        if self.idr0.read(IDR0::TTENDIAN) == 3 {
            return idr0("little-endian translation tables (TTENDIAN other than 3)");
        }
        if self.idr0.read(IDR0::STALL_MODEL) == 2 {
            return idr0("streams whose faults need not stall (STALL_MODEL other than 2)");
        }
        if !self.stage1() && !self.stage2() {
            return idr0("a translation stage (S1P or S2P)");
        }
        if self.idr1.is_set(IDR1::TABLES_PRESET) || self.idr1.is_set(IDR1::QUEUES_PRESET) {
            return idr1("tables and queues in memory of its own choice (TABLES_PRESET and QUEUES_PRESET 0)");
        }
        if ![Granule::K4, Granule::K16, Granule::K64].into_iter().any(|granule| self.granule(granule)) {
            return idr5("a translation granule (GRAN4K, GRAN16K or GRAN64K)");
        }
        Ok(())
    }

    /// The error that says so when something needs a feature that IDR0 does not announce.
    pub(super) fn lacks(&self, needed: &'static str) -> DeviceError {
        DeviceError::Unsupported { register: IDR0.name(), found: self.idr0.get(), needed }
    }

    /// The same for IDR3.
    pub(super) fn idr3_lacks(&self, needed: &'static str) -> DeviceError {
        DeviceError::Unsupported { register: IDR3.name(), found: self.idr3.get(), needed }
    }

    /// The same for IDR5.
    pub(super) fn idr5_lacks(&self, needed: &'static str) -> DeviceError {
        DeviceError::Unsupported { register: IDR5.name(), found: self.idr5.get(), needed }
    }

    /// Stage 1 translation (IDR0.S1P).
    #[must_use]
    pub fn stage1(&self) -> bool {
        self.idr0.is_set(IDR0::S1P)
    }

    /// Stage 2 translation (IDR0.S2P).
    #[must_use]
    pub fn stage2(&self) -> bool {
        self.idr0.is_set(IDR0::S2P)
    }

    /// Whether the SMMU's accesses to tables and queues snoop the CPU's caches.
    #[must_use]
    pub fn coherent(&self) -> bool {
        self.coherent
    }

    /// How the SMMU is to read translation tables and context descriptors, so that it sees what the CPU has written:
    /// STE.S1CIR, S1COR and S1CSH, CD.IR0, OR0 and SH0, STE.S2IR0, S2OR0 and S2SH0.
    #[must_use]
    pub fn walk_attributes(&self) -> WalkAttributes {
        if self.coherent { WalkAttributes::COHERENT } else { WalkAttributes::NON_COHERENT }
    }

    /// Size of an ASID in bits: 8 or 16 (IDR0.ASID16).
    #[must_use]
    pub fn asid_bits(&self) -> u8 {
        if self.idr0.is_set(IDR0::ASID16) { 16 } else { 8 }
    }

    /// Size of a VMID in bits: 8 or 16 (IDR0.VMID16).
    #[must_use]
    pub fn vmid_bits(&self) -> u8 {
        if self.idr0.is_set(IDR0::VMID16) { 16 } else { 8 }
    }

    /// Two-level stream tables (IDR0.ST_LEVEL).
    #[must_use]
    pub fn two_level_stream_table(&self) -> bool {
        self.idr0.read(IDR0::ST_LEVEL) == 1
    }

    /// Two-level context descriptor tables (IDR0.CD2L).
    #[must_use]
    pub fn two_level_context_table(&self) -> bool {
        self.idr0.is_set(IDR0::CD2L)
    }

    /// Whether a stream may stall on a fault, so that STEs must say that it shall not (IDR0.STALL_MODEL 0).
    #[must_use]
    pub fn stall_optional(&self) -> bool {
        self.idr0.read(IDR0::STALL_MODEL) == 0
    }

    /// Whether any transaction can stall on a fault and wait for an answer (IDR0.STALL_MODEL other than 1).
    #[must_use]
    pub fn stalls(&self) -> bool {
        self.idr0.read(IDR0::STALL_MODEL) != 1
    }

    /// EL2 StreamWorlds exist, whose TLB entries bring-up also has to drop (IDR0.Hyp).
    #[must_use]
    pub fn hyp(&self) -> bool {
        self.idr0.is_set(IDR0::Hyp)
    }

    /// Size of a StreamID in bits (IDR1.SIDSIZE), 0 to 32.
    #[must_use]
    pub fn stream_id_bits(&self) -> u8 {
        (self.idr1.read(IDR1::SIDSIZE) as u8).min(32)
    }

    /// Size of a SubstreamID in bits (IDR1.SSIDSIZE), 0 to 20.
    #[must_use]
    pub fn substream_id_bits(&self) -> u8 {
        (self.idr1.read(IDR1::SSIDSIZE) as u8).min(20)
    }

    /// Most entries of the command queue, as log2 (IDR1.CMDQS).
    #[must_use]
    pub fn log2_commands_max(&self) -> u8 {
        self.idr1.read(IDR1::CMDQS) as u8
    }

    /// Most entries of the event queue, as log2 (IDR1.EVENTQS).
    #[must_use]
    pub fn log2_events_max(&self) -> u8 {
        self.idr1.read(IDR1::EVENTQS) as u8
    }

    /// Most entries of the page request queue, as log2 (IDR1.PRIQS).
    #[must_use]
    pub fn log2_page_requests_max(&self) -> u8 {
        self.idr1.read(IDR1::PRIQS) as u8
    }

    /// Whether devices may cache translations: PCIe ATS (IDR0.ATS).
    #[must_use]
    pub fn ats(&self) -> bool {
        self.idr0.is_set(IDR0::ATS)
    }

    /// Whether devices may ask for pages: PCIe PRI (IDR0.PRI, which counts only with IDR0.ATS).
    #[must_use]
    pub fn page_requests(&self) -> bool {
        self.ats() && self.idr0.is_set(IDR0::PRI)
    }

    /// Whether devices of nested streams may cache what stage 1 alone translates, so that each of their accesses still passes
    /// stage 2: split-stage ATS (IDR0.NS1ATS 0).
    #[must_use]
    pub fn split_stage_ats(&self) -> bool {
        self.ats() && !self.idr0.is_set(IDR0::NS1ATS)
    }

    /// What the SMMU can record of accesses in descriptors by itself (IDR0.HTTU).
    #[must_use]
    pub fn hardware_update(&self) -> HardwareUpdate {
        match self.idr0.read(IDR0::HTTU) {
            0 => HardwareUpdate::None,
            1 => HardwareUpdate::AccessFlag,
            _ => HardwareUpdate::AccessFlagAndDirtyState,
        }
    }

    /// Whether stage 2 can decide alone on cacheability: STE.S2FWB (IDR3.FWB).
    #[must_use]
    pub fn force_write_back(&self) -> bool {
        self.idr3.is_set(IDR3::FWB)
    }

    /// Whether stage 2 tells privileged and unprivileged instruction fetches apart (IDR3.XNX).
    #[must_use]
    pub fn privileged_execute_at_stage2(&self) -> bool {
        self.idr3.is_set(IDR3::XNX)
    }

    /// How descriptors may change size in place (IDR3.BBML): 0 not at all, 1 with their nT bit, 2 or more freely
    /// (IHI 0070, 3.21.1.3).
    #[must_use]
    pub fn break_before_make_level(&self) -> u8 {
        self.idr3.read(IDR3::BBML) as u8
    }

    /// Whether configuration errors of ATS and PRI traffic can be recorded as events (IDR0.ATSRECERR).
    #[must_use]
    pub fn ats_configuration_events(&self) -> bool {
        self.idr0.is_set(IDR0::ATSRECERR)
    }

    /// Whether STEs may override memory attributes of the incoming transaction (IDR1.ATTR_TYPES_OVR).
    #[must_use]
    pub fn attribute_override(&self) -> bool {
        self.idr1.is_set(IDR1::ATTR_TYPES_OVR)
    }

    /// STE.SHCFG of a stream whose transactions keep the shareability that they come with: "use incoming", or 0 where the
    /// field is RES0 and they always do (IHI 0070, 5.2).
    #[must_use]
    pub fn incoming_shareability(&self) -> Shcfg {
        if self.attribute_override() { Shcfg::UseIncoming } else { Shcfg::NonShareable }
    }

    /// Range invalidation and level hints (IDR3.RIL).
    #[must_use]
    #[inline]
    pub fn range_invalidation(&self) -> bool {
        self.idr3.is_set(IDR3::RIL)
    }

    /// Whether a translation granule is implemented (IDR5.GRAN*).
    #[must_use]
    pub fn granule(&self, granule: Granule) -> bool {
        match granule {
            Granule::K4 => self.idr5.is_set(IDR5::GRAN4K),
            Granule::K16 => self.idr5.is_set(IDR5::GRAN16K),
            Granule::K64 => self.idr5.is_set(IDR5::GRAN64K),
        }
    }

    /// Size of an output (physical) address (IDR5.OAS).
    #[must_use]
    pub fn output_size(&self) -> AddressSize {
        AddressSize::from_code(self.idr5.read(IDR5::OAS).into())
    }

    /// Whether the SMMU can send its interrupts as messages (IDR0.MSI).
    #[must_use]
    pub fn message_interrupts(&self) -> bool {
        self.idr0.is_set(IDR0::MSI)
    }

    /// Whether a CMD_SYNC can send the event that ends a CPU's WFE (IDR0.SEV).
    #[must_use]
    pub fn send_event(&self) -> bool {
        self.idr0.is_set(IDR0::SEV)
    }

    /// Size of a virtual address in bits: 48, or 52 with IDR5.VAX.
    #[must_use]
    pub fn virtual_address_bits(&self) -> u8 {
        if self.idr5.read(IDR5::VAX) == 0 { 48 } else { 52 }
    }

    /// The raw identification registers with their names, for introspection.
    #[must_use]
    pub fn registers(&self) -> [(&'static str, u32); 8] {
        [
            (IDR0.name(), self.idr0.get()),
            (IDR1.name(), self.idr1.get()),
            (IDR2.name(), self.idr2),
            (IDR3.name(), self.idr3.get()),
            (IDR4.name(), self.idr4),
            (IDR5.name(), self.idr5.get()),
            (IIDR.name(), self.iidr),
            (AIDR.name(), self.aidr),
        ]
    }
}

/// Whether anything answers.
///
/// # Errors
///
/// [`DeviceError::PoweredOff`] if not: no SMMU has all bits of one of these set.
pub(super) fn check_power<P: Platform>(control: &Control<P>) -> Result<(), DeviceError> {
    for (register, value) in [
        (IDR0.name(), control.read(IDR0).get()),
        (IDR1.name(), control.read(IDR1).get()),
        (IDR5.name(), control.read(IDR5).get()),
        (AIDR.name(), control.read(AIDR).get()),
    ] {
        if value == ALL_ONES {
            return Err(DeviceError::PoweredOff { register });
        }
    }
    Ok(())
}

/// One line per register that says something: its value and what it means.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages = match (self.stage1(), self.stage2()) {
            (true, true) => "stage 1 and 2, nested",
            (true, false) => "stage 1",
            _ => "stage 2",
        };
        let tables = if self.two_level_stream_table() { "two-level" } else { "linear" };
        let coherent = if self.coherent { "coherent" } else { "not coherent" };
        writeln!(
            f,
            "IDR0 {:#010x}  {stages}; {tables} stream table; {coherent}; ASID {} bits, VMID {} bits",
            self.idr0.get(),
            self.asid_bits(),
            self.vmid_bits()
        )?;
        writeln!(
            f,
            "IDR1 {:#010x}  StreamID {} bits, SubstreamID {} bits; queues up to 2^{} commands, 2^{} events",
            self.idr1.get(),
            self.stream_id_bits(),
            self.substream_id_bits(),
            self.log2_commands_max(),
            self.log2_events_max()
        )?;
        writeln!(f, "IDR2 {:#010x}  IDR4 {:#010x}", self.idr2, self.idr4)?;
        let range = if self.range_invalidation() { "range invalidation" } else { "no range invalidation" };
        writeln!(f, "IDR3 {:#010x}  {range}; BBML {}", self.idr3.get(), self.idr3.read(IDR3::BBML))?;
        write!(
            f,
            "IDR5 {:#010x}  output {}, virtual {} bits; granules",
            self.idr5.get(),
            self.output_size(),
            self.virtual_address_bits()
        )?;
        for (granule, name) in [(Granule::K4, "4K"), (Granule::K16, "16K"), (Granule::K64, "64K")] {
            if self.granule(granule) {
                write!(f, " {name}")?;
            }
        }
        writeln!(f)?;
        write!(f, "AIDR {:#010x}  SMMUv3.{}", self.aidr, self.aidr & 0xf)
    }
}

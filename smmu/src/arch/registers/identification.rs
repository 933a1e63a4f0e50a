//! What the SMMU says about itself (IHI 0070, 6.3.1 to 6.3.8). All are read-only.

#![allow(missing_docs, reason = "register_bitfields! documents a field's module but not the constants it makes")]

use tock_registers::register_bitfields;

use super::Register32;

/// Features: stages, formats, coherency, ATS, stalls, stream table levels.
pub const IDR0: Register32<IDR0::Register> = Register32::new(0x0, "IDR0");
/// Features: sizes of StreamIDs, SubstreamIDs and queues; presets.
pub const IDR1: Register32<IDR1::Register> = Register32::new(0x4, "IDR1");
/// Features: where the VATOS page is.
pub const IDR2: Register32<IDR2::Register> = Register32::new(0x8, "IDR2");
/// Features: later extensions.
pub const IDR3: Register32<IDR3::Register> = Register32::new(0xc, "IDR3");
/// Features: implementation defined.
pub const IDR4: Register32<()> = Register32::new(0x10, "IDR4");
/// Features: address sizes and granules.
pub const IDR5: Register32<IDR5::Register> = Register32::new(0x14, "IDR5");
/// Who made the SMMU.
pub const IIDR: Register32<IIDR::Register> = Register32::new(0x18, "IIDR");
/// Which version of the architecture it implements.
pub const AIDR: Register32<AIDR::Register> = Register32::new(0x1c, "AIDR");

register_bitfields! { u32,
    /// Fields of [`IDR0`](const@IDR0).
    pub IDR0 [
        /// Stage 2 is supported.
        S2P OFFSET(0) NUMBITS(1) [],
        /// Stage 1 is supported.
        S1P OFFSET(1) NUMBITS(1) [],
        /// Translation table formats.
        TTF OFFSET(2) NUMBITS(2) [AArch32 = 1, AArch64 = 2, Both = 3],
        /// Walks, structure, queue and MSI accesses are coherent.
        COHACC OFFSET(4) NUMBITS(1) [],
        /// Broadcast TLB maintenance is received.
        BTM OFFSET(5) NUMBITS(1) [],
        /// Hardware updates of translation tables.
        HTTU OFFSET(6) NUMBITS(2) [None = 0, AccessFlag = 1, AccessFlagAndDirty = 2, WithTableAccessFlag = 3],
        /// STATUSR.DORMANT is meaningful.
        DORMHINT OFFSET(8) NUMBITS(1) [],
        /// EL2 StreamWorlds are supported.
        Hyp OFFSET(9) NUMBITS(1) [],
        /// PCIe ATS is supported.
        ATS OFFSET(10) NUMBITS(1) [],
        /// Split-stage ATS is *not* supported.
        NS1ATS OFFSET(11) NUMBITS(1) [],
        /// ASIDs have 16 bits, not 8.
        ASID16 OFFSET(12) NUMBITS(1) [],
        /// The SMMU can send MSIs.
        MSI OFFSET(13) NUMBITS(1) [],
        /// The SMMU can wake CPUs from WFE.
        SEV OFFSET(14) NUMBITS(1) [],
        /// Address translation operations are supported.
        ATOS OFFSET(15) NUMBITS(1) [],
        /// The page request interface is supported.
        PRI OFFSET(16) NUMBITS(1) [],
        /// VMID wildcards (CR0.VMW) are supported.
        VMW OFFSET(17) NUMBITS(1) [],
        /// VMIDs have 16 bits, not 8.
        VMID16 OFFSET(18) NUMBITS(1) [],
        /// Two-level context descriptor tables are supported.
        CD2L OFFSET(19) NUMBITS(1) [],
        /// The VATOS page is present.
        VATOS OFFSET(20) NUMBITS(1) [],
        /// Endianness of translation tables.
        TTENDIAN OFFSET(21) NUMBITS(2) [Mixed = 0, Little = 2, Big = 3],
        /// More events for ATS and PRI traffic can be recorded (CR2.REC_CFG_ATS).
        ATSRECERR OFFSET(23) NUMBITS(1) [],
        /// What happens to faulting transactions.
        STALL_MODEL OFFSET(24) NUMBITS(2) [StallAndTerminate = 0, TerminateOnly = 1, StallForced = 2],
        /// Terminated transactions always abort: CD.A must be 1.
        TERM_MODEL OFFSET(26) NUMBITS(1) [],
        /// Stream table formats.
        ST_LEVEL OFFSET(27) NUMBITS(2) [Linear = 0, TwoLevel = 1],
        /// The Realm Management Extension is implemented.
        RME_IMPL OFFSET(30) NUMBITS(1) []
    ],
    /// Fields of [`IDR1`](const@IDR1). Queue sizes are log2 of entries, at most 19.
    pub IDR1 [
        /// Bits of a StreamID, 0 to 32.
        SIDSIZE OFFSET(0) NUMBITS(6) [],
        /// Bits of a SubstreamID, 0 to 20; 0: there are none.
        SSIDSIZE OFFSET(6) NUMBITS(5) [],
        /// Largest page request queue.
        PRIQS OFFSET(11) NUMBITS(5) [],
        /// Largest event queue.
        EVENTQS OFFSET(16) NUMBITS(5) [],
        /// Largest command queue.
        CMDQS OFFSET(21) NUMBITS(5) [],
        /// STE.INSTCFG and STE.PRIVCFG work.
        ATTR_PERMS_OVR OFFSET(26) NUMBITS(1) [],
        /// STE.MTCFG, STE.SHCFG and STE.ALLOCCFG work.
        ATTR_TYPES_OVR OFFSET(27) NUMBITS(1) [],
        /// Preset base registers hold offsets.
        REL OFFSET(28) NUMBITS(1) [],
        /// Queue bases are fixed.
        QUEUES_PRESET OFFSET(29) NUMBITS(1) [],
        /// The stream table base is fixed.
        TABLES_PRESET OFFSET(30) NUMBITS(1) [],
        /// Enhanced command queues are present.
        ECMDQ OFFSET(31) NUMBITS(1) []
    ],
    /// Fields of [`IDR2`](const@IDR2).
    pub IDR2 [
        /// Offset of the VATOS page: 0x20000 + 0x10000 * this, in bytes.
        BA_VATOS OFFSET(0) NUMBITS(10) []
    ],
    /// Fields of [`IDR3`](const@IDR3).
    pub IDR3 [
        /// Hierarchical attributes can be disabled.
        HAD OFFSET(2) NUMBITS(1) [],
        /// Page-based hardware attributes.
        PBHA OFFSET(3) NUMBITS(1) [],
        /// Stage 2 has execute-never by privilege.
        XNX OFFSET(4) NUMBITS(1) [],
        /// Automatic PRI responses keep the PASID.
        PPS OFFSET(5) NUMBITS(1) [],
        /// Memory partitioning and monitoring.
        MPAM OFFSET(7) NUMBITS(1) [],
        /// STE.S2FWB is usable.
        FWB OFFSET(8) NUMBITS(1) [],
        /// Small translation tables.
        STT OFFSET(9) NUMBITS(1) [],
        /// Range invalidation and level hints.
        RIL OFFSET(10) NUMBITS(1) [],
        /// Break-before-make level, 0 to 2.
        BBML OFFSET(11) NUMBITS(2) [],
        /// CD.E0PDx is usable.
        E0PD OFFSET(13) NUMBITS(1) [],
        /// Walks of Device memory with S2PTW = 0 are Normal non-cacheable.
        PTWNNC OFFSET(14) NUMBITS(1) [],
        /// Device permission table.
        DPT OFFSET(15) NUMBITS(1) [],
        /// PASID in translated transactions.
        PASIDTT OFFSET(16) NUMBITS(1) [],
        /// CD.EPAN is usable.
        EPAN OFFSET(17) NUMBITS(1) [],
        /// Stage 1 permission indirection.
        S1PI OFFSET(18) NUMBITS(1) [],
        /// Stage 2 permission indirection.
        S2PI OFFSET(19) NUMBITS(1) [],
        /// Stage 2 permission overlay.
        S2PO OFFSET(20) NUMBITS(1) [],
        /// Translation hardening.
        THE OFFSET(21) NUMBITS(1) [],
        /// Stage 2 MTE permissions.
        MTEPERM OFFSET(22) NUMBITS(1) [],
        /// Attribute index extension.
        AIE OFFSET(23) NUMBITS(1) []
    ],
    /// Fields of [`IDR5`](const@IDR5).
    pub IDR5 [
        /// Output address size; see [`AddressSize`](crate::arch::attributes::AddressSize).
        OAS OFFSET(0) NUMBITS(3) [],
        /// 4 KiB granule.
        GRAN4K OFFSET(4) NUMBITS(1) [],
        /// 16 KiB granule.
        GRAN16K OFFSET(5) NUMBITS(1) [],
        /// 64 KiB granule.
        GRAN64K OFFSET(6) NUMBITS(1) [],
        /// 52-bit addresses with the 4 KiB and 16 KiB granules.
        DS OFFSET(7) NUMBITS(1) [],
        /// 128-bit descriptors.
        D128 OFFSET(8) NUMBITS(1) [],
        /// Virtual address size.
        VAX OFFSET(10) NUMBITS(2) [Bits48 = 0, Bits52 = 1, Bits56 = 2],
        /// Most transactions that can be stalled at a time.
        STALL_MAX OFFSET(16) NUMBITS(16) []
    ],
    /// Fields of [`IIDR`](const@IIDR).
    pub IIDR [
        /// JEP106 code of the maker.
        Implementer OFFSET(0) NUMBITS(12) [Arm = 0x43b],
        /// Minor revision.
        Revision OFFSET(12) NUMBITS(4) [],
        /// Major revision.
        Variant OFFSET(16) NUMBITS(4) [],
        /// The maker's product number.
        ProductID OFFSET(20) NUMBITS(12) []
    ],
    /// Fields of [`AIDR`](const@AIDR).
    pub AIDR [
        /// 0 to 4 for SMMUv3.0 to SMMUv3.4; newer ones are compatible.
        ArchMinorRev OFFSET(0) NUMBITS(4) [],
        /// 0 for SMMUv3.
        ArchMajorRev OFFSET(4) NUMBITS(4) []
    ]
}

//! The stream table: what the SMMU does with the transactions of a stream (IHI 0070, 5.1 and 5.2).
//!
//! What lives here: what can be said of a stream. [`StreamTableEntry`] turns it into words;
//! [`L1StreamTableDescriptor`] points to entries. What does not: the table itself (see [`crate::device`]).

mod decode;
mod entry;
mod level1;
mod obeyed;

#[cfg(test)]
mod tests;

pub use self::entry::StreamTableEntry;
pub use self::level1::L1StreamTableDescriptor;
use super::attributes::{AddressSize, Granule, HardwareUpdate, WalkAttributes};
use crate::addr::{PhysAddr, Vmid};

/// STE.Config: what becomes of a stream's transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Config {
    /// They abort, and no event is recorded.
    Abort = 0,
    /// They pass untranslated.
    Bypass = 4,
    /// Stage 1 translates them.
    Stage1 = 5,
    /// Stage 2 translates them.
    Stage2 = 6,
    /// Stage 1, then stage 2.
    Nested = 7,
}

/// STE.S1Fmt: the format of the context descriptor table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum S1Fmt {
    /// One array of descriptors.
    #[default]
    Linear = 0,
    /// Two levels, with leaf tables of 64 descriptors (4 KiB). Needs IDR0.CD2L.
    TwoLevel4K = 1,
    /// Two levels, with leaf tables of 1024 descriptors (64 KiB). Needs IDR0.CD2L.
    TwoLevel64K = 2,
}

/// STE.S1DSS: a transaction without SubstreamID, on a stream that has substreams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum S1Dss {
    /// It aborts, and F_STREAM_DISABLED is recorded.
    Abort = 0,
    /// It bypasses stage 1.
    Bypass = 1,
    /// It uses context descriptor 0; SubstreamID 0 is then forbidden.
    #[default]
    Substream0 = 2,
}

/// STE.STRW: the exception level whose TLB entries a stage-1 stream shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strw {
    /// NS-EL1, tagged by ASID and, if stage 2 is implemented, by VMID.
    #[default]
    El1 = 0,
    /// EL2; with CR2.E2H, EL2-E2H. Needs IDR0.Hyp.
    El2 = 2,
}

/// STE.EATS: PCIe ATS on a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Eats {
    /// Translation requests are refused, and translated transactions with them if CR0.ATSCHK is 1.
    #[default]
    Off = 0,
    /// Full ATS.
    Full = 1,
    /// Split-stage ATS: the device caches stage 1 only. Needs [`Config::Nested`] and CR0.ATSCHK = 1.
    SplitStage = 2,
}

/// STE.SHCFG: the shareability that a transaction takes with it where stage 1 does not decide. Without IDR1.ATTR_TYPES_OVR the
/// field is RES0 and transactions keep what they came with
/// ([`Features::incoming_shareability`](crate::device::Features::incoming_shareability)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shcfg {
    /// Non-shareable.
    NonShareable = 0,
    /// What the transaction came with.
    #[default]
    UseIncoming = 1,
    /// Outer Shareable.
    OuterShareable = 2,
    /// Inner Shareable.
    InnerShareable = 3,
}

/// The stage-1 half of a stream table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage1Stream {
    /// S1ContextPtr: the context descriptor table, aligned to its size (at least to 64 bytes). With stage 2 it is an
    /// intermediate physical address.
    pub context_table: PhysAddr,
    /// S1Fmt: its format.
    pub format: S1Fmt,
    /// S1CDMax: log2 of the number of context descriptors; 0 switches substreams off. At most IDR1.SSIDSIZE.
    pub log2_contexts: u8,
    /// S1DSS: transactions without SubstreamID. Written as [`S1Dss::Substream0`] while substreams are off: the field
    /// is then ignored, except by emulators that look at it all the same.
    pub default_substream: S1Dss,
    /// S1CIR, S1COR, S1CSH: how descriptors are fetched.
    pub walk: WalkAttributes,
    /// S1STALLD: the stream must not stall. Only where IDR0.STALL_MODEL is 0.
    pub stall_disabled: bool,
    /// STRW. Written as 0 in a nested entry, where it does not count.
    pub world: Strw,
    /// EATS.
    pub ats: Eats,
    /// SHCFG.
    pub shareability: Shcfg,
    /// MEV: similar events may be merged.
    pub merge_events: bool,
    /// S2VMID, which tags stage-1 translations too where stage 2 is implemented. A nested entry takes the VMID of its
    /// stage 2 instead.
    pub vmid: Vmid,
}

/// The stage-2 half of a stream table entry. The walk is VMSAv8-64, little-endian, and faults abort or stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage2Stream {
    /// S2VMID.
    pub vmid: Vmid,
    /// S2TTB: the start-level table, aligned to its size.
    pub table: PhysAddr,
    /// S2T0SZ: 64 minus the bits of an intermediate physical address.
    pub t0sz: u8,
    /// S2SL0: the code of the start level, which depends on the granule (Arm ARM, D8.2.8 to D8.2.10).
    pub sl0: u8,
    /// S2TG.
    pub granule: Granule,
    /// S2PS: size of output addresses.
    pub output_size: AddressSize,
    /// S2IR0, S2OR0, S2SH0: how tables are walked.
    pub walk: WalkAttributes,
    /// S2HA, S2HD.
    pub hardware_update: HardwareUpdate,
    /// S2AFFD: a clear Access flag is no fault.
    pub access_flag_fault_disabled: bool,
    /// S2PTW: a stage-1 walk that stage 2 maps to Device memory is a fault.
    pub protected_walk: bool,
    /// S2R: faults are recorded as events.
    pub record_faults: bool,
    /// S2S: faults stall.
    pub stall: bool,
    /// S2FWB: stage 2 decides alone on cacheability. Needs IDR3.FWB.
    pub force_write_back: bool,
    /// EATS; a nested entry takes the one of its stage 1 instead.
    pub ats: Eats,
    /// SHCFG; a nested entry takes the one of its stage 1 instead.
    pub shareability: Shcfg,
    /// MEV; a nested entry takes the one of its stage 1 instead.
    pub merge_events: bool,
}

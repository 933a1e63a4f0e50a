//! Events: what the SMMU reports about transactions that it did not let through (IHI 0070, 7.3).
//!
//! What lives here: the records, decoded and in words. What does not: the queue (see [`crate::device`]).
//! Records are written by hardware on behalf of devices, so nothing in them is trusted: any 256 bits decode.

mod decode;
mod display;

#[cfg(test)]
mod tests;

pub use super::descriptor::Stage;
use super::page_request::RequestedAccess;
use crate::addr::{Iova, PhysAddr, StreamId, SubstreamId};

/// A stall tag: names a stalled transaction of a stream until it is resumed or terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stag(u16);

impl Stag {
    /// Wraps the raw tag.
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self(value)
    }

    /// The raw tag.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Who a transaction came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The stream.
    pub stream: StreamId,
    /// The substream, if the transaction named one.
    pub substream: Option<SubstreamId>,
}

/// RnW: which way data went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessDirection {
    /// The device read memory.
    Read,
    /// The device wrote memory, or accessed it atomically.
    Write,
}

/// How a transaction accessed memory, after the overrides in the stream table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// RnW.
    pub direction: AccessDirection,
    /// InD: an instruction fetch.
    pub instruction: bool,
    /// PnU: as a privileged agent.
    pub privileged: bool,
}

/// CLASS: what was being translated or read when the fault happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultClass {
    /// The address of a context descriptor (stage 2 only).
    Cd,
    /// A stage-1 table descriptor, or its address.
    Tt,
    /// The transaction's own address.
    In,
    /// A code without a meaning.
    Reserved,
}

/// Which of the four translation faults it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// F_TRANSLATION: there is no valid descriptor, or the address is outside the table's range.
    Translation,
    /// F_ADDR_SIZE: a descriptor's address, or an untranslated one, is too large.
    AddrSize,
    /// F_ACCESS: the Access flag is clear.
    Access,
    /// F_PERMISSION: the mapping does not allow it.
    Permission,
}

/// A translation fault, of an access that aborted or waits for an answer (IHI 0070, 7.3.12 to 7.3.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationFault {
    /// What went wrong.
    pub kind: FaultKind,
    /// Present if the transaction is stalled: it then wants exactly one
    /// [`Command::Resume`](super::command::Command::Resume).
    pub stall: Option<Stag>,
    /// How memory was accessed.
    pub access: Access,
    /// S2: which stage refused.
    pub stage: Stage,
    /// What it refused to translate.
    pub class: FaultClass,
    /// The address the device used.
    pub input: Iova,
    /// The intermediate address that stage 2 refused, bits 55:12; `None` for a stage-1 fault.
    pub ipa: Option<Iova>,
    /// For F_PERMISSION of [`FaultClass::Tt`]: how the stage-1 table was accessed.
    pub table_access: Option<AccessDirection>,
}

/// Which structure could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FetchKind {
    /// F_STE_FETCH: a stream table entry or level-1 descriptor.
    Ste,
    /// F_CD_FETCH: a context descriptor or level-1 descriptor.
    Cd,
    /// F_VMS_FETCH: a virtual machine structure.
    Vms,
}

/// A configuration structure could not be read (IHI 0070, 7.3.4, 7.3.10 and 7.3.20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchFault {
    /// Which structure.
    pub kind: FetchKind,
    /// Implementation defined.
    pub reason: u16,
    /// GPCF: a granule protection check forbade it.
    pub granule_protection: bool,
    /// Where it should have been, a multiple of 8.
    pub address: PhysAddr,
}

/// An event record: whose transaction, and what was wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who. An event of an unknown number has it where all others do.
    pub source: Source,
    /// What.
    pub kind: EventKind,
}

/// What an event record reports, by the architecture's names without `C_`, `E_` and `F_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// F_UUT: an upstream transaction of a kind that the SMMU does not support.
    Uut {
        /// Implementation defined.
        reason: u16,
        /// How memory was accessed, before overrides.
        access: Access,
        /// The address the device used.
        input: Iova,
    },
    /// C_BAD_STREAMID: the StreamID is outside the stream table. Recorded only with CR2.RECINVSID.
    BadStreamId,
    /// F_STE_FETCH, F_CD_FETCH or F_VMS_FETCH.
    Fetch(FetchFault),
    /// C_BAD_STE: the stream table entry is invalid or illegal.
    BadSte,
    /// F_BAD_ATS_TREQ: an ATS translation request on a stream without ATS.
    BadAtsTreq {
        /// What the request asked for.
        access: RequestedAccess,
        /// As a privileged agent.
        privileged: bool,
        /// How many smallest translation units were asked for.
        span: u8,
        /// The address, a multiple of 4 KiB.
        input: Iova,
    },
    /// F_STREAM_DISABLED: a transaction without SubstreamID, or with 0, where STE.S1DSS forbids it.
    StreamDisabled,
    /// F_TRANSL_FORBIDDEN: a device used a translated address without leave.
    TranslForbidden {
        /// Which way.
        direction: AccessDirection,
        /// The address the device used.
        input: Iova,
    },
    /// C_BAD_SUBSTREAMID: there is no context descriptor for the SubstreamID.
    BadSubstreamId,
    /// C_BAD_CD: the context descriptor is invalid or illegal.
    BadCd,
    /// F_WALK_EABT: reading a translation table aborted.
    WalkEabt {
        /// Implementation defined.
        reason: u16,
        /// GPCF: a granule protection check forbade it.
        granule_protection: bool,
        /// How memory was accessed.
        access: Access,
        /// The stage of the table.
        stage: Stage,
        /// What was being translated.
        class: FaultClass,
        /// The address the device used.
        input: Iova,
        /// Where the descriptor should have been, a multiple of 8.
        address: PhysAddr,
    },
    /// F_TRANSLATION, F_ADDR_SIZE, F_ACCESS or F_PERMISSION.
    Translation(TranslationFault),
    /// F_TLB_CONFLICT: two cached translations contradict each other.
    TlbConflict {
        /// Implementation defined.
        reason: u32,
        /// How memory was accessed.
        access: Access,
        /// The stage of the cached translations.
        stage: Stage,
        /// The address the device used.
        input: Iova,
        /// The intermediate address, bits 55:12; `None` for stage 1.
        ipa: Option<Iova>,
    },
    /// F_CFG_CONFLICT: two cached structures contradict each other.
    CfgConflict {
        /// Implementation defined.
        reason: u32,
    },
    /// E_PAGE_REQUEST: a hint that the device will soon want pages. Wants no answer.
    PageRequest {
        /// Wanted as an unprivileged agent.
        unprivileged: RequestedAccess,
        /// Wanted as a privileged agent.
        privileged: RequestedAccess,
        /// How many pages of 4 KiB.
        span: u8,
        /// The first page.
        input: Iova,
    },
    /// A number that is implementation defined (0xe0 to 0xef), or that the architecture does not define yet.
    Unknown {
        /// The event number.
        number: u8,
        /// The record.
        words: [u64; 4],
    },
}

//! Events in words: what the device tried, and why that failed.

use core::fmt;

use super::{
    Access, AccessDirection, Event, EventKind, FaultClass, FaultKind, FetchFault, FetchKind, Stag, TranslationFault,
};

impl EventKind {
    /// The architecture's name of the event.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Uut { .. } => "F_UUT",
            Self::BadStreamId => "C_BAD_STREAMID",
            Self::Fetch(FetchFault { kind: FetchKind::Ste, .. }) => "F_STE_FETCH",
            Self::Fetch(FetchFault { kind: FetchKind::Cd, .. }) => "F_CD_FETCH",
            Self::Fetch(FetchFault { kind: FetchKind::Vms, .. }) => "F_VMS_FETCH",
            Self::BadSte => "C_BAD_STE",
            Self::BadAtsTreq { .. } => "F_BAD_ATS_TREQ",
            Self::StreamDisabled => "F_STREAM_DISABLED",
            Self::TranslForbidden { .. } => "F_TRANSL_FORBIDDEN",
            Self::BadSubstreamId => "C_BAD_SUBSTREAMID",
            Self::BadCd => "C_BAD_CD",
            Self::WalkEabt { .. } => "F_WALK_EABT",
            Self::Translation(TranslationFault { kind: FaultKind::Translation, .. }) => "F_TRANSLATION",
            Self::Translation(TranslationFault { kind: FaultKind::AddrSize, .. }) => "F_ADDR_SIZE",
            Self::Translation(TranslationFault { kind: FaultKind::Access, .. }) => "F_ACCESS",
            Self::Translation(TranslationFault { kind: FaultKind::Permission, .. }) => "F_PERMISSION",
            Self::TlbConflict { .. } => "F_TLB_CONFLICT",
            Self::CfgConflict { .. } => "F_CFG_CONFLICT",
            Self::PageRequest { .. } => "E_PAGE_REQUEST",
            Self::Unknown { .. } => "unknown event",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.source.stream)?;
        if let Some(substream) = self.source.substream {
            write!(f, ", substream {substream}")?;
        }
        write!(f, ": {}", self.kind)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match *self {
            Self::Uut { reason, access, input } => {
                write!(f, "{name}: {access} {input}, a kind of transaction the SMMU does not support ({reason:#x})")
            }
            Self::BadStreamId => write!(f, "{name}: the stream is not in the stream table"),
            Self::Fetch(fault) => write!(f, "{name}: {fault}"),
            Self::BadSte => {
                write!(f, "{name}: the stream table entry is invalid or illegal: the stream is not attached")
            }
            Self::BadAtsTreq { access, input, .. } => {
                write!(f, "{name}: asked to translate {input} for {access}, but ATS is off")
            }
            Self::StreamDisabled => write!(f, "{name}: no substream, or substream 0, where the stream forbids it"),
            Self::TranslForbidden { direction, input } => {
                write!(f, "{name}: {direction} {input} as already translated, which is not allowed")
            }
            Self::BadSubstreamId => write!(f, "{name}: the substream has no context descriptor"),
            Self::BadCd => write!(f, "{name}: the context descriptor is not valid"),
            Self::WalkEabt { access, stage, input, address, .. } => {
                write!(f, "{name}: {access} {input}, the {stage} table at {address} cannot be read")
            }
            Self::Translation(fault) => write!(f, "{name}: {fault}"),
            Self::TlbConflict { access, stage, input, .. } => {
                write!(f, "{name}: {access} {input}, cached {stage} translations contradict each other")
            }
            Self::CfgConflict { .. } => write!(f, "{name}: cached configuration contradicts itself"),
            Self::PageRequest { unprivileged, privileged, span, input } => {
                write!(f, "{name}: will want {span} pages at {input} (user: {unprivileged}; privileged: {privileged})")
            }
            Self::Unknown { number, words: [w0, w1, w2, w3] } => {
                write!(f, "{name} {number:#04x}: {w0:#018x} {w1:#018x} {w2:#018x} {w3:#018x}")
            }
        }
    }
}

impl fmt::Display for FetchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FetchKind::Ste => "stream table entry",
            FetchKind::Cd => "context descriptor",
            FetchKind::Vms => "virtual machine structure",
        };
        write!(f, "the {what} at {} cannot be read", self.address)
    }
}

impl fmt::Display for TranslationFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.kind {
            FaultKind::Translation => "no mapping",
            FaultKind::AddrSize => "address too large",
            FaultKind::Access => "Access flag clear",
            FaultKind::Permission => "not permitted",
        };
        write!(f, "{} {}, {why} ({}, ", self.access, self.input, self.stage)?;
        match self.class {
            FaultClass::Cd => f.write_str("context descriptor")?,
            FaultClass::Tt => f.write_str("stage 1 table")?,
            FaultClass::In => f.write_str("input address")?,
            FaultClass::Reserved => f.write_str("reserved class")?,
        }
        match self.table_access {
            Some(AccessDirection::Read) => f.write_str(", read,")?,
            Some(AccessDirection::Write) => f.write_str(", written,")?,
            None => {}
        }
        if let Some(ipa) = self.ipa {
            write!(f, " at {ipa}")?;
        }
        if let Some(stag) = self.stall {
            write!(f, "; stalled, {stag}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.privileged {
            f.write_str("privileged ")?;
        }
        if self.instruction { f.write_str("instruction fetch from") } else { write!(f, "{}", self.direction) }
    }
}

impl fmt::Display for AccessDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read of",
            Self::Write => "write to",
        })
    }
}

impl fmt::Display for Stag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stall tag {:#x}", self.0)
    }
}

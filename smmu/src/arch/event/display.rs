//! Events in words: what the device tried, and why that failed.

use core::fmt;

use super::{
    Access, AccessDirection, Event, EventKind, FaultClass, FaultKind, FetchFault, FetchKind, Stag, TranslationFault,
};

impl EventKind {
    /// The event number: the low byte of the record (IHI 0070, 7.3).
    #[must_use]
    pub const fn number(&self) -> u8 {
        match *self {
            Self::Uut { .. } => 0x01,
            Self::BadStreamId => 0x02,
            Self::Fetch(FetchFault { kind: FetchKind::Ste, .. }) => 0x03,
            Self::BadSte => 0x04,
            Self::BadAtsTreq { .. } => 0x05,
            Self::StreamDisabled => 0x06,
            Self::TranslForbidden { .. } => 0x07,
            Self::BadSubstreamId => 0x08,
            Self::Fetch(FetchFault { kind: FetchKind::Cd, .. }) => 0x09,
            Self::BadCd => 0x0a,
            Self::WalkEabt { .. } => 0x0b,
            Self::Translation(TranslationFault { kind: FaultKind::Translation, .. }) => 0x10,
            Self::Translation(TranslationFault { kind: FaultKind::AddrSize, .. }) => 0x11,
            Self::Translation(TranslationFault { kind: FaultKind::Access, .. }) => 0x12,
            Self::Translation(TranslationFault { kind: FaultKind::Permission, .. }) => 0x13,
            Self::TlbConflict { .. } => 0x20,
            Self::CfgConflict { .. } => 0x21,
            Self::PageRequest { .. } => 0x24,
            Self::Fetch(FetchFault { kind: FetchKind::Vms, .. }) => 0x25,
            Self::Unknown { number, .. } => number,
        }
    }

    /// The architecture's name of the event.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match Self::name_of(self.number()) {
            Some(name) => name,
            None => "unknown event",
        }
    }

    /// The architecture's name of the events with this number, if it has one.
    #[must_use]
    pub const fn name_of(number: u8) -> Option<&'static str> {
        Some(match number {
            0x01 => "F_UUT",
            0x02 => "C_BAD_STREAMID",
            0x03 => "F_STE_FETCH",
            0x04 => "C_BAD_STE",
            0x05 => "F_BAD_ATS_TREQ",
            0x06 => "F_STREAM_DISABLED",
            0x07 => "F_TRANSL_FORBIDDEN",
            0x08 => "C_BAD_SUBSTREAMID",
            0x09 => "F_CD_FETCH",
            0x0a => "C_BAD_CD",
            0x0b => "F_WALK_EABT",
            0x10 => "F_TRANSLATION",
            0x11 => "F_ADDR_SIZE",
            0x12 => "F_ACCESS",
            0x13 => "F_PERMISSION",
            0x20 => "F_TLB_CONFLICT",
            0x21 => "F_CFG_CONFLICT",
            0x24 => "E_PAGE_REQUEST",
            0x25 => "F_VMS_FETCH",
            _ => return None,
        })
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

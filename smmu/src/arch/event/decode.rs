//! Records from words.

use tock_registers::fields::Field;
use tock_registers::{LocalRegisterCopy, register_bitfields};

use super::{
    Access, AccessDirection, Event, EventKind, FaultClass, FaultKind, FetchFault, FetchKind, Source, Stag, Stage,
    TranslationFault,
};
use crate::addr::{Iova, PhysAddr, StreamId, SubstreamId};
use crate::arch::page_request::RequestedAccess;

register_bitfields! { u64,
    /// Bits 63:0 of an event record.
    EVENT0 [
        Number OFFSET(0) NUMBITS(8) [],
        SSV OFFSET(11) NUMBITS(1) [],
        SubstreamID OFFSET(12) NUMBITS(20) [],
        StreamID OFFSET(32) NUMBITS(32) []
    ],
    /// Bits 127:64. Which fields there are depends on the number.
    EVENT1 [
        STAG OFFSET(0) NUMBITS(16) [],
        Reason OFFSET(0) NUMBITS(16) [],
        GPCF OFFSET(16) NUMBITS(1) [],
        Stall OFFSET(31) NUMBITS(1) [],
        PnU OFFSET(33) NUMBITS(1) [],
        InD OFFSET(34) NUMBITS(1) [],
        RnW OFFSET(35) NUMBITS(1) [],
        S2 OFFSET(39) NUMBITS(1) [],
        CLASS OFFSET(40) NUMBITS(2) [],
        TTRnW OFFSET(44) NUMBITS(1) [],
        /// F_TLB_CONFLICT and F_CFG_CONFLICT.
        ConflictReason OFFSET(0) NUMBITS(32) []
    ],
    /// Bits 127:64 of F_BAD_ATS_TREQ.
    TREQ1 [
        Span OFFSET(0) NUMBITS(4) [],
        Priv OFFSET(28) NUMBITS(1) [],
        X OFFSET(29) NUMBITS(1) [],
        W OFFSET(30) NUMBITS(1) [],
        R OFFSET(31) NUMBITS(1) []
    ],
    /// Bits 127:64 of E_PAGE_REQUEST.
    PAGE1 [
        UX OFFSET(33) NUMBITS(1) [],
        UW OFFSET(34) NUMBITS(1) [],
        UR OFFSET(35) NUMBITS(1) [],
        PX OFFSET(37) NUMBITS(1) [],
        PW OFFSET(38) NUMBITS(1) [],
        PR OFFSET(39) NUMBITS(1) [],
        Span OFFSET(44) NUMBITS(8) []
    ],
    /// Bits 191:128: the input address, or where it is in whole pages:
    EVENT2 [
        /// In place: bits 63:12 of the address.
        Page OFFSET(12) NUMBITS(52) []
    ],
    /// Bits 255:192.
    EVENT3 [
        /// In place: bits 55:12 of the address.
        IPA OFFSET(12) NUMBITS(44) [],
        /// In place: bits 55:3 of the address.
        FetchAddr OFFSET(3) NUMBITS(53) []
    ]
}

impl Event {
    /// Size of a record in bytes.
    pub const BYTES: usize = 32;

    /// Decodes a record. Any four words are one.
    #[must_use]
    pub fn decode(words: [u64; 4]) -> Self {
        let number = EVENT0::Number.read(words[0]) as u8;
        let fields = Fields(words);
        Self { source: fields.source(number), kind: fields.kind(number) }
    }

    /// Whose transaction it was.
    #[must_use]
    pub const fn stream(&self) -> StreamId {
        self.source.stream
    }
}

/// A record's words, read by the positions that events have in common.
#[derive(Clone, Copy)]
struct Fields([u64; 4]);

impl Fields {
    fn kind(self, number: u8) -> EventKind {
        match number {
            0x01 => EventKind::Uut { reason: self.reason(), access: self.access(), input: self.input() },
            0x02 => EventKind::BadStreamId,
            0x03 => self.fetch(FetchKind::Ste),
            0x04 => EventKind::BadSte,
            0x05 => self.bad_ats_treq(),
            0x06 => EventKind::StreamDisabled,
            0x07 => EventKind::TranslForbidden { direction: self.access().direction, input: self.input() },
            0x08 => EventKind::BadSubstreamId,
            0x09 => self.fetch(FetchKind::Cd),
            0x0a => EventKind::BadCd,
            0x0b => self.walk_eabt(),
            0x10 => self.translation(FaultKind::Translation),
            0x11 => self.translation(FaultKind::AddrSize),
            0x12 => self.translation(FaultKind::Access),
            0x13 => self.translation(FaultKind::Permission),
            0x20 => self.tlb_conflict(),
            0x21 => EventKind::CfgConflict { reason: self.conflict_reason() },
            0x24 => self.page_request(),
            0x25 => self.fetch(FetchKind::Vms),
            _ => EventKind::Unknown { number, words: self.0 },
        }
    }

    /// Two events have no SSV: one always has a SubstreamID, the others never.
    fn source(self, number: u8) -> Source {
        let word = self.0[0];
        let has_substream = match number {
            0x06 | 0x07 => false,
            0x08 => true,
            _ => EVENT0::SSV.is_set(word),
        };
        Source {
            stream: StreamId::new(EVENT0::StreamID.read(word) as u32),
            substream: has_substream.then(|| SubstreamId::new(EVENT0::SubstreamID.read(word) as u32)),
        }
    }

    fn word1(self) -> LocalRegisterCopy<u64, EVENT1::Register> {
        LocalRegisterCopy::new(self.0[1])
    }

    fn reason(self) -> u16 {
        self.word1().read(EVENT1::Reason) as u16
    }

    fn conflict_reason(self) -> u32 {
        self.word1().read(EVENT1::ConflictReason) as u32
    }

    fn granule_protection(self) -> bool {
        self.word1().is_set(EVENT1::GPCF)
    }

    fn access(self) -> Access {
        Access {
            direction: self.direction(EVENT1::RnW),
            instruction: self.word1().is_set(EVENT1::InD),
            privileged: self.word1().is_set(EVENT1::PnU),
        }
    }

    fn direction(self, read_not_write: Field<u64, EVENT1::Register>) -> AccessDirection {
        if self.word1().is_set(read_not_write) { AccessDirection::Read } else { AccessDirection::Write }
    }

    fn stage(self) -> Stage {
        if self.word1().is_set(EVENT1::S2) { Stage::Stage2 } else { Stage::Stage1 }
    }

    fn class(self) -> FaultClass {
        match self.word1().read(EVENT1::CLASS) {
            0 => FaultClass::Cd,
            1 => FaultClass::Tt,
            2 => FaultClass::In,
            _ => FaultClass::Reserved,
        }
    }

    fn input(self) -> Iova {
        Iova::new(self.0[2])
    }

    fn input_page(self) -> Iova {
        Iova::new(EVENT2::Page.read(self.0[2]) << 12)
    }

    /// The field holds junk in a stage-1 event.
    fn ipa(self) -> Option<Iova> {
        (self.stage() == Stage::Stage2).then(|| Iova::new(EVENT3::IPA.read(self.0[3]) << 12))
    }

    fn fetch_address(self) -> PhysAddr {
        PhysAddr::new(EVENT3::FetchAddr.read(self.0[3]) << 3)
    }

    fn fetch(self, kind: FetchKind) -> EventKind {
        EventKind::Fetch(FetchFault {
            kind,
            reason: self.reason(),
            granule_protection: self.granule_protection(),
            address: self.fetch_address(),
        })
    }

    fn walk_eabt(self) -> EventKind {
        EventKind::WalkEabt {
            reason: self.reason(),
            granule_protection: self.granule_protection(),
            access: self.access(),
            stage: self.stage(),
            class: self.class(),
            input: self.input(),
            address: self.fetch_address(),
        }
    }

    fn translation(self, kind: FaultKind) -> EventKind {
        let word1 = self.word1();
        let class = self.class();
        let names_table_access = kind == FaultKind::Permission && class == FaultClass::Tt;
        EventKind::Translation(TranslationFault {
            kind,
            stall: word1.is_set(EVENT1::Stall).then(|| Stag::new(word1.read(EVENT1::STAG) as u16)),
            access: self.access(),
            stage: self.stage(),
            class,
            input: self.input(),
            ipa: self.ipa(),
            table_access: names_table_access.then(|| self.direction(EVENT1::TTRnW)),
        })
    }

    fn tlb_conflict(self) -> EventKind {
        EventKind::TlbConflict {
            reason: self.conflict_reason(),
            access: self.access(),
            stage: self.stage(),
            input: self.input(),
            ipa: self.ipa(),
        }
    }

    fn bad_ats_treq(self) -> EventKind {
        let word1 = LocalRegisterCopy::<u64, TREQ1::Register>::new(self.0[1]);
        EventKind::BadAtsTreq {
            access: RequestedAccess {
                read: word1.is_set(TREQ1::R),
                write: word1.is_set(TREQ1::W),
                execute: word1.is_set(TREQ1::X),
            },
            privileged: word1.is_set(TREQ1::Priv),
            span: word1.read(TREQ1::Span) as u8,
            input: self.input_page(),
        }
    }

    fn page_request(self) -> EventKind {
        let word1 = LocalRegisterCopy::<u64, PAGE1::Register>::new(self.0[1]);
        EventKind::PageRequest {
            unprivileged: RequestedAccess {
                read: word1.is_set(PAGE1::UR),
                write: word1.is_set(PAGE1::UW),
                execute: word1.is_set(PAGE1::UX),
            },
            privileged: RequestedAccess {
                read: word1.is_set(PAGE1::PR),
                write: word1.is_set(PAGE1::PW),
                execute: word1.is_set(PAGE1::PX),
            },
            span: word1.read(PAGE1::Span) as u8,
            input: self.input_page(),
        }
    }
}

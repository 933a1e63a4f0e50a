//! Page requests: what a device that uses PCIe PRI wants mapped (IHI 0070, chapter 8).

use core::fmt;

use tock_registers::{LocalRegisterCopy, register_bitfields};

use crate::addr::{Iova, StreamId, SubstreamId};

register_bitfields! { u64,
    /// Bits 63:0 of a page request record.
    PRI0 [
        StreamID OFFSET(0) NUMBITS(32) [],
        SubstreamID OFFSET(32) NUMBITS(20) [],
        Priv OFFSET(58) NUMBITS(1) [],
        X OFFSET(59) NUMBITS(1) [],
        R OFFSET(60) NUMBITS(1) [],
        W OFFSET(61) NUMBITS(1) [],
        Last OFFSET(62) NUMBITS(1) [],
        SSV OFFSET(63) NUMBITS(1) []
    ],
    /// Bits 127:64.
    PRI1 [
        PRGIndex OFFSET(0) NUMBITS(9) [],
        /// In place: bits 63:12 of the address.
        Address OFFSET(12) NUMBITS(52) []
    ]
}

/// What a device asks to be allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestedAccess {
    /// To read.
    pub read: bool,
    /// To write.
    pub write: bool,
    /// To fetch instructions.
    pub execute: bool,
}

/// A page request. The requests of one stream, substream and group up to the one marked last want one answer,
/// [`Command::PriResp`](super::command::Command::PriResp).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Who asks.
    pub stream: StreamId,
    /// In which address space; `None` without PASID.
    pub substream: Option<SubstreamId>,
    /// PRGIndex: the group, 9 bits.
    pub group: u16,
    /// Last: the group is complete.
    pub last: bool,
    /// The page, aligned to 4 KiB.
    pub address: Iova,
    /// What for.
    pub access: RequestedAccess,
    /// Priv: as a privileged agent.
    pub privileged: bool,
}

impl PageRequest {
    /// Size of a record in bytes.
    pub const BYTES: usize = 16;

    /// Decodes a record. Any two words are one.
    #[must_use]
    pub fn decode(words: [u64; 2]) -> Self {
        let word0 = LocalRegisterCopy::<u64, PRI0::Register>::new(words[0]);
        Self {
            stream: StreamId::new(word0.read(PRI0::StreamID) as u32),
            substream: word0.is_set(PRI0::SSV).then(|| SubstreamId::new(word0.read(PRI0::SubstreamID) as u32)),
            group: PRI1::PRGIndex.read(words[1]) as u16,
            last: word0.is_set(PRI0::Last),
            address: Iova::new(PRI1::Address.read(words[1]) << 12),
            access: RequestedAccess {
                read: word0.is_set(PRI0::R),
                write: word0.is_set(PRI0::W),
                execute: word0.is_set(PRI0::X),
            },
            privileged: word0.is_set(PRI0::Priv),
        }
    }

    /// A stop marker: the device has stopped using a PASID, and wants no answer (IHI 0070, 8.1).
    #[must_use]
    pub fn is_stop_marker(&self) -> bool {
        self.last && self.substream.is_some() && !self.access.read && !self.access.write
    }
}

impl fmt::Display for RequestedAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = [(self.read, "read"), (self.write, "write"), (self.execute, "execute")];
        let mut separator = "";
        for (_, word) in wanted.into_iter().filter(|(set, _)| *set) {
            write!(f, "{separator}{word}")?;
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

impl fmt::Display for PageRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_stop_marker() {
            return f.write_str("stop marker");
        }
        let last = if self.last { ", the last one" } else { "" };
        write!(f, "page request for {}: {}; group {}{last}", self.address, self.access, self.group)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::format;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::tries;

    const NOTHING: PageRequest = PageRequest {
        stream: StreamId::new(0),
        substream: None,
        group: 0,
        last: false,
        address: Iova::new(0),
        access: RequestedAccess { read: false, write: false, execute: false },
        privileged: false,
    };

    #[test]
    fn r24_fields() {
        let word0 = |word| PageRequest::decode([word, 0]);
        let access = |read, write, execute| RequestedAccess { read, write, execute };
        assert_eq!(word0(0), NOTHING);
        assert_eq!(word0(0xffff_ffff), PageRequest { stream: StreamId::new(u32::MAX), ..NOTHING });
        assert_eq!(word0(0x000f_ffff_0000_0000), NOTHING, "a SubstreamID without SSV");
        let substream = Some(SubstreamId::new(0xf_ffff));
        assert_eq!(word0(0x800f_ffff_0000_0000), PageRequest { substream, ..NOTHING });
        assert_eq!(word0(1 << 58), PageRequest { privileged: true, ..NOTHING });
        assert_eq!(word0(1 << 59), PageRequest { access: access(false, false, true), ..NOTHING });
        assert_eq!(word0(1 << 60), PageRequest { access: access(true, false, false), ..NOTHING });
        assert_eq!(word0(1 << 61), PageRequest { access: access(false, true, false), ..NOTHING });
        assert_eq!(word0(1 << 62), PageRequest { last: true, ..NOTHING });
        let word1 = |word| PageRequest::decode([0, word]);
        assert_eq!(word1(0x1ff), PageRequest { group: 0x1ff, ..NOTHING });
        let address = Iova::new(0xffff_ffff_ffff_f000);
        assert_eq!(word1(0xffff_ffff_ffff_fe00), PageRequest { address, ..NOTHING });
    }

    #[test]
    fn stop_markers() {
        assert!(PageRequest::decode([1 << 63 | 1 << 62, 0]).is_stop_marker());
        for not in [1 << 63, 1 << 62, 7 << 61, 1 << 63 | 1 << 62 | 1 << 60] {
            assert!(!PageRequest::decode([not, 0]).is_stop_marker(), "{not:#x}");
        }
    }

    #[test]
    fn requests_in_words() {
        let show = |word0, word1| format!("{}", PageRequest::decode([word0, word1]));
        assert_eq!(show(3 << 60, 0x4005), "page request for 0x4000: read, write; group 5");
        assert_eq!(show(1 << 62, 0), "page request for 0x0: nothing; group 0, the last one");
        assert_eq!(show(3 << 62, 0), "stop marker");
    }

    proptest! {
        #![proptest_config(tries(256))]

        #[test]
        fn any_words_decode(words: [u64; 2]) {
            let request = PageRequest::decode(words);
            let shown = format!("{request}");
            prop_assert!(!shown.is_empty());
            prop_assert_eq!(request.stream.get(), words[0] as u32);
        }
    }
}

//! Commands: what software tells the SMMU to do (IHI 0070, chapter 4).
//!
//! What lives here: the commands of the Non-secure queue, their encoding and decoding, and the codes of their errors. What does not:
//! the queue (see [`crate::device`]), and commands for features that nothing here uses: address prefetch, MPAM, DPT.

mod decode;
mod encode;
mod error;
mod opcode;

#[cfg(test)]
mod tests;

use core::fmt;

pub use self::error::{CommandError, IllegalCommand};
pub use self::opcode::Opcode;
use super::attributes::{Granule, MemAttr, Shareability};
use super::event::Stag;
use super::range::AtcSpan;
use crate::addr::{Asid, Iova, PhysAddr, StreamId, SubstreamId, Vmid};

/// Which entries of the TLB a `TLBI_*_VA`, `TLBI_*_VAA` or `TLBI_S2_IPA` command drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlbiAddress {
    /// The input address of stage 1, or of stage 2 for `TLBI_S2_IPA`. Bits 11:0 do not count.
    pub address: Iova,
    /// Only cached pages and blocks, not cached table descriptors.
    pub leaf: bool,
    /// More than one address, or a level hint. Needs IDR3.RIL.
    pub range: Option<TlbiRange>,
}

/// The range operands of a TLBI command: `(num + 1) * 2^scale` granules from the address on (IHI 0070, 4.4.1.1).
///
/// `num`, `scale` and `ttl` must not all be 0: the command would be illegal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlbiRange {
    /// TG: what `num` and `scale` count.
    pub granule: Granule,
    /// NUM, 0 to 31.
    pub num: u8,
    /// SCALE, 0 to 31.
    pub scale: u8,
    /// TTL: the level of the leaf entries, 1 to 3, or 0 for any. The address is aligned to a leaf of that level.
    pub ttl: u8,
}

/// CMD_PRI_RESP.Resp: the answer to a page request group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriResponse {
    /// A permanent problem: the device stops asking.
    Failure = 0,
    /// One or more of the pages cannot be had.
    Invalid = 1,
    /// All pages are there.
    Success = 2,
}

/// CMD_RESUME.Ac and Ab: what becomes of a stalled transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeAction {
    /// It ends: writes are ignored, reads give zero.
    Terminate = 0,
    /// It is translated anew.
    Retry = 1,
    /// It aborts.
    Abort = 2,
}

/// How a CMD_SYNC says that it has completed, apart from CMDQ_CONS moving past it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Not at all.
    None,
    /// By the wired interrupt.
    Interrupt,
    /// By writing a 32-bit word, and by the wired interrupt if there is one. Needs IDR0.MSI.
    Msi {
        /// MSIAddress: where to, aligned to 4 bytes; not 0.
        address: PhysAddr,
        /// MSIData: the word.
        data: u32,
        /// MSIAttr: its memory type.
        memory: MemAttr,
        /// MSH: its shareability.
        shareability: Shareability,
    },
    /// By the event that ends a CPU's WFE. Needs IDR0.SEV.
    Event,
}

/// A command, with the operands it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// CMD_PREFETCH_CONFIG: a hint that a stream will be used.
    PrefetchConfig {
        /// The stream.
        stream: StreamId,
        /// Its substream, if any.
        substream: Option<SubstreamId>,
    },
    /// CMD_CFGI_STE: forget a stream table entry and all that was reached through it.
    CfgiSte {
        /// The stream.
        stream: StreamId,
        /// Keep the level-1 stream table descriptor.
        leaf: bool,
    },
    /// CMD_CFGI_STE_RANGE: the same for `2^(range + 1)` streams, with their level-1 descriptors.
    CfgiSteRange {
        /// A stream among them; the low `range + 1` bits do not count.
        stream: StreamId,
        /// Range, 0 to 30; 31 means all (see [`Command::CfgiAll`]).
        range: u8,
    },
    /// CMD_CFGI_ALL: forget all configuration.
    CfgiAll,
    /// CMD_CFGI_CD: forget a context descriptor. Needs stage 1.
    CfgiCd {
        /// The stream.
        stream: StreamId,
        /// The descriptor's index: 0 for a stream without substreams.
        substream: SubstreamId,
        /// Keep the level-1 context descriptor.
        leaf: bool,
    },
    /// CMD_CFGI_CD_ALL: forget all context descriptors of a stream. Needs stage 1.
    CfgiCdAll {
        /// The stream.
        stream: StreamId,
    },
    /// CMD_TLBI_NH_ALL: drop all stage-1 translations of a VMID.
    TlbiNhAll {
        /// The VMID; 0 without stage 2.
        vmid: Vmid,
    },
    /// CMD_TLBI_NH_ASID: drop the non-global stage-1 translations of an ASID.
    TlbiNhAsid {
        /// The VMID; 0 without stage 2.
        vmid: Vmid,
        /// The ASID.
        asid: Asid,
    },
    /// CMD_TLBI_NH_VA: drop stage-1 translations of addresses.
    TlbiNhVa {
        /// The VMID; 0 without stage 2.
        vmid: Vmid,
        /// The ASID.
        asid: Asid,
        /// The addresses.
        scope: TlbiAddress,
    },
    /// CMD_TLBI_NH_VAA: the same, of any ASID.
    TlbiNhVaa {
        /// The VMID; 0 without stage 2.
        vmid: Vmid,
        /// The addresses.
        scope: TlbiAddress,
    },
    /// CMD_TLBI_EL2_ALL: drop all translations of EL2. Needs IDR0.Hyp, as all of EL2 does.
    TlbiEl2All,
    /// CMD_TLBI_EL2_ASID: drop the non-global EL2-E2H translations of an ASID.
    TlbiEl2Asid {
        /// The ASID.
        asid: Asid,
    },
    /// CMD_TLBI_EL2_VA: drop EL2 translations of addresses.
    TlbiEl2Va {
        /// The ASID; counts with CR2.E2H only.
        asid: Asid,
        /// The addresses.
        scope: TlbiAddress,
    },
    /// CMD_TLBI_EL2_VAA: the same, of any ASID.
    TlbiEl2Vaa {
        /// The addresses.
        scope: TlbiAddress,
    },
    /// CMD_TLBI_S12_VMALL: drop all translations of a VMID, of both stages. Needs stage 2.
    TlbiS12Vmall {
        /// The VMID.
        vmid: Vmid,
    },
    /// CMD_TLBI_S2_IPA: drop stage-2 translations of intermediate physical addresses. What stage 1 and 2 together
    /// translate stays cached: [`Command::TlbiNhAll`] drops that. Needs stage 2.
    TlbiS2Ipa {
        /// The VMID.
        vmid: Vmid,
        /// The addresses.
        scope: TlbiAddress,
    },
    /// CMD_TLBI_NSNH_ALL: drop all Non-secure EL1 translations, of both stages and all VMIDs.
    TlbiNsnhAll,
    /// CMD_ATC_INV: drop translations that a device caches. Needs IDR0.ATS.
    AtcInv {
        /// The stream.
        stream: StreamId,
        /// Of which substream; `None` for those without PASID.
        substream: Option<SubstreamId>,
        /// Global: of all substreams; only with a substream.
        global: bool,
        /// The addresses.
        span: AtcSpan,
    },
    /// CMD_PRI_RESP: answer a page request group. Needs IDR0.PRI.
    PriResp {
        /// The stream that asked.
        stream: StreamId,
        /// The substream, if the request had one.
        substream: Option<SubstreamId>,
        /// PRGIndex: the group, 9 bits.
        group: u16,
        /// Resp: the answer.
        response: PriResponse,
    },
    /// CMD_RESUME: let go a stalled transaction. Not where IDR0.STALL_MODEL is 1.
    Resume {
        /// The stream.
        stream: StreamId,
        /// The tag from the event record.
        stag: Stag,
        /// What becomes of it.
        action: ResumeAction,
    },
    /// CMD_STALL_TERM: abort all stalled transactions of a stream. Not where IDR0.STALL_MODEL is 1.
    StallTerm {
        /// The stream.
        stream: StreamId,
    },
    /// CMD_SYNC: complete when all earlier commands of the queue are.
    Sync {
        /// How it says so.
        completion: Completion,
    },
}

impl Command {
    /// Size of an encoded command in bytes.
    pub const BYTES: usize = 16;
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.opcode())?;
        match *self {
            Self::CfgiAll | Self::TlbiEl2All | Self::TlbiNsnhAll | Self::Sync { .. } => Ok(()),
            Self::PrefetchConfig { stream, substream } => in_stream(f, stream, substream),
            Self::CfgiSte { stream, .. } | Self::CfgiCdAll { stream } | Self::StallTerm { stream } => {
                in_stream(f, stream, None)
            }
            Self::CfgiSteRange { stream, range } => write!(f, " streams around {stream}, range {range}"),
            Self::CfgiCd { stream, substream, .. } => in_stream(f, stream, Some(substream)),
            Self::TlbiNhAll { vmid } | Self::TlbiS12Vmall { vmid } => write!(f, " VMID {}", vmid.get()),
            Self::TlbiNhAsid { vmid, asid } => write!(f, " VMID {} ASID {}", vmid.get(), asid.get()),
            Self::TlbiNhVa { vmid, asid, scope } => {
                write!(f, " VMID {} ASID {} {scope}", vmid.get(), asid.get())
            }
            Self::TlbiNhVaa { vmid, scope } | Self::TlbiS2Ipa { vmid, scope } => {
                write!(f, " VMID {} {scope}", vmid.get())
            }
            Self::TlbiEl2Asid { asid } => write!(f, " ASID {}", asid.get()),
            Self::TlbiEl2Va { asid, scope } => write!(f, " ASID {} {scope}", asid.get()),
            Self::TlbiEl2Vaa { scope } => write!(f, " {scope}"),
            Self::AtcInv { stream, substream, span, .. } => {
                in_stream(f, stream, substream)?;
                write!(f, " {span}")
            }
            Self::PriResp { stream, substream, group, response } => {
                in_stream(f, stream, substream)?;
                write!(f, " group {group}: {response:?}")
            }
            Self::Resume { stream, stag, action } => {
                in_stream(f, stream, None)?;
                write!(f, " {stag}: {action:?}")
            }
        }
    }
}

/// " stream 0x8" or " stream 0x8 substream 0x1".
fn in_stream(f: &mut fmt::Formatter<'_>, stream: StreamId, substream: Option<SubstreamId>) -> fmt::Result {
    write!(f, " stream {stream}")?;
    substream.map_or(Ok(()), |substream| write!(f, " substream {substream}"))
}

impl fmt::Display for TlbiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {}", self.address)?;
        if let Some(range) = self.range {
            let granules = (u64::from(range.num) + 1) << range.scale.min(63);
            write!(f, ", {granules} pages of {}", range.granule)?;
        }
        f.write_str(if self.leaf { ", leaves" } else { ", tables and leaves" })
    }
}

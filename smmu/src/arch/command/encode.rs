//! Commands as words.

use tock_registers::fields::FieldValue;
use tock_registers::register_bitfields;

use super::{Command, Completion, Opcode, TlbiAddress};
use crate::addr::{Asid, StreamId, SubstreamId, Vmid};

register_bitfields! { u64,
    /// Bits 63:0 of a command. Which fields there are depends on the opcode.
    pub(super) CMD0 [
        Opcode OFFSET(0) NUMBITS(8) [],
        Global OFFSET(9) NUMBITS(1) [],
        /// For the Secure stream table: illegal in the Non-secure queue.
        SSec OFFSET(10) NUMBITS(1) [],
        SSV OFFSET(11) NUMBITS(1) [],
        SubstreamID OFFSET(12) NUMBITS(20) [],
        StreamID OFFSET(32) NUMBITS(32) [],
        VMID OFFSET(32) NUMBITS(16) [],
        ASID OFFSET(48) NUMBITS(16) [],
        /// TLBI.
        NUM OFFSET(12) NUMBITS(5) [],
        /// TLBI.
        SCALE OFFSET(20) NUMBITS(5) [],
        /// RESUME: Ac (bit 12) and Ab (bit 13).
        Action OFFSET(12) NUMBITS(2) [],
        /// SYNC.
        CS OFFSET(12) NUMBITS(2) [None = 0, Irq = 1, Sev = 2],
        MSH OFFSET(22) NUMBITS(2) [],
        MSIAttr OFFSET(24) NUMBITS(4) [],
        MSIData OFFSET(32) NUMBITS(32) []
    ],
    /// Bits 127:64 of a command.
    pub(super) CMD1 [
        /// CFGI, TLBI.
        Leaf OFFSET(0) NUMBITS(1) [],
        /// CFGI_STE_RANGE.
        Range OFFSET(0) NUMBITS(5) [],
        /// TLBI.
        TTL OFFSET(8) NUMBITS(2) [],
        /// TLBI.
        TG OFFSET(10) NUMBITS(2) [],
        /// In place: bits 63:12 of a virtual address.
        Address OFFSET(12) NUMBITS(52) [],
        /// In place: bits 55:12 of an intermediate physical address.
        IPA OFFSET(12) NUMBITS(44) [],
        /// ATC_INV.
        Size OFFSET(0) NUMBITS(6) [],
        /// PRI_RESP.
        PRGIndex OFFSET(0) NUMBITS(9) [],
        Resp OFFSET(12) NUMBITS(2) [],
        /// RESUME.
        STAG OFFSET(0) NUMBITS(16) [],
        /// SYNC. In place: bits 55:2 of the address.
        MSIAddress OFFSET(2) NUMBITS(54) []
    ]
}

/// Range of CMD_CFGI_STE_RANGE that makes it CMD_CFGI_ALL.
pub(super) const RANGE_ALL: u64 = 31;

type Word0 = FieldValue<u64, CMD0::Register>;
type Word1 = FieldValue<u64, CMD1::Register>;

impl Command {
    /// The command's opcode.
    #[must_use]
    #[inline]
    pub const fn opcode(&self) -> Opcode {
        match self {
            Self::PrefetchConfig { .. } => Opcode::PrefetchConfig,
            Self::CfgiSte { .. } => Opcode::CfgiSte,
            Self::CfgiSteRange { .. } | Self::CfgiAll => Opcode::CfgiSteRange,
            Self::CfgiCd { .. } => Opcode::CfgiCd,
            Self::CfgiCdAll { .. } => Opcode::CfgiCdAll,
            Self::TlbiNhAll { .. } => Opcode::TlbiNhAll,
            Self::TlbiNhAsid { .. } => Opcode::TlbiNhAsid,
            Self::TlbiNhVa { .. } => Opcode::TlbiNhVa,
            Self::TlbiNhVaa { .. } => Opcode::TlbiNhVaa,
            Self::TlbiEl2All => Opcode::TlbiEl2All,
            Self::TlbiEl2Asid { .. } => Opcode::TlbiEl2Asid,
            Self::TlbiEl2Va { .. } => Opcode::TlbiEl2Va,
            Self::TlbiEl2Vaa { .. } => Opcode::TlbiEl2Vaa,
            Self::TlbiS12Vmall { .. } => Opcode::TlbiS12Vmall,
            Self::TlbiS2Ipa { .. } => Opcode::TlbiS2Ipa,
            Self::TlbiNsnhAll => Opcode::TlbiNsnhAll,
            Self::AtcInv { .. } => Opcode::AtcInv,
            Self::PriResp { .. } => Opcode::PriResp,
            Self::Resume { .. } => Opcode::Resume,
            Self::StallTerm { .. } => Opcode::StallTerm,
            Self::Sync { .. } => Opcode::Sync,
        }
    }

    /// The two words of the command, lowest first.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u64; 2] {
        let (word0, word1) = self.operands();
        [(CMD0::Opcode.val(self.opcode() as u64) + word0).value, word1.value]
    }

    /// All but the opcode. Who sends a command knows which one, and needs one arm of this only.
    #[inline(always)]
    fn operands(&self) -> (Word0, Word1) {
        let none = Word1::none();
        match *self {
            Self::PrefetchConfig { stream, substream } => (stream_operand(stream) + ssv_operand(substream), none),
            Self::CfgiSte { stream, leaf } => (stream_operand(stream), CMD1::Leaf.val(leaf.into())),
            Self::CfgiSteRange { stream, range } => (stream_operand(stream), CMD1::Range.val(range.into())),
            Self::CfgiAll => (Word0::none(), CMD1::Range.val(RANGE_ALL)),
            Self::CfgiCd { stream, substream, leaf } => {
                let index = CMD0::SubstreamID.val(substream.get().into());
                (stream_operand(stream) + index, CMD1::Leaf.val(leaf.into()))
            }
            Self::CfgiCdAll { stream } | Self::StallTerm { stream } => (stream_operand(stream), none),
            Self::TlbiNhAll { vmid } | Self::TlbiS12Vmall { vmid } => (vmid_operand(vmid), none),
            Self::TlbiNhAsid { vmid, asid } => (vmid_operand(vmid) + asid_operand(asid), none),
            Self::TlbiNhVa { vmid, asid, scope } => with_address(vmid_operand(vmid) + asid_operand(asid), scope),
            Self::TlbiNhVaa { vmid, scope } => with_address(vmid_operand(vmid), scope),
            Self::TlbiEl2All | Self::TlbiNsnhAll => (Word0::none(), none),
            Self::TlbiEl2Asid { asid } => (asid_operand(asid), none),
            Self::TlbiEl2Va { asid, scope } => with_address(asid_operand(asid), scope),
            Self::TlbiEl2Vaa { scope } => with_address(Word0::none(), scope),
            Self::TlbiS2Ipa { vmid, scope } => {
                let (word0, rest) = with_hints(vmid_operand(vmid), scope);
                (word0, rest + CMD1::IPA.val(scope.address.get() >> 12))
            }
            Self::AtcInv { stream, substream, global, span } => (
                stream_operand(stream) + ssv_operand(substream) + CMD0::Global.val(global.into()),
                CMD1::Address.val(span.address().get() >> 12) + CMD1::Size.val(span.log2_pages().into()),
            ),
            Self::PriResp { stream, substream, group, response } => (
                stream_operand(stream) + ssv_operand(substream),
                CMD1::PRGIndex.val(group.into()) + CMD1::Resp.val(response as u64),
            ),
            Self::Resume { stream, stag, action } => {
                (stream_operand(stream) + CMD0::Action.val(action as u64), CMD1::STAG.val(stag.get().into()))
            }
            Self::Sync { completion } => sync_operands(completion),
        }
    }
}

fn stream_operand(stream: StreamId) -> Word0 {
    CMD0::StreamID.val(stream.get().into())
}

fn ssv_operand(substream: Option<SubstreamId>) -> Word0 {
    substream.map_or(Word0::none(), |substream| CMD0::SSV::SET + CMD0::SubstreamID.val(substream.get().into()))
}

fn vmid_operand(vmid: Vmid) -> Word0 {
    CMD0::VMID.val(vmid.get().into())
}

fn asid_operand(asid: Asid) -> Word0 {
    CMD0::ASID.val(asid.get().into())
}

/// Adds a virtual address and what goes with it.
#[inline]
fn with_address(word0: Word0, scope: TlbiAddress) -> (Word0, Word1) {
    let (word0, rest) = with_hints(word0, scope);
    (word0, rest + CMD1::Address.val(scope.address.get() >> 12))
}

/// Adds the leaf and range operands. Without a range TG is 0, and NUM, SCALE and TTL with it.
#[inline]
fn with_hints(word0: Word0, scope: TlbiAddress) -> (Word0, Word1) {
    let leaf = CMD1::Leaf.val(scope.leaf.into());
    match scope.range {
        None => (word0, leaf),
        Some(range) => (
            word0 + CMD0::NUM.val(range.num.into()) + CMD0::SCALE.val(range.scale.into()),
            leaf + CMD1::TG.val(range.granule.tlbi_tg()) + CMD1::TTL.val(range.ttl.into()),
        ),
    }
}

fn sync_operands(completion: Completion) -> (Word0, Word1) {
    match completion {
        Completion::None => (CMD0::CS::None, Word1::none()),
        Completion::Interrupt => (CMD0::CS::Irq, Word1::none()),
        Completion::Event => (CMD0::CS::Sev, Word1::none()),
        Completion::Msi { address, data, memory, shareability } => (
            CMD0::CS::Irq
                + CMD0::MSH.val(shareability.code())
                + CMD0::MSIAttr.val(memory.code().into())
                + CMD0::MSIData.val(data.into()),
            CMD1::MSIAddress.val(address.get() >> 2),
        ),
    }
}

//! Words as commands: what somebody else wrote into a queue, so nothing in them is trusted.

use tock_registers::LocalRegisterCopy;

use super::encode::{CMD0, CMD1, RANGE_ALL};
use super::{Command, Completion, IllegalCommand, Opcode, PriResponse, ResumeAction, TlbiAddress, TlbiRange};
use crate::addr::{Asid, Iova, PhysAddr, StreamId, SubstreamId, Vmid};
use crate::arch::attributes::{Granule, MemAttr, Shareability};
use crate::arch::event::Stag;
use crate::arch::range::AtcSpan;

/// CMD_ATC_INV.Size of the whole address space.
const SIZE_ALL: u64 = 52;

/// The words of a command.
#[derive(Clone, Copy)]
struct Words {
    opcode: Opcode,
    word0: LocalRegisterCopy<u64, CMD0::Register>,
    word1: LocalRegisterCopy<u64, CMD1::Register>,
}

impl Command {
    /// The command that two words mean. Bits that it does not define count for nothing; nor, without `range_invalidation`
    /// (IDR3.RIL), do the operands of ranges.
    ///
    /// What comes out encodes to the same words, less those bits.
    ///
    /// # Errors
    ///
    /// [`IllegalCommand`] for what would stop the queue of an SMMU with all features (CERROR_ILL).
    pub fn decode(words: [u64; 2], range_invalidation: bool) -> Result<Self, IllegalCommand> {
        let [word0, word1] = words;
        let opcode = Opcode::of(words).ok_or(IllegalCommand::Opcode { number: word0 as u8 })?;
        let words = Words { opcode, word0: LocalRegisterCopy::new(word0), word1: LocalRegisterCopy::new(word1) };
        if words.word0.is_set(CMD0::SSec) {
            return Err(words.illegal("SSec"));
        }
        let stream = StreamId::new(words.word0.read(CMD0::StreamID) as u32);
        let vmid = Vmid::new(words.word0.read(CMD0::VMID) as u16);
        let asid = Asid::new(words.word0.read(CMD0::ASID) as u16);
        let leaf = words.word1.is_set(CMD1::Leaf);
        let address = || Iova::new(words.word1.read(CMD1::Address) << 12);
        let scope = || words.scope(address(), range_invalidation);
        Ok(match opcode {
            Opcode::PrefetchConfig => Self::PrefetchConfig { stream, substream: words.substream() },
            Opcode::CfgiSte => Self::CfgiSte { stream, leaf },
            Opcode::CfgiSteRange => match words.word1.read(CMD1::Range) {
                RANGE_ALL => Self::CfgiAll,
                range => Self::CfgiSteRange { stream, range: range as u8 },
            },
            Opcode::CfgiCd => Self::CfgiCd { stream, substream: words.index(), leaf },
            Opcode::CfgiCdAll => Self::CfgiCdAll { stream },
            Opcode::TlbiNhAll => Self::TlbiNhAll { vmid },
            Opcode::TlbiNhAsid => Self::TlbiNhAsid { vmid, asid },
            Opcode::TlbiNhVa => Self::TlbiNhVa { vmid, asid, scope: scope()? },
            Opcode::TlbiNhVaa => Self::TlbiNhVaa { vmid, scope: scope()? },
            Opcode::TlbiEl2All => Self::TlbiEl2All,
            Opcode::TlbiEl2Asid => Self::TlbiEl2Asid { asid },
            Opcode::TlbiEl2Va => Self::TlbiEl2Va { asid, scope: scope()? },
            Opcode::TlbiEl2Vaa => Self::TlbiEl2Vaa { scope: scope()? },
            Opcode::TlbiS12Vmall => Self::TlbiS12Vmall { vmid },
            Opcode::TlbiS2Ipa => {
                let ipa = Iova::new(words.word1.read(CMD1::IPA) << 12);
                Self::TlbiS2Ipa { vmid, scope: words.scope(ipa, range_invalidation)? }
            }
            Opcode::TlbiNsnhAll => Self::TlbiNsnhAll,
            Opcode::AtcInv => {
                let (substream, global) = (words.substream(), words.word0.is_set(CMD0::Global));
                Self::AtcInv { stream, substream, global, span: words.span(address())? }
            }
            Opcode::PriResp => {
                let group = words.word1.read(CMD1::PRGIndex) as u16;
                Self::PriResp { stream, substream: words.substream(), group, response: words.response()? }
            }
            Opcode::Resume => {
                let stag = Stag::new(words.word1.read(CMD1::STAG) as u16);
                Self::Resume { stream, stag, action: words.action() }
            }
            Opcode::StallTerm => Self::StallTerm { stream },
            Opcode::Sync => Self::Sync { completion: words.completion()? },
        })
    }
}

impl Words {
    const fn illegal(&self, field: &'static str) -> IllegalCommand {
        IllegalCommand::Operand { opcode: self.opcode, field }
    }

    fn index(&self) -> SubstreamId {
        SubstreamId::new(self.word0.read(CMD0::SubstreamID) as u32)
    }

    fn substream(&self) -> Option<SubstreamId> {
        self.word0.is_set(CMD0::SSV).then(|| self.index())
    }

    fn scope(&self, address: Iova, ranges: bool) -> Result<TlbiAddress, IllegalCommand> {
        let leaf = self.word1.is_set(CMD1::Leaf);
        let granule = match self.word1.read(CMD1::TG) {
            1 if ranges => Granule::K4,
            2 if ranges => Granule::K16,
            3 if ranges => Granule::K64,
            _ => return Ok(TlbiAddress { address, leaf, range: None }),
        };
        let (num, scale) = (self.word0.read(CMD0::NUM) as u8, self.word0.read(CMD0::SCALE) as u8);
        let ttl = match self.word1.read(CMD1::TTL) as u8 {
            // There are level-1 blocks of 16 KiB granules only with IDR5.DS: the hint counts for nothing.
            1 if granule == Granule::K16 => 0,
            ttl => ttl,
        };
        if (num, scale, ttl) == (0, 0, 0) {
            return Err(self.illegal("TG with NUM, SCALE and TTL all 0"));
        }
        Ok(TlbiAddress { address, leaf, range: Some(TlbiRange { granule, num, scale, ttl }) })
    }

    fn span(&self, address: Iova) -> Result<AtcSpan, IllegalCommand> {
        match self.word1.read(CMD1::Size) {
            size @ 0..SIZE_ALL => {
                let size_bytes = 4096 << size;
                Ok(AtcSpan::around(address.align_down(size_bytes), size_bytes))
            }
            SIZE_ALL => Ok(AtcSpan::ALL),
            _ => Err(self.illegal("Size")),
        }
    }

    fn response(&self) -> Result<PriResponse, IllegalCommand> {
        match self.word1.read(CMD1::Resp) {
            0 => Ok(PriResponse::Failure),
            1 => Ok(PriResponse::Invalid),
            2 => Ok(PriResponse::Success),
            _ => Err(self.illegal("Resp")),
        }
    }

    /// Ab does not count where Ac is 1.
    fn action(&self) -> ResumeAction {
        match self.word0.read(CMD0::Action) {
            0 => ResumeAction::Terminate,
            2 => ResumeAction::Abort,
            _ => ResumeAction::Retry,
        }
    }

    fn completion(&self) -> Result<Completion, IllegalCommand> {
        let address = PhysAddr::new(self.word1.read(CMD1::MSIAddress) << 2);
        match self.word0.read(CMD0::CS) {
            0 => Ok(Completion::None),
            1 if address.get() == 0 => Ok(Completion::Interrupt),
            1 => Ok(Completion::Msi {
                address,
                data: self.word0.read(CMD0::MSIData) as u32,
                memory: MemAttr::from_code(self.word0.read(CMD0::MSIAttr) as u8),
                shareability: Shareability::from_code(self.word0.read(CMD0::MSH)),
            }),
            2 => Ok(Completion::Event),
            _ => Err(self.illegal("CS")),
        }
    }
}

//! A guest's commands, one by one: which are legal, and what they mean to the SMMU behind them.

use super::CommandRefusal;
use crate::addr::{Asid, StreamId, Vmid};
use crate::arch::attributes::Granule;
use crate::arch::command::{Command, Completion, IllegalCommand, TlbiAddress, TlbiRange};
use crate::device::Features;

/// CMD_PREFETCH_ADDR, a hint that this crate has no use for.
const PREFETCH_ADDR: u64 = 0x02;
/// The level of pages.
const LAST_LEVEL: u8 = 3;

/// What is to be done for a guest's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Nothing.
    None,
    /// This is sent, with the guest's VMID in it.
    Send(Command),
    /// This is sent if the stream, which is by the guest's number, exists: with the SMMU's number in it.
    SendFor(StreamId, Command),
    /// The entries of the guest's streams from the first to the last have changed.
    Reload(StreamId, StreamId),
    /// All before it is to be complete.
    Sync(Completion),
}

impl Request {
    /// Checks a command of the guest whose VMID this is.
    pub(super) fn new(features: &Features, vmid: Vmid, words: [u64; 2]) -> Result<Self, CommandRefusal> {
        if words[0] & 0xff == PREFETCH_ADDR {
            return Ok(Self::None);
        }
        let command = Command::decode(words, features.range_invalidation()).map_err(CommandRefusal::Illegal)?;
        let opcode = command.opcode();
        let only_if = |there: bool| if there { Ok(()) } else { Err(CommandRefusal::Forbidden { opcode }) };
        let check_asid = |asid: Asid| match asid.get() >> (features.asid_bits() - 1) >> 1 {
            0 => Ok(()),
            _ => Err(CommandRefusal::Illegal(IllegalCommand::Operand { opcode, field: "ASID" })),
        };
        Ok(match command {
            Command::PrefetchConfig { .. } => Self::None,
            Command::Sync { completion } => Self::Sync(completion),
            Command::CfgiSte { stream, .. } => Self::Reload(stream, stream),
            Command::CfgiSteRange { stream, range } => {
                let low_bits = u32::MAX >> (31 - u32::from(range.min(31)));
                Self::Reload(StreamId::new(stream.get() & !low_bits), StreamId::new(stream.get() | low_bits))
            }
            Command::CfgiAll => Self::Reload(StreamId::new(0), StreamId::new(u32::MAX)),
            Command::CfgiCd { stream, .. } | Command::CfgiCdAll { stream } => {
                only_if(features.stage1())?;
                Self::SendFor(stream, command)
            }
            // The guest has no other translations than those of its stage 1, whatever it calls them.
            Command::TlbiNhAll { .. } | Command::TlbiNsnhAll => {
                only_if(features.stage1())?;
                Self::Send(Command::TlbiNhAll { vmid })
            }
            Command::TlbiNhAsid { asid, .. } => {
                only_if(features.stage1())?;
                check_asid(asid)?;
                Self::Send(Command::TlbiNhAsid { vmid, asid })
            }
            Command::TlbiNhVa { asid, scope, .. } => {
                only_if(features.stage1())?;
                check_asid(asid)?;
                Self::Send(Command::TlbiNhVa { vmid, asid, scope: aligned(scope) })
            }
            Command::TlbiNhVaa { scope, .. } => {
                only_if(features.stage1())?;
                Self::Send(Command::TlbiNhVaa { vmid, scope: aligned(scope) })
            }
            Command::AtcInv { stream, substream, global, span } => {
                only_if(features.ats())?;
                let substream = substream.filter(|_| features.substream_id_bits() != 0);
                let global = global && substream.is_some();
                Self::SendFor(stream, Command::AtcInv { stream, substream, global, span })
            }
            Command::PriResp { stream, substream, group, response } => {
                only_if(features.page_requests())?;
                let substream = substream.filter(|_| features.substream_id_bits() != 0);
                Self::SendFor(stream, Command::PriResp { stream, substream, group, response })
            }
            Command::Resume { stream, .. } | Command::StallTerm { stream } => {
                only_if(features.stalls())?;
                Self::SendFor(stream, command)
            }
            Command::TlbiEl2All
            | Command::TlbiEl2Asid { .. }
            | Command::TlbiEl2Va { .. }
            | Command::TlbiEl2Vaa { .. }
            | Command::TlbiS12Vmall { .. }
            | Command::TlbiS2Ipa { .. } => return Err(CommandRefusal::Forbidden { opcode }),
        })
    }
}

/// The same command for a stream of the SMMU's.
pub(super) fn for_stream(command: Command, stream: StreamId) -> Command {
    match command {
        Command::CfgiCd { substream, leaf, .. } => Command::CfgiCd { stream, substream, leaf },
        Command::CfgiCdAll { .. } => Command::CfgiCdAll { stream },
        Command::AtcInv { substream, global, span, .. } => Command::AtcInv { stream, substream, global, span },
        Command::PriResp { substream, group, response, .. } => Command::PriResp { stream, substream, group, response },
        Command::Resume { stag, action, .. } => Command::Resume { stream, stag, action },
        Command::StallTerm { .. } => Command::StallTerm { stream },
        other => other,
    }
}

/// The same addresses as the SMMU wants to have them. What a range means whose address is not aligned to a leaf of its level,
/// nobody knows (IHI 0070, 4.4.1.1): here it begins with the page that the address is in, and has no level.
fn aligned(scope: TlbiAddress) -> TlbiAddress {
    let Some(range) = scope.range else { return scope };
    let TlbiRange { granule, num, scale, ttl } = range;
    if scope.address.is_aligned(leaf_bytes(granule, ttl)) {
        return scope;
    }
    // One page without a level would be illegal.
    let range = (num != 0 || scale != 0).then_some(TlbiRange { ttl: 0, ..range });
    TlbiAddress { address: scope.address.align_down(granule.bytes()), range, ..scope }
}

/// What the address is aligned to where the level is `ttl`.
fn leaf_bytes(granule: Granule, ttl: u8) -> u64 {
    let levels_up = if ttl == 0 { 0 } else { u32::from(LAST_LEVEL.saturating_sub(ttl)) };
    granule.bytes() << levels_up.saturating_mul(granule.log2_bytes() - 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Iova;

    #[test]
    fn r30_misaligned_ranges_lose_their_level() {
        let scope = |address, range| TlbiAddress { address: Iova::new(address), leaf: true, range };
        let range = |granule, num, ttl| Some(TlbiRange { granule, num, scale: 0, ttl });
        let cases = [
            (0x4020_0000, range(Granule::K4, 0, 2), 0x4020_0000, range(Granule::K4, 0, 2)),
            (0x4000_1000, range(Granule::K4, 0, 2), 0x4000_1000, None),
            (0x4000_1000, range(Granule::K4, 3, 1), 0x4000_1000, range(Granule::K4, 3, 0)),
            (0x4000_1000, range(Granule::K4, 3, 0), 0x4000_1000, range(Granule::K4, 3, 0)),
            (0x4000_5000, range(Granule::K16, 1, 3), 0x4000_4000, range(Granule::K16, 1, 0)),
            (0x4001_8000, range(Granule::K64, 1, 0), 0x4001_0000, range(Granule::K64, 1, 0)),
            (0x4001_8000, None, 0x4001_8000, None),
        ];
        for (address, asked, start, sent) in cases {
            assert_eq!(aligned(scope(address, asked)), scope(start, sent));
        }
    }
}

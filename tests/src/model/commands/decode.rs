//! From two words to a command (IHI 0070, 4.1 to 4.7).

use super::super::bits::{bit, bits};
use super::super::config::Config;
use super::{Opcode, Tlbi};

/// A command, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Command {
    Prefetch,
    /// The entries of StreamIDs `first` to `last`, and first-level descriptors if not `leaf`.
    CfgiSte {
        first: u32,
        last: u32,
        leaf: bool,
    },
    CfgiCd {
        stream: u32,
        substream: u32,
        leaf: bool,
    },
    CfgiCdAll {
        stream: u32,
    },
    Tlbi(Tlbi),
    AtcInv {
        stream: u32,
        substream: Option<u32>,
        global: bool,
        first: u64,
        last: u64,
    },
    PriResp {
        stream: u32,
        substream: Option<u32>,
        group: u16,
        response: u8,
    },
    Resume {
        stream: u32,
        tag: u16,
        retry: bool,
        abort: bool,
    },
    StallTerm {
        stream: u32,
    },
    Sync {
        signal: u64,
        message_address: u64,
        message: u32,
    },
}

impl Command {
    /// Decodes a command. `Err` says why it is illegal (CERROR_ILL).
    pub(super) fn decode(words: [u64; 2], config: &Config, vmid_wildcard: u32) -> Result<Self, String> {
        let [first, second] = words;
        let opcode = Opcode::new(bits(first, 7, 0));
        if let Some(lacks) = opcode.lacks(config) {
            return Err(format!("{opcode:?}: the SMMU has not got {lacks}"));
        }
        let [defined_first, defined_second] = opcode.defined(config);
        if first & !defined_first != 0 || second & !defined_second != 0 {
            return Err(format!("{opcode:?}: reserved bits are set in {first:#018x} {second:#018x}"));
        }
        let stream = bits(first, 63, 32) as u32;
        let substream = bits(first, 31, 12) as u32;
        let optional_substream = bit(first, 11).then_some(substream);
        check_identifiers(opcode, words, config)?;
        Ok(match opcode {
            Opcode::PrefetchConfig | Opcode::PrefetchAddr => Self::Prefetch,
            Opcode::CfgiSte => Self::CfgiSte { first: stream, last: stream, leaf: bit(second, 0) },
            Opcode::CfgiSteRange => {
                let below = u32::MAX >> (31 - bits(second, 4, 0));
                Self::CfgiSte { first: stream & !below, last: stream | below, leaf: false }
            }
            Opcode::CfgiCd => Self::CfgiCd { stream, substream, leaf: bit(second, 0) },
            Opcode::CfgiCdAll => Self::CfgiCdAll { stream },
            Opcode::AtcInv => {
                let size = bits(second, 5, 0);
                if size > 52 {
                    return Err(format!("{opcode:?}: Size {size} is more than 52"));
                }
                let below = if size == 52 { u64::MAX } else { (1 << (size + 12)) - 1 };
                let start = second & !0xfff & !below;
                let global = bit(first, 9);
                Self::AtcInv { stream, substream: optional_substream, global, first: start, last: start | below }
            }
            Opcode::PriResp => {
                let response = bits(second, 13, 12) as u8;
                if response == 3 {
                    return Err(format!("{opcode:?}: Resp 3 is reserved"));
                }
                Self::PriResp { stream, substream: optional_substream, group: bits(second, 8, 0) as u16, response }
            }
            Opcode::Resume => {
                let tag = bits(second, 15, 0) as u16;
                Self::Resume { stream, tag, retry: bit(first, 12), abort: bit(first, 13) }
            }
            Opcode::StallTerm => Self::StallTerm { stream },
            Opcode::Sync => {
                let signal = bits(first, 13, 12);
                if signal == 3 {
                    return Err(format!("{opcode:?}: CS 3 is reserved"));
                }
                Self::Sync { signal, message_address: second & !0b11, message: bits(first, 63, 32) as u32 }
            }
            _ => Self::Tlbi(Tlbi::decode(opcode, words, config, vmid_wildcard)?),
        })
    }
}

/// Whether the StreamID, VMID and ASID of a command are as wide as the SMMU's.
fn check_identifiers(opcode: Opcode, [first, _]: [u64; 2], config: &Config) -> Result<(), String> {
    let stream = bits(first, 63, 32);
    if opcode.is_tlbi() {
        let vmid_bits = if !config.s2p { 0 } else { 8 << u32::from(config.vmid16) };
        let asid_bits = 8 << u32::from(config.asid16);
        let (vmid, asid) = (bits(first, 47, 32), bits(first, 63, 48));
        if vmid >> vmid_bits != 0 || asid >> asid_bits != 0 {
            return Err(format!("{opcode:?}: VMID {vmid:#x} or ASID {asid:#x} is wider than the SMMU's"));
        }
    } else if opcode != Opcode::Sync && opcode != Opcode::CfgiSteRange && stream >> config.sidsize != 0 {
        return Err(format!("{opcode:?}: StreamID {stream:#x} is wider than {} bits", config.sidsize));
    }
    Ok(())
}

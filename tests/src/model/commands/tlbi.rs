//! What a TLB invalidation covers (IHI 0070, 4.4).

use super::super::bits::{bit, bits};
use super::super::config::Config;
use super::super::structures::World;
use super::Opcode;

/// Which entries a TLB invalidation drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Tlbi {
    pub(in super::super) stage: TlbiStage,
    /// Whose entries, or everybody's. Without stage 2 there are no VMIDs.
    pub(in super::super) vmid: Option<u16>,
    /// How many low bits of the VMID do not count (CR0.VMW).
    pub(in super::super) vmid_wildcard: u32,
    /// Only this address space, and global entries if there is a scope.
    pub(in super::super) asid: Option<u16>,
    pub(in super::super) scope: Option<TlbiScope>,
}

/// Which stage's entries, in which world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum TlbiStage {
    /// Stage 1, and stage 1 combined with stage 2.
    Stage1(World),
    /// Stage 2 alone: combined entries stay.
    Stage2,
    /// All of EL1.
    Both,
}

/// A range of addresses, and which entries in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct TlbiScope {
    pub(in super::super) first: u64,
    /// The last address, this one included.
    pub(in super::super) last: u64,
    /// Leaves only; table entries stay.
    pub(in super::super) leaf: bool,
    /// TTL: leaves of this level only, and tables above it.
    pub(in super::super) level: Option<i8>,
}

impl Tlbi {
    /// Decodes a command that [`Opcode::is_tlbi`]; `Err` says why it is illegal.
    pub(super) fn decode(opcode: Opcode, words: [u64; 2], config: &Config, wildcard: u32) -> Result<Self, String> {
        let vmid = Some(bits(words[0], 47, 32) as u16).filter(|_| config.s2p);
        let asid = Some(bits(words[0], 63, 48) as u16);
        let el1 = TlbiStage::Stage1(World::El1);
        let el2 = TlbiStage::Stage1(World::El2);
        let all = Self { stage: TlbiStage::Both, vmid: None, vmid_wildcard: wildcard, asid: None, scope: None };
        let scope = || TlbiScope::decode(words, config).map(Some);
        Ok(match opcode {
            Opcode::TlbiNhAll => Self { stage: el1, vmid, ..all },
            Opcode::TlbiNhAsid => Self { stage: el1, vmid, asid, ..all },
            Opcode::TlbiNhVa => Self { stage: el1, vmid, asid, scope: scope()?, ..all },
            Opcode::TlbiNhVaa => Self { stage: el1, vmid, scope: scope()?, ..all },
            Opcode::TlbiEl2All => Self { stage: el2, ..all },
            Opcode::TlbiEl2Asid => Self { stage: el2, asid, ..all },
            Opcode::TlbiEl2Va => Self { stage: el2, asid, scope: scope()?, ..all },
            Opcode::TlbiEl2Vaa => Self { stage: el2, scope: scope()?, ..all },
            Opcode::TlbiS12Vmall => Self { vmid, ..all },
            Opcode::TlbiS2Ipa => Self { stage: TlbiStage::Stage2, vmid, scope: scope()?, ..all },
            _ => all,
        })
    }
}

impl TlbiScope {
    fn decode([first, second]: [u64; 2], config: &Config) -> Result<Self, String> {
        let address = second & !0xfff;
        let leaf = bit(second, 0);
        let tg = bits(second, 11, 10);
        if !config.ril || tg == 0 {
            return Ok(Self { first: address, last: address, leaf, level: None });
        }
        let granule = [12, 14, 16][tg as usize - 1];
        let (num, scale) = (bits(first, 16, 12), bits(first, 24, 20));
        let ttl = match bits(second, 9, 8) {
            // 16 KiB tables have no level-1 blocks without 52-bit addresses: the hint counts for nothing.
            1 if granule == 14 => 0,
            ttl => ttl,
        };
        if num == 0 && scale == 0 && ttl == 0 {
            return Err("TG with NUM, SCALE and TTL all 0".into());
        }
        // A page of 16 or 64 KiB, or a block of the level that TTL names.
        let entry_bits = granule + (granule - 3) * if ttl == 0 { 0 } else { 3 - ttl };
        if address & ((1 << entry_bits) - 1) != 0 {
            return Err(format!("address {address:#x} is not aligned to 2^{entry_bits} bytes as TG and TTL ask for"));
        }
        let bytes = u128::from(num + 1) << (scale.min(39) + granule);
        let last = u128::from(address) + bytes - 1;
        let last = u64::try_from(last).unwrap_or(u64::MAX);
        Ok(Self { first: address, last, leaf, level: Some(ttl as i8).filter(|&level| level != 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NUM, SCALE, TTL and TG of one range command with a granule of 4 KiB.
    fn scope(num: u64, scale: u64, ttl: u64, address: u64) -> Result<TlbiScope, String> {
        TlbiScope::decode([num << 12 | scale << 20, address | 1 << 10 | ttl << 8 | 1], &Config::qemu())
    }

    #[test]
    fn ranges_are_num_plus_one_times_two_to_the_scale() {
        assert_eq!(scope(0, 0, 3, 0x5000).unwrap().last, 0x5fff);
        assert_eq!(scope(0, 9, 3, 0x20_0000).unwrap().last, 0x3f_ffff);
        assert_eq!(scope(0, 5, 0, 0x1000).unwrap().last, 0x2_0fff);
    }

    #[test]
    fn the_forbidden_tuple_and_misaligned_blocks_are_illegal() {
        assert!(scope(0, 0, 0, 0x5000).is_err());
        assert!(scope(0, 9, 2, 0x1000).is_err());
    }
}

//! Context descriptors (IHI 0070, 5.4).

use super::super::bits::{field, flag, mask};
use super::super::config::{Config, address_bits, most_address_bits};
use super::ste::first;
use super::{Ste, World};

/// Which half of the address space: TTB0's, at the bottom, or TTB1's, at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Half {
    Lower,
    Upper,
}

/// A context descriptor. Fields are given by their bits in the whole descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Cd(pub(in super::super) [u64; 8]);

impl Cd {
    fn field(&self, high: usize, low: usize) -> u64 {
        field(&self.0, high, low)
    }

    fn flag(&self, position: usize) -> bool {
        flag(&self.0, position)
    }

    pub(in super::super) fn valid(&self) -> bool {
        self.flag(31)
    }

    pub(in super::super) fn tsz(&self, half: Half) -> u32 {
        match half {
            Half::Lower => self.field(5, 0) as u32,
            Half::Upper => self.field(21, 16) as u32,
        }
    }

    /// log2 of the granule, if TGx is not reserved. TG0 and TG1 have different codes.
    pub(in super::super) fn granule(&self, half: Half) -> Option<u32> {
        match half {
            Half::Lower => [Some(12), Some(16), Some(14), None][self.field(7, 6) as usize],
            Half::Upper => [None, Some(14), Some(12), Some(16)][self.field(23, 22) as usize],
        }
    }

    /// IRx, ORx, SHx in CR1's order: how tables are walked.
    pub(in super::super) fn walk_attributes(&self, half: Half) -> u32 {
        match half {
            Half::Lower => self.field(13, 8) as u32,
            Half::Upper => self.field(29, 24) as u32,
        }
    }

    /// EPDx: no walks in this half. There is only the lower one in EL2 (without E2H), and it cannot be disabled.
    pub(in super::super) fn disabled(&self, half: Half, two_halves: bool) -> bool {
        match half {
            Half::Lower => two_halves && self.flag(14),
            Half::Upper => !two_halves || self.flag(30),
        }
    }

    pub(in super::super) fn output_bits(&self, config: &Config) -> u32 {
        address_bits(self.field(34, 32)).min(config.oas_bits())
    }

    pub(in super::super) fn affd(&self) -> bool {
        self.flag(35)
    }

    pub(in super::super) fn wxn(&self) -> bool {
        self.flag(36)
    }

    pub(in super::super) fn tbi(&self, half: Half) -> bool {
        self.flag(if half == Half::Lower { 38 } else { 39 })
    }

    pub(in super::super) fn pan(&self) -> bool {
        self.flag(40)
    }

    pub(in super::super) fn aa64(&self) -> bool {
        self.flag(41)
    }

    pub(in super::super) fn hd(&self) -> bool {
        self.flag(42)
    }

    pub(in super::super) fn ha(&self) -> bool {
        self.flag(43)
    }

    /// S: faults stall.
    pub(in super::super) fn stalls(&self) -> bool {
        self.flag(44)
    }

    /// R: faults are recorded.
    pub(in super::super) fn records(&self) -> bool {
        self.flag(45)
    }

    /// A: faults abort; otherwise they read as zero and write nothing.
    pub(in super::super) fn aborts(&self) -> bool {
        self.flag(46)
    }

    pub(in super::super) fn aset(&self) -> bool {
        self.flag(47)
    }

    pub(in super::super) fn asid(&self) -> u16 {
        self.field(63, 48) as u16
    }

    /// HADx: attributes in table descriptors do not count.
    pub(in super::super) fn had(&self, half: Half) -> bool {
        self.flag(if half == Half::Lower { 65 } else { 129 })
    }

    pub(in super::super) fn e0pd(&self, half: Half) -> bool {
        self.flag(if half == Half::Lower { 66 } else { 130 })
    }

    pub(in super::super) fn ttb(&self, half: Half) -> u64 {
        self.0[if half == Half::Lower { 1 } else { 2 }] & mask(51, 4)
    }

    /// Why the descriptor is ILLEGAL for a stream (IHI 0070, 5.4.2), if it is.
    pub(in super::super) fn illegal(&self, ste: &Ste, config: &Config, e2h: bool) -> Option<&'static str> {
        let world = ste.world(config);
        let two_halves = world == World::El1 || e2h;
        let halves = [Half::Lower, Half::Upper].into_iter().filter(|&half| !self.disabled(half, two_halves));
        let endianness = if self.flag(15) { 2 } else { 3 };
        let stall = self.stalls();
        let nested32 = ste.config().stage2() && !ste.s2aa64();
        first(&[
            (!self.valid(), "V is 0"),
            (ste.s1stalld() && stall, "S although the STE says S1STALLD"),
            (config.term_model && !self.aborts(), "A is 0 although faults always abort (TERM_MODEL)"),
            (config.stall_model == 1 && stall, "S although nothing stalls (STALL_MODEL)"),
            (config.stall_model == 2 && !stall, "S is 0 although everything stalls (STALL_MODEL)"),
            (halves.clone().next().is_some() && config.ttendian == endianness, "ENDI is not supported"),
            (!self.aa64() && (config.ttf & 1 == 0 || world == World::El2), "AA64 is 0: no AArch32 tables here"),
            (self.aa64() && (config.ttf & 2 == 0 || nested32), "AA64 is 1: no AArch64 tables here"),
            ((self.ha() || self.hd()) && config.httu == 0, "HA or HD without HTTU"),
            (self.hd() && config.httu == 1, "HD without dirty state management"),
            (two_halves && !config.asid16 && self.asid() > 0xff, "ASID has more bits than the SMMU"),
        ])
        .or_else(|| halves.into_iter().find_map(|half| self.illegal_half(half, config)))
    }

    fn illegal_half(&self, half: Half, config: &Config) -> Option<&'static str> {
        let granule = self.granule(half);
        let implemented = match granule {
            Some(12) => config.gran4k,
            Some(14) => config.gran16k,
            Some(16) => config.gran64k,
            _ => false,
        };
        let largest = match (config.stt, granule) {
            (false, _) => 39,
            (true, Some(16)) => 47,
            (true, _) => 48,
        };
        let smallest = if config.vax == 1 && granule == Some(16) { 12 } else { 16 };
        let output_bits = self.output_bits(config).min(granule.map_or(48, most_address_bits));
        first(&[
            (!(smallest..=largest).contains(&self.tsz(half)), "TxSZ is out of range"),
            (!implemented, "TGx is reserved or not implemented"),
            (self.ttb(half) >> output_bits != 0, "TTBx is out of range"),
        ])
    }
}

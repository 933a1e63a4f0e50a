//! Which bits of a stream table entry count (IHI 0070, 5.2.1).

use super::entry::{STE0, STE1, STE2, STE3};
use super::{Config, S1Dss, StreamTableEntry};
use crate::arch::entry_update::Entry;

/// Fields, as masks of words 0 to 3.
type Fields = [u64; 4];

impl Entry for StreamTableEntry {
    fn words(&self) -> [u64; 8] {
        self.words()
    }

    /// S1DSS counts only with substreams, and in a stage-1 entry SHCFG only where S1DSS lets transactions bypass stage 1.
    fn obeyed(&self) -> [u64; 8] {
        let mut obeyed = self.relevant();
        if self.is_valid() && matches!(self.config(), Config::Stage1 | Config::Nested) {
            let [_, word1, ..] = self.words();
            let [_, obeyed1, ..] = &mut obeyed;
            let substreams = self.log2_contexts() != 0;
            if !substreams {
                *obeyed1 &= !STE1::S1DSS::SET.value;
            }
            if !substreams || STE1::S1DSS.read(word1) != S1Dss::Bypass as u64 {
                *obeyed1 &= !STE1::SHCFG::SET.value;
            }
        }
        obeyed
    }

    /// EATS does not go from one kind of ATS to another but by way of none (IHI 0070, 3.9.2).
    fn may_become(&self, new: &Self) -> bool {
        let (old, new) = (self.kind_of_ats(), new.kind_of_ats());
        old == new || old == 0 || new == 0
    }

    fn relevant(&self) -> [u64; 8] {
        if !self.is_valid() {
            return [STE0::V::SET.value, 0, 0, 0, 0, 0, 0, 0];
        }
        match self.config() {
            Config::Abort => [(STE0::V::SET + STE0::Config::SET).value, STE1::CONT::SET.value, 0, 0, 0, 0, 0, 0],
            Config::Bypass => all_but(&[stage1(), stage2(), [0, STE1::EATS::SET.value, STE2::S2VMID::SET.value, 0]]),
            Config::Stage1 => all_but(&[stage2()]),
            Config::Stage2 => all_but(&[stage1()]),
            Config::Nested => all_but(&[[0, STE1::STRW::SET.value, 0, 0]]),
        }
    }
}

impl StreamTableEntry {
    /// EATS where it counts, and 0 where it does not.
    fn kind_of_ats(&self) -> u64 {
        let translates = matches!(self.config(), Config::Stage1 | Config::Stage2 | Config::Nested);
        if self.is_valid() && translates { STE1::EATS.read(self.words()[1]) } else { 0 }
    }
}

/// All bits that may count, without software's own and some fields.
fn all_but(ignored: &[Fields]) -> [u64; 8] {
    let mut bits = [u64::MAX; 8];
    for fields in ignored.iter().chain([&[0, STE1::Software::SET.value, 0, 0]]) {
        bits.iter_mut().zip(fields).for_each(|(bits, fields)| *bits &= !fields);
    }
    bits
}

/// What counts for stage 1 alone.
fn stage1() -> Fields {
    let word0 = STE0::S1Fmt::SET + STE0::S1ContextPtr::SET + STE0::S1CDMax::SET;
    let fetch = STE1::S1CIR::SET + STE1::S1COR::SET + STE1::S1CSH::SET;
    let word1 = STE1::S1DSS::SET + fetch + STE1::S1STALLD::SET + STE1::STRW::SET;
    [word0.value, word1.value, 0, 0]
}

/// What counts for stage 2 alone.
fn stage2() -> Fields {
    let shape = STE2::S2T0SZ::SET + STE2::S2SL0::SET + STE2::S2TG::SET + STE2::S2PS::SET + STE2::S2AA64::SET;
    let walk = STE2::S2IR0::SET + STE2::S2OR0::SET + STE2::S2SH0::SET + STE2::S2PTW::SET;
    let updates = STE2::S2AFFD::SET + STE2::S2HD::SET + STE2::S2HA::SET;
    let faults = STE2::S2S::SET + STE2::S2R::SET;
    [0, STE1::S2FWB::SET.value, (shape + walk + updates + faults).value, STE3::S2TTB::SET.value]
}

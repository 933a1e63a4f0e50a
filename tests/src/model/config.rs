//! What a model can do and how it behaves: identification registers, pace, caches.

use std::time::Duration;

use super::registers::offset;

/// The features of a model, field by field as IDR0 to IDR5 have them (IHI 0070, 6.3.1 to 6.3.6), and its behaviour.
///
/// Start from a preset and change what a test is about.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the identification fields have the architecture's names and meanings")]
#[allow(clippy::struct_excessive_bools, reason = "so does the hardware")]
pub struct Config {
    pub s2p: bool,
    pub s1p: bool,
    pub ttf: u32,
    pub cohacc: bool,
    pub httu: u32,
    pub hyp: bool,
    pub ats: bool,
    pub ns1ats: bool,
    pub asid16: bool,
    pub msi: bool,
    pub sev: bool,
    pub pri: bool,
    pub vmw: bool,
    pub vmid16: bool,
    pub cd2l: bool,
    pub ttendian: u32,
    pub atsrecerr: bool,
    pub stall_model: u32,
    pub term_model: bool,
    pub st_level: u32,
    pub sidsize: u32,
    pub ssidsize: u32,
    pub priqs: u32,
    pub eventqs: u32,
    pub cmdqs: u32,
    pub attr_perms_ovr: bool,
    pub attr_types_ovr: bool,
    pub had: bool,
    pub xnx: bool,
    pub pps: bool,
    pub fwb: bool,
    pub stt: bool,
    pub ril: bool,
    pub bbml: u32,
    pub e0pd: bool,
    pub oas: u32,
    pub vax: u32,
    pub gran4k: bool,
    pub gran16k: bool,
    pub gran64k: bool,
    pub stall_max: u32,
    /// AIDR's minor number: 0 for SMMUv3.0 to 4 for SMMUv3.4.
    pub minor: u32,
    /// What GBPA is after reset: 0x1000 lets everything pass.
    pub gbpa: u32,
    /// Identification registers, by offset, that read as something else than the fields say.
    pub overrides: Vec<(usize, u32)>,
    /// When things happen.
    pub pace: Pace,
    /// How many register reads or calls of `relax` it takes until CR0ACK, IRQ_CTRLACK and GBPA.Update follow.
    pub acknowledge_after: u32,
    /// What the caches keep.
    pub caching: Caching,
    /// Whether reserved and UNKNOWN fields of records hold junk.
    pub junk: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// How far one call of `Platform::relax` moves the clock.
    pub relax: Duration,
}

/// When a command is consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Within the write of CMDQ_PROD.
    Immediate,
    /// Each after so many register reads or calls of `relax`.
    After(u32),
    /// When [`Model::step`](super::Model::step) is called, on whatever thread.
    Stepped,
}

/// What the caches of configuration and translations keep. Both extremes are legal, so a driver is right under both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// All they meet, neighbours included, until a command removes it.
    Greedy,
    /// Each entry may be gone at any time: `percent` of the lookups drop what they find.
    Dropping {
        /// How many lookups of a hundred miss.
        percent: u32,
    },
    /// Nothing.
    Nothing,
}

impl Config {
    /// QEMU's SMMU with both stages: SMMUv3.1, terminates every fault, no messages, no substreams.
    #[must_use]
    pub fn qemu() -> Self {
        Self {
            s2p: true,
            s1p: true,
            ttf: 2,
            cohacc: true,
            httu: 0,
            hyp: false,
            ats: false,
            ns1ats: false,
            asid16: true,
            msi: false,
            sev: false,
            pri: false,
            vmw: false,
            vmid16: true,
            cd2l: false,
            ttendian: 2,
            atsrecerr: false,
            stall_model: 1,
            term_model: true,
            st_level: 1,
            sidsize: 16,
            ssidsize: 0,
            priqs: 0,
            eventqs: 19,
            cmdqs: 19,
            attr_perms_ovr: false,
            attr_types_ovr: false,
            had: true,
            xnx: true,
            pps: false,
            fwb: false,
            stt: false,
            ril: true,
            bbml: 2,
            e0pd: false,
            oas: 4,
            vax: 0,
            gran4k: true,
            gran16k: true,
            gran64k: true,
            stall_max: 0,
            minor: 1,
            gbpa: 0x1000,
            overrides: Vec::new(),
            pace: Pace::Immediate,
            acknowledge_after: 0,
            caching: Caching::Greedy,
            junk: false,
            seed: 1,
            relax: Duration::from_micros(20),
        }
    }

    /// The least that a driver meets: SMMUv3.0, a linear stream table, 8-bit ASIDs, no range invalidation, tables read
    /// behind the CPU's caches; and slow.
    #[must_use]
    pub fn minimal() -> Self {
        Self {
            cohacc: false,
            asid16: false,
            vmid16: false,
            ttendian: 0,
            stall_model: 0,
            term_model: false,
            st_level: 0,
            sidsize: 6,
            eventqs: 4,
            cmdqs: 3,
            had: false,
            xnx: false,
            ril: false,
            bbml: 0,
            oas: 2,
            gran16k: false,
            gran64k: false,
            stall_max: 4,
            minor: 0,
            pace: Pace::After(3),
            acknowledge_after: 5,
            junk: true,
            ..Self::qemu()
        }
    }

    /// Everything that the model knows, switched on: SMMUv3.3 with ATS, PRI, stalls, substreams, messages.
    #[must_use]
    pub fn full() -> Self {
        Self {
            httu: 2,
            hyp: true,
            ats: true,
            msi: true,
            sev: true,
            pri: true,
            vmw: true,
            cd2l: true,
            ttendian: 0,
            atsrecerr: true,
            stall_model: 0,
            term_model: false,
            sidsize: 32,
            ssidsize: 20,
            priqs: 19,
            attr_perms_ovr: true,
            attr_types_ovr: true,
            pps: true,
            fwb: true,
            stt: true,
            e0pd: true,
            oas: 5,
            stall_max: 64,
            minor: 3,
            junk: true,
            ..Self::qemu()
        }
    }

    /// The output address size in bits (IDR5.OAS).
    pub(super) fn oas_bits(&self) -> u32 {
        address_bits(self.oas.into())
    }

    /// The largest intermediate address in bits: OAS, and at least 40 where there are AArch32 tables (IHI 0070, 3.4).
    pub(super) fn ias_bits(&self) -> u32 {
        if self.ttf & 1 == 0 { self.oas_bits() } else { self.oas_bits().max(40) }
    }

    /// The identification registers, by offset.
    pub(super) fn identification(&self) -> Vec<(usize, u32)> {
        let mut registers = vec![
            (offset::IDR0, self.idr0()),
            (offset::IDR1, self.idr1()),
            (offset::IDR2, 0),
            (offset::IDR3, self.idr3()),
            (offset::IDR4, 0),
            (offset::IDR5, self.idr5()),
            (offset::IIDR, 0),
            (offset::AIDR, self.minor),
        ];
        for &(offset, value) in &self.overrides {
            match registers.iter_mut().find(|(known, _)| *known == offset) {
                Some(register) => register.1 = value,
                None => registers.push((offset, value)),
            }
        }
        registers
    }

    /// Whether a bit of an identification register is 1.
    pub(super) fn announces(&self, register: usize, bit: u32) -> bool {
        self.identification().into_iter().any(|(offset, value)| offset == register && value >> bit & 1 == 1)
    }

    fn idr0(&self) -> u32 {
        pack(&[
            (self.s2p.into(), 0),
            (self.s1p.into(), 1),
            (self.ttf, 2),
            (self.cohacc.into(), 4),
            (self.httu, 6),
            (self.hyp.into(), 9),
            (self.ats.into(), 10),
            (self.ns1ats.into(), 11),
            (self.asid16.into(), 12),
            (self.msi.into(), 13),
            (self.sev.into(), 14),
            (self.pri.into(), 16),
            (self.vmw.into(), 17),
            (self.vmid16.into(), 18),
            (self.cd2l.into(), 19),
            (self.ttendian, 21),
            (self.atsrecerr.into(), 23),
            (self.stall_model, 24),
            (self.term_model.into(), 26),
            (self.st_level, 27),
        ])
    }

    fn idr1(&self) -> u32 {
        pack(&[
            (self.sidsize, 0),
            (self.ssidsize, 6),
            (self.priqs, 11),
            (self.eventqs, 16),
            (self.cmdqs, 21),
            (self.attr_perms_ovr.into(), 26),
            (self.attr_types_ovr.into(), 27),
        ])
    }

    fn idr3(&self) -> u32 {
        pack(&[
            (self.had.into(), 2),
            (self.xnx.into(), 4),
            (self.pps.into(), 5),
            (self.fwb.into(), 8),
            (self.stt.into(), 9),
            (self.ril.into(), 10),
            (self.bbml, 11),
            (self.e0pd.into(), 13),
        ])
    }

    fn idr5(&self) -> u32 {
        pack(&[
            (self.oas, 0),
            (self.gran4k.into(), 4),
            (self.gran16k.into(), 5),
            (self.gran64k.into(), 6),
            (self.vax, 10),
            (self.stall_max, 16),
        ])
    }
}

fn pack(fields: &[(u32, u32)]) -> u32 {
    fields.iter().fold(0, |register, &(value, shift)| register | value << shift)
}

/// Address bits that a code of IDR5.OAS, CD.IPS or STE.S2PS stands for. Reserved codes mean the most: 52.
pub(super) fn address_bits(code: u64) -> u32 {
    [32, 36, 40, 42, 44, 48].get(code as usize).copied().unwrap_or(LARGE_ADDRESS_BITS)
}

/// Address bits with a granule of 64 KiB, if the SMMU has so many.
const LARGE_ADDRESS_BITS: u32 = 52;

/// The most address bits with a granule, without IDR5.DS.
pub(super) fn most_address_bits(granule: u32) -> u32 {
    if granule == 16 { LARGE_ADDRESS_BITS } else { 48 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What QEMU's SMMU reads as with both stages.
    #[test]
    fn the_qemu_preset_has_qemus_registers() {
        let config = Config::qemu();
        assert_eq!(config.idr0(), 0x0d44_101b);
        assert_eq!(config.idr1(), 0x0273_0010);
        assert_eq!(config.idr3(), 0x1414);
        assert_eq!(config.idr5(), 0x74);
    }
}

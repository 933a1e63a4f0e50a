//! What an entry says to hardware: the fields that count in it, and no others (IHI 0070, 5.2.1 and 5.4).

use std::fmt;

use super::super::bits::{field, flag};
use super::{Cd, Ste, StreamConfig};

/// A field: its name, its highest and its lowest bit, numbered through the entry.
type Field = (&'static str, usize, usize);

/// The meaning of an STE or a CD. Two entries of the same meaning cannot be told apart by any transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    configuration: &'static str,
    fields: Vec<(&'static str, u64)>,
}

/// What counts in every valid STE that is not "abort", or may: IMPLEMENTATION DEFINED fields, MPAM, DPT.
const COMMON: &[Field] = &[
    ("DRE", 76, 76),
    ("DCP", 81, 81),
    ("PPAR", 82, 82),
    ("MEV", 83, 83),
    ("S1MPAM", 90, 90),
    ("MemAttr", 99, 96),
    ("MTCFG", 100, 100),
    ("ALLOCCFG", 104, 101),
    ("NSCFG", 111, 110),
    ("PRIVCFG", 113, 112),
    ("INSTCFG", 115, 114),
    ("IMPDEF of word 1", 127, 116),
    ("IMPDEF of word 2", 159, 144),
    ("DPT_VMATCH", 191, 190),
    ("IMPDEF of word 4", 271, 256),
    ("PARTID", 287, 272),
    ("MECID", 319, 304),
    ("PMG", 327, 320),
    ("MPAM_NS, AssuredOnly, TL0, TL1", 331, 328),
    ("VMSPtr", 375, 332),
];

/// What counts where stage 1 translates.
const STAGE1: &[Field] = &[
    ("S1ContextPtr", 55, 6),
    ("S1CDMax", 63, 59),
    ("S1CIR", 67, 66),
    ("S1COR", 69, 68),
    ("S1CSH", 71, 70),
    ("S1PIE", 88, 88),
    ("S1STALLD", 91, 91),
];

/// What counts there if there are substreams.
const SUBSTREAMS: &[Field] = &[("S1Fmt", 5, 4), ("S1DSS", 65, 64)];

/// What counts where stage 2 translates.
const STAGE2: &[Field] = &[
    ("S2HWU", 75, 72),
    ("S2FWB", 89, 89),
    ("S2T0SZ", 165, 160),
    ("S2SL0", 167, 166),
    ("S2IR0", 169, 168),
    ("S2OR0", 171, 170),
    ("S2SH0", 173, 172),
    ("S2TG", 175, 174),
    ("S2PS", 178, 176),
    ("S2AA64", 179, 179),
    ("S2ENDI", 180, 180),
    ("S2AFFD", 181, 181),
    ("S2PTW", 182, 182),
    ("S2HD", 183, 183),
    ("S2HA", 184, 184),
    ("S2S", 185, 185),
    ("S2R", 186, 186),
    ("S2HAFT", 187, 187),
    ("S2PIE, S2POE", 189, 188),
    ("S2NSW, S2NSA, S2SL0_2, S2DS", 195, 192),
    ("S2TTB", 247, 196),
    ("S2SKL", 254, 253),
    ("S2POI", 511, 448),
];

/// What counts in a valid CD, but for the tables and their shape.
const CONTEXT: &[Field] = &[
    ("EPD0, ENDI", 15, 14),
    ("EPD1", 30, 30),
    ("IPS, AFFD, WXN, UWXN, TBI0, TBI1, PAN, AA64, HD, HA, S, R, A, ASET", 47, 32),
    ("ASID", 63, 48),
    ("NSCFG0, HAD0, E0PD0, HAFT", 67, 64),
    ("bits 63:56 of word 1", 127, 120),
    ("NSCFG1, HAD1, E0PD1, AIE", 131, 128),
    ("bits 63:56 of word 2", 191, 184),
    ("MAIR0", 223, 192),
    ("MAIR1", 255, 224),
    ("AMAIR", 319, 256),
    ("word 5", 383, 320),
    ("PIIU", 447, 384),
    ("PIIP", 511, 448),
];

/// What counts in the lower half if walks go on there (EPD0 is 0).
const LOWER: &[Field] = &[("T0SZ", 5, 0), ("TG0", 7, 6), ("IR0, OR0, SH0", 13, 8), ("TTB0", 119, 68)];

/// What counts in the upper half if walks go on there (EPD1 is 0).
const UPPER: &[Field] = &[("T1SZ", 21, 16), ("TG1", 23, 22), ("IR1, OR1, SH1", 29, 24), ("TTB1", 183, 132)];

/// What counts where anything is translated.
const TRANSLATION: &[Field] = &[("EATS", 93, 92), ("S2VMID", 143, 128)];

impl Meaning {
    /// Of an STE.
    #[must_use]
    pub fn of_ste(words: &[u64; 8]) -> Self {
        let ste = Ste(*words);
        let config = ste.config();
        let translates = config.stage1() || config.stage2();
        let substreams = config.stage1() && field(words, 63, 59) != 0;
        let bypasses_stage1 = !config.stage1() || (substreams && ste.s1dss() == 1);
        let configuration = match config {
            _ if !ste.valid() => return Self { configuration: "invalid", fields: Vec::new() },
            StreamConfig::Abort => "abort",
            StreamConfig::Bypass => "bypass",
            StreamConfig::Stage1 => "stage 1",
            StreamConfig::Stage2 => "stage 2",
            StreamConfig::Nested => "nested",
        };
        let lists: [(bool, &[Field]); 8] = [
            // Even an entry that aborts may mislead about its neighbours.
            (true, &[("CONT", 80, 77)]),
            (config != StreamConfig::Abort, COMMON),
            (config != StreamConfig::Abort && bypasses_stage1, &[("SHCFG", 109, 108)]),
            (config.stage1(), STAGE1),
            (substreams, SUBSTREAMS),
            (config == StreamConfig::Stage1, &[("STRW", 95, 94)]),
            (config.stage2(), STAGE2),
            (translates, TRANSLATION),
        ];
        Self::new(configuration, words, &lists)
    }

    /// Of a CD.
    #[must_use]
    pub fn of_cd(words: &[u64; 8]) -> Self {
        if !Cd(*words).valid() {
            return Self { configuration: "invalid", fields: Vec::new() };
        }
        Self::new("context", words, &[(true, CONTEXT), (!flag(words, 14), LOWER), (!flag(words, 30), UPPER)])
    }

    fn new(configuration: &'static str, words: &[u64; 8], lists: &[(bool, &[Field])]) -> Self {
        let counting = lists.iter().filter(|(counts, _)| *counts).flat_map(|(_, list)| *list);
        let fields = counting.map(|&(name, high, low)| (name, field(words, high, low))).collect();
        Self { configuration, fields }
    }

    /// Whether V is 0.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.configuration == "invalid"
    }
}

/// The fields that are not zero.
impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.configuration)?;
        for (name, value) in self.fields.iter().filter(|(_, value)| *value != 0) {
            write!(f, ", {name} {value:#x}")?;
        }
        Ok(())
    }
}

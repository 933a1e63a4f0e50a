//! What a CD or an STE says about a set of tables.

use super::super::Machine;
use super::super::config::most_address_bits;
use super::super::memory::View;
use super::super::structures::{Cd, Half, Ste, StreamConfig, World};

/// What tags a cached translation (IHI 0070, 3.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Tag {
    pub(in super::super) stage2: bool,
    pub(in super::super) world: World,
    /// None without stage 2.
    pub(in super::super) vmid: Option<u16>,
    /// None for stage 2, EL2, and global entries.
    pub(in super::super) asid: Option<u16>,
    /// Stage 1 whose output goes through stage 2.
    pub(in super::super) nested: bool,
    /// CD.ASET: global entries are shared within it.
    pub(in super::super) aset: bool,
}

impl Tag {
    /// Whether an entry with this tag serves a lookup with `wanted`.
    pub(in super::super) fn serves(&self, wanted: &Self) -> bool {
        let same = self.stage2 == wanted.stage2 && self.world == wanted.world && self.vmid == wanted.vmid;
        let asid = match self.asid {
            Some(_) => self.asid == wanted.asid,
            None => self.aset == wanted.aset,
        };
        same && asid && self.nested == wanted.nested
    }

    /// Whether what table descriptors hold is an intermediate address.
    pub(in super::super) fn is_intermediate(&self) -> bool {
        self.nested
    }
}

/// A set of tables, and how they are walked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Regime {
    pub(in super::super) tag: Tag,
    /// Of stage 1: TTB1's half.
    pub(in super::super) upper: bool,
    /// log2 of the granule.
    pub(in super::super) granule: u32,
    pub(in super::super) input_bits: u32,
    pub(in super::super) start_level: i8,
    /// The first table: CD.TTBx or STE.S2TTB, aligned as hardware does.
    pub(in super::super) root: u64,
    /// The same as it was written.
    pub(in super::super) written_root: u64,
    pub(in super::super) is_intermediate: bool,
    pub(in super::super) output_bits: u32,
    pub(in super::super) view: View,
    /// AFFD: a clear access flag is no fault.
    pub(in super::super) access_flag_ignored: bool,
    pub(in super::super) update_access_flag: bool,
    pub(in super::super) update_dirty_state: bool,
    /// Attributes in table descriptors count (HAD is 0).
    pub(in super::super) hierarchical: bool,
    pub(in super::super) wxn: bool,
    pub(in super::super) pan: bool,
    pub(in super::super) e0pd: bool,
    /// Whether the world knows privileged and unprivileged.
    pub(in super::super) two_privileges: bool,
    pub(in super::super) xnx: bool,
    /// CD.MAIR0 and MAIR1.
    pub(in super::super) mair: u64,
    /// S2FWB: MemAttr has another meaning.
    pub(in super::super) force_write_back: bool,
}

impl Regime {
    /// log2 of what one entry of a level maps.
    pub(in super::super) fn shift(&self, level: i8) -> u32 {
        self.granule + (self.granule - 3) * (3 - level) as u32
    }

    /// Where the descriptor for `input` is, in a table of a level.
    pub(in super::super) fn entry(&self, level: i8, table: u64, input: u64) -> u64 {
        let offset = input & (u64::MAX >> (64 - self.input_bits));
        let index_bits = if level == self.start_level { 64 } else { self.granule - 3 };
        table + ((offset >> self.shift(level)) & (u64::MAX >> (64 - index_bits))) * 8
    }

    /// Size of the first table, concatenated ones counted together.
    pub(in super::super) fn root_bytes(&self) -> u64 {
        8 << (self.input_bits - self.shift(self.start_level))
    }

    /// Whether the granule is 64 KiB and addresses have 52 bits.
    pub(in super::super) fn has_large_addresses(&self) -> bool {
        self.granule == 16 && self.output_bits == 52
    }

    fn aligned(mut self) -> Self {
        self.root = self.written_root & !(self.root_bytes() - 1);
        self
    }
}

impl Machine {
    /// Whether STRW 10 means EL2-E2H (CR2.E2H, as it was when SMMUEN was set).
    pub(in super::super) fn e2h(&self) -> bool {
        self.active_cr2 & 1 == 1
    }

    /// The tables of stage 1 for one half of the addresses, or `None` if CD.EPDx disables them. The CD is legal.
    pub(in super::super) fn stage1_regime(&self, ste: &Ste, cd: &Cd, half: Half) -> Option<Regime> {
        let world = ste.world(&self.config);
        let two_privileges = world == World::El1 || self.e2h();
        if cd.disabled(half, two_privileges) {
            return None;
        }
        let granule = cd.granule(half)?;
        let input_bits = 64 - cd.tsz(half);
        let levels = (input_bits - granule).div_ceil(granule - 3);
        let nested = ste.config() == StreamConfig::Nested;
        let regime = Regime {
            tag: Tag {
                stage2: false,
                world,
                vmid: (world == World::El1 && self.config.s2p).then(|| ste.vmid()),
                asid: two_privileges.then(|| cd.asid()),
                nested,
                aset: cd.aset(),
            },
            upper: half == Half::Upper,
            granule,
            input_bits,
            start_level: 4 - levels as i8,
            root: 0,
            written_root: cd.ttb(half),
            is_intermediate: nested,
            output_bits: cd.output_bits(&self.config).min(most_address_bits(granule)),
            view: self.view(cd.walk_attributes(half)),
            access_flag_ignored: cd.affd(),
            update_access_flag: cd.ha(),
            update_dirty_state: cd.ha() && cd.hd(),
            hierarchical: !(self.config.had && cd.had(half)),
            wxn: cd.wxn(),
            pan: cd.pan(),
            e0pd: self.config.e0pd && cd.e0pd(half),
            two_privileges,
            xnx: false,
            mair: cd.0[3],
            force_write_back: false,
        };
        Some(regime.aligned())
    }

    /// The tables of stage 2. The STE is legal.
    pub(in super::super) fn stage2_regime(&self, ste: &Ste) -> Option<Regime> {
        let regime = Regime {
            tag: Tag {
                stage2: true,
                world: World::El1,
                vmid: Some(ste.vmid()),
                asid: None,
                nested: false,
                aset: false,
            },
            upper: false,
            granule: ste.s2_granule()?,
            input_bits: 64 - ste.s2t0sz(),
            start_level: ste.s2_start_level(&self.config)?,
            root: 0,
            written_root: ste.s2ttb(),
            is_intermediate: false,
            output_bits: ste.s2_output_bits(&self.config),
            view: self.view(ste.s2_walk_attributes()),
            access_flag_ignored: ste.s2affd(),
            update_access_flag: ste.s2ha(),
            update_dirty_state: ste.s2ha() && ste.s2hd(),
            hierarchical: false,
            wxn: false,
            pan: false,
            e0pd: false,
            two_privileges: true,
            xnx: self.config.xnx,
            mair: 0,
            force_write_back: self.config.fwb && ste.s2fwb(),
        };
        Some(regime.aligned())
    }
}

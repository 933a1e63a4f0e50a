//! Translation table descriptors, decoded (Arm ARM, D8.3, D8.4, D8.5).

use super::super::bits::{bit, bits, mask};
use super::permissions::Rights;
use super::{MemoryType, Permissions, Regime};

/// What the table descriptors on the way forbid below them: APTable, UXNTable, PXNTable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Limits {
    no_unprivileged: bool,
    no_write: bool,
    no_unprivileged_execute: bool,
    no_privileged_execute: bool,
}

/// A page or block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Leaf {
    /// The first input address that it translates.
    pub(in super::super) input: u64,
    /// log2 of its size, with its neighbours if the Contiguous bit joins them.
    pub(in super::super) log2_bytes: u32,
    pub(in super::super) level: i8,
    /// The first output address.
    pub(in super::super) output: u64,
    /// What stage 1 made of `input`, where stage 2 follows.
    pub(in super::super) intermediate: u64,
    pub(in super::super) stage1: Permissions,
    pub(in super::super) stage2: Permissions,
    /// Writable, and a write has to be noted in the descriptor first (DBM).
    pub(in super::super) clean: bool,
    pub(in super::super) access_flag: bool,
    /// Tagged with the ASID.
    pub(in super::super) not_global: bool,
    /// MemAttr, for stage 2.
    pub(in super::super) memory_attributes: u64,
    pub(in super::super) memory: MemoryType,
}

impl Leaf {
    pub(in super::super) fn last(&self) -> u64 {
        self.input | ((1 << self.log2_bytes) - 1)
    }

    /// What `input` is translated to.
    pub(in super::super) fn translate(&self, input: u64) -> u64 {
        self.output | (input & ((1 << self.log2_bytes) - 1))
    }
}

/// What a descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Decoded {
    Invalid,
    Table { table: u64, limits: Limits },
    Leaf(Leaf),
}

/// Decodes a descriptor that was found for `input` at `level`.
pub(in super::super) fn decode(raw: u64, regime: &Regime, level: i8, input: u64, limits: Limits) -> Decoded {
    let granule = regime.granule as usize;
    match (bit(raw, 0), bit(raw, 1), level) {
        (true, true, ..3) => {
            let table = address(raw, regime, granule);
            let limits = if regime.hierarchical { limits.and(raw) } else { limits };
            Decoded::Table { table, limits }
        }
        (true, true, 3) => Decoded::Leaf(leaf(raw, regime, level, input, limits)),
        // 4 KiB has blocks at levels 1 and 2, 16 and 64 KiB only at level 2, but for 64 KiB with 52-bit addresses.
        (true, false, 2) => Decoded::Leaf(leaf(raw, regime, level, input, limits)),
        (true, false, 1) if granule == 12 || regime.has_large_addresses() => {
            Decoded::Leaf(leaf(raw, regime, level, input, limits))
        }
        _ => Decoded::Invalid,
    }
}

/// The address in a descriptor, from bit `lowest` up. Bits 51:48 of large ones are in 15:12 (Arm ARM, D8.3.1).
fn address(raw: u64, regime: &Regime, lowest: usize) -> u64 {
    let large = if regime.has_large_addresses() { bits(raw, 15, 12) << 48 } else { 0 };
    raw & mask(47, lowest) | large
}

impl Limits {
    fn and(self, table: u64) -> Self {
        Self {
            no_unprivileged: self.no_unprivileged || bit(table, 61),
            no_write: self.no_write || bit(table, 62),
            no_unprivileged_execute: self.no_unprivileged_execute || bit(table, 60),
            no_privileged_execute: self.no_privileged_execute || bit(table, 59),
        }
    }
}

/// log2 of how many entries the Contiguous bit joins (Arm ARM, D8.7.1).
fn contiguous(granule: u32, level: i8) -> u32 {
    match (granule, level) {
        (12, _) => 4,
        (14, 3) => 7,
        (14, 2) => 5,
        (16, 2 | 3) => 5,
        _ => 0,
    }
}

fn leaf(raw: u64, regime: &Regime, level: i8, input: u64, limits: Limits) -> Leaf {
    let shift = regime.shift(level);
    let joined = if bit(raw, 52) { contiguous(regime.granule, level) } else { 0 };
    let log2_bytes = shift + joined;
    let output = address(raw, regime, shift as usize) & !((1 << log2_bytes) - 1);
    let dirty_managed = regime.update_dirty_state && bit(raw, 51);
    let (permissions, clean) = match regime.tag.stage2 {
        true => stage2_permissions(raw, regime, dirty_managed),
        false => stage1_permissions(raw, regime, limits, dirty_managed),
    };
    let (stage1, stage2) =
        if regime.tag.stage2 { (Permissions::ALL, permissions) } else { (permissions, Permissions::ALL) };
    let memory_attributes = bits(raw, 5, 2);
    let memory = match regime.tag.stage2 {
        true => MemoryType::CACHED.through_stage2(memory_attributes, regime.force_write_back),
        false => MemoryType::of_stage1(regime.mair, bits(raw, 4, 2)),
    };
    Leaf {
        input: input & !((1 << log2_bytes) - 1),
        log2_bytes,
        level,
        output,
        intermediate: output,
        stage1,
        stage2,
        clean,
        access_flag: bit(raw, 10),
        not_global: bit(raw, 11) && regime.two_privileges && !regime.tag.stage2,
        memory_attributes,
        memory,
    }
}

/// AP, UXN, PXN with what the tables above forbid, WXN and PAN (Arm ARM, D8.4.1). Whether a write would have to be noted
/// comes with it.
fn stage1_permissions(raw: u64, regime: &Regime, limits: Limits, dirty_managed: bool) -> (Permissions, bool) {
    let read_only = bit(raw, 7);
    let clean = read_only && dirty_managed && !limits.no_write;
    let write = (!read_only || clean) && !limits.no_write;
    let (uxn, pxn) = (bit(raw, 54) || limits.no_unprivileged_execute, bit(raw, 53) || limits.no_privileged_execute);
    if !regime.two_privileges {
        let rights = Rights { read: true, write, execute: !(uxn || regime.wxn && write) };
        return (Permissions { privileged: rights, unprivileged: rights }, clean);
    }
    let open = bit(raw, 6) && !limits.no_unprivileged;
    let unprivileged = Rights { read: open, write: open && write, execute: !(uxn || regime.wxn && open && write) };
    let denied = regime.pan && open;
    let privileged =
        Rights { read: !denied, write: write && !denied, execute: !(pxn || open && write || regime.wxn && write) };
    (Permissions { privileged, unprivileged }, clean)
}

/// S2AP and XN (Arm ARM, D8.4.2; IHI 0070, 3.13).
fn stage2_permissions(raw: u64, regime: &Regime, dirty_managed: bool) -> (Permissions, bool) {
    let read = bit(raw, 6);
    let clean = !bit(raw, 7) && dirty_managed;
    let write = bit(raw, 7) || clean;
    let (privileged, unprivileged) = match (regime.xnx, bits(raw, 54, 53)) {
        (true, 0b00) => (true, true),
        (true, 0b01) => (false, true),
        (true, 0b11) => (true, false),
        (false, 0b00 | 0b01) => (true, true),
        _ => (false, false),
    };
    let rights = |execute| Rights { read, write, execute: execute && read };
    (Permissions { privileged: rights(privileged), unprivileged: rights(unprivileged) }, clean)
}

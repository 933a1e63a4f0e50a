//! Bits that software must leave zero (IHI 0070, 5.2, 5.4; Arm ARM, D8.3.1).

use super::super::bits::mask;
use super::super::config::Config;
use super::{Cd, Ste};

/// The reserved bits that a valid STE has set, by word.
pub(in super::super) fn ste_reserved(ste: &Ste, config: &Config) -> [u64; 8] {
    let address = mask(config.oas_bits() as usize - 1, 6);
    let when = |present: bool, bits: u64| if present { bits } else { 0 };
    // DRE and DCP came with SMMUv3.1, as did S2HWU.
    let second = mask(7, 0)
        | mask(16, 13)
        | mask(19, 18)
        | mask(23, 20)
        | mask(31, 27)
        | mask(47, 46)
        | when(config.minor >= 1, 1 << 12 | 1 << 17)
        | when(config.fwb, 1 << 25)
        | when(config.attr_types_ovr, mask(40, 32))
        | mask(45, 44)
        | when(config.attr_perms_ovr, mask(51, 48));
    let defined = [
        mask(5, 0) | address | mask(63, 59),
        second,
        mask(15, 0) | mask(58, 32),
        mask(config.oas_bits() as usize - 1, 4),
        0,
        0,
        0,
        0,
    ];
    std::array::from_fn(|index| ste.0[index] & !defined[index])
}

/// The reserved bits that a valid CD has set, by word.
pub(in super::super) fn cd_reserved(cd: &Cd, config: &Config) -> [u64; 8] {
    let table = mask(config.oas_bits() as usize - 1, 4);
    let when = |present: bool, bits: u64| if present { bits } else { 0 };
    let hierarchy = when(config.had, 1 << 1) | when(config.e0pd, 1 << 2);
    let defined = [mask(63, 0), table | hierarchy, table | hierarchy, mask(63, 0), mask(63, 0), 0, 0, 0];
    std::array::from_fn(|index| cd.0[index] & !defined[index])
}

/// The reserved bits that a valid descriptor has set (Arm ARM, D8.3.1). `leaf` is log2 of what a leaf at its level maps; with
/// `large` addresses their bits 51:48 are in 15:12.
pub(in super::super) fn descriptor_reserved(
    raw: u64,
    stage2: bool,
    leaf: Option<u32>,
    granule: u32,
    large: bool,
) -> u64 {
    let Some(log2_bytes) = leaf else {
        // A table: stage 2 has no attributes there; address bits below the granule and 58:51 are ignored.
        let attributes = if stage2 { mask(63, 59) } else { 1 << 63 };
        return raw & (mask(50, 48) | attributes);
    };
    let below = if log2_bytes > granule { mask(log2_bytes as usize - 1, granule as usize) & !(1 << 16) } else { 0 };
    let low = if granule > 12 && !large { mask(granule as usize - 1, 12) } else { 0 };
    let stage = if stage2 { 1 << 11 | 1 << 63 } else { 1 << 5 };
    raw & (mask(50, 48) | below | low | stage)
}

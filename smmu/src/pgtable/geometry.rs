//! The shape of a page table: where walks start, and how large the first table is (Arm ARM, D8.2.8 to D8.2.10).

use super::{Half, Stage, TableConfig, TableError, Tracking};
use crate::arch::attributes::Granule;
use crate::arch::descriptor::LAST_LEVEL;

/// The shape of a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// log2 of the entries of a table that is not the first.
    pub(super) bits_per_level: u32,
    /// Where walks start.
    pub(super) start_level: u8,
    /// log2 of the bytes that one entry of the first table covers.
    pub(super) start_shift: u32,
    /// log2 of the entries of the first table, concatenated ones counted together.
    root_bits: u32,
}

impl Geometry {
    /// Where walks start to need the fewest tables.
    pub(super) fn new(config: &TableConfig) -> Result<Self, TableError> {
        Self::check(config)?;
        let TableConfig { stage, granule, input_bits, output_bits, .. } = *config;
        let page_bits = granule.log2_bytes();
        // At most four: 48 bits with a granule of 4 KiB.
        let levels = (u32::from(input_bits) - page_bits).div_ceil(page_bits - 3);
        let natural = (4 - levels) as u8;
        let start_level = match stage {
            Stage::Stage1 => natural,
            // Up to 16 tables are concatenated instead.
            Stage::Stage2 => natural.max(first_stage2_level(granule, output_bits)),
        };
        Ok(Self::of(granule, input_bits, start_level))
    }

    /// For stage 2, where walks may start at another level too.
    pub(super) fn starting_at(config: &TableConfig, start_level: u8) -> Result<Self, TableError> {
        Self::check(config)?;
        let TableConfig { granule, input_bits, output_bits, .. } = *config;
        let error = TableError::StartLevel { start_level, input_bits, output_bits, granule };
        if !(first_stage2_level(granule, output_bits)..=LAST_LEVEL).contains(&start_level) {
            return Err(error);
        }
        let start_shift = start_shift(granule, start_level);
        let root_bits = u32::from(input_bits).checked_sub(start_shift).ok_or(error)?;
        // Level 0 has as many entries as one table; up to 16 are concatenated at the others.
        let most = granule.log2_bytes() - 3 + if start_level == 0 { 0 } else { 4 };
        if (1..=most).contains(&root_bits) { Ok(Self::of(granule, input_bits, start_level)) } else { Err(error) }
    }

    /// The sizes that are checked already.
    fn of(granule: Granule, input_bits: u8, start_level: u8) -> Self {
        let start_shift = start_shift(granule, start_level);
        let (bits_per_level, root_bits) = (granule.log2_bytes() - 3, u32::from(input_bits) - start_shift);
        Self { bits_per_level, start_level, start_shift, root_bits }
    }

    /// Whether the sizes are possible at all.
    fn check(config: &TableConfig) -> Result<(), TableError> {
        let TableConfig { stage, granule, input_bits, output_bits, half, .. } = *config;
        let most = if granule == Granule::K64 { 52 } else { 48 };
        if !(32..=most).contains(&input_bits) {
            return Err(TableError::InputBits { input_bits });
        }
        if ![32, 36, 40, 42, 44, 48, 52].contains(&output_bits) || output_bits > most {
            return Err(TableError::OutputBits { output_bits });
        }
        if stage == Stage::Stage2 && half == Half::Upper {
            return Err(TableError::UpperHalfAtStage2);
        }
        if config.contiguous && config.tracking != Tracking::Off {
            return Err(TableError::ContiguousAndTracked);
        }
        if stage == Stage::Stage2 && input_bits > output_bits {
            return Err(TableError::InputExceedsOutput { input_bits, output_bits });
        }
        Ok(())
    }

    /// Size and alignment of the first table. The SMMU wants no more than its size, but a cache line does no harm.
    pub(super) const fn root_bytes(self) -> usize {
        let bytes = 8 << self.root_bits;
        if bytes < 64 { 64 } else { bytes }
    }

    /// Whether the first table has no entries but for input addresses.
    pub(super) const fn root_is_full(self) -> bool {
        self.root_bytes() == 8 << self.root_bits
    }

    /// STE.S2SL0. A granule of 4 KiB has one level more and counts from the next one.
    pub(super) const fn sl0(self, granule: Granule) -> u8 {
        let start_at_zero = match granule {
            Granule::K4 => 2,
            Granule::K16 | Granule::K64 => 3,
        };
        start_at_zero - self.start_level
    }
}

/// log2 of what an entry at a level covers.
fn start_shift(granule: Granule, level: u8) -> u32 {
    let page_bits = granule.log2_bytes();
    page_bits + u32::from(LAST_LEVEL - level) * (page_bits - 3)
}

/// The first start level that stage 2 may use with a physical address size (Arm ARM, rules R_DXBSH and R_SRKBC).
const fn first_stage2_level(granule: Granule, output_bits: u8) -> u8 {
    match granule {
        Granule::K4 if output_bits >= 44 => 0,
        Granule::K4 => 1,
        Granule::K16 if output_bits >= 42 => 1,
        Granule::K64 if output_bits >= 44 => 1,
        Granule::K16 | Granule::K64 => 2,
    }
}

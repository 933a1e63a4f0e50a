//! Which page tables an SMMU can walk, and which of them it gets.

use crate::arch::attributes::Granule;
use crate::device::Features;
use crate::iommu::DomainConfig;
use crate::pgtable::{Stage, TableConfig};

/// Bits of an address that every granule has codes for.
const USUAL_BITS: u8 = 48;

/// The page table for a domain of an SMMU, whose platform's CPUs have so many bits in a virtual address.
pub(super) fn table_config(features: &Features, cpu_bits: u8, wanted: &DomainConfig) -> TableConfig {
    let granule = wanted.granule.unwrap_or_else(|| smallest_granule(features));
    // Larger addresses take larger pages.
    let most = if granule == Granule::K64 { 52 } else { USUAL_BITS };
    let output_bits = wanted.output_bits.unwrap_or(features.output_size().bits().min(most));
    let stage = wanted.stage.unwrap_or(if features.stage1() { Stage::Stage1 } else { Stage::Stage2 });
    let input_bits = wanted.input_bits.unwrap_or(match stage {
        Stage::Stage1 => features.virtual_address_bits().min(cpu_bits).min(USUAL_BITS),
        Stage::Stage2 => output_bits.min(USUAL_BITS),
    });
    TableConfig {
        coherent: features.coherent(),
        empty_tables: wanted.empty_tables,
        tracking: wanted.tracking,
        contiguous: wanted.contiguous,
        force_write_back: wanted.force_write_back,
        ..TableConfig::new(stage, granule, input_bits, output_bits)
    }
}

fn smallest_granule(features: &Features) -> Granule {
    // There is one, or the SMMU would not be up.
    let all = [Granule::K4, Granule::K16, Granule::K64];
    all.into_iter().find(|granule| features.granule(*granule)).unwrap_or(Granule::K4)
}

/// What an SMMU lacks to walk a page table, if anything.
pub(super) fn lacks(features: &Features, config: &TableConfig) -> Option<&'static str> {
    let (stage, input_bits_max) = match config.stage {
        Stage::Stage1 => (features.stage1(), features.virtual_address_bits()),
        Stage::Stage2 => (features.stage2(), features.output_size().bits()),
    };
    let (updates, wanted) = (features.hardware_update(), config.tracking.hardware_update());
    [
        (!stage, "the translation stage"),
        (!features.granule(config.granule), "the granule"),
        (features.output_size().bits() < config.output_bits, "the output address size"),
        (input_bits_max < config.input_bits, "the input address size"),
        (!features.coherent() && config.coherent, "coherent table walks"),
        (wanted.ha() > updates.ha() || wanted.hd() > updates.hd(), "updates of the Access flag and dirty state"),
        (config.force_write_back && !features.force_write_back(), "forced write-back at stage 2"),
    ]
    .into_iter()
    .find_map(|(missing, what)| missing.then_some(what))
}

/// What an SMMU lacks for guests' stage 1 on top of a domain of `stage`, if anything.
pub(super) fn lacks_nesting(features: &Features, stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Stage1 => Some("a third stage: guests stand on a domain of stage 2"),
        Stage::Stage2 => (!features.stage1()).then_some("stage 1, which the guest is to have"),
    }
}

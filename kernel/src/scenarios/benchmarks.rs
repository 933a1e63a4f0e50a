//! What things cost, in instructions.
//!
//! With `-icount shift=0` QEMU's virtual time goes on by a nanosecond an instruction, and the counter of `-cpu max` counts
//! nanoseconds: what it says between two readings is how many instructions lie between them, exactly and every time.
//! Without that the figures are nanoseconds of an emulator, which mean nothing.

use alloc::string::{String, ToString};
use core::hint::black_box;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTVCT_EL0, Readable};
use smmu::addr::{Iova, PhysAddr, Vmid};
use smmu::arch::attributes::Granule;
use smmu::arch::range::Stale;
use smmu::device::{DeviceError, StaleRange, TranslationTag};
use smmu::pgtable::{Access, MemoryType, PageTable, Stage, TableConfig};

use super::Context;
use super::system::System;
use crate::platform::{Kernel, PLATFORM};
use crate::power::ExitCode;
use crate::{println, record};

/// Measurements of one row; the median counts.
const ROUNDS: usize = 201;
/// Rounds that are not counted: they allocate tables and fill caches.
const WARM_UP: usize = 8;
/// Where everything is mapped: beside other mappings, so that tables are there.
const IOVA: Iova = Iova::new(0x40_0000_0000);
/// Where the block is: where no table of pages has been left.
const BLOCK_IOVA: Iova = Iova::new(0x41_0000_0000);
const PHYSICAL: PhysAddr = PhysAddr::new(0x8000_0000);
const PAGE: u64 = 4 << 10;
const BLOCK: u64 = 2 << 20;

/// Instructions that `work` takes, and what it returned. Inlined, so that moving the result does not count.
#[inline(always)]
pub(super) fn count<T>(work: impl FnOnce() -> T) -> (u64, T) {
    barrier::isb(barrier::SY);
    let start = CNTVCT_EL0.get();
    barrier::isb(barrier::SY);
    let result = work();
    barrier::isb(barrier::SY);
    let end = CNTVCT_EL0.get();
    barrier::isb(barrier::SY);
    (end - start, result)
}

/// The median of `measure`, less what measuring itself takes.
pub(super) fn median(mut measure: impl FnMut() -> u64) -> u64 {
    let mut counts = [0; ROUNDS];
    for _ in 0..WARM_UP {
        measure();
    }
    counts.fill_with(measure);
    counts.sort_unstable();
    let mut nothing = [0; ROUNDS];
    nothing.fill_with(|| count(|| ()).0);
    nothing.sort_unstable();
    counts[ROUNDS / 2] - nothing[ROUNDS / 2]
}

/// Page tables alone: map, unmap and lookup in a stage-1 table of 48 bits, called as the rest of the kernel calls them.
pub(super) fn page_tables(_: &Context) -> ExitCode {
    let config = TableConfig::new(Stage::Stage1, Granule::K4, 48, 44);
    let table = match PageTable::new(&PLATFORM, &config) {
        Ok(table) => table,
        Err(error) => {
            println!("{error}");
            return ExitCode::Failure;
        }
    };
    println!("{:<12} {:>8} {:>8} {:>8}", "page table", "map", "unmap", "lookup");
    let mut sound = true;
    for (name, bytes) in [("4k", PAGE), ("16x4k", 16 * PAGE), ("512x4k", 512 * PAGE), ("2m", BLOCK)] {
        // A block needs both addresses aligned to its size; pages get a physical address that is not.
        let (iova, offset) = if name == "2m" { (BLOCK_IOVA, 0) } else { (IOVA, PAGE) };
        sound &= row(&table, name, bytes, iova, PhysAddr::new(PHYSICAL.get() + offset));
    }
    if sound { ExitCode::Success } else { ExitCode::Failure }
}

/// Measures and prints one row.
fn row(table: &PageTable<Kernel>, name: &str, bytes: u64, iova: Iova, physical: PhysAddr) -> bool {
    let mut sound = true;
    let mut map = || {
        let (instructions, result) =
            count(|| table.map(black_box(iova), physical, black_box(bytes), Access::ReadWrite, MemoryType::WriteBack));
        sound &= result.is_ok();
        instructions
    };
    let unmap = || {
        let (instructions, result) = count(|| table.unmap(black_box(iova), black_box(bytes)));
        if let Ok(unmapped) = result {
            table.free(unmapped);
        }
        instructions
    };
    let mapped = median(|| {
        let instructions = map();
        unmap();
        instructions
    });
    let unmapped = median(|| {
        map();
        unmap()
    });
    map();
    let looked_up = median(|| {
        let (instructions, _) = count(|| black_box(table.walk(black_box(iova))));
        instructions
    });
    unmap();
    println!("{name:<12} {mapped:>8} {unmapped:>8} {looked_up:>8}");
    record!("pgtable", "row" => name, "map" => mapped, "unmap" => unmapped, "lookup" => looked_up);
    sound
}

/// What it takes to have an SMMU forget something: one command and a CMD_SYNC, until it has.
pub(super) fn invalidation(context: &Context) -> ExitCode {
    super::exit_code(invalidations(context))
}

fn invalidations(context: &Context) -> Result<(), String> {
    let system = System::discover(context)?;
    let smmu = &system.smmus.first().ok_or("no SMMU")?.smmu;
    let asid = smmu.take_asid().map_err(|error| error.to_string())?;
    let tag = TranslationTag::Stage1 { asid, vmid: Vmid::new(0) };
    let leaves = |size_bytes, level| {
        let stale = Stale::Leaves { level: Some(level) };
        StaleRange { start: IOVA, size_bytes, granule: Granule::K4, stale }
    };
    println!("{:<12} {:>12}", "invalidation", "instructions");
    invalidation_row("4k", || smmu.invalidate(black_box(tag), black_box(&leaves(PAGE, 3))))?;
    invalidation_row("2m", || smmu.invalidate(black_box(tag), black_box(&leaves(BLOCK, 2))))?;
    invalidation_row("all", || smmu.invalidate_all(black_box(tag)))
}

/// Measures and prints one row.
fn invalidation_row(row: &str, invalidate: impl Fn() -> Result<(), DeviceError>) -> Result<(), String> {
    let mut result = Ok(());
    let instructions = median(|| count(|| result = result.and(invalidate())).0);
    println!("{row:<12} {instructions:>12}");
    record!("invalidation", "row" => row, "instructions" => instructions);
    result.map_err(|error| error.to_string())
}

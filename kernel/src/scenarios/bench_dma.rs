//! What a driver pays for DMA through an SMMU, in instructions and in the SMMU's commands: each layer above the page tables.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::hint::black_box;
use core::ptr::NonNull;

use smmu::addr::{Iova, PhysAddr};
use smmu::device::Smmu;
use smmu::dma::{Direction, Dma};
use smmu::iommu::{Configuration, Device, PagingDomain};
use smmu::pgtable::{Access, MemoryType};

use super::Context;
use super::benchmarks::{count, median};
use super::system::System;
use crate::drivers::DriverKind;
use crate::iommu::{IOMMUS, NO_LIMIT};
use crate::memory::dma;
use crate::platform::Kernel;
use crate::power::ExitCode;
use crate::{println, record};

/// Where the rows of the domain are mapped: beside nothing that the DMA API hands out.
const IOVA: Iova = Iova::new(0x40_0000_0000);
/// Where blocks are: where no table of pages has been left.
const BLOCK_IOVA: Iova = Iova::new(0x80_0000_0000);
const PHYSICAL: PhysAddr = PhysAddr::new(0x8000_0000);
/// What is not aligned to a block, and so is mapped in pages.
const PAGES_PHYSICAL: PhysAddr = PhysAddr::new(0x8000_1000);
const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

/// Measures and prints all rows.
pub(super) fn run(context: &Context) -> ExitCode {
    super::exit_code(rows(context))
}

fn rows(context: &Context) -> Result<(), String> {
    let mut system = System::discover(context)?;
    let smmu = Arc::clone(&system.smmus.first().ok_or("no SMMU")?.smmu);
    let endpoint = system.endpoint(DriverKind::Edu)?;
    let device = endpoint.device()?;
    let bench = Bench { smmu: &smmu };
    println!("\n{:<18} {:>12} {:>9} (there and back)", "operation", "instructions", "commands");
    bench.attachment(&device)?;
    let bound = endpoint.bind(NO_LIMIT).map_err(|error| error.to_string())?;
    for (row, bytes, iova, physical) in [
        ("4k", 4 * K, IOVA, PAGES_PHYSICAL),
        ("64k", 64 * K, IOVA, PAGES_PHYSICAL),
        ("1m", M, IOVA, PAGES_PHYSICAL),
        ("2m", 2 * M, BLOCK_IOVA, PHYSICAL),
        ("1g", 1024 * M, BLOCK_IOVA, PHYSICAL),
    ] {
        bench.domain(&**bound.dma().domain(), row, bytes, iova, physical)?;
    }
    for (row, bytes) in [("4k", 4 * K), ("64k", 64 * K), ("1m", M), ("2m", 2 * M)] {
        bench.pair(bound.dma(), row, bytes)?;
    }
    Ok(())
}

struct Bench<'a> {
    smmu: &'a Smmu<Kernel>,
}

impl Bench<'_> {
    /// Attaching a device to a domain that is made for it, and detaching it.
    fn attachment(&self, device: &Arc<Device>) -> Result<(), String> {
        let mut problem = None;
        let mut attach = || {
            let (instructions, configured) = count(|| IOMMUS.configure(device));
            match configured {
                Ok(Configuration::Configured(attachment)) => (instructions, Some(attachment)),
                other => {
                    problem = Some(format!("{device} was not attached: {other:?}"));
                    (instructions, None)
                }
            }
        };
        self.row("attach", || attach().0);
        self.row("detach", || {
            let (_, attachment) = attach();
            count(|| drop(attachment)).0
        });
        problem.map_or(Ok(()), Err)
    }

    /// Mapping, looking up and unmapping in a domain.
    fn domain(
        &self,
        domain: &dyn PagingDomain<Kernel>,
        row: &str,
        bytes: u64,
        iova: Iova,
        physical: PhysAddr,
    ) -> Result<(), String> {
        let mut result = Ok(());
        let map = || {
            let map = || domain.map(black_box(iova), physical, bytes, Access::ReadWrite, MemoryType::WriteBack);
            let (instructions, mapped) = count(map);
            (instructions, mapped.map_err(|error| error.to_string()))
        };
        let unmap = || {
            let (instructions, unmapped) = count(|| domain.unmap(black_box(iova), bytes));
            (instructions, unmapped.map_err(|error| error.to_string()))
        };
        let mut both = |of_map: bool| {
            let ((mapping, mapped), (unmapping, unmapped)) = (map(), unmap());
            result = result.clone().and(mapped).and(unmapped);
            if of_map { mapping } else { unmapping }
        };
        self.row(&format!("iommu_map_{row}"), || both(true));
        self.row(&format!("iommu_unmap_{row}"), || both(false));
        map().1?;
        self.row(&format!("lookup_{row}"), || count(|| black_box(domain.lookup(black_box(iova)))).0);
        unmap().1?;
        result
    }

    /// Lending a buffer to the device and taking it back.
    fn pair(&self, dma: &Dma<Kernel>, row: &str, bytes: u64) -> Result<(), String> {
        let size_bytes = bytes as usize;
        let block = dma::allocate(size_bytes, size_bytes).map_err(|error| error.to_string())?;
        let buffer = NonNull::slice_from_raw_parts(block.pointer, size_bytes);
        let mut result = Ok(());
        self.row(&format!("dma_pair_{row}"), || {
            let (instructions, lent) = count(|| {
                // SAFETY: nobody else has the block, which outlives the mapping.
                let mapping = unsafe { dma.map(black_box(buffer), Direction::Bidirectional) };
                mapping.and_then(|mapping| black_box(mapping).unmap())
            });
            result = result.and(lent);
            instructions
        });
        if result.is_ok() {
            // SAFETY: it came from `allocate`, and no device reaches it any more.
            unsafe { dma::free(block) };
        }
        result.map_err(|error| error.to_string())
    }

    /// Measures and prints one row. Every round of it does something and undoes it, by the same number of commands.
    fn row(&self, name: &str, mut measure: impl FnMut() -> u64) {
        measure();
        let before = self.smmu.statistics().commands;
        measure();
        let commands = self.smmu.statistics().commands - before;
        let instructions = median(measure);
        println!("{name:<18} {instructions:>12} {commands:>9}");
        record!("cost", "row" => name, "instructions" => instructions, "commands" => commands);
    }
}

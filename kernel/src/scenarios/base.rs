//! Scenarios that show that the kernel's base works.

use alloc::vec::Vec;
use core::time::Duration;

use aarch64_cpu::registers::{MIDR_EL1, Readable};

use smmu::addr::PhysAddr;
use smmu::platform::DmaBlock;

use super::Context;
use crate::memory::{self, PAGE_BYTES, dma, heap, layout};
use crate::power::ExitCode;
use crate::{println, record, timer};

/// Says what was found.
pub(super) fn run(_: &Context) -> ExitCode {
    let image = layout::image();
    let (heap_used, heap_total) = heap::usage();
    let dma = dma::usage();
    println!("image   {:#x}..{:#x}, linked at {:#x}", image.start, image.end, layout::link_address(image.start));
    println!("heap    {heap_used} of {heap_total} bytes used");
    println!("memory  {} of {} MiB used for DMA", dma.used_bytes >> 20, dma.total_bytes >> 20);
    record!(
        "hello",
        "midr" => MIDR_EL1.get() as u32,
        "heap_bytes" => heap_total,
        "dma_bytes" => dma.total_bytes,
    );
    println!("hello from the kernel");
    ExitCode::Success
}

/// Waits for three interrupts of the timer, each asked for when the one before has come.
pub(super) fn timer(_: &Context) -> ExitCode {
    const INTERRUPTS: u64 = 3;
    const LIMIT: Duration = Duration::from_secs(5);
    let period = Duration::from_millis(10);
    for number in 1..=INTERRUPTS {
        let due = timer::now() + period;
        timer::start(period);
        if !timer::wait_for(LIMIT, || timer::expired() >= number) {
            println!("timer interrupt {number} did not come within {LIMIT:?}");
            return ExitCode::Failure;
        }
        if timer::now() < due {
            println!("timer interrupt {number} came too early");
            return ExitCode::Failure;
        }
        println!("timer interrupt {number}");
    }
    record!("timer", "interrupts" => timer::expired());
    ExitCode::Success
}

/// Takes DMA memory in many sizes and gives it back, twice: the second time it is not fresh.
pub(super) fn memory(_: &Context) -> ExitCode {
    let before = dma::usage();
    let sound = allocate_and_free() && allocate_and_free();
    let restored = dma::usage() == before;
    let refused = dma::allocate(usize::MAX, 8).is_err()
        && dma::allocate(before.total_bytes + 1, 8).is_err()
        && dma::allocate(8, 3).is_err()
        && memory::map_mmio(PhysAddr::new(layout::heap().start as u64), 8).is_err()
        && memory::map_mmio(PhysAddr::new(u64::MAX), 8).is_err();
    println!("sound: {sound}, all given back: {restored}, refused what cannot be: {refused}");
    record!("memory", "sound" => sound, "restored" => restored, "refused" => refused);
    if sound && restored && refused { ExitCode::Success } else { ExitCode::Failure }
}

/// Whether blocks of many sizes and alignments can be had, all at once, each as it should be.
fn allocate_and_free() -> bool {
    let mut blocks = Vec::new();
    let mut sound = true;
    for size_log2 in 3..=20 {
        for alignment_log2 in [3, 12, 16, 21] {
            match dma::allocate((1 << size_log2) + 8, 1 << alignment_log2) {
                Ok(block) => {
                    sound &= is_sound(&block) && blocks.iter().all(|other| are_apart(other, &block));
                    blocks.push(block);
                }
                Err(error) => {
                    println!("{error}");
                    sound = false;
                }
            }
        }
    }
    for block in blocks {
        // SAFETY: it came from `allocate` and is not used any more.
        unsafe { dma::free(block) };
    }
    sound
}

/// Whether the block is aligned as asked and zeroed. Fills it, for whoever gets it next.
fn is_sound(block: &DmaBlock) -> bool {
    // SAFETY: the block is valid for this many bytes, and nobody else uses it.
    let bytes = unsafe { core::slice::from_raw_parts_mut(block.pointer.as_ptr(), block.size_bytes) };
    let zeroed = bytes.iter().all(|&byte| byte == 0);
    bytes.fill(0xa5);
    zeroed && block.physical.is_aligned(block.alignment_bytes as u64)
}

/// Whether two blocks have no page in common.
fn are_apart(one: &DmaBlock, two: &DmaBlock) -> bool {
    let pages = |block: &DmaBlock| {
        let start = block.physical.get() / PAGE_BYTES;
        start..start + (block.size_bytes as u64).div_ceil(PAGE_BYTES)
    };
    let (one, two) = (pages(one), pages(two));
    one.end <= two.start || two.end <= one.start
}

//! Scenarios that show that the kernel's base works.

use core::time::Duration;

use aarch64_cpu::registers::{MIDR_EL1, Readable};

use super::Context;
use crate::memory::{dma, heap, layout};
use crate::power::ExitCode;
use crate::{interrupts, println, record, timer};

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
    let period = Duration::from_millis(10);
    for number in 1..=INTERRUPTS {
        let due = timer::now() + period;
        timer::start(period);
        interrupts::wait_until(|| timer::expired() >= number);
        if timer::now() < due {
            println!("timer interrupt {number} came too early");
            return ExitCode::Failure;
        }
        println!("timer interrupt {number}");
    }
    record!("timer", "interrupts" => timer::expired());
    ExitCode::Success
}

//! Scenarios that fault on purpose. One that returns has failed.

use alloc::boxed::Box;
use core::arch::asm;
use core::hint::black_box;
use core::time::Duration;

use aarch64_cpu::registers::{CNTP_CTL_EL0, CNTP_CVAL_EL0, Writeable};

use super::Context;
use crate::power::ExitCode;
use crate::{devicetree, interrupts, println, timer};

/// The last page of the 48-bit address space: no memory, and no registers of any machine.
const UNMAPPED: usize = 0xffff_ffff_f000;

/// Reads an unmapped address.
pub(super) fn exception(_: &Context) -> ExitCode {
    read_unmapped();
    ExitCode::Failure
}

fn read_unmapped() {
    // SAFETY: it faults, and the exception handler ends the run.
    unsafe { asm!("ldr {}, [{}]", out(reg) _, in(reg) UNMAPPED, options(nostack, readonly)) };
}

/// Recurses until the stack meets its guard page.
pub(super) fn guard_page(_: &Context) -> ExitCode {
    println!("reached depth {}", recurse(0));
    ExitCode::Failure
}

#[expect(unconditional_recursion, reason = "its purpose is to overflow the stack")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame.iter().sum::<u64>()
}

/// Writes to the kernel's code, its own first instruction: nothing is broken if it succeeds.
pub(super) fn write_text(_: &Context) -> ExitCode {
    let code = write_text as *const () as *mut u32;
    // SAFETY: it faults, and the exception handler ends the run; else it writes what is there already.
    unsafe { asm!("ldr {0:w}, [{1}]", "str {0:w}, [{1}]", out(reg) _, in(reg) code, options(nostack)) };
    ExitCode::Failure
}

/// Executes data: a `ret`, from which it would come back.
pub(super) fn execute_data(_: &Context) -> ExitCode {
    let ret = 0xd65f_03c0_u32;
    // SAFETY: it faults, and the exception handler ends the run; else it returns at once.
    unsafe { asm!("blr {}", in(reg) &raw const ret, out("x30") _) };
    ExitCode::Failure
}

/// Panics, with text in the message that JSON has to escape.
pub(super) fn panic(_: &Context) -> ExitCode {
    panic!("a \"panic\" on purpose");
}

/// Faults inside the handler of the physical timer's interrupt.
pub(super) fn in_handler(context: &Context) -> ExitCode {
    const PHYSICAL: usize = 1;
    const LIMIT: Duration = Duration::from_secs(5);
    let node = devicetree::find_compatible(&context.tree, &["arm,armv8-timer"]);
    let specifier = node.and_then(|node| devicetree::interrupt(&node, PHYSICAL));
    let enabled = specifier.map_err(Into::into).and_then(|cells| interrupts::enable(cells, Box::new(read_unmapped)));
    if let Err(error) = enabled {
        println!("{error}");
        return ExitCode::Failure;
    }
    CNTP_CVAL_EL0.set(0);
    CNTP_CTL_EL0.write(CNTP_CTL_EL0::ENABLE::SET);
    timer::wait_for(LIMIT, || false);
    println!("no interrupt came within {LIMIT:?}");
    ExitCode::Failure
}

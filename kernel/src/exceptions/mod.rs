//! Exceptions: interrupts go to [`crate::interrupts`], all others end the run with a report.
//!
//! What lives here: the vectors, the dump, the panic handler. What does not: the interrupt controller.

mod syndrome;

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::DAIF;
use aarch64_cpu::registers::Writeable;

use self::syndrome::Syndrome;
use crate::console::record::{Hex, Text};
use crate::power::ExitCode;
use crate::{backtrace, console, interrupts, power, println, record};

global_asm!(include_str!("vectors.s"), handle = sym handle);

/// What the vectors save of the interrupted code. Its layout is known to `vectors.s`.
#[repr(C)]
struct Frame {
    /// x0 to x30.
    x: [u64; 31],
    sp: u64,
    elr: u64,
    spsr: u64,
    esr: u64,
    far: u64,
    /// A frame record (AAPCS64) that links the handler to the interrupted code.
    record: [u64; 2],
}

const _: () = assert!(size_of::<Frame>() == 304);

/// The kinds of exception in the order of the vectors (Arm ARM D1.3.1.5).
const KINDS: [&str; 4] = ["synchronous exception", "IRQ", "FIQ", "SError"];
/// Where they come from, in the order of the vectors.
const SOURCES: [&str; 4] = ["the kernel", "an exception handler", "EL0 (AArch64)", "EL0 (AArch32)"];

/// The vector of interrupts that come while the kernel runs; handlers themselves run with interrupts masked.
const IRQ_FROM_KERNEL: usize = 1;

/// Entered from `vectors.s`, on the exception stack or, if it was in use already, on the emergency stack.
extern "C" fn handle(frame: &Frame, vector: usize) {
    if vector == IRQ_FROM_KERNEL {
        interrupts::handle();
        return;
    }
    if power::is_exiting() {
        // The semihosting call was an undefined instruction.
        power::exit(ExitCode::Exception);
    }
    begin_report(ExitCode::Exception);
    let kind = KINDS.get(vector % 4).unwrap_or(&"exception");
    let source = SOURCES.get(vector / 4).unwrap_or(&"nowhere");
    print_dump(frame, kind, source);
    backtrace::print(frame.elr as usize, frame.x[29] as usize);
    power::exit(ExitCode::Exception);
}

fn print_dump(frame: &Frame, kind: &str, source: &str) {
    let syndrome = Syndrome(frame.esr);
    println!("\n*** unhandled {kind} from {source}");
    println!("    {syndrome}");
    for (row, registers) in frame.x.chunks(3).enumerate() {
        for (column, value) in registers.iter().enumerate() {
            crate::print!("    x{:<3} {value:#018x}", row * 3 + column);
        }
        println!();
    }
    println!("    sp   {:#018x}    elr  {:#018x}    spsr {:#018x}", frame.sp, frame.elr, frame.spsr);
    println!("    esr  {:#018x}    far  {:#018x}", frame.esr, frame.far);
    record!(
        "exception",
        "kind" => kind,
        "syndrome" => Text(&syndrome),
        "esr" => Hex(frame.esr),
        "elr" => Hex(frame.elr),
        "far" => Hex(frame.far),
    );
}

/// Masks interrupts and makes the console usable for the run's last words. Ends the run at once if they have begun before.
fn begin_report(code: ExitCode) {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    DAIF.write(DAIF::D::Masked + DAIF::A::Masked + DAIF::I::Masked + DAIF::F::Masked);
    if REPORTING.swap(true, Ordering::Relaxed) {
        power::exit(code);
    }
    // SAFETY: the run ends here; nothing that was interrupted goes on.
    unsafe { console::seize() }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin_report(ExitCode::Panic);
    println!("\n*** {info}");
    record!("panic", "message" => Text(info.message()), "location" => info.location().map(Text));
    let (here, frame): (usize, usize);
    // SAFETY: reads two registers.
    unsafe {
        asm!("adr {}, .", "mov {}, x29", out(reg) here, out(reg) frame, options(nomem, nostack, preserves_flags))
    };
    backtrace::print(here, frame);
    power::exit(ExitCode::Panic)
}

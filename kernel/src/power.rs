//! The end of a run: an exit status for whoever started the machine, or power-off.

use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::asm;

use crate::psci;

/// How a run ended; the machine's exit status where semihosting is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The scenario did what it should.
    Success = 0,
    /// The scenario failed, or could not be started.
    Failure = 1,
    /// The kernel panicked.
    Panic = 101,
    /// An exception that nothing handles.
    Exception = 102,
}

static EXITING: AtomicBool = AtomicBool::new(false);

/// Ends the run: by semihosting, which passes on the status, else by PSCI, which does not.
pub fn exit(code: ExitCode) -> ! {
    if EXITING.swap(true, Ordering::Relaxed) {
        // Here for the second time: the exception handler, because there is no semihosting.
        psci::system_off();
        loop {
            asm::wfi();
        }
    }
    semihosting::process::ExitCode::from(code as u8).exit_process()
}

/// Ends the run with [`ExitCode::Failure`] where there is no console to say why: the debugger's, if there is one, is told.
pub fn exit_without_console(why: &str) -> ! {
    EXITING.store(true, Ordering::Relaxed);
    semihosting::eprintln!("kernel: {why}");
    semihosting::process::ExitCode::from(ExitCode::Failure as u8).exit_process()
}

/// Whether [`exit`] has been called. An exception after that means that semihosting is off.
#[must_use]
pub fn is_exiting() -> bool {
    EXITING.load(Ordering::Relaxed)
}

//! Lines for whoever watches. They get past a test harness, which holds back what its tests print, and they are lost without
//! a panic if nobody reads them any more.

use std::fmt;
use std::io::{self, Write as _};

use same_file::Handle;

/// Writes a line to standard error, as [`eprintln!`] does: `tell!("{} packages", count)`.
#[macro_export]
macro_rules! tell {
    ($($line:tt)*) => { $crate::terminal::to_stderr(format_args!($($line)*)) };
}

/// Writes a line to standard output, as [`println!`] does.
#[macro_export]
macro_rules! show {
    ($($line:tt)*) => { $crate::terminal::to_stdout(format_args!($($line)*)) };
}

/// Whether standard output and standard error are the same terminal, file or pipe.
pub fn outputs_are_one() -> bool {
    matches!((Handle::stdout(), Handle::stderr()), (Ok(stdout), Ok(stderr)) if stdout == stderr)
}

/// What [`tell!`] does.
pub fn to_stderr(line: fmt::Arguments<'_>) {
    // Nobody is left to be told of an error.
    let _ = writeln!(io::stderr(), "{line}");
}

/// What [`show!`] does.
pub fn to_stdout(line: fmt::Arguments<'_>) {
    // As above.
    let _ = writeln!(io::stdout(), "{line}");
}

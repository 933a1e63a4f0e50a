//! The `log` facade on the console, each line with the time since the counter started.

use log::{LevelFilter, Log, Metadata, Record};

use crate::{println, timer};

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let now = timer::now();
        let (seconds, micros) = (now.as_secs(), now.subsec_micros());
        println!("[{seconds:5}.{micros:06}] {:<5} {}: {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

/// Sends the `log` macros' output to the console.
pub(super) fn init() {
    // It fails only if it has been called before.
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

//! The log, on stderr.

use std::{
    env,
    io::{self, IsTerminal, Write},
    time::SystemTime,
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use super::CliError;

/// `SimpleLogger` decides what is logged. It is not left to write, since it panics where stderr is
/// a closed pipe or a file on a full disk: no reason for a controller to end.
struct Logger {
    filter: SimpleLogger,
    coloured: bool,
}

/// Sets the logger. `verbose` 1 shows how decisions are made, 2 what the libraries do, too.
pub(super) fn init(verbose: u8, quiet: bool) -> Result<(), CliError> {
    let (ours, theirs) = match (quiet, verbose) {
        (true, _) => (LevelFilter::Warn, LevelFilter::Error),
        (false, 0) => (LevelFilter::Info, LevelFilter::Warn),
        (false, 1) => (LevelFilter::Debug, LevelFilter::Warn),
        (false, _) => (LevelFilter::Trace, LevelFilter::Debug),
    };
    let filter = SimpleLogger::new()
        .with_level(theirs)
        .with_module_level("orch", ours);
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let coloured = !refused && io::stderr().is_terminal();
    log::set_max_level(filter.max_level());
    log::set_boxed_logger(Box::new(Logger { filter, coloured })).map_err(CliError::Logger)
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let level = self.level(record.level());
        let line = format!("{time} {level} {}\n", record.args());
        // One write, so that lines of several tasks do not mix. There is nobody to tell of its
        // failure.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

impl Logger {
    fn level(&self, level: Level) -> String {
        let colour = match level {
            Level::Error => 31,
            Level::Warn => 33,
            Level::Info => 36,
            Level::Debug | Level::Trace => 2,
        };
        if self.coloured {
            format!("\x1b[{colour}m{level:<5}\x1b[0m")
        } else {
            format!("{level:<5}")
        }
    }
}

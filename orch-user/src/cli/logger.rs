//! The log, on stderr.

use log::LevelFilter;
use simple_logger::SimpleLogger;

use super::CliError;

/// Sets the logger. `verbose` 1 shows how decisions are made, 2 what the libraries do, too.
pub(super) fn init(verbose: u8, quiet: bool) -> Result<(), CliError> {
    let (ours, theirs) = match (quiet, verbose) {
        (true, _) => (LevelFilter::Warn, LevelFilter::Error),
        (false, 0) => (LevelFilter::Info, LevelFilter::Warn),
        (false, 1) => (LevelFilter::Debug, LevelFilter::Warn),
        (false, _) => (LevelFilter::Trace, LevelFilter::Debug),
    };
    SimpleLogger::new()
        .with_level(theirs)
        .with_module_level("orch", ours)
        .with_utc_timestamps()
        .init()
        .map_err(CliError::Logger)
}

//! `orch gateway`: the process that `orch run` starts for services in mode http. Not for people.

use std::{fs, path::PathBuf};

use super::{CliError, logger};
use crate::http;

/// What the process is called; the kernel keeps 15 bytes.
const NAME: &str = "orch-gateway";

/// Forwards requests of services in mode http, as the controller says
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the controller reaches it
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Logs more; twice: much more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    logger::init(args.verbose, false)?;
    // It is started by a link, whose name it would have in `ps` and `ss`. No harm where that fails.
    let _ = fs::write("/proc/self/comm", NAME);
    Ok(http::run(&args.socket)?)
}

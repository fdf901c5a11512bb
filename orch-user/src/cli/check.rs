//! `orch check`: is the file well?

use std::path::PathBuf;

use super::{CliError, Target, print};
use crate::config::{self, DEFAULT_FILE, EXAMPLE};

/// Checks a configuration file; nothing is started
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    orch check -f orch.toml            every problem at once, with its line; exit code 2 if any\n  \
    orch check --example > orch.toml   a file with every setting and its default, to start from")]
pub(super) struct Args {
    /// Configuration file [default: orch.toml]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Prints a file with every setting and its default instead
    #[arg(long)]
    example: bool,
}

pub(super) fn run(args: &Args, before: Target) -> Result<(), CliError> {
    if args.example {
        return print::text(EXAMPLE);
    }
    let file = args.file.clone().or(before.file);
    let file = file.unwrap_or_else(|| DEFAULT_FILE.into());
    let config = config::examine(&file)?;
    let mut text = format!("{} is well", file.display());
    for service in &config.services {
        let last = service.start_port + (service.scale.max - 1);
        let line = format!(
            "\n  {}: port {} over {} to {} copies on ports {} to {last}",
            service.name,
            service.listen.port,
            service.scale.min,
            service.scale.max,
            service.start_port,
        );
        text.push_str(&line);
    }
    print::text(&(text + "\n"))
}

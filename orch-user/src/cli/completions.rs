//! `orch completions`: scripts for shells.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, CliError, print};

/// Prints a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    source <(orch completions bash)                                         this bash only\n  \
    orch completions bash > /usr/share/bash-completion/completions/orch     every bash\n  \
    orch completions zsh > /usr/share/zsh/vendor-completions/_orch          every zsh\n  \
    orch completions fish > ~/.config/fish/completions/orch.fish            your fish")]
pub(super) struct Args {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "orch", &mut script);
    print::text(&String::from_utf8_lossy(&script))
}

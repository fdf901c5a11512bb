//! The command line: one file per verb.

mod check;
mod completions;
mod doctor;
mod down;
mod error;
mod events;
mod gateway;
mod load;
mod lock;
mod logger;
mod pattern;
mod print;
mod ps;
mod record;
mod reset;
mod run;
mod scale;
mod seat;
mod session;
mod signals;
mod sim;
mod status;
mod target;
mod top;
mod why;

use clap::{Parser, Subcommand};

pub use error::CliError;
pub use lock::{Holder, Lock, LockError};
pub use seat::{Seat, SeatError, Served};
pub use session::Session;
pub use signals::Signal;
use target::Target;

/// Runs the copies of a service and balances them in the kernel.
#[derive(Debug, Parser)]
#[command(
    name = "orch",
    version,
    about,
    long_about = "Runs the copies of a service and balances TCP connections over them in the kernel.\n\
        Crashed copies are replaced on their port; their number follows the load.",
    after_help = "A first try, as root:\n  \
        orch run -- PROGRAM {port}     port 80 over processes that serve on the port they are given\n  \
        orch run --image NAME          port 80 over containers that serve on port 8080\n  \
        orch status                    what it does, from another terminal\n  \
        orch check --example           a file with every setting, to start from\n  \
        orch run -f orch.toml          what the file says\n\n\
        Exit codes: 0 done, 1 error, 2 usage or configuration.",
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    Check(check::Args),
    Ps(ps::Args),
    Status(status::Args),
    Top(top::Args),
    Why(why::Args),
    Events(events::Args),
    Load(Box<load::Args>),
    Scale(scale::Args),
    Reset(reset::Args),
    Record(record::Args),
    Sim(Box<sim::Args>),
    Down(down::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Gateway(gateway::Args),
}

impl Cli {
    /// Does what was asked for.
    pub fn dispatch(self) -> Result<(), CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CliError::Runtime)?;
        let before = self.target;
        runtime.block_on(async {
            match self.verb {
                Verb::Run(args) => run::run(args, before).await,
                Verb::Check(args) => check::run(&args, before),
                Verb::Ps(args) => ps::run(args, before).await,
                Verb::Status(args) => status::run(args, before).await,
                Verb::Top(args) => top::run(args, before).await,
                Verb::Why(args) => why::run(args, before).await,
                Verb::Events(args) => events::run(args, before).await,
                Verb::Load(args) => load::run(&args, before).await,
                Verb::Scale(args) => scale::run(args, before).await,
                Verb::Reset(args) => reset::run(args, before).await,
                Verb::Record(args) => record::run(args, before).await,
                Verb::Sim(args) => sim::run(*args, before).await,
                Verb::Down(args) => down::run(args, before).await,
                Verb::Doctor(args) => doctor::run(args, before).await,
                Verb::Completions(args) => completions::run(&args),
                Verb::Gateway(args) => gateway::run(&args),
            }
        })
    }
}

#[cfg(test)]
mod tests;

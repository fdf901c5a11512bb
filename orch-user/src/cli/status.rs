//! `orch status`: a row per service.

use super::{CliError, Target, print, print::Format};
use crate::{overview, view::ServiceRow};

/// Shows a row per service: copies, the current window, rates
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    orch status\n  \
    watch -n1 orch status\n  \
    orch status -o json | jq '.[0].window_count'\n\n\
    WINDOW is what was counted in the current window, ENDS the time to its end, which is when the\n\
    next decision falls.")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    let client = args.target.or(before).client()?;
    let rows: Vec<ServiceRow> = client.get("/v1/services").await?;
    match args.output {
        Format::Json => print::json(&rows),
        Format::Table => {
            let table = overview::services(&rows).render(print::cell);
            print::text(&(table + &overview::without_copies(&rows)))
        }
    }
}

//! `orch ps`: a row per slot.

use clap::ValueEnum;

use super::{CliError, Target, print};
use crate::{
    overview,
    view::{ServiceRow, SlotRow},
};

/// Shows a row per slot: what runs there, and how it is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    orch ps\n  \
    orch ps -o wide                              full ids, addresses, delivery, and what is wrong\n  \
    orch ps -o json | jq -r '.[] | select(.state != \"ready\" and .spare == false) | .port'")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[cfg(test)]
impl Args {
    /// Which controller it means.
    pub(super) fn target(self) -> Target {
        self.target
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    let client = args.target.or(before).client()?;
    let rows: Vec<SlotRow> = client.get("/v1/slots").await?;
    match args.output {
        Format::Json => print::json(&rows),
        Format::Table | Format::Wide => {
            let services: Vec<ServiceRow> = client.get("/v1/services").await?;
            let wide = matches!(args.output, Format::Wide);
            let table = overview::slots(&rows, wide).render(print::cell);
            print::text(&(table + &overview::without_copies(&services)))
        }
    }
}

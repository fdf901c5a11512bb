//! `orch why`: the last decisions.

use super::{CliError, Target, print, print::Format};
use crate::{
    table::{Side, Table},
    view::DecisionRow,
};

/// Shows the last decisions about the number of copies, each with its cause and numbers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    orch why                  all services\n  \
    orch why acts -n 3        the last three of one")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Of this service alone
    service: Option<String>,
    /// So many at the most
    #[arg(short = 'n', long, default_value_t = 20, value_name = "COUNT")]
    last: usize,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    let client = args.target.or(before).client()?;
    let what = match &args.service {
        Some(service) => format!("/v1/decisions?service={service}"),
        None => "/v1/decisions".to_owned(),
    };
    let rows: Vec<DecisionRow> = client.get(&what).await?;
    let rows = &rows[rows.len().saturating_sub(args.last)..];
    match args.output {
        Format::Json => print::json(&rows),
        Format::Table => print::text(&table(rows).render(print::cell)),
    }
}

fn table(rows: &[DecisionRow]) -> Table {
    let mut table = Table::new(&[
        ("TIME", Side::Left),
        ("SERVICE", Side::Left),
        ("FROM", Side::Right),
        ("TO", Side::Right),
        ("WHY", Side::Left),
    ]);
    for row in rows {
        table.row(vec![
            print::time(row.time),
            row.service.clone(),
            row.from.to_string(),
            row.to.to_string(),
            print::plain(&row.reason),
        ]);
    }
    table
}

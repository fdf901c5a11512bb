//! `orch events`: what happened.

use std::path::PathBuf;

use super::{CliError, Target, print, print::Format, target::Socket};
use crate::{
    api::client::Client,
    table::{Side, Table},
    view::EventRow,
};

/// Shows what happened: starts, crashes, replacements, changes of the number of copies
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    orch events\n  \
    orch events -f                         goes on as things happen, until Ctrl-C\n  \
    orch events -f -o json | jq .kind      an object per line\n\n\
    Here -f follows; the file is named by --file, or before the verb: orch -f FILE events -f")]
pub(super) struct Args {
    /// Configuration file; the controller is the one behind its `control` socket
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    socket: Socket,
    /// Goes on as things happen
    #[arg(short, long)]
    follow: bool,
    /// So many at the most, of those that have happened
    #[arg(short = 'n', long, default_value_t = 1000, value_name = "COUNT")]
    last: usize,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    let target = Target {
        file: args.file,
        socket: args.socket,
    };
    let client = target.or(before).client()?;
    let rows: Vec<EventRow> = client.get("/v1/events").await?;
    let newest = rows.last().map_or(0, |row| row.id);
    let rows = &rows[rows.len().saturating_sub(args.last)..];
    match (args.output, args.follow) {
        (Format::Json, false) => print::json(&rows)?,
        (Format::Json, true) => rows.iter().try_for_each(print::json_line)?,
        (Format::Table, false) => print::text(&table(rows).render(print::cell))?,
        (Format::Table, true) => rows.iter().try_for_each(line)?,
    }
    if args.follow {
        follow(&client, newest, args.output).await?;
    }
    Ok(())
}

async fn follow(client: &Client, newest: u64, output: Format) -> Result<(), CliError> {
    let mut follower = client.follow(newest).await?;
    while let Some(event) = follower.next().await? {
        match output {
            Format::Json => print::json_line(&event)?,
            Format::Table => line(&event)?,
        }
    }
    Err(CliError::Ended)
}

/// Rows that come one by one cannot know how wide the others will be.
fn line(row: &EventRow) -> Result<(), CliError> {
    let [time, place, kind, text] = cells(row);
    let time = print::cell("TIME", &time);
    let kind = print::cell("KIND", &format!("{kind:<9}"));
    print::text(&format!("{time}  {place:<12}  {kind}  {text}\n"))
}

fn table(rows: &[EventRow]) -> Table {
    let columns = ["TIME", "PLACE", "KIND", "WHAT"].map(|name| (name, Side::Left));
    let mut table = Table::new(&columns);
    for row in rows {
        table.row(cells(row).into());
    }
    table
}

fn cells(row: &EventRow) -> [String; 4] {
    let place = match row.slot {
        Some(slot) => format!("{}/{slot}", row.service),
        None if row.service.is_empty() => "-".to_owned(),
        None => row.service.clone(),
    };
    [
        print::time(row.time),
        place,
        row.kind.clone(),
        print::plain(&row.text),
    ]
}

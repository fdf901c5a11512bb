//! `orch record`: what a live service saw.

use std::{fs, path::PathBuf, time::Duration};

use super::{CliError, Target, print};
use crate::{arrivals::trace::Trace, control::Recording, events::now_s};

/// Writes what a live service saw: a trace for `orch sim`, or the log of its policy
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    orch record acts > acts.csv                          requests per second, up to six hours back\n  \
    orch sim --trace acts.csv                            what each policy would have done with them\n  \
    orch record acts --decisions -O acts.json            what its policy was told and decided\n  \
    orch sim --from-events acts.json                     decides again, and compares")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Of this service
    service: String,
    /// What its policy was told in the last minutes and what it decided, as JSON
    #[arg(long)]
    decisions: bool,
    /// Into this file, rather than to the standard output
    #[arg(short = 'O', long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    let client = args.target.or(before).client()?;
    let what = format!("/v1/services/{}/recording", args.service);
    let recording: Recording = client.get(&what).await?;
    let text = if args.decisions {
        let json = serde_json::to_string(&recording.log).map_err(std::io::Error::from);
        json.map_err(CliError::Output)? + "\n"
    } else {
        let end = print::time(now_s());
        let comment = format!("requests of {} up to {end}, by `orch record`", args.service);
        trace(&recording).to_csv(&[comment])
    };
    match args.out {
        Some(path) => fs::write(&path, text).map_err(|source| CliError::File { path, source }),
        None => print::text(&text),
    }
}

/// The recording's counts. The last second is not over and does not count.
pub(super) fn trace(recording: &Recording) -> Trace {
    let (_, whole) = recording.seconds.split_last().unwrap_or((&0, &[]));
    let counts = whole.iter().map(|count| *count as f64).collect();
    Trace::new(Duration::from_secs(1), counts)
}

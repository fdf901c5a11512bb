//! `orch reset`: zeroes a window.

use serde_json::json;

use super::{CliError, Target, print};

/// Zeroes the window of a service: the next counted request starts a new one
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  orch reset acts")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Which service
    service: String,
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    let client = args.target.or(before).client()?;
    let what = format!("/v1/services/{}/reset", args.service);
    let done = client.post(&what, &json!({})).await?;
    print::text(&format!("{}: {done}\n", args.service))
}

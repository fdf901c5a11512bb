//! `cargo xtask drill`: named faults under load, and what clients notice of them.

use crate::{build, error::Error, shell};

/// What is struck, and how hard.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Connections a second
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Blows of each kind that copies suffer
    #[arg(long, default_value_t = 3)]
    kills: u32,
    /// SYNs of the flood
    #[arg(long, default_value_t = 1_000_000)]
    flood: u32,
    /// Only the troubles of the host, not every way in which a copy can die
    #[arg(long)]
    host: bool,
}

/// Runs the drill, which needs root and a Docker engine.
pub(crate) fn drill(args: &Args) -> Result<(), Error> {
    build::orch()?;
    build::acts()?;
    build::acts_image()?;
    let mut cargo = shell::cargo("test");
    cargo.args([
        "--quiet",
        "--package",
        "orch-tests",
        "--test",
        "docker",
        "--",
    ]);
    cargo.args(["--nocapture", "--test-threads=1", "troubles_of_the_host"]);
    if !args.host {
        cargo.arg("notice_no_death");
    }
    cargo.env("ORCH_DRILL_RATE", args.rate.to_string());
    cargo.env("ORCH_DRILL_KILLS", args.kills.to_string());
    cargo.env("ORCH_DRILL_FLOOD", args.flood.to_string());
    shell::run(&mut cargo)
}

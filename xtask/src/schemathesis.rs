//! `cargo xtask schemathesis`, and the rung `api`: requests made from the API's own description, to a
//! controller of its own, and a look at every answer.

use std::{path::PathBuf, process::Command};

use crate::{build, error::Error, paths, rung, shell};

/// All that is installed where there is none, each in one version: what it finds should depend on the
/// controller alone.
const PACKAGES: &str = "xtask/src/schemathesis.txt";
/// How long the rung asks, in seconds.
const RUNG: u32 = 300;

/// How long to ask.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds.
    #[arg(long, default_value_t = RUNG)]
    seconds: u32,
}

/// Builds what is needed, and asks.
pub(crate) fn schemathesis(args: &Args) -> Result<(), Error> {
    build::orch()?;
    build::acts()?;
    ask(args.seconds)
}

/// The rung.
pub(crate) fn run() -> Result<(), Error> {
    ask(RUNG)
}

/// Runs the test that starts a controller for it.
fn ask(seconds: u32) -> Result<(), Error> {
    let mut cargo = shell::cargo("test");
    cargo.args(["--package", "orch-tests", "--test", "api"]);
    cargo.env("ORCH_BIN", paths::orch());
    cargo.env("ACTS_BIN", paths::acts());
    cargo.env("ORCH_SCHEMATHESIS", program()?);
    cargo.env("ORCH_SCHEMATHESIS_SECONDS", seconds.to_string());
    rung::as_root(&mut cargo);
    shell::run(cargo.args(["--", "schemathesis", "--include-ignored", "--nocapture"]))
}

/// The one that is installed, or one in a virtual environment below `target/`.
pub(crate) fn program() -> Result<PathBuf, Error> {
    if let Some(found) = shell::find("schemathesis") {
        return Ok(found);
    }
    let place = paths::target().join("schemathesis");
    let program = place.join("bin/schemathesis");
    if !program.is_file() {
        shell::output(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
        let mut pip = shell::command(place.join("bin/pip"));
        shell::output(pip.args(["install", "--quiet", "-r", PACKAGES]))?;
    }
    Ok(program)
}

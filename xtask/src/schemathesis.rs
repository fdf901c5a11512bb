//! `cargo xtask schemathesis`: requests made from the API's own description, to a controller of its
//! own, and a look at every answer.

use std::{path::PathBuf, process::Command};

use crate::{build, error::Error, paths, shell};

/// The version that is installed where there is none.
const VERSION: &str = "4.32.5";

/// How long to ask.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
}

/// Installs it below `target/` and runs the test that starts a controller for it.
pub(crate) fn schemathesis(args: &Args) -> Result<(), Error> {
    build::orch()?;
    build::acts()?;
    let program = program()?;
    let mut cargo = shell::cargo("test");
    cargo.args(["--package", "orch-tests", "--test", "api"]);
    cargo.env("ORCH_BIN", paths::orch());
    cargo.env("ACTS_BIN", paths::acts());
    cargo.env("ORCH_SCHEMATHESIS", program);
    cargo.env("ORCH_SCHEMATHESIS_SECONDS", args.seconds.to_string());
    crate::rung::as_root(&mut cargo);
    shell::run(cargo.args(["--", "schemathesis", "--include-ignored", "--nocapture"]))
}

/// The one that is installed, or one in a virtual environment.
fn program() -> Result<PathBuf, Error> {
    if let Some(found) = shell::find("schemathesis") {
        return Ok(found);
    }
    let place = paths::target().join("schemathesis");
    let program = place.join("bin/schemathesis");
    if !program.is_file() {
        shell::run(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
        let wanted = format!("schemathesis=={VERSION}");
        let mut pip = Command::new(place.join("bin/pip"));
        shell::run(pip.args(["install", "--quiet", &wanted]))?;
    }
    Ok(program)
}

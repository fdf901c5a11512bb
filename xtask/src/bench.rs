//! `cargo xtask bench`: orch beside its peers, on this machine.

use crate::{build, error::Error, paths, shell};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For the benchmark: `--quick`, `--passes N`, `--seconds S`, `--markdown`, `--no-peers`,
    /// `--no-packets`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds everything for release and runs the benchmark, which needs root.
pub(crate) fn bench(args: &Args) -> Result<(), Error> {
    build::orch()?;
    build::acts()?;
    let mut cargo = shell::cargo("run");
    cargo.args([
        "--quiet",
        "--release",
        "--package",
        "orch-tests",
        "--bin",
        "bench",
        "--",
    ]);
    cargo.arg("--orch").arg(paths::orch());
    cargo.arg("--acts").arg(paths::acts());
    cargo.args(&args.rest);
    shell::run(&mut cargo)
}

//! Development commands of orch, one file per verb: `cargo xtask --help` lists them.
#![forbid(unsafe_code)]

mod aside;
mod axe;
mod bench;
mod build;
mod build_ebpf;
mod ci;
mod cna;
mod digest;
mod docker;
mod drill;
mod error;
mod functions;
mod host;
mod instructions;
mod paths;
mod run;
mod rung;
mod schemathesis;
mod screenshot;
mod shell;
mod stack;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

/// Development commands of orch.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build and start orch, by default with the demo service on port 80; `cna` for a scored load.
    Run(run::Args),
    /// Run the tests, by default all that this host can run.
    Test(test::Args),
    /// Take the pictures of the status page that the README shows.
    Screenshot,
    /// Ask the API of a running controller what its description allows, and what it does not.
    Schemathesis(schemathesis::Args),
    /// Strike copies and host under load, and report what clients notice.
    Drill(drill::Args),
    /// Measure orch beside its peers on this machine.
    Bench(bench::Args),
    /// Build the kernel programs into the object that is committed.
    BuildEbpf(build_ebpf::Args),
    /// Check everything that must hold before a merge.
    Ci,
}

fn main() -> ExitCode {
    match perform(Args::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::Run(args) => run::run(&args),
        Verb::Test(args) => test::test(&args),
        Verb::Screenshot => screenshot::screenshot(),
        Verb::Schemathesis(args) => schemathesis::schemathesis(&args),
        Verb::Drill(args) => drill::drill(&args),
        Verb::Bench(args) => bench::bench(&args),
        Verb::BuildEbpf(args) => build_ebpf::build_ebpf(&args),
        Verb::Ci => ci::ci(),
    }
}

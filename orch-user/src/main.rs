//! The `orch` binary: parse, do, say what went wrong.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use orch::cli::{Cli, CliError};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help is one of these, too.
        Err(error) => return show(&error),
    };
    match cli.dispatch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Help, or what is wrong with the command line.
fn show(error: &clap::Error) -> ExitCode {
    match error.print().and_then(|()| io::stdout().flush()) {
        Err(unwritten) if unwritten.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr().lock(), "error: cannot write: {unwritten}");
            ExitCode::FAILURE
        }
        _ => ExitCode::from(error.exit_code() as u8),
    }
}

/// The error and its causes, a line each.
fn report(error: &CliError) {
    if error.is_silent() {
        return;
    }
    let mut stderr = io::stderr().lock();
    // Nowhere is left to say that stderr is closed.
    let _ = writeln!(stderr, "error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = writeln!(stderr, "  because: {error}");
        cause = error.source();
    }
}

//! Results go to stdout: plain, or coloured where a person looks at them.

use std::{
    env,
    io::{self, IsTerminal, Write},
    time::{Duration, UNIX_EPOCH},
};

use clap::ValueEnum;
use serde::Serialize;

use super::CliError;

/// How results are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
}

/// Writes text as it is.
pub(super) fn text(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(CliError::Output)
}

/// Writes JSON over several lines.
pub(super) fn json(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value).map_err(io::Error::from);
    text(&(json.map_err(CliError::Output)? + "\n"))
}

/// Writes JSON on one line.
pub(super) fn json_line(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string(value).map_err(io::Error::from);
    text(&(json.map_err(CliError::Output)? + "\n"))
}

/// A colour of the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    Green,
    Yellow,
    Red,
    Dim,
}

/// Colours text on a terminal, unless `NO_COLOR` says otherwise.
pub(super) fn paint(colour: Colour, text: &str) -> String {
    let code = match colour {
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Red => 31,
        Colour::Dim => 2,
    };
    if coloured() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn coloured() -> bool {
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stdout().is_terminal()
}

/// Colours the cell of a table that holds a state.
pub(super) fn cell(column: &str, cell: &str) -> String {
    let colour = match (column, cell.trim()) {
        ("STATE", "ready" | "spare") => Colour::Green,
        ("STATE", "failed") | ("KIND", "unhealthy" | "exited" | "lost" | "error") => Colour::Red,
        ("STATE", "starting" | "draining" | "stopping" | "backoff") | ("KIND", "backoff") => {
            Colour::Yellow
        }
        ("TIME", _) => Colour::Dim,
        _ => return cell.to_owned(),
    };
    paint(colour, cell)
}

/// Seconds since 1970 as `2026-01-31T12:00:00Z`.
pub(super) fn time(seconds: f64) -> String {
    let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let time = UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Text without control characters, which a backend's log could have brought.
pub(super) fn plain(text: &str) -> String {
    let plain = |char: char| if char.is_control() { ' ' } else { char };
    text.chars().map(plain).collect()
}

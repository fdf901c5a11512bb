//! How many instructions each kernel program has, and each function that it calls, read from the object itself, so that the check
//! needs neither root nor a kernel. The test `orch-user/tests/object.rs` includes this file.
//!
//! The record is not the last build's but a figure that somebody has accepted: builds leave it
//! alone, else programs could grow by a little for ever.

use std::{collections::BTreeMap, fmt::Write};

use crate::functions::Function;

/// The record, relative to the root of the repository.
pub(crate) const FIGURES: &str = "orch-ebpf/orch.bpf.instructions";
/// How many per cent a function may have grown beyond its figure.
pub(crate) const TOLERANCE: u64 = 10;
/// How many instructions are no growth: a tenth of a short function is less than one.
const SLACK: u64 = 16;

/// Instructions by function.
pub(crate) type Figures = BTreeMap<String, u64>;

/// Reads the record.
pub(crate) fn from_text(text: &str) -> Figures {
    let pair = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// The text of the record.
pub(crate) fn to_text(figures: &Figures) -> String {
    let mut text = String::new();
    for (name, count) in figures {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} {count}");
    }
    text
}

/// A sentence per function that has no figure, or has outgrown it.
pub(crate) fn outgrown(recorded: &Figures, now: &Figures) -> Vec<String> {
    now.iter()
        .filter_map(|(name, count)| match recorded.get(name) {
            None => Some(format!("{name} has {count} instructions and no figure")),
            Some(figure) if *count > figure + SLACK.max(figure * TOLERANCE / 100) => Some(format!(
                "{name} has {count} instructions, more than {TOLERANCE} % above {figure}"
            )),
            Some(_) => None,
        })
        .collect()
}

/// The record after a build: functions that are new get a figure, those that are gone lose theirs.
pub(crate) fn kept(recorded: &Figures, now: &Figures) -> Figures {
    let figure = |(name, count): (&String, &u64)| {
        (name.clone(), recorded.get(name).copied().unwrap_or(*count))
    };
    now.iter().map(figure).collect()
}

/// Counts them.
pub(crate) fn of(functions: &[Function]) -> Figures {
    let mut figures = Figures::new();
    for function in functions {
        *figures.entry(function.name.clone()).or_default() += function.code.len() as u64;
    }
    figures
}

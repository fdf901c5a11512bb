//! Checks of single values: words, numbers, durations, sizes, paths.

use std::{path::PathBuf, time::Duration};

use crate::config::problem::{At, Sink};

/// One of a few words. `later` are words of the design that this version does not know yet.
pub(super) fn choice<T: Copy>(
    raw: &At<String>,
    known: &[(&str, T)],
    later: &[&str],
    fallback: T,
    sink: &Sink,
) -> T {
    let found = known.iter().find(|(word, _)| *word == raw.value);
    if let Some((_, meaning)) = found {
        return *meaning;
    }
    let words: Vec<_> = known.iter().map(|(word, _)| format!("{word:?}")).collect();
    let words = words.join(" or ");
    let text = if later.contains(&raw.value.as_str()) {
        format!("{:?} is not in this version yet: {words}", raw.value)
    } else {
        format!("must be {words}, not {:?}", raw.value)
    };
    sink.at(raw, text);
    fallback
}

/// A whole number in a range.
pub(super) fn number<T: TryFrom<i64> + Default>(
    raw: &At<i64>,
    min: i64,
    max: i64,
    sink: &Sink,
) -> T {
    let value = raw.value;
    if value < min || value > max {
        let text = if max == i64::MAX {
            format!("must be at least {min}, not {value}")
        } else {
            format!("must be from {min} to {max}, not {value}")
        };
        sink.at(raw, text);
    }
    T::try_from(value).unwrap_or_default()
}

/// The longest duration, a century: sums of some of them are still moments.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

/// A duration, zero included.
pub(super) fn duration(raw: &At<String>, sink: &Sink) -> Option<Duration> {
    let parsed = humantime::parse_duration(&raw.value);
    let text = &raw.value;
    let problem = match &parsed {
        Err(_) => format!("{text:?} is not a duration: write \"900ms\", \"10s\" or \"2m\""),
        Ok(long) if *long > LONGEST => format!("{text:?} is longer than a century"),
        Ok(_) => return parsed.ok(),
    };
    sink.at(raw, problem);
    None
}

/// A duration longer than zero.
pub(super) fn positive_duration(raw: &At<String>, sink: &Sink) -> Option<Duration> {
    let parsed = duration(raw, sink)?;
    if parsed.is_zero() {
        sink.at(raw, "must be longer than 0s");
        return None;
    }
    Some(parsed)
}

/// Units of sizes: `KiB` and its like are powers of 1024, `kB` and its like of 1000.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A number of bytes, `128MiB`; empty for 0.
pub(super) fn size(raw: &At<String>, sink: &Sink) -> u64 {
    let text = raw.value.trim();
    if text.is_empty() {
        return 0;
    }
    let parsed = UNITS.iter().find_map(|(unit, bytes)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*bytes)
    });
    parsed.unwrap_or_else(|| {
        let text = format!(
            "{:?} is not a size: write \"128MiB\" or \"2GiB\", or \"\" for no limit",
            raw.value
        );
        sink.at(raw, text);
        0
    })
}

/// An absolute path of a file or directory.
pub(super) fn path(raw: &At<String>, sink: &Sink) -> PathBuf {
    let path = PathBuf::from(&raw.value);
    if !path.is_absolute() {
        let text = format!("must be an absolute path, not {:?}", raw.value);
        sink.at(raw, text);
    }
    path
}

/// A path as it stands in a request. `most` is how many of its bytes can be told apart.
pub(super) fn url_path(raw: &At<String>, most: usize, sink: &Sink) -> String {
    let text = &raw.value;
    let odd = |char: char| char.is_whitespace() || char.is_control() || char == '#';
    if !text.starts_with('/') {
        sink.at(raw, format!("must start with '/', unlike {text:?}"));
    } else if text.contains(odd) || !text.is_ascii() {
        sink.at(raw, format!("{text:?} cannot stand in a request like that"));
    } else if text.len() > most {
        let len = text.len();
        sink.at(
            raw,
            format!("has {len} bytes; {most} are compared at the most"),
        );
    }
    text.clone()
}

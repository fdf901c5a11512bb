//! How many instructions each kernel program has, and each function that it calls, read from the object itself, so that the check
//! needs neither root nor a kernel. The test `orch-user/tests/object.rs` includes this file.
//!
//! The record is not the last build's but a figure that somebody has accepted: builds leave it
//! alone, else programs could grow by a little for ever.

use std::{collections::BTreeMap, fmt::Write};

/// The record, relative to the root of the repository.
pub(crate) const FIGURES: &str = "orch-ebpf/orch.bpf.instructions";
/// How many per cent a function may have grown beyond its figure.
pub(crate) const TOLERANCE: u64 = 10;
/// How many instructions are no growth: a tenth of a short function is less than one.
const SLACK: u64 = 16;
const INSTRUCTION_BYTES: u64 = 8;

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

/// Counts the instructions of an object; nothing if it is no 64-bit little-endian ELF.
pub(crate) fn of_object(object: &[u8]) -> Option<Figures> {
    // Offsets and numbers are those of `elf.h`.
    const SYMBOLS: u64 = 2;
    const FUNCTION: u8 = 2;
    const SYMBOL_BYTES: usize = 24;
    if object.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = number(object, 40, 8)?;
    let section = |index: u64| {
        let header = object.get(usize::try_from(table + 64 * index).ok()?..)?;
        let (from, length) = (number(header, 24, 8)?, number(header, 32, 8)?);
        let bytes = object.get(usize::try_from(from).ok()?..usize::try_from(from + length).ok()?);
        Some((header, bytes))
    };
    let count = number(object, 60, 2)?;
    let (header, symbols) = (0..count)
        .filter_map(section)
        .find(|(header, _)| number(header, 4, 4) == Some(SYMBOLS))?;
    let names = section(number(header, 40, 4)?)?.1?;
    let mut figures = Figures::new();
    for symbol in symbols?.chunks_exact(SYMBOL_BYTES) {
        if symbol[4] & 0xf != FUNCTION {
            continue;
        }
        let name = plain(text_at(names, number(symbol, 0, 4)?)?);
        *figures.entry(name).or_default() += number(symbol, 16, 8)? / INSTRUCTION_BYTES;
    }
    Some(figures)
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let field = bytes.get(at..at + length)?;
    Some(
        field
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    )
}

fn text_at(names: &[u8], at: u64) -> Option<&str> {
    let rest = names.get(usize::try_from(at).ok()?..)?;
    std::str::from_utf8(rest.split(|byte| *byte == 0).next()?).ok()
}

/// The path of a function within its crate: `_RNvNtCsfuwRhVe4EPw_4orch6upkeep5visit` is
/// `upkeep::visit`. What is before it changes with the compiler. Other names stay.
fn plain(symbol: &str) -> String {
    let Some((_, mut rest)) = symbol.split_once("_4orch") else {
        return symbol.to_owned();
    };
    let mut path = Vec::new();
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let word = rest[..digits].parse().ok().and_then(|length: usize| {
            // A zero is a closure's number: closures count as the function they are in.
            rest.get(digits..digits + length).filter(|_| length > 0)
        });
        let Some(word) = word else {
            return path.join("::");
        };
        path.push(word);
        rest = &rest[digits + word.len()..];
    }
}

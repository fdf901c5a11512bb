//! `orch sim --from-events`: decides again.

use std::{fs, path::Path};

use crate::{
    cli::{CliError, print, print::Format},
    scale::Log,
};

/// Decides again what was decided before.
pub(super) fn run(path: &Path, output: Format) -> Result<(), CliError> {
    let path = path.to_owned();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(CliError::File { path, source }),
    };
    let log: Log = match serde_json::from_str(&text) {
        Ok(log) => log,
        Err(source) => return Err(CliError::Recording { path, source }),
    };
    let replayed = log.replay();
    if output == Format::Json {
        print::json(&replayed)?;
    }
    for (at, again, before) in &replayed {
        let words = |decision: &Option<crate::scale::Decision>| match decision {
            Some(one) => format!("{} -> {}: {}", one.from, one.to, one.reason),
            None => "nothing".to_owned(),
        };
        if output == Format::Json {
            continue;
        }
        print::text(&format!("{:8.2}s  {}\n", at.as_secs_f64(), words(again)))?;
        if again != before {
            print::text(&format!("           but before: {}\n", words(before)))?;
        }
    }
    let count = replayed
        .iter()
        .filter(|(_, again, before)| again != before)
        .count();
    let all = replayed.len();
    if count > 0 {
        return Err(CliError::Differs { count, all });
    }
    if output == Format::Table {
        let readings = log.entries.len();
        print::text(&format!(
            "{all} decisions from {readings} inputs, all the same as before\n"
        ))?;
    }
    Ok(())
}

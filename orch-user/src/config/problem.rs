//! Problems of a configuration, each with its place in the file.

use std::{cell::RefCell, fmt, io, path::PathBuf};

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; `None` for a value that nobody wrote.
    pub line: Option<usize>,
    /// The key's path, `service[0].scale.min`; empty for a syntax error.
    pub key: String,
    /// What is wrong, and what would be right.
    pub text: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither a file nor an image nor a program is named, and none lies where it is looked for.
    #[error(
        "there is no {} here: name a file (`orch run -f FILE`), an image (`orch run --image NAME`) or a program (`orch run -- PROGRAM ARGS`)",
        path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file was read but says things that cannot be.
    #[error("{}", Listing { file, problems })]
    Invalid {
        /// The file as the user named it.
        file: String,
        /// Everything that is wrong with it, in the order of its lines.
        problems: Vec<Problem>,
    },
}

struct Listing<'a> {
    file: &'a str,
    problems: &'a [Problem],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, problems } = self;
        let plural = if problems.len() == 1 { "" } else { "s" };
        write!(f, "{file} has {} problem{plural}", problems.len())?;
        for Problem { line, key, text } in *problems {
            write!(f, "\n{file}:")?;
            if let Some(line) = line {
                write!(f, "{line}:")?;
            }
            if !key.is_empty() {
                write!(f, " {key}:")?;
            }
            write!(f, " {text}")?;
        }
        Ok(())
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    /// The key's path.
    pub(crate) key: String,
    /// `None` where the value is the default.
    pub(crate) line: Option<usize>,
}

/// Collects problems while a file is read and checked.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    problems: RefCell<Vec<Problem>>,
}

impl Sink {
    /// Notes what is wrong with a value.
    pub(crate) fn at<T>(&self, place: &At<T>, text: impl Into<String>) {
        self.add(place.line, &place.key, text);
    }

    /// Notes a problem.
    pub(crate) fn add(&self, line: Option<usize>, key: &str, text: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            line,
            key: key.to_owned(),
            text: text.into(),
        });
    }

    /// Everything noted, in the order of the lines. What shares its line with a syntax error is
    /// left out: the parser's guess at that line is no longer what the user wrote.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        let broken: Vec<_> = problems
            .iter()
            .filter(|problem| problem.key.is_empty())
            .map(|problem| problem.line)
            .collect();
        problems.retain(|problem| problem.key.is_empty() || !broken.contains(&problem.line));
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        // The parser says the same once per level that it gives up.
        problems.dedup();
        problems
    }

    /// Whether anything was noted so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.problems.borrow().is_empty()
    }
}

//! Traces: counts per second or per minute, as CSV.

use std::{fmt::Write, time::Duration};

/// Requests per interval since the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Length of an interval.
    pub step: Duration,
    /// Requests in each; may be fractions.
    pub counts: Vec<f64>,
}

/// Why a text is no trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The first line that is no comment says what the columns are.
    #[error("line {line}: expected the header `second,count` or `minute,count`, not {found:?}")]
    Header {
        /// From 1.
        line: usize,
        /// What is there.
        found: String,
    },
    /// A line is not two numbers.
    #[error("line {line}: expected a whole number, a comma and a count, not {found:?}")]
    Row {
        /// From 1.
        line: usize,
        /// What is there.
        found: String,
    },
    /// Times must rise, or counts would have no place.
    #[error("line {line}: {at} comes after {before}; times must rise, below {most}")]
    Order {
        /// From 1.
        line: usize,
        /// The time there.
        at: usize,
        /// The time before.
        before: usize,
        /// Most intervals.
        most: usize,
    },
    /// There is nothing to replay.
    #[error("it has no counts")]
    Empty,
}

/// Most intervals: a month of seconds.
const MOST: usize = 31 * 24 * 3600;

impl Trace {
    /// Reads a trace: a header `second,count` or `minute,count`, then rows. Intervals that are left
    /// out had no requests; lines that begin with `#` are comments.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let lines = text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line.trim()));
        let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (line, header) = lines.next().ok_or(TraceError::Empty)?;
        let columns: Vec<&str> = header.split(',').map(str::trim).collect();
        let step = match columns[..] {
            ["second", "count"] => Duration::from_secs(1),
            ["minute", "count"] => Duration::from_mins(1),
            _ => {
                let found = header.to_owned();
                return Err(TraceError::Header { line, found });
            }
        };
        let mut counts = Vec::new();
        for (line, row) in lines {
            let Some((at, count)) = parse_row(row) else {
                let found = row.to_owned();
                return Err(TraceError::Row { line, found });
            };
            if at < counts.len() || at >= MOST {
                return Err(TraceError::Order {
                    line,
                    at,
                    before: counts.len().saturating_sub(1),
                    most: MOST,
                });
            }
            counts.resize(at, 0.0);
            counts.push(count);
        }
        if counts.is_empty() {
            return Err(TraceError::Empty);
        }
        Ok(Self { step, counts })
    }

    /// The text that [`Trace::parse`] reads, with comment lines before it.
    pub fn to_csv(&self, comments: &[String]) -> String {
        let mut text = String::new();
        for comment in comments {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# {comment}");
        }
        let unit = if self.step.as_secs() == 60 {
            "minute"
        } else {
            "second"
        };
        let _ = writeln!(text, "{unit},count");
        for (at, count) in self.counts.iter().enumerate() {
            let _ = writeln!(text, "{at},{count}");
        }
        text
    }

    /// How long it lasts.
    pub fn length(&self) -> Duration {
        self.step * self.counts.len() as u32
    }

    /// Its first or its second half.
    #[must_use]
    pub fn half(&self, second: bool) -> Self {
        let (first_half, second_half) = self.counts.split_at(self.counts.len() / 2);
        let counts = if second { second_half } else { first_half };
        Self {
            step: self.step,
            counts: counts.to_vec(),
        }
    }

    /// The same shape with so many requests a second at its peak.
    #[must_use]
    pub fn with_peak(&self, rate: f64) -> Self {
        let peak = self.counts.iter().copied().fold(0.0, f64::max);
        let factor = if peak > 0.0 {
            rate * self.step.as_secs_f64() / peak
        } else {
            0.0
        };
        Self {
            step: self.step,
            counts: self.counts.iter().map(|count| count * factor).collect(),
        }
    }
}

fn parse_row(row: &str) -> Option<(usize, f64)> {
    let (at, count) = row.split_once(',')?;
    let count: f64 = count.trim().parse().ok()?;
    let good = count.is_finite() && count >= 0.0;
    Some((at.trim().parse().ok()?, good.then_some(count)?))
}

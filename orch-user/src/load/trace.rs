//! Traces: requests per second or per minute, as CSV.

use std::time::Duration;

use super::curve::{Curve, Step};

/// Intervals that one file may span, gaps included: two years of seconds are 63 million.
const MOST_INTERVALS: u64 = 100_000_000;

/// Requests per interval, from the file's first interval on.
///
/// The file is CSV: a header `second,count` or `minute,count`, then a row per interval, ascending.
/// Intervals that are left out have no requests. Lines that begin with `#`, and empty ones, are
/// comments. Numbers of intervals may begin anywhere (seconds since 1970, say): time 0 is the
/// beginning of the first row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    interval: Duration,
    counts: Vec<u64>,
}

/// What is wrong with a trace, and in which line of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The first line that is no comment is no header.
    #[error("line {line}: the header must be `second,count` or `minute,count`, not `{found}`")]
    Header {
        /// The line, counted from 1.
        line: usize,
        /// What is there.
        found: String,
    },
    /// A row is not two whole numbers.
    #[error("line {line}: `{found}` is not a number of an interval and a count, as in `17,250`")]
    Row {
        /// The line.
        line: usize,
        /// What is there.
        found: String,
    },
    /// A row's interval is not after that of the row before.
    #[error("line {line}: interval {found} comes after {before}: rows must ascend")]
    Order {
        /// The line.
        line: usize,
        /// Its interval.
        found: u64,
        /// That of the row before.
        before: u64,
    },
    /// The file spans too much.
    #[error("line {line}: more than {MOST_INTERVALS} intervals after the first one")]
    TooLong {
        /// The line.
        line: usize,
    },
    /// No rows.
    #[error("there is nothing in it: a header `second,count` and a row per interval are expected")]
    Empty,
}

impl Trace {
    /// A trace of these counts. The interval must not be zero.
    pub fn new(interval: Duration, counts: Vec<u64>) -> Self {
        Self { interval, counts }
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let lines = text.lines().map(str::trim).enumerate();
        let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (at, header) = lines.next().ok_or(TraceError::Empty)?;
        let header: String = header.split_whitespace().collect();
        let interval = match header.trim_start_matches('\u{feff}') {
            "second,count" => Duration::from_secs(1),
            "minute,count" => Duration::from_mins(1),
            _ => {
                return Err(TraceError::Header {
                    line: at + 1,
                    found: header,
                });
            }
        };
        let mut counts: Vec<u64> = Vec::new();
        let mut first = None;
        for (at, text) in lines {
            let line = at + 1;
            let (number, count) = row(text).ok_or_else(|| TraceError::Row {
                line,
                found: text.to_owned(),
            })?;
            let first = *first.get_or_insert(number);
            let before = first + counts.len() as u64;
            if number < before {
                let before = before - 1;
                return Err(TraceError::Order {
                    line,
                    found: number,
                    before,
                });
            }
            if number - first >= MOST_INTERVALS {
                return Err(TraceError::TooLong { line });
            }
            counts.resize((number - first) as usize, 0);
            counts.push(count);
        }
        if counts.is_empty() {
            return Err(TraceError::Empty);
        }
        Ok(Self { interval, counts })
    }

    /// The length of one interval: a second or a minute where it was read from a file.
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// Requests per interval.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// From the beginning of the first interval to the end of the last.
    pub fn length(&self) -> Duration {
        self.interval
            .saturating_mul(u32::try_from(self.counts.len()).unwrap_or(u32::MAX))
    }

    /// The rate over time, the busiest interval brought to `peak` requests per second.
    pub(super) fn curve(&self, peak: Option<f64>) -> Curve {
        let length = self.interval.as_secs_f64();
        let most = self.counts.iter().copied().max().unwrap_or(0);
        let factor = match peak {
            Some(peak) if most > 0 => peak * length / most as f64,
            _ => 1.0,
        };
        let step = |count: &u64| Step {
            length,
            area: *count as f64 * factor,
        };
        Curve::Steps(self.counts.iter().map(step).collect())
    }
}

fn row(text: &str) -> Option<(u64, u64)> {
    let (number, count) = text.split_once(',')?;
    Some((number.trim().parse().ok()?, count.trim().parse().ok()?))
}

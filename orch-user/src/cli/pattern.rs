//! Patterns in words: what `orch load` and `orch sim` are told of when requests come.

use std::{fs, path::Path, time::Duration};

use crate::{
    arrivals::{
        pattern::{DEFAULT_RATE, LONGEST_GAP_MS, Pattern, Spacing},
        trace::Trace,
    },
    load::error::LoadError,
};

/// Requests per second that may be asked for. Who means more has mistyped.
const MOST: f64 = 10_000_000.0;

/// The words of a command line.
pub(super) struct Words<'a> {
    /// The pattern's.
    pub(super) name: &'a str,
    /// The trace's file.
    pub(super) file: Option<&'a Path>,
    /// `RATE` or `FROM..TO`.
    pub(super) rate: Option<&'a str>,
    /// Of a sine.
    pub(super) period: Option<Duration>,
}

impl Words<'_> {
    /// The shape, with its rates.
    pub(super) fn pattern(&self) -> Result<Pattern, LoadError> {
        let name = self.name;
        if self.period.is_some() && name != "sine" {
            return Err(usage("--period is for --pattern sine alone"));
        }
        let rates = self.rate.map(Rates::parse).transpose()?;
        Ok(match name {
        "deterministic" => {
            if rates.is_some() {
                return Err(usage("--pattern deterministic has its own rates: leave out --rate"));
            }
            Pattern::Deterministic
        }
        "random" => Pattern::Random {
            shortest_ms: shortest_gap_ms(rates)?,
        },
        "constant" => Pattern::Constant {
            rate: one(rates, name)?.unwrap_or(DEFAULT_RATE),
        },
        "ramp" => {
            let (from, to) = two(rates, 0.0);
            Pattern::Ramp { from, to }
        }
        "spike" => {
            let (low, high) = two(rates, 0.1);
            Pattern::Spike { low, high }
        }
        "sine" => {
            let (low, high) = two(rates, 0.0);
            let period = self.period;
            Pattern::Sine { low, high, period }
        }
        "trace" => Pattern::Trace {
            trace: read_trace(self.file.ok_or_else(|| {
                usage("--pattern trace needs a file: --pattern trace FILE, CSV with the header second,count")
            })?)?,
            peak: one(rates, name)?,
        },
        _ => {
            return Err(LoadError::Usage {
                what: format!(
                    "there is no pattern `{name}`: deterministic, random, constant, ramp, spike, sine, trace FILE"
                ),
            });
        }
    })
    }

    /// How requests lie.
    pub(super) fn spacing(&self, poisson: bool) -> Result<Spacing, LoadError> {
        let name = self.name;
        if !poisson {
            return Ok(Spacing::Even);
        }
        if matches!(name, "deterministic" | "random") {
            return Err(LoadError::Usage {
                what: format!("--pattern {name} has its own distances: leave out --poisson"),
            });
        }
        Ok(Spacing::Poisson)
    }
}

/// Reads a trace.
pub(super) fn read_trace(path: &Path) -> Result<Trace, LoadError> {
    let path = path.to_owned();
    match fs::read_to_string(&path) {
        Ok(text) => Trace::parse(&text).map_err(|source| LoadError::Trace { path, source }),
        Err(source) => Err(LoadError::Read { path, source }),
    }
}

/// `RATE` or `FROM..TO`, in requests per second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    from: Option<f64>,
    to: f64,
}

impl Rates {
    fn parse(text: &str) -> Result<Self, LoadError> {
        let number = |word: &str| {
            let number = word.trim().trim_end_matches("/s").parse::<f64>().ok();
            let right = number.filter(|rate| (0.0..=MOST).contains(rate));
            right.ok_or_else(|| LoadError::Usage {
                what: format!(
                    "`{text}` is no rate: write --rate 100 or --rate 10..200, requests per second up to {MOST}"
                ),
            })
        };
        Ok(match text.split_once("..") {
            Some((from, to)) => Self {
                from: Some(number(from)?),
                to: number(to)?,
            },
            None => Self {
                from: None,
                to: number(text)?,
            },
        })
    }
}

fn one(rates: Option<Rates>, name: &str) -> Result<Option<f64>, LoadError> {
    match rates {
        Some(Rates { from: Some(_), .. }) => Err(LoadError::Usage {
            what: format!("--pattern {name} has one rate, not FROM..TO"),
        }),
        Some(Rates { to, .. }) => Ok(Some(to)),
        None => Ok(None),
    }
}

/// Both rates; where one is given, the other is this share of it.
fn two(rates: Option<Rates>, share: f64) -> (f64, f64) {
    let to = rates.map_or(DEFAULT_RATE, |rates| rates.to);
    let from = rates.and_then(|rates| rates.from);
    (from.unwrap_or(to * share), to)
}

fn shortest_gap_ms(rates: Option<Rates>) -> Result<u64, LoadError> {
    let most = one(rates, "random")?.unwrap_or(1000.0);
    let gap_ms = (1000.0 / most).ceil();
    if !(1.0..=LONGEST_GAP_MS as f64).contains(&gap_ms) {
        return Err(usage(
            "--rate of --pattern random is the most that it may reach: 1.01 to 1000",
        ));
    }
    Ok(gap_ms as u64)
}

/// An error of the command line.
pub(super) fn usage(what: &str) -> LoadError {
    LoadError::Usage {
        what: what.to_owned(),
    }
}

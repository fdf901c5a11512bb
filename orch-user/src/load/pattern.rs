//! When requests are sent: patterns of load as arrival times. Pure: the same plan gives the same
//! times on every machine, so that the generator and a simulator see the same requests.

use std::{fmt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{
    curve::{Cursor, Curve},
    trace::Trace,
};

/// How long a pattern lasts that has no length of its own.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(30);
/// Requests per second where nobody says how many.
pub const DEFAULT_RATE: f64 = 10.0;
/// The longest pause of the pattern `random`.
pub const LONGEST_GAP_MS: u64 = 999;

/// Milliseconds between two requests of the pattern `deterministic`: 1.25, 10, 2, 10, 5 and 20
/// requests a second.
const GAPS_MS: [u64; 6] = [800, 100, 500, 100, 200, 50];
/// How long `deterministic` and `random` keep a gap.
const PHASE_MS: u64 = 5_000;
/// The clock of `deterministic` begins anew every second, see [`Pattern::Deterministic`].
const RESTART_MS: u64 = 1_000;

/// The shape of a load over time.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// Phases of 5 s at 1.25, 10, 2, 10, 5 and 20 requests a second, then again from the first.
    ///
    /// As in the client that this pattern is known from, the pause before a request begins anew at
    /// each full second, and a request that would fall on one is not sent. A second therefore has
    /// ⌈1000 / gap⌉ − 1 requests: 1, 9, 1, 9, 4 and 19, which are 215 in 30 s.
    Deterministic,
    /// Equal pauses, drawn anew every 5 s from 1 to 999 ms in whole milliseconds.
    Random {
        /// The shortest pause that may be drawn, in milliseconds, 1 to 999.
        shortest_ms: u64,
    },
    /// The same rate all the time.
    Constant {
        /// Requests per second.
        rate: f64,
    },
    /// A rate that changes evenly over the whole duration.
    Ramp {
        /// Requests per second at the beginning.
        from: f64,
        /// Requests per second at the end.
        to: f64,
    },
    /// A low rate, and a high one from one third of the duration to one half of it.
    Spike {
        /// Requests per second before and after.
        low: f64,
        /// Requests per second in the spike.
        high: f64,
    },
    /// A sine wave that begins at its lowest.
    Sine {
        /// The lowest rate, in requests per second.
        low: f64,
        /// The highest rate, in requests per second.
        high: f64,
        /// From one lowest point to the next; `None` is the whole duration.
        period: Option<Duration>,
    },
    /// As many requests in each interval as a trace says.
    Trace {
        /// The counts.
        trace: Trace,
        /// The rate that the busiest interval is brought to, in requests per second, and all
        /// others in proportion; `None` leaves the counts as they are.
        peak: Option<f64>,
    },
}

/// How requests lie under a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spacing {
    /// At equal distances, so that an interval has exactly the requests that its rate says.
    #[default]
    Even,
    /// At random, independent of each other (a Poisson process of that rate), as those of many
    /// users are. `Deterministic` and `Random` have their own distances and know no other.
    Poisson,
}

/// A pattern with all that decides its times.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The shape.
    pub pattern: Pattern,
    /// How long; `None` is the trace's length, or 30 s. A trace is cut, never repeated.
    pub duration: Option<Duration>,
    /// How requests lie.
    pub spacing: Spacing,
    /// Of all that is random; the same seed gives the same times.
    pub seed: u64,
}

impl Plan {
    /// How long requests are sent. No arrival is as late as this.
    pub fn length(&self) -> Duration {
        let own = match &self.pattern {
            Pattern::Trace { trace, .. } => trace.length(),
            _ => self.duration.unwrap_or(DEFAULT_DURATION),
        };
        self.duration.map_or(own, |wanted| wanted.min(own))
    }

    /// The times of all requests from the beginning on, never falling, each below
    /// [`Plan::length`].
    pub fn arrivals(&self) -> Arrivals {
        let rng = ChaCha8Rng::seed_from_u64(self.seed);
        let times = match &self.pattern {
            Pattern::Deterministic => Times::Deterministic { last_ms: 0 },
            Pattern::Random { shortest_ms } => Times::Random {
                rng,
                shortest_ms: (*shortest_ms).clamp(1, LONGEST_GAP_MS),
                gap_ms: 0,
                phase: None,
                last_ms: 0,
            },
            _ => Times::Rate {
                cursor: self.curve().cursor(),
                poisson: (self.spacing == Spacing::Poisson).then_some(rng),
                position: 0.0,
                begun: false,
            },
        };
        Arrivals {
            times,
            length: self.length(),
        }
    }

    fn curve(&self) -> Curve {
        let whole = self.length();
        match &self.pattern {
            Pattern::Deterministic | Pattern::Random { .. } => Curve::steps([]),
            Pattern::Constant { rate } => Curve::steps([(whole, *rate)]),
            Pattern::Ramp { from, to } => Curve::line(whole, *from, *to),
            Pattern::Spike { low, high } => {
                let (before, during) = (whole / 3, whole / 6);
                let after = whole.saturating_sub(before + during);
                Curve::steps([(before, *low), (during, *high), (after, *low)])
            }
            Pattern::Sine { low, high, period } => {
                Curve::wave(period.unwrap_or(whole), *low, *high)
            }
            Pattern::Trace { trace, peak } => trace.curve(*peak),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deterministic => write!(f, "deterministic"),
            Self::Random { shortest_ms: 1 } => write!(f, "random"),
            Self::Random { shortest_ms } => {
                write!(f, "random, gaps of {shortest_ms} to {LONGEST_GAP_MS} ms")
            }
            Self::Constant { rate } => write!(f, "constant, {rate}/s"),
            Self::Ramp { from, to } => write!(f, "ramp, {from}/s to {to}/s"),
            Self::Spike { low, high } => write!(f, "spike, {low}/s with {high}/s in between"),
            Self::Sine { low, high, .. } => write!(f, "sine, {low}/s to {high}/s"),
            Self::Trace { peak: None, .. } => write!(f, "trace"),
            Self::Trace {
                peak: Some(peak), ..
            } => write!(f, "trace, brought to {peak}/s at its peak"),
        }
    }
}

/// The times of a plan's requests, from its beginning on. See [`Plan::arrivals`].
#[derive(Debug)]
pub struct Arrivals {
    times: Times,
    length: Duration,
}

#[derive(Debug)]
enum Times {
    Deterministic {
        last_ms: u64,
    },
    Random {
        rng: ChaCha8Rng,
        shortest_ms: u64,
        gap_ms: u64,
        /// The phase that the gap was drawn for.
        phase: Option<u64>,
        last_ms: u64,
    },
    Rate {
        cursor: Cursor,
        poisson: Option<ChaCha8Rng>,
        /// The area under the rate before the latest request: its number where they lie evenly.
        position: f64,
        begun: bool,
    },
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.times.next().filter(|time| *time < self.length)
    }
}

impl Times {
    fn next(&mut self) -> Option<Duration> {
        match self {
            Self::Deterministic { last_ms } => {
                let second = *last_ms / RESTART_MS;
                *last_ms += fixed_gap_ms(second);
                // Every gap is shorter than a second, so the next one has a request.
                if *last_ms / RESTART_MS > second {
                    *last_ms = (second + 1) * RESTART_MS + fixed_gap_ms(second + 1);
                }
                Some(Duration::from_millis(*last_ms))
            }
            Self::Random {
                rng,
                shortest_ms,
                gap_ms,
                phase,
                last_ms,
            } => {
                let now = *last_ms / PHASE_MS;
                if *phase != Some(now) {
                    *phase = Some(now);
                    *gap_ms = rng.random_range(*shortest_ms..=LONGEST_GAP_MS);
                }
                *last_ms += *gap_ms;
                Some(Duration::from_millis(*last_ms))
            }
            Self::Rate {
                cursor,
                poisson,
                position,
                begun,
            } => {
                *position += match poisson {
                    // Distances of a Poisson process are exponential, with a mean of 1 here.
                    Some(rng) => -(1.0 - rng.random::<f64>()).ln(),
                    // The first one is at the very beginning.
                    None if !*begun => 0.0,
                    None => 1.0,
                };
                *begun = true;
                cursor.time_of(*position)
            }
        }
    }
}

/// The gap of `deterministic` in this second.
fn fixed_gap_ms(second: u64) -> u64 {
    let phase = second * RESTART_MS / PHASE_MS;
    GAPS_MS[phase as usize % GAPS_MS.len()]
}

#[cfg(test)]
mod tests;

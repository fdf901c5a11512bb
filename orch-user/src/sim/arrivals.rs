//! When requests come: the seeds' two clients, and traces.
//!
//! Both clients are one loop that waits for whichever comes first: its next request, a tick of
//! one second, or a change of pace every 5 s. A tick starts the wait for the next request anew, so
//! that a pace of 50 ms makes 19 requests a second and not 20, and 800 ms one.

use std::time::Duration;

use rand::RngExt;
use rand_distr::{Distribution, Exp};
use rand_pcg::Pcg64Mcg;

use super::trace::Trace;

/// Times of arrivals since the start, ascending.
pub type Arrivals = Box<dyn Iterator<Item = Duration>>;

/// Milliseconds between two requests of the predefined client, each for 5 s.
const PREDEFINED_MS: [u64; 6] = [800, 100, 500, 100, 200, 50];
/// How long a pace lasts.
const PACE: Duration = Duration::from_secs(5);
/// The random client draws below this many milliseconds.
const RANDOM_MS: u64 = 999;
/// Shorter intervals than this ask for more than ten copies of the seeds' server can do.
const RANDOM_FLOOR_MS: u64 = 50;

/// What clients do.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// The predefined client: 30 s, 215 requests.
    Deterministic,
    /// The random client, for so long: intervals up to 999 ms, redrawn every 5 s; 50 ms at the
    /// least.
    Random(Duration),
    /// A trace: the counts of each interval arrive at random within it (a Poisson process whose
    /// rate is the trace's).
    Trace(Trace),
}

impl Pattern {
    /// Arrivals for a seed.
    pub fn arrivals(&self, rng: Pcg64Mcg) -> Arrivals {
        match self {
            Self::Deterministic => Box::new(paced(PREDEFINED_MS.to_vec().into_iter())),
            Self::Random(length) => Box::new(random(*length, rng)),
            Self::Trace(trace) => Box::new(poisson(trace.clone(), rng)),
        }
    }

    /// How long it lasts.
    pub fn length(&self) -> Duration {
        match self {
            Self::Deterministic => PACE * PREDEFINED_MS.len() as u32,
            Self::Random(length) => *length,
            Self::Trace(trace) => trace.length(),
        }
    }

    /// Whether seeds make a difference to the arrivals.
    pub const fn is_random(&self) -> bool {
        !matches!(self, Self::Deterministic)
    }
}

/// Requests at these intervals in milliseconds, each for 5 s, with the wait begun anew each second.
fn paced(paces: impl Iterator<Item = u64>) -> impl Iterator<Item = Duration> {
    let seconds = paces.flat_map(|pace| (0..PACE.as_secs()).map(move |_| pace));
    seconds.enumerate().flat_map(|(second, pace)| {
        let within = (1..).map(move |at| at * pace).take_while(|ms| *ms < 1000);
        within.map(move |ms| Duration::from_millis(second as u64 * 1000 + ms))
    })
}

fn random(length: Duration, mut rng: Pcg64Mcg) -> impl Iterator<Item = Duration> {
    let draws = length.as_secs().div_ceil(PACE.as_secs());
    let draw = move |_| rng.random_range(0..RANDOM_MS).max(RANDOM_FLOOR_MS);
    let paces: Vec<u64> = (0..draws).map(draw).collect();
    paced(paces.into_iter()).take_while(move |at| *at < length)
}

/// A Poisson process whose rate changes from interval to interval: its integral reaches sums of
/// exponential variables of mean 1 at the times of arrivals.
fn poisson(trace: Trace, mut rng: Pcg64Mcg) -> impl Iterator<Item = Duration> {
    let step = trace.step.as_secs_f64();
    let mut counts = trace.counts.into_iter().enumerate();
    let mut current: Option<(usize, f64)> = None;
    // How far into the current interval's count, and how far to go until the next arrival.
    let (mut used, mut ahead) = (0.0, unit(&mut rng));
    std::iter::from_fn(move || {
        loop {
            let (at, count) = match current {
                Some(current) => current,
                None => *current.insert(counts.next()?),
            };
            if count - used > ahead {
                used += ahead;
                ahead = unit(&mut rng);
                let seconds = (at as f64 + used / count) * step;
                return Some(Duration::from_secs_f64(seconds));
            }
            ahead -= count - used;
            (current, used) = (None, 0.0);
        }
    })
}

fn unit(rng: &mut Pcg64Mcg) -> f64 {
    Exp::new(1.0).map_or(1.0, |unit| unit.sample(rng))
}

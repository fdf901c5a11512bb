//! Rates over time, and the times at which the area under them reaches a value: the n-th of evenly
//! lying requests is where the area is n.

use std::{f64::consts::TAU, time::Duration};

/// Halvings and Newton steps until a time is settled.
const ROUNDS: usize = 64;
/// Seconds that a time may be wrong: a tenth of what a `Duration` tells apart.
const ENOUGH: f64 = 1e-10;

/// Requests per second, as a function of the time. Never negative.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Curve {
    /// One rate after the other.
    Steps(Vec<Step>),
    /// From one rate to another in so many seconds.
    Line { length: f64, from: f64, to: f64 },
    /// A sine wave that begins at its lowest.
    Wave { period: f64, low: f64, high: f64 },
}

/// A stretch of time with one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    /// Seconds.
    pub(super) length: f64,
    /// Requests in it. Kept instead of the rate, so that whole numbers stay whole.
    pub(super) area: f64,
}

impl Curve {
    pub(super) fn steps(steps: impl IntoIterator<Item = (Duration, f64)>) -> Self {
        let step = |(length, rate): (Duration, f64)| {
            let length = length.as_secs_f64();
            Step {
                length,
                area: rate * length,
            }
        };
        Self::Steps(steps.into_iter().map(step).collect())
    }

    pub(super) fn line(length: Duration, from: f64, to: f64) -> Self {
        let length = length.as_secs_f64();
        Self::Line { length, from, to }
    }

    pub(super) fn wave(period: Duration, low: f64, high: f64) -> Self {
        let period = period.as_secs_f64();
        Self::Wave { period, low, high }
    }

    /// Walks it once, from its beginning.
    pub(super) fn cursor(self) -> Cursor {
        Cursor {
            curve: self,
            step: 0,
            begin: 0.0,
            area: 0.0,
        }
    }
}

/// How far a curve has been walked.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    curve: Curve,
    /// The step it is in, for steps.
    step: usize,
    /// Seconds before this step; for a wave, the latest time.
    begin: f64,
    /// The area before this step.
    area: f64,
}

impl Cursor {
    /// When the area is `position`, which must not fall from call to call; `None` if it never is.
    /// Where nothing comes for a while it is the while's end.
    pub(super) fn time_of(&mut self, position: f64) -> Option<Duration> {
        let seconds = match self.curve {
            Curve::Steps(_) => self.in_steps(position)?,
            Curve::Line { length, from, to } => on_line(length, from, to, position)?,
            Curve::Wave { period, low, high } => {
                let time = on_wave(period, low, high, position, self.begin)?;
                self.begin = time;
                time
            }
        };
        Duration::try_from_secs_f64(seconds).ok()
    }

    fn in_steps(&mut self, position: f64) -> Option<f64> {
        let Curve::Steps(steps) = &self.curve else {
            return None;
        };
        loop {
            let step = steps.get(self.step)?;
            if position < self.area + step.area {
                return Some(self.begin + (position - self.area) / step.area * step.length);
            }
            self.begin += step.length;
            self.area += step.area;
            self.step += 1;
        }
    }
}

/// Solves `from t + (to - from) t² / (2 length) = position`, in the form that does not lose digits
/// where the two rates are nearly equal.
fn on_line(length: f64, from: f64, to: f64, position: f64) -> Option<f64> {
    if from <= 0.0 && to <= 0.0 {
        return None;
    }
    if position <= 0.0 {
        return Some(0.0);
    }
    let inner = from * from + 2.0 * position * (to - from) / length;
    // Falling to nothing, it ends before it gets there.
    (inner >= 0.0).then(|| 2.0 * position / (from + inner.sqrt()))
}

/// Newton's method, kept within bounds that close in. `before` is a time at which the area is not
/// larger yet.
fn on_wave(period: f64, low: f64, high: f64, position: f64, before: f64) -> Option<f64> {
    let (middle, swing) = (f64::midpoint(low, high), (high - low) / 2.0);
    if middle <= 0.0 || period <= 0.0 {
        return None;
    }
    // The area is never further from `middle × time` than this.
    let sway = swing.abs() * period / TAU;
    let mut least = ((position - sway) / middle).max(before);
    let mut most = ((position + sway) / middle).max(least);
    let mut time = least;
    for _ in 0..ROUNDS {
        let angle = TAU * time / period;
        let wrong = middle * time - swing * period / TAU * angle.sin() - position;
        if wrong > 0.0 {
            most = time;
        } else {
            least = time;
        }
        let rate = middle - swing * angle.cos();
        let next = time - wrong / rate;
        let next = if next > least && next < most {
            next
        } else {
            f64::midpoint(least, most)
        };
        if (next - time).abs() < ENOUGH {
            return Some(next);
        }
        time = next;
    }
    Some(time)
}

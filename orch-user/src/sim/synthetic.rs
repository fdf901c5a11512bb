//! Traces that are made, not measured, with the parameters of published workloads. They stand for
//! shapes; nobody should take them for logs.

use std::time::Duration;

use rand::SeedableRng;
use rand_distr::{Distribution, Pareto, StandardNormal};
use rand_pcg::Pcg64Mcg;

use crate::arrivals::trace::Trace;

/// A made trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synthetic {
    /// A day at a web server, per minute: low at night, two peaks. Noise is an autoregressive
    /// process of the first order (0.8 from minute to minute, 10 % deviation).
    Day,
    /// A flash crowd, per second: a quiet hour's rate rises twentyfold within a minute, stays for
    /// five and dies away with a time constant of three (the shape in Wendell and Freedman, "Going
    /// Viral: Flash Crowds in an Open CDN", 2011). Twice.
    Crowd,
    /// Self-similar traffic, per second: 40 sources that send while on, with periods on and off of
    /// Pareto distributions of exponents 1.2 and 1.5 (Willinger et al., "Self-Similarity Through
    /// High-Variability", 1997).
    Bursts,
}

/// Requests a second at their highest.
const PEAK: f64 = 16.0;

impl Synthetic {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Day, Self::Crowd, Self::Bursts];

    /// Its name, and that of its file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Crowd => "crowd",
            Self::Bursts => "bursts",
        }
    }

    /// The trace; always the same.
    pub fn trace(self) -> Trace {
        let mut rng = Pcg64Mcg::seed_from_u64(self as u64 + 1);
        let (step, counts) = match self {
            Self::Day => (Duration::from_mins(1), day(&mut rng)),
            Self::Crowd => (Duration::from_secs(1), crowd(&mut rng)),
            Self::Bursts => (Duration::from_secs(1), bursts(&mut rng)),
        };
        // Two digits after the point are more than enough, and keep the files small.
        let short = |count: f64| (count * 100.0).round() / 100.0;
        let most = counts.iter().copied().fold(0.0, f64::max);
        let factor = PEAK * step.as_secs_f64() / most;
        let counts = counts.into_iter().map(|count| short(count * factor));
        Trace::new(step, counts.collect())
    }

    /// The file.
    pub fn csv(self) -> String {
        let comments = [
            format!(
                "Synthetic, by `orch sim --generate {}`: made, not measured.",
                self.name()
            ),
            "Licence: as orch, MIT or Apache-2.0.".to_owned(),
        ];
        self.trace().to_csv(&comments)
    }
}

fn normal(rng: &mut Pcg64Mcg) -> f64 {
    StandardNormal.sample(rng)
}

fn day(rng: &mut Pcg64Mcg) -> Vec<f64> {
    let mut noise = 0.0;
    let minute = |at: u32| {
        noise = 0.8 * noise + 0.06 * normal(rng);
        let hour = f64::from(at) / 60.0;
        let bump = |centre: f64, width: f64| (-((hour - centre) / width).powi(2)).exp();
        let level = 0.1 + 0.9 * bump(11.0, 3.0) + 0.8 * bump(20.0, 2.5);
        (level * (1.0 + noise)).max(0.0)
    };
    (0..24 * 60).map(minute).collect()
}

fn crowd(rng: &mut Pcg64Mcg) -> Vec<f64> {
    let second = |at: u32| {
        let since = f64::from(at % 1200) - 240.0;
        let crowd = match since {
            ..0.0 => 0.0,
            ..60.0 => since / 60.0,
            ..360.0 => 1.0,
            _ => (-(since - 360.0) / 180.0).exp(),
        };
        ((1.0 + 19.0 * crowd) * (1.0 + 0.1 * normal(rng))).max(0.0)
    };
    (0..2400).map(second).collect()
}

fn bursts(rng: &mut Pcg64Mcg) -> Vec<f64> {
    const SECONDS: usize = 2400;
    let mut counts = vec![0.0; SECONDS];
    let (Ok(on), Ok(off)) = (Pareto::new(1.0, 1.2), Pareto::new(2.0, 1.5)) else {
        return counts;
    };
    for source in 0..40 {
        // Sources begin long before, so that not all begin together.
        let (mut at, mut sends) = (-500.0 - 7.0 * f64::from(source), false);
        while at < SECONDS as f64 {
            let period: f64 = if sends {
                on.sample(rng)
            } else {
                off.sample(rng)
            };
            let (from, to) = (at.max(0.0), (at + period).min(SECONDS as f64));
            if sends && to > from {
                spread(&mut counts, from, to);
            }
            at += period;
            sends = !sends;
        }
    }
    counts
}

/// Adds one request a second from here to there.
fn spread(counts: &mut [f64], from: f64, to: f64) {
    for (second, count) in counts.iter_mut().enumerate() {
        let (begin, end) = (second as f64, second as f64 + 1.0);
        *count += (to.min(end) - from.max(begin)).max(0.0);
    }
}

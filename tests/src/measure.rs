//! Measured times, and what may be asked of them on a machine that does other things, too.

use std::{fs, thread, time::Duration};

/// Times of one thing.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Notes one.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time below which this part of them lies.
    pub fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() as f64 * part).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
    }

    /// The shortest.
    pub fn least(&self) -> Duration {
        self.0.iter().min().copied().unwrap_or_default()
    }

    /// The middle one.
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// Prints median, p95 and maximum, and panics if p95 is above `limit`. Where more threads want
    /// to run than there are CPUs, times stretch: the limit is multiplied by as much, at the most
    /// by four.
    pub fn report(&self, what: &str, limit: Duration) {
        let (median, p95, most) = (self.median(), self.quantile(0.95), self.quantile(1.0));
        let stretch = stretch();
        println!(
            "{what}: {} times, median {median:.2?}, p95 {p95:.2?}, max {most:.2?}; \
             limit {limit:.1?} x {stretch:.2} for the machine's load",
            self.0.len()
        );
        assert!(p95 <= limit.mul_f64(stretch), "{what}: p95 {p95:?}");
    }
}

/// Runnable threads per CPU, averaged over a minute: 1 to 4.
pub fn stretch() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(1.0);
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    (load / cpus as f64).clamp(1.0, 4.0)
}

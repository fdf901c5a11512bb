//! What became of a run.

use std::time::Duration;

use orch_common::latency::{BUCKETS, bucket, upper_bound_ns};

/// Response times, in the buckets of the kernel's histograms.
#[derive(Clone, Debug)]
pub struct Times([u64; BUCKETS]);

impl Default for Times {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Times {
    pub(super) fn record(&mut self, ns: u64) {
        if let Some(count) = self.0.get_mut(bucket(ns)) {
            *count += 1;
        }
    }

    /// The time that this part of all stayed below, in seconds; right within 12 %.
    pub fn quantile(&self, part: f64) -> f64 {
        let all: u64 = self.0.iter().sum();
        let wanted = (all as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.0.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return upper_bound_ns(index) as f64 / 1e9;
            }
        }
        0.0
    }
}

/// The state at a reading.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// Requests so far.
    pub requests: u64,
    /// Copies that serve.
    pub ready: u16,
    /// Copies that run in any way.
    pub running: u16,
    /// Copies wanted.
    pub wanted: u16,
    /// Requests that wait.
    pub waiting: u64,
}

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests that came.
    pub arrivals: u64,
    /// Those that were answered before the end.
    pub answered: u64,
    /// Those that found no copy.
    pub refused: u64,
    /// Those that took or waited longer than the limit.
    pub late: u64,
    /// Nanoseconds that copies ran, from their order to their end.
    pub copy_ns: u64,
    /// Changes of the number wanted.
    pub actions: u32,
    /// Changes in the other direction than the one before.
    pub reversals: u32,
    last_grew: Option<bool>,
    /// Response times.
    pub times: Times,
    /// Readings.
    pub samples: Vec<Sample>,
}

impl Outcome {
    pub(super) fn changed(&mut self, from: u16, to: u16) {
        if from == to {
            return;
        }
        let grew = to > from;
        self.actions += 1;
        self.reversals += u32::from(self.last_grew.is_some_and(|last| last != grew));
        self.last_grew = Some(grew);
    }

    /// Requests without an answer at the end.
    pub const fn unanswered(&self) -> u64 {
        self.arrivals - self.answered
    }

    /// Copies times seconds.
    pub fn copy_s(&self) -> f64 {
        self.copy_ns as f64 / 1e9
    }

    /// SPEC's elasticity measures, against the copies needed in each second.
    pub fn elasticity(&self, needs: &[u16]) -> Elasticity {
        let mut sums = Elasticity::default();
        for sample in &self.samples {
            let need = needs.get(sample.at.as_secs() as usize).copied();
            let need = f64::from(need.unwrap_or(1).max(1));
            let off = (f64::from(sample.ready) - need) / need;
            sums.over += off.max(0.0);
            sums.under += (-off).max(0.0);
            sums.time_over += f64::from(off > 0.0);
            sums.time_under += f64::from(off < 0.0);
        }
        let count = self.samples.len().max(1) as f64;
        Elasticity {
            under: sums.under / count,
            over: sums.over / count,
            time_under: sums.time_under / count,
            time_over: sums.time_over / count,
        }
    }
}

/// Elasticity as the SPEC Research Group defines it (Herbst et al., "Ready for Rain?", 2016): how
/// much is missing or too much, over the need, and for what part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Elasticity {
    /// Copies missing over copies needed, mean over time.
    pub under: f64,
    /// Copies too many over copies needed, the same.
    pub over: f64,
    /// Part of the time in which copies were missing.
    pub time_under: f64,
    /// Part of the time in which there were too many.
    pub time_over: f64,
}

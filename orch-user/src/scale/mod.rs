//! Scaling: how many copies a service should have, and why. Pure; `now` is an argument.
//!
//! A policy is a function of what was seen: `decide(&History, &Limits, now) -> Advice`. [`Scaler`]
//! holds what is remembered for one service and lets its policy decide; the controller and the
//! simulator (`crate::sim`) both feed it [`Metrics`], so that what is simulated is what runs.

pub mod concurrency;
pub mod elastic;
pub mod heuristic;
mod history;
mod learn;
pub mod outlook;
mod policy;
pub mod rest;
mod scaler;
pub mod schedule;
pub mod step;
mod tape;
pub mod target;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::{
    history::History,
    learn::{Learner, Phase, SlotCount},
    policy::Policy,
    scaler::{Input, Scaler},
    tape::{Entry, Log, Seconds, Tape},
};

/// What is known of a service at one moment. Counts never shrink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Requests that count, since the beginning.
    pub requests: u64,
    /// Responses to them.
    pub responses: u64,
    /// Responses of class 5xx among them.
    pub errors: u64,
    /// Requests without a response yet.
    pub in_flight: u64,
    /// Copies that are well.
    pub ready: u16,
    /// Copies that are on their way.
    pub starting: u16,
    /// Copies that run, those that drain or have failed included.
    pub running: u16,
    /// Spares that are well.
    pub spares: u16,
    /// Slots whose copy failed or makes room for another.
    pub replacing: u16,
    /// Median response time of the last seconds, in seconds; 0 if there was none.
    pub p50_s: f64,
    /// The same, 90th percentile.
    pub p90_s: f64,
    /// The same, 99th percentile.
    pub p99_s: f64,
    /// Responses per second of one copy that is busy, as learnt; 0 if nothing is known.
    pub service_rate: f64,
    /// Whether `service_rate` was seen with requests waiting: no copy can do more.
    pub saturated: bool,
    /// Seconds that a request takes which does not wait, as learnt; 0 if nothing is known.
    pub alone_s: f64,
    /// Seconds from the order of a copy to its readiness, as learnt; 0 if nothing is known.
    pub start_s: f64,
    /// Seconds since 1970, for schedules; 0 if nobody said.
    pub wall_s: f64,
}

/// Between which numbers a policy may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Fewest copies.
    pub min: u16,
    /// Most copies.
    pub max: u16,
}

impl Limits {
    /// The nearest allowed number; `wanted` is rounded up.
    pub fn clamp(self, wanted: f64) -> u16 {
        // A cast saturates, and what is no number becomes 0.
        let wanted = wanted.ceil() as u16;
        wanted.max(self.min).min(self.max)
    }
}

/// What a policy thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Copies it wants.
    pub desired: u16,
    /// The cause and its numbers, a sentence.
    pub reason: String,
}

/// What a policy has decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Copies wanted before.
    pub from: u16,
    /// Copies wanted from now on.
    pub to: u16,
    /// The cause and its numbers, a sentence.
    pub reason: String,
}

/// Which way a decision goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// More copies.
    Up,
    /// Fewer.
    Down,
    /// As many as before.
    Same,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Same];

    /// The metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Same => "same",
        }
    }
}

impl Decision {
    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        match self.to.cmp(&self.from) {
            std::cmp::Ordering::Greater => Direction::Up,
            std::cmp::Ordering::Less => Direction::Down,
            std::cmp::Ordering::Equal => Direction::Same,
        }
    }
}

/// A duration as the configuration file would say it: `2m`, `90s`, `2.5s`.
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() == 0 && seconds > 0 && seconds.is_multiple_of(60) {
        return format!("{}m", seconds / 60);
    }
    format!("{duration:?}")
}

//! The policies there are, and what each may be told in the file.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Advice, History, Limits, concurrency::Concurrency, elastic::Elastic, heuristic::Heuristic,
    schedule::Schedule, target::Target,
};
use crate::state::Moment;

/// How the number of copies is decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// By windows: see [`super::step`].
    #[default]
    Step,
    /// By how busy the copies are: see [`super::target`].
    Target(Target),
    /// By requests in flight: see [`super::concurrency`].
    Concurrency(Concurrency),
    /// By what was learnt: see [`super::elastic`].
    Elastic(Elastic),
    /// By a program of the user's: see [`super::heuristic`].
    Heuristic(Heuristic),
    /// By the time of day, and above that by what was learnt: see [`super::schedule`].
    Schedule(Schedule),
    /// By hand alone.
    Manual,
}

impl Policy {
    /// The words of the file, in the order of the documentation.
    pub const NAMES: [&str; 7] = [
        "step",
        "target",
        "concurrency",
        "elastic",
        "heuristic",
        "schedule",
        "manual",
    ];

    /// The word of the file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Target(_) => "target",
            Self::Concurrency(_) => "concurrency",
            Self::Elastic(_) => "elastic",
            Self::Heuristic(_) => "heuristic",
            Self::Schedule(_) => "schedule",
            Self::Manual => "manual",
        }
    }

    /// Whether it may want copies of a service that has none, before anybody waits for one.
    pub(super) const fn wakes(&self) -> bool {
        matches!(self, Self::Heuristic(_) | Self::Schedule(_))
    }

    /// Between two decisions; zero for one at every reading.
    pub const fn every(&self) -> Duration {
        match self {
            Self::Target(target) => target.sync,
            Self::Concurrency(_) => super::concurrency::TICK,
            _ => Duration::ZERO,
        }
    }

    /// What the need would be if nothing slowed a change down. It becomes part of the history.
    pub(super) fn need(&self, history: &History, limits: Limits) -> Option<u16> {
        match self {
            Self::Target(target) => Some(target.need(history, limits)?.0),
            Self::Elastic(elastic) => Some(elastic.need(history, limits)?.copies),
            Self::Schedule(schedule) => Some(schedule.need(history, limits)),
            Self::Concurrency(_) | Self::Step | Self::Heuristic(_) | Self::Manual => None,
        }
    }

    /// How many copies there should be. Pure; the last reading of `history` is at `now`. `step`
    /// decides at the end of its window, in [`super::step::Step`], and wants no change here.
    pub fn decide(&self, history: &History, limits: Limits, now: Moment) -> Advice {
        match self {
            Self::Target(target) => target.decide(history, limits, now),
            Self::Concurrency(concurrency) => concurrency.decide(history, limits, now),
            Self::Elastic(elastic) => elastic.decide(history, limits, now),
            Self::Heuristic(heuristic) => heuristic.decide(history, limits),
            Self::Schedule(schedule) => schedule.decide(history, limits, now),
            Self::Step | Self::Manual => Advice {
                desired: history.desired,
                reason: "only a person changes the number".to_owned(),
            },
        }
    }
}
